"""One denoising step of Stable Diffusion 1.5 with a ControlNet at 512x512: every kernel with its number of launches.

The weights hold no values, so that nothing is downloaded and little memory is touched: no kernel depends on one. They
can be packed as `build --weights` packs them: kernels then decode them.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from torch import nn

from mlc_controlnet.bench.compilers.chips import Chip
from mlc_controlnet.bench.compilers.judge import Subject, judge_module
from mlc_controlnet.bench.compilers.judgement import Judgement
from mlc_controlnet.bench.compilers.kernels import bytes_of
from mlc_controlnet.bench.operations.cases import DTYPES
from mlc_controlnet.bench.operations.work import count_work
from mlc_controlnet.bench.packed_weights import pack
from mlc_controlnet.capture import CapturedModel, capture, example_inputs, wrap
from mlc_controlnet.checkpoint import Checkpoint
from mlc_controlnet.components import CONTROLNET, UNET, ModelShape
from mlc_controlnet.config import Defaults
from mlc_controlnet.passes.pipeline import clean
from mlc_controlnet.quantize.formats import FLOAT16

NAME = "sd15_step_512"
TITLE = "Stable Diffusion 1.5, 512x512: UNet and ControlNet, one call of each"
PIXELS = 512


def without_values(module: nn.Module) -> nn.Module:
    """Give a module of meta tensors memory that nobody touches; its buffers are zero."""
    module.to_empty(device="cpu").requires_grad_(False)
    for buffer in module.buffers():
        buffer.zero_()
    return module


def stable_diffusion() -> Checkpoint:
    """Return UNet and ControlNet of Stable Diffusion 1.5, without values."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(sample_size=PIXELS // 8, cross_attention_dim=768)
        parts = {UNET: unet, CONTROLNET: ControlNetModel(cross_attention_dim=768)}
    shape = ModelShape(
        height=PIXELS,
        width=PIXELS,
        tokens=77,
        text_width=768,
        latent_channels=4,
        sample_channels=4,
        unet_channels=tuple(unet.config.block_out_channels),
        layers_per_block=2,
    )
    modules = {name: without_values(module) for name, module in parts.items()}
    return Checkpoint("sd15", tuple(parts), modules, {}, b"", {}, shape, Defaults(20, 7.5, 1.0))


def subject_of_step(checkpoint: Checkpoint, dtype: str) -> Subject:
    """Count what the step needs."""
    multiply_adds = least_bytes = 0.0
    for name, module in wrap(checkpoint).items():
        work = count_work(module.to(DTYPES[dtype]), example_inputs(checkpoint.specs[name], dtype))
        multiply_adds += 1e9 * work.gflop / 2
        least_bytes += 1e6 * work.megabytes
    return Subject(NAME, TITLE, multiply_adds, least_bytes)


def name_of_step(weights: str) -> str:
    """Return the name of the step's row with weights of a format, one of WEIGHTS."""
    return NAME if weights == FLOAT16 else f"{NAME}_{weights}"


def judge_step(dtype: str, weights: Sequence[str], chips: Sequence[Chip]) -> Iterator[tuple[Chip, Judgement]]:
    """Judge every kernel of a step: minutes, most of them for capture and code.

    Args:
        weights: formats, of WEIGHTS; the step is judged with each. FLOAT16: as they are, in `dtype`.
    """
    checkpoint = stable_diffusion()
    captured = clean(capture(checkpoint, dtype))
    subject = subject_of_step(checkpoint, dtype)
    for name in weights:
        packed = pack(captured, name)
        saved = weight_bytes(captured) - weight_bytes(packed)
        title = TITLE if name == FLOAT16 else f"{TITLE}; weights {name}"
        row = dataclasses.replace(
            subject, name=name_of_step(name), title=title, least_bytes=subject.least_bytes - saved
        )
        yield from judge_module(row, packed.module, dtype, chips)


def weight_bytes(captured: CapturedModel) -> int:
    """Return the bytes of the weights of all components."""
    functions = (captured.module[captured.function_of(name)] for name in captured.params)
    return sum(bytes_of(field) for function in functions for field in function.params[-1].ty.fields)
