"""A bundle of two sizes with a shallow UNet: its pictures are those of diffusers, and of DeepCache in torch."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionControlNetPipeline
from PIL import Image
from torch import nn

from mlc_controlnet.bundle.reader import Bundle
from mlc_controlnet.config import BuildConfig
from mlc_controlnet.parity.parity import signal_to_noise_db
from mlc_controlnet.runtime.noise import standard_normal
from mlc_controlnet.runtime.pipeline import ControlNetPipeline
from tests.conftest import ROOT
from tests.fixtures.quick_build import build_quickly
from tests.runtime.test_circles import psnr_db

pytestmark = pytest.mark.integration

MIN_PSNR_DB = 45.0
SIZES = ((64, 96), (96, 64))  # height, width
STEPS = 7
OPTIONS = {
    "num_inference_steps": STEPS,
    "guidance_scale": 3.0,
    "negative_prompt": "red circle with white background",
    "controlnet_conditioning_scale": 8.0,  # what a ControlNet of random weights gives is small
}
PROMPT = "gold circle with navy background"


def control_image(height: int, width: int) -> Image.Image:
    blocks = np.random.default_rng(1).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    return Image.fromarray(blocks).resize((width, height), Image.Resampling.NEAREST)


def noise(height: int, width: int) -> np.ndarray:
    return standard_normal((1, 4, height // 8, width // 8), seed=7)


@pytest.fixture(scope="module")
def bundle(random_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    out = tmp_path_factory.mktemp("variants") / "bundle"
    (height, width), *others = SIZES
    return build_quickly(
        BuildConfig(
            str(random_model),
            "llvm",
            ("float32",),
            out,
            ROOT / "tuning_db",
            height=height,
            width=width,
            other_sizes=tuple(others),
            cached_branch=0,
        )
    )


@pytest.fixture(scope="module")
def pipeline(bundle: Bundle) -> Iterator[ControlNetPipeline]:
    pipeline = ControlNetPipeline.from_bundle(bundle)
    yield pipeline
    pipeline.unload()


@pytest.fixture
def reference(random_model: Path) -> StableDiffusionControlNetPipeline:
    reference = StableDiffusionControlNetPipeline.from_pretrained(random_model, torch_dtype=torch.float32)
    reference.set_progress_bar_config(disable=True)
    return reference


def draw(pipeline: ControlNetPipeline, size: tuple[int, int], **options: Any) -> np.ndarray:
    height, width = size
    output = pipeline(
        PROMPT, control_image(*size), latents=noise(*size), height=height, width=width, **{**OPTIONS, **options}
    )
    return np.asarray(output.images[0])


def draw_reference(reference: StableDiffusionControlNetPipeline, size: tuple[int, int], **options: Any) -> np.ndarray:
    latents = torch.from_numpy(noise(*size))
    output = reference(PROMPT, image=control_image(*size), latents=latents, **{**OPTIONS, **options})
    return np.asarray(output.images[0])


@pytest.mark.parametrize("size", SIZES)
def test_every_size_draws_diffusers_picture(
    pipeline: ControlNetPipeline, reference: StableDiffusionControlNetPipeline, size: tuple[int, int]
) -> None:
    wanted = draw_reference(reference, size)
    drawn = draw(pipeline, size)
    assert drawn.shape == (*size, 3)
    assert wanted.std() > 10  # not a flat picture
    assert psnr_db(drawn, wanted) >= MIN_PSNR_DB


def test_without_a_controlnet_every_size_reads_zeros_of_its_own(
    pipeline: ControlNetPipeline, reference: StableDiffusionControlNetPipeline
) -> None:
    size = SIZES[1]
    wanted = draw_reference(reference, size, controlnet_conditioning_scale=0.0)
    assert psnr_db(draw(pipeline, size, controlnet_conditioning_scale=0.0), wanted) >= MIN_PSNR_DB


class _Cached:
    """Runs a module in whole steps, and returns the last whole step's result in shallow ones."""

    def __init__(self, module: nn.Module, is_whole: Any) -> None:
        self.forward, self.is_whole, self.result = module.forward, is_whole, None

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        if self.is_whole():
            self.result = self.forward(*arguments, **options)
        return self.result


def with_deepcache(reference: StableDiffusionControlNetPipeline, interval: int) -> StableDiffusionControlNetPipeline:
    """DeepCache at branch 0, as arXiv 2312.00858 has it: conv_in and the decoder's last layer run in every step.

    The ControlNet runs in whole steps only.
    """
    steps = -1
    unet = reference.unet

    def run_controlnet(*arguments: Any, **options: Any) -> Any:  # it comes first in every step
        nonlocal steps
        steps += 1
        return controlnet(*arguments, **options)

    def is_whole() -> bool:
        return steps % interval == 0

    controlnet = _Cached(reference.controlnet, is_whole)
    reference.controlnet.forward = run_controlnet
    last = unet.up_blocks[-1]
    inner = [*unet.down_blocks, unet.mid_block, *unet.up_blocks[:-1], *last.resnets[:-1]]
    inner += list(last.attentions[:-1]) if hasattr(last, "attentions") else []
    for module in inner:
        module.forward = _Cached(module, is_whole)
    return reference


@pytest.mark.parametrize("interval", [2, 3, 5])
def test_deepcache_draws_the_picture_of_deepcache_in_torch(
    pipeline: ControlNetPipeline, reference: StableDiffusionControlNetPipeline, interval: int
) -> None:
    size = SIZES[1]
    whole = draw_reference(reference, size, output_type="latent")
    wanted = draw_reference(with_deepcache(reference, interval), size, output_type="latent")
    drawn = draw(pipeline, size, deepcache_interval=interval, output_type="latent")
    assert signal_to_noise_db(wanted, drawn) >= 80
    assert signal_to_noise_db(wanted, whole) < 60  # so that a pipeline that ignores the interval fails


def test_an_interval_of_one_is_the_whole_picture(pipeline: ControlNetPipeline) -> None:
    np.testing.assert_array_equal(draw(pipeline, SIZES[0], deepcache_interval=1), draw(pipeline, SIZES[0]))


@pytest.mark.parametrize("reduced_memory", [False, True])
def test_only_the_first_step_of_an_interval_runs_controlnet_and_unet(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, reduced_memory: bool
) -> None:
    calls = []
    pipeline = ControlNetPipeline.from_bundle(bundle, reduced_memory=reduced_memory)
    call = pipeline.engine._call
    monkeypatch.setattr(pipeline.engine, "_call", lambda name, *inputs: [calls.append(name), call(name, *inputs)][1])
    draw(pipeline, SIZES[0], deepcache_interval=3, num_inference_steps=5)
    pipeline.unload()
    steps = [name for name in calls if name in ("controlnet", "unet", "unet_shallow")]
    whole, shallow = ["controlnet", "controlnet", "unet", "unet"], ["unet_shallow", "unet_shallow"]
    assert steps == [*whole, *shallow, *shallow, *whole, *shallow]
