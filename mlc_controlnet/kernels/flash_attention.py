"""Attention without a score matrix in memory: online softmax over tiles of keys (arXiv 2205.14135, 2307.08691).

`relax.nn.attention` lowers to one PrimFunc that allocates all scores inside itself: for Stable Diffusion's 64x64
self-attention at batch 1 four times WebGPU's default largest binding, and the memory plan cannot see it. Here a tile of
scores lives in registers, and nothing is allocated.

Symbols of the papers in the kernels: S_ij `scores`, m_i `row_max`, l_i `row_sum`, O_i `result`, P_ij `weights` (GPU) or
the exponentiated `scores` (CPU), and e^(m_old - m_new) `decay`. Exponents are to base 2, so `scores` are S log2 e.
"""

from tvm import tirx
from tvm.target import Target

from mlc_controlnet.kernels import flash_attention_cpu, flash_attention_gpu
from mlc_controlnet.kernels.attention import Attention
from mlc_controlnet.kernels.marks import mark_finished
from mlc_controlnet.kernels.registers_cpu import registers_of


def flash_attention(attention: Attention, target: Target) -> tirx.PrimFunc:
    """Return the scheduled PrimFunc for `target`; `flash_attention_signature` lists its parameters.

    Everything is of `attention.dtype`; sums are float32, on GPUs of float16 runs (see `flash_attention_gpu`).
    """
    if not attention.is_supported():
        raise ValueError(f"no flash attention kernel for {attention}")
    if "gpu" in target.keys:
        return mark_finished(flash_attention_gpu.build(attention), attention)
    return mark_finished(flash_attention_cpu.build(attention, registers_of(target)), attention)
