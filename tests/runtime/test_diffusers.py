"""Models that `circles` is not, with random weights: the compiled library's picture is diffusers' own."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import ControlNetModel, StableDiffusionControlNetInpaintPipeline, StableDiffusionControlNetPipeline
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from PIL import Image

from mlc_controlnet.bundle.reader import Bundle, read_bundle
from mlc_controlnet.runtime.noise import standard_normal
from mlc_controlnet.runtime.pipeline import ControlNetPipeline
from tests.fixtures import drawings
from tests.fixtures.controlnet_models import HEIGHT, SEVERAL, WIDTH
from tests.fixtures.shared_build import BuildOnce
from tests.runtime.test_circles import MIN_PSNR_DB, psnr_db

pytestmark = pytest.mark.integration

PROMPT, NEGATIVE_PROMPT = "gold circle with navy background", "red circle with white background"
STEPS = 4
SCALE = 8.0  # what a ControlNet of random weights gives is small; its mean is smaller
LATENTS = standard_normal((1, 4, HEIGHT // 8, WIDTH // 8), seed=7)


def random_picture(seed: int) -> Image.Image:
    """Blocks of 8 x 8 pixels, so that a picture survives its latents."""
    blocks = np.random.default_rng(seed).integers(0, 256, (HEIGHT // 8, WIDTH // 8, 3), np.uint8)
    return Image.fromarray(blocks).resize((WIDTH, HEIGHT), Image.Resampling.NEAREST)


def with_one_controlnet(pipeline_class: Any, model: Path, controlnet: str) -> Any:
    """Load diffusers' pipeline, float32, with the ControlNet in this folder of the model and no other."""
    one = ControlNetModel.from_pretrained(model / controlnet, torch_dtype=torch.float32)
    reference = pipeline_class.from_pretrained(model, controlnet=one, torch_dtype=torch.float32)
    reference.set_progress_bar_config(disable=True)
    return reference


@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
def test_a_controlnet_that_pools_its_residuals_draws_diffusers_picture(
    several_controlnets: Path, guidance_scale: float
) -> None:
    reference = with_one_controlnet(StableDiffusionControlNetPipeline, several_controlnets / "model", SEVERAL["pooled"])
    wanted = reference(
        PROMPT,
        image=random_picture(1),
        num_inference_steps=STEPS,
        guidance_scale=guidance_scale,
        negative_prompt=NEGATIVE_PROMPT,
        controlnet_conditioning_scale=SCALE,
        latents=torch.from_numpy(LATENTS),
    ).images[0]
    drawn = ControlNetPipeline.from_bundle(several_controlnets / "bundle")(
        PROMPT,
        random_picture(1),
        controlnets=["pooled"],
        num_inference_steps=STEPS,
        guidance_scale=guidance_scale,
        negative_prompt=NEGATIVE_PROMPT,
        controlnet_conditioning_scale=SCALE,
        latents=LATENTS,
    ).images[0]
    assert np.asarray(wanted).std() > 10  # not a flat picture
    assert psnr_db(np.asarray(drawn), np.asarray(wanted)) >= MIN_PSNR_DB


def test_a_control_image_that_steers_a_share_of_the_steps_draws_diffusers_picture(several_controlnets: Path) -> None:
    reference = with_one_controlnet(StableDiffusionControlNetPipeline, several_controlnets / "model", SEVERAL["first"])
    pipeline = ControlNetPipeline.from_bundle(several_controlnets / "bundle")

    def draw_both(start: float, end: float) -> tuple[np.ndarray, np.ndarray]:
        share = {"control_guidance_start": start, "control_guidance_end": end}
        scale = {"controlnet_conditioning_scale": SCALE, "guidance_scale": 3.0, "negative_prompt": NEGATIVE_PROMPT}
        latents = torch.from_numpy(LATENTS)
        wanted = reference(
            PROMPT, image=random_picture(1), num_inference_steps=STEPS, latents=latents, **scale, **share
        ).images[0]
        drawn = pipeline(
            PROMPT,
            random_picture(1),
            controlnets=["first"],
            num_inference_steps=STEPS,
            latents=LATENTS,
            **scale,
            **share,
        ).images[0]
        return np.asarray(drawn), np.asarray(wanted)

    always, _ = draw_both(0.0, 1.0)
    for start, end in [(0.0, 0.5), (0.25, 1.0)]:
        drawn, wanted = draw_both(start, end)
        assert psnr_db(drawn, wanted) >= MIN_PSNR_DB
        assert psnr_db(always, wanted) < MIN_PSNR_DB


@pytest.fixture(scope="module")
def inpainting(build_once: BuildOnce) -> tuple[Path, Bundle]:
    """The model of the drawings that combine features, and its bundle."""
    folder = build_once("random-9-channels", lambda partial: drawings.build_model(partial, 9))
    return folder / "model", read_bundle(folder / "bundle")


@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
def test_an_inpainting_model_draws_diffusers_picture(
    inpainting: tuple[Path, Bundle], monkeypatch: pytest.MonkeyPatch, guidance_scale: float
) -> None:
    """diffusers draws a sample of the masked picture's latents; here it takes their mode, as the pipeline does."""
    model, bundle = inpainting
    monkeypatch.setattr(DiagonalGaussianDistribution, "sample", lambda self, generator=None: self.mode())
    mask = drawings.random_picture(3)
    latents = standard_normal((1, 4, drawings.HEIGHT // 8, drawings.WIDTH // 8), seed=7)
    reference = with_one_controlnet(StableDiffusionControlNetInpaintPipeline, model, "controlnet")
    wanted = reference(
        PROMPT,
        image=drawings.random_picture(2),
        mask_image=mask,
        control_image=drawings.random_picture(1),
        num_inference_steps=STEPS,
        guidance_scale=guidance_scale,
        negative_prompt=NEGATIVE_PROMPT,
        controlnet_conditioning_scale=1.0,
        latents=torch.from_numpy(latents),
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
            latents=latents,
            mask_image=mask,
            control_image=drawings.random_picture(1),
            apply_overlay=False,
        )
        return np.asarray(drawn.images[0])

    assert wanted.std() > 10  # not a flat picture
    assert psnr_db(draw(drawings.random_picture(2), mask), wanted) >= MIN_PSNR_DB
    assert (
        psnr_db(draw(drawings.random_picture(4), mask), wanted) < MIN_PSNR_DB - 10
    )  # what is kept counts, and where that is
    assert psnr_db(draw(drawings.random_picture(2), drawings.random_picture(4)), wanted) < MIN_PSNR_DB - 10
