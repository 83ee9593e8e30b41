"""Layer norm over the last axis as one kernel that reads a row from memory once; sums are float32.

The mean comes first, then the deviations from it, which is exact if the mean is large. A default schedule reads each
row three times from memory: on a GPU with fourteen barriers, on a processor one number at a time.
"""

from tvm import tirx
from tvm.target import Target

from mlc_controlnet.kernels import layer_norm_cpu, layer_norm_gpu
from mlc_controlnet.kernels.marks import mark_finished
from mlc_controlnet.kernels.normalization import LayerNorm
from mlc_controlnet.kernels.registers_cpu import registers_of


def is_supported(norm: LayerNorm, target: Target) -> bool:
    """Return whether there is a kernel: float16 or float32, and on a GPU a row that fits into registers."""
    fits = "gpu" not in target.keys or layer_norm_gpu.is_supported(norm)
    return norm.dtype in ("float16", "float32") and fits


def layer_norm(norm: LayerNorm, target: Target) -> tirx.PrimFunc:
    """Return a scheduled PrimFunc (x, gamma, beta, y): x and y of `norm.shape`, gamma and beta [width]."""
    if not is_supported(norm, target):
        raise ValueError(f"no layer norm kernel for {norm}")
    if "gpu" in target.keys:
        return mark_finished(layer_norm_gpu.build(norm), norm)
    return mark_finished(layer_norm_cpu.build(norm, registers_of(target)), norm)
