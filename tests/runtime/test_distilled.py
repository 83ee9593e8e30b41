"""A distilled model with random weights: the compiled library's picture is diffusers' own."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionControlNetPipeline
from PIL import Image

from mlc_controlnet.bundle.reader import Bundle
from mlc_controlnet.config import BuildConfig
from mlc_controlnet.runtime.denoising import Step
from mlc_controlnet.runtime.noise import standard_normal
from mlc_controlnet.runtime.pipeline import ControlNetPipeline
from tests.conftest import ROOT
from tests.fixtures import drawings
from tests.fixtures.diffusers_pictures import DiffusersPictures
from tests.fixtures.distilled_model import save_distilled_model
from tests.fixtures.quick_build import build_quickly
from tests.runtime.test_circles import MIN_PSNR_DB, psnr_db

pytestmark = pytest.mark.integration

PROMPT = "gold circle with navy background"
HEIGHT, WIDTH, STEPS = 96, 128, 3
LATENTS = standard_normal((1, 4, HEIGHT // 8, WIDTH // 8), seed=7)
PICTURE = Image.fromarray(np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8))


@pytest.fixture(scope="module")
def distilled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Bundle]:
    folder = tmp_path_factory.mktemp("distilled")
    model = save_distilled_model(folder / "model")
    out = folder / "bundle"
    size, preview = {"height": HEIGHT, "width": WIDTH}, str(model / "vae")
    return model, build_quickly(
        BuildConfig(str(model), "llvm", ("float32",), out, ROOT / "tuning_db", preview_vae=preview, **size)
    )


def test_a_distilled_model_draws_diffusers_picture_with_one_call_of_its_unet_a_step(
    distilled: tuple[Path, Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, bundle = distilled
    reference = StableDiffusionControlNetPipeline.from_pretrained(model, torch_dtype=torch.float32)
    reference.set_progress_bar_config(disable=True)
    pipeline = ControlNetPipeline.from_bundle(bundle)
    calls, run = [], pipeline.engine.unet_and_feature
    monkeypatch.setattr(pipeline.engine, "unet_and_feature", lambda *inputs: calls.append(inputs) or run(*inputs))
    drawn = {}
    for guidance_scale in (8.5, 1.0):
        options = {"num_inference_steps": STEPS, "guidance_scale": guidance_scale, "controlnet_conditioning_scale": 4.0}
        wanted = reference(PROMPT, image=PICTURE, latents=torch.from_numpy(LATENTS), **options).images[0]
        drawn[guidance_scale] = np.asarray(pipeline(PROMPT, PICTURE, latents=LATENTS, **options).images[0])
        assert np.asarray(wanted).std() > 10  # not a flat picture
        assert psnr_db(drawn[guidance_scale], np.asarray(wanted)) >= MIN_PSNR_DB
    assert psnr_db(drawn[8.5], drawn[1.0]) < MIN_PSNR_DB
    assert len(calls) == 2 * STEPS


def test_a_preview_decoder_decodes_what_each_step_predicts(distilled: tuple[Path, Bundle]) -> None:
    """It is the model's own here, and the last prediction is the result."""
    steps: list[Step] = []
    drawn = ControlNetPipeline.from_bundle(distilled[1])(
        PROMPT, PICTURE, latents=LATENTS, num_inference_steps=STEPS, on_step=steps.append
    )
    previews = [np.asarray(step.decoded_preview) for step in steps]
    assert np.array_equal(previews[-1], np.asarray(drawn.images[0]))
    assert previews[0].shape == (HEIGHT, WIDTH, 3)
    assert not np.array_equal(previews[0], previews[-1])


def test_its_bundle_recommends_guidance_and_few_steps(distilled: tuple[Path, Bundle]) -> None:
    manifest = distilled[1].manifest
    assert manifest.embeds_guidance
    assert (manifest.defaults.steps, manifest.defaults.guidance_scale) == (4, 8.5)


Contest = tuple[ControlNetPipeline, DiffusersPictures]


@pytest.fixture(scope="module")
def sdxs(tmp_path_factory: pytest.TempPathFactory) -> Contest:
    """A model without a guidance embedding: diffusers' img2img and inpainting pipelines do not pass one."""
    folder = tmp_path_factory.mktemp("sdxs")
    model = save_distilled_model(folder / "model", time_cond_proj_dim=None)
    size = {"height": drawings.HEIGHT, "width": drawings.WIDTH}
    bundle = build_quickly(BuildConfig(str(model), "llvm", ("float32",), folder / "bundle", ROOT / "tuning_db", **size))
    return ControlNetPipeline.from_bundle(bundle), DiffusersPictures(model, [model / "controlnet"])


@pytest.mark.parametrize(
    ("task", "sampler", "steps", "guidance_scale"),
    [
        ("txt2img", "euler", 1, 1.0),  # SD-Turbo and SDXS
        ("txt2img", "lcm", 4, 1.0),
        ("txt2img", "tcd", 4, 1.0),
        ("txt2img", "ddim", 4, 5.0),  # BK-SDM, which is not distilled for few steps
        ("img2img", "lcm", 4, 1.0),
        ("inpaint 4", "euler", 4, 5.0),
    ],
)
def test_few_steps_and_a_tiny_autoencoder_draw_diffusers_picture(
    sdxs: Contest, task: str, sampler: str, steps: int, guidance_scale: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline, diffusers = sdxs
    options = {"controlnets": 1, "mode": "balanced", "window": (0.0, 1.0), "weights": False}
    case = {"task": task, "sampler": sampler, "guidance_scale": guidance_scale, **options}
    drawing = dataclasses.replace(drawings.drawing_of(case, seed=3), steps=steps, scales=(4.0,))
    wanted = diffusers.draw(drawing, monkeypatch)
    drawn = np.asarray(pipeline(**drawings.arguments_of(drawing, pipeline.engine.bundle)).images[0])
    assert wanted.std() > 10  # not a flat picture
    assert psnr_db(drawn, wanted) >= MIN_PSNR_DB
