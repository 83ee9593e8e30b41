"""Models that `circles` is not, with random weights: the compiled library's picture is diffusers' own."""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionControlNetInpaintPipeline, StableDiffusionControlNetPipeline
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from PIL import Image

from mlc_controlnet.bundle.reader import Bundle
from mlc_controlnet.config import BuildConfig
from mlc_controlnet.runtime.noise import standard_normal
from mlc_controlnet.runtime.pipeline import ControlNetPipeline
from tests.conftest import ROOT
from tests.fixtures.quick_build import build_quickly
from tests.fixtures.random_model import save_random_model
from tests.runtime.test_circles import MIN_PSNR_DB, psnr_db

pytestmark = pytest.mark.integration

PROMPT, NEGATIVE_PROMPT = "gold circle with navy background", "red circle with white background"
HEIGHT, WIDTH, STEPS = 96, 128, 4
SCALE = 8.0  # what a ControlNet of random weights gives is small; its mean is smaller
LATENTS = standard_normal((1, 4, HEIGHT // 8, WIDTH // 8), seed=7)


def random_picture(seed: int) -> Image.Image:
    """Blocks of 8 x 8 pixels, so that a picture survives its latents."""
    blocks = np.random.default_rng(seed).integers(0, 256, (HEIGHT // 8, WIDTH // 8, 3), np.uint8)
    return Image.fromarray(blocks).resize((WIDTH, HEIGHT), Image.Resampling.NEAREST)


def build_random(folder: Path, **options: object) -> tuple[Path, Bundle]:
    """The model's folder and its bundle for this processor."""
    model = save_random_model(folder / "model", **options)  # type: ignore[arg-type]
    out = folder / "bundle"
    config = BuildConfig(str(model), "llvm", ("float32",), out, ROOT / "tuning_db", height=HEIGHT, width=WIDTH)
    return model, build_quickly(config)


@pytest.fixture(scope="module")
def pooled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Bundle]:
    return build_random(tmp_path_factory.mktemp("pooled"), global_pool_conditions=True)


@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
def test_a_controlnet_that_pools_its_residuals_draws_diffusers_picture(
    pooled: tuple[Path, Bundle], guidance_scale: float
) -> None:
    model, bundle = pooled
    reference = StableDiffusionControlNetPipeline.from_pretrained(model, torch_dtype=torch.float32)
    reference.set_progress_bar_config(disable=True)
    wanted = reference(
        PROMPT,
        image=random_picture(1),
        num_inference_steps=STEPS,
        guidance_scale=guidance_scale,
        negative_prompt=NEGATIVE_PROMPT,
        controlnet_conditioning_scale=SCALE,
        latents=torch.from_numpy(LATENTS),
    ).images[0]
    drawn = ControlNetPipeline.from_bundle(bundle)(
        PROMPT,
        random_picture(1),
        num_inference_steps=STEPS,
        guidance_scale=guidance_scale,
        negative_prompt=NEGATIVE_PROMPT,
        controlnet_conditioning_scale=SCALE,
        latents=LATENTS,
    ).images[0]
    assert np.asarray(wanted).std() > 10  # not a flat picture
    assert psnr_db(np.asarray(drawn), np.asarray(wanted)) >= MIN_PSNR_DB


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Bundle]:
    return build_random(tmp_path_factory.mktemp("plain"))


def test_a_control_image_that_steers_a_share_of_the_steps_draws_diffusers_picture(plain: tuple[Path, Bundle]) -> None:
    model, bundle = plain
    reference = StableDiffusionControlNetPipeline.from_pretrained(model, torch_dtype=torch.float32)
    reference.set_progress_bar_config(disable=True)
    pipeline = ControlNetPipeline.from_bundle(bundle)

    def draw_both(start: float, end: float) -> tuple[np.ndarray, np.ndarray]:
        share = {"control_guidance_start": start, "control_guidance_end": end}
        scale = {"controlnet_conditioning_scale": SCALE, "guidance_scale": 3.0, "negative_prompt": NEGATIVE_PROMPT}
        latents = torch.from_numpy(LATENTS)
        wanted = reference(
            PROMPT, image=random_picture(1), num_inference_steps=STEPS, latents=latents, **scale, **share
        ).images[0]
        drawn = pipeline(
            PROMPT, random_picture(1), num_inference_steps=STEPS, latents=LATENTS, **scale, **share
        ).images[0]
        return np.asarray(drawn), np.asarray(wanted)

    always, _ = draw_both(0.0, 1.0)
    for start, end in [(0.0, 0.5), (0.25, 1.0)]:
        drawn, wanted = draw_both(start, end)
        assert psnr_db(drawn, wanted) >= MIN_PSNR_DB
        assert psnr_db(always, wanted) < MIN_PSNR_DB


@pytest.fixture(scope="module")
def inpainting(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Bundle]:
    return build_random(tmp_path_factory.mktemp("inpainting"), sample_channels=9)


@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
def test_an_inpainting_model_draws_diffusers_picture(
    inpainting: tuple[Path, Bundle], monkeypatch: pytest.MonkeyPatch, guidance_scale: float
) -> None:
    """diffusers draws a sample of the masked picture's latents; here it takes their mode, as the pipeline does."""
    model, bundle = inpainting
    monkeypatch.setattr(DiagonalGaussianDistribution, "sample", lambda self, generator=None: self.mode())
    mask = random_picture(3)
    reference = StableDiffusionControlNetInpaintPipeline.from_pretrained(model, torch_dtype=torch.float32)
    reference.set_progress_bar_config(disable=True)
    wanted = reference(
        PROMPT,
        image=random_picture(2),
        mask_image=mask,
        control_image=random_picture(1),
        num_inference_steps=STEPS,
        guidance_scale=guidance_scale,
        negative_prompt=NEGATIVE_PROMPT,
        controlnet_conditioning_scale=1.0,
        latents=torch.from_numpy(LATENTS),
    ).images[0]
    wanted = np.asarray(wanted)
    pipeline = ControlNetPipeline.from_bundle(bundle)

    def draw(picture: Image.Image, mask: Image.Image) -> np.ndarray:
        drawn = pipeline(
            PROMPT,
            picture,
            num_inference_steps=STEPS,
            guidance_scale=guidance_scale,
            negative_prompt=NEGATIVE_PROMPT,
            controlnet_conditioning_scale=1.0,
            latents=LATENTS,
            mask_image=mask,
            control_image=random_picture(1),
            apply_overlay=False,
        )
        return np.asarray(drawn.images[0])

    assert wanted.std() > 10  # not a flat picture
    assert psnr_db(draw(random_picture(2), mask), wanted) >= MIN_PSNR_DB
    assert psnr_db(draw(random_picture(4), mask), wanted) < MIN_PSNR_DB - 10  # what is kept counts, and where that is
    assert psnr_db(draw(random_picture(2), random_picture(4)), wanted) < MIN_PSNR_DB - 10
