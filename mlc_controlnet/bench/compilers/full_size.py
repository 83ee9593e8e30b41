"""One denoising step of Stable Diffusion 1.5 with a ControlNet at 512x512: every kernel with its number of launches.

The weights hold no values, so that nothing is downloaded and little memory is touched: no kernel depends on one.
"""

from collections.abc import Iterator, Sequence

import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from torch import nn

from mlc_controlnet.bench.compilers.chips import Chip
from mlc_controlnet.bench.compilers.judge import Subject, judge_module
from mlc_controlnet.bench.compilers.judgement import Judgement
from mlc_controlnet.bench.operations.cases import DTYPES
from mlc_controlnet.bench.operations.work import count_work
from mlc_controlnet.capture import capture, example_inputs, wrap
from mlc_controlnet.checkpoint import Checkpoint
from mlc_controlnet.components import CONTROLNET, UNET, ModelShape
from mlc_controlnet.config import Defaults
from mlc_controlnet.passes.pipeline import clean

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


def judge_step(dtype: str, chips: Sequence[Chip]) -> Iterator[tuple[Chip, Judgement]]:
    """Judge every kernel of a step: minutes, most of them for capture and code."""
    checkpoint = stable_diffusion()
    module = clean(capture(checkpoint, dtype)).module
    yield from judge_module(subject_of_step(checkpoint, dtype), module, dtype, chips)
