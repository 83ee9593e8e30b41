"""Stable Diffusion XL of random weights: the compiled library draws diffusers' own pictures."""

from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    StableDiffusionXLControlNetImg2ImgPipeline,
    StableDiffusionXLControlNetInpaintPipeline,
    StableDiffusionXLControlNetPipeline,
)
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from PIL import Image

from mlc_controlnet.bundle.reader import read_bundle
from mlc_controlnet.export.sampler_descriptions import build_scheduler
from mlc_controlnet.runtime.noise import standard_normal
from mlc_controlnet.runtime.pipeline import ControlNetPipeline
from tests.fixtures.controlnet_models import build_xl
from tests.fixtures.diffusers_pictures import inject_noise
from tests.fixtures.drawings import HEIGHT, WIDTH, random_picture
from tests.fixtures.shared_build import BuildOnce
from tests.runtime.test_circles import MIN_PSNR_DB, psnr_db

pytestmark = pytest.mark.integration

PROMPT, OTHER, NEGATIVE = "gold circle with navy background", "red circle", "white circle with gold background"
LATENTS = standard_normal((1, 4, HEIGHT // 8, WIDTH // 8), seed=7)
MASK = Image.new("L", (WIDTH, HEIGHT), 0)
MASK.paste(255, (16, 8, 64, 56))
PLAIN: dict[str, Any] = {"num_inference_steps": 3, "guidance_scale": 5.0, "controlnet_conditioning_scale": 4.0}
CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "two prompts": {"prompt_2": OTHER, "negative_prompt": NEGATIVE, "negative_prompt_2": OTHER},
    "time ids": {"original_size": (512, 768), "crops_coords_top_left": (8, 100), "target_size": (1024, 1000)},
    "negative time ids": {"negative_original_size": (512, 512), "negative_target_size": (300, 1024)},
    "clip skip": {"clip_skip": 1, "guidance_scale": 1.0},
    "turbo": {"guidance_scale": 1.0, "num_inference_steps": 1, "sampler": "euler_a", "schedule_type": "trailing"},
    "lcm": {"guidance_scale": 1.0, "sampler": "lcm"},
    "guess mode": {"guess_mode": True},
    "a window": {"control_guidance_start": 0.3, "control_guidance_end": 0.7},
    "img2img": {"image": random_picture(5), "strength": 0.7},
    "inpaint": {"image": random_picture(5), "mask_image": MASK, "strength": 0.9, "apply_overlay": False},
    "rescaled guidance": {
        "image": random_picture(5),
        "mask_image": MASK,
        "strength": 0.9,
        "apply_overlay": False,
        "guidance_rescale": 0.7,
    },
}
Contest = tuple[ControlNetPipeline, StableDiffusionXLControlNetPipeline]


@pytest.fixture(scope="module")
def contest(build_once: BuildOnce) -> Contest:
    folder = build_once("xl", build_xl)
    reference = StableDiffusionXLControlNetPipeline.from_pretrained(folder / "model", torch_dtype=torch.float32)
    reference.set_progress_bar_config(disable=True)
    return ControlNetPipeline.from_bundle(read_bundle(folder / "bundle")), reference


def draw_both(contest: Contest, case: dict[str, Any], patch: pytest.MonkeyPatch) -> tuple[np.ndarray, np.ndarray]:
    """Draw with diffusers and with the bundle."""
    ours, base = contest
    options = {"negative_prompt": None, **PLAIN, **case}
    control, seed = random_picture(3), 11
    drawn = np.asarray(ours(PROMPT, control_image=control, seed=seed, **options).images[0])
    theirs = dict(options)
    sampler, spacing = theirs.pop("sampler", "euler"), theirs.pop("schedule_type", None)
    theirs.pop("apply_overlay", None)
    config = {**base.scheduler.config, **({"timestep_spacing": spacing} if spacing else {})}
    parts = {name: part for name, part in base.components.items() if name not in ("scheduler", "watermark")}
    cls: Any = StableDiffusionXLControlNetPipeline
    if "mask_image" in theirs:
        cls = StableDiffusionXLControlNetInpaintPipeline
    elif "image" in theirs:
        cls = StableDiffusionXLControlNetImg2ImgPipeline
    pipeline = cls(**parts, scheduler=build_scheduler(sampler, config), add_watermarker=False)
    pipeline.set_progress_bar_config(disable=True)
    with patch.context() as noise:
        inject_noise(noise, pipeline, seed)
        noise.setattr(DiagonalGaussianDistribution, "sample", lambda self, generator=None: self.mode())
        pictures = {"control_image": control} if "image" in theirs else {"image": control}
        wanted = pipeline(PROMPT, **pictures, **theirs).images[0]
    return np.asarray(wanted), drawn


@pytest.mark.parametrize("name", CASES)
def test_a_picture_is_diffusers_own(name: str, contest: Contest, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted, drawn = draw_both(contest, CASES[name], monkeypatch)
    assert wanted.std() > 10  # not a flat picture
    assert psnr_db(drawn, wanted) >= MIN_PSNR_DB


def test_every_option_of_these_cases_changes_the_picture(contest: Contest) -> None:
    """Otherwise the comparisons above would say nothing about it."""
    ours, _ = contest
    names = ("plain", "two prompts", "time ids", "negative time ids")
    cases = [*(CASES[name] for name in names), {"negative_prompt": NEGATIVE}, {"prompt_2": OTHER}]
    pictures = [np.asarray(ours(PROMPT, random_picture(3), seed=11, **{**PLAIN, **case}).images[0]) for case in cases]
    for i, picture in enumerate(pictures):
        for j in range(i):
            assert psnr_db(picture, pictures[j]) < MIN_PSNR_DB, (cases[i], cases[j])
