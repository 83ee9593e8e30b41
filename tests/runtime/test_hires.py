"""Hires fix: the two passes are those of diffusers' pipelines, and the larger picture is decoded in tiles."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import interpolate

from mlc_controlnet.components import VAE_DECODER, VAE_ENCODER
from mlc_controlnet.config import BuildConfig
from mlc_controlnet.errors import UserError
from mlc_controlnet.images.prepare import prepare_image
from mlc_controlnet.runtime.denoising import Conditions, add_noise, denoise
from mlc_controlnet.runtime.noise import standard_normal
from mlc_controlnet.runtime.option_checks import UPSCALE_MODES
from mlc_controlnet.runtime.pipeline import ControlNetPipeline
from mlc_controlnet.runtime.request import GenerateRequest
from mlc_controlnet.runtime.resolve import schedule_of
from tests.conftest import ROOT
from tests.fixtures.diffusers_pictures import DiffusersPictures, Drawing
from tests.fixtures.quick_build import build_quickly
from tests.fixtures.random_model import save_random_model
from tests.runtime.test_circles import MIN_PSNR_DB

pytestmark = pytest.mark.integration

SMALL, LARGE = (64, 128), (96, 192)  # height, width
PROMPT, NEGATIVE = "gold circle with navy background", "red circle with white background"
SCALE, GUIDANCE, STEPS, SEED = 6.0, 3.0, 5, 3  # what a ControlNet of random weights gives is small


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random_model(tmp_path_factory.mktemp("hires") / "model")


@pytest.fixture(scope="module")
def pipeline(model: Path) -> ControlNetPipeline:
    config = BuildConfig(
        str(model),
        "llvm",
        ("float32",),
        model.parent / "bundle",
        ROOT / "tuning_db",
        height=SMALL[0],
        width=SMALL[1],
        other_sizes=(LARGE,),
        tiles_vae=True,
    )
    return ControlNetPipeline.from_bundle(build_quickly(config))


@pytest.fixture
def control_image() -> Image.Image:
    """Of the larger size, with detail that the smaller one lacks."""
    pixels = np.random.default_rng(1).integers(0, 256, (LARGE[0] // 4, LARGE[1] // 4, 3), np.uint8)
    return Image.fromarray(pixels).resize(LARGE[::-1], Image.Resampling.NEAREST)


def options(**changes):
    common = {"num_inference_steps": STEPS, "guidance_scale": GUIDANCE, "seed": SEED, "negative_prompt": NEGATIVE}
    return {**common, "controlnet_conditioning_scale": SCALE, "output_type": "latent", **changes}


def hires(**changes):
    return options(hires_scale=1.5, **changes)


def latent_psnr_db(latents: np.ndarray, reference: np.ndarray) -> float:
    """The peak is the reference's range, as 255 is a picture's."""
    error = np.mean((latents.astype(np.float64) - reference) ** 2)
    return float(10 * np.log10(np.ptp(reference) ** 2 / error))


def draw_with_diffusers(
    model: Path, control_image: Image.Image, monkeypatch: pytest.MonkeyPatch, sampler: str, mode: str, strength: float
) -> np.ndarray:
    """txt2img, torch's interpolation of the latents, img2img."""
    diffusers = DiffusersPictures(model, [model / "controlnet"])

    def draw(task: str, size: tuple[int, int], **changes) -> torch.Tensor:
        prepared = prepare_image(control_image, *size).picture
        drawing = Drawing(
            task=task,
            sampler=sampler,
            mode="balanced",
            prompt=[(PROMPT, 1.0)],
            negative_prompt=[(NEGATIVE, 1.0)],
            control_images=[prepared],
            scales=[SCALE],
            start=0.0,
            end=1.0,
            guidance_scale=GUIDANCE,
            steps=STEPS,
            seed=SEED,
            **changes,
        )
        return torch.from_numpy(diffusers.draw(drawing, monkeypatch, "latent"))

    smooth = {} if mode.startswith("nearest") else {"align_corners": False}
    enlarged = interpolate(draw("txt2img", SMALL), (LARGE[0] // 8, LARGE[1] // 8), mode=mode, **smooth)
    return draw("img2img", LARGE, strength=strength, image=enlarged).numpy()


@pytest.mark.parametrize(
    ("sampler", "mode", "strength"),
    [("ddim", "bilinear", 0.7), ("euler_a", "nearest", 0.6), ("dpmpp_2m", "bicubic", 1)],
)
def test_both_passes_are_those_of_diffusers(model, pipeline, control_image, monkeypatch, sampler, mode, strength):
    wanted = draw_with_diffusers(model, control_image, monkeypatch, sampler, mode, strength)
    drawn = pipeline(PROMPT, control_image, **hires(sampler=sampler, hires_upscaler=mode, hires_strength=strength))
    assert drawn.images.shape == wanted.shape == (1, 4, LARGE[0] // 8, LARGE[1] // 8)
    assert latent_psnr_db(drawn.images, wanted) >= MIN_PSNR_DB


def test_it_is_the_same_as_the_two_calls_by_hand(pipeline, control_image):
    small = pipeline(PROMPT, control_image, **options())
    enlarged = interpolate(torch.from_numpy(small.images), (LARGE[0] // 8, LARGE[1] // 8), mode="nearest").numpy()

    request = GenerateRequest(
        prompt=PROMPT,
        control_image=control_image,
        height=LARGE[0],
        width=LARGE[1],
        **{name: value for name, value in options().items() if name != "output_type"},
    )
    settings = replace(pipeline.resolve(request), strength=0.7)  # of the enlarged latents, which no request can hold
    schedule = schedule_of(settings, pipeline._samplers)
    contexts, _ = pipeline.encode_prompts(settings, request)
    controls = pipeline.embed_controls(settings, [prepare_image(control_image, *LARGE).array])
    x = add_noise(schedule.rows[0], enlarged, standard_normal(enlarged.shape, SEED))
    *_, last = denoise(pipeline.engine, settings, schedule, Conditions(contexts, controls), x)

    drawn = pipeline(PROMPT, control_image, **hires(hires_upscaler="nearest"))
    assert np.array_equal(drawn.images, last.x)


@pytest.mark.parametrize("mode", UPSCALE_MODES)
def test_strength_zero_only_enlarges_the_latents(pipeline, control_image, mode):
    small = torch.from_numpy(pipeline(PROMPT, control_image, **options()).images)
    drawn = pipeline(PROMPT, control_image, **hires(hires_strength=0, hires_upscaler=mode)).images
    wanted = interpolate(small, drawn.shape[2:], mode=mode).numpy()
    np.testing.assert_allclose(drawn, wanted, atol=1e-5)


def test_the_steps_count_through_both_passes(pipeline, control_image):
    steps = []
    pipeline(PROMPT, control_image, on_step=steps.append, **hires(hires_steps=4, hires_strength=0.5))
    assert [(step.index, step.count) for step in steps] == [(i, STEPS + 2) for i in range(STEPS + 2)]
    assert [step.x.shape[2:] for step in steps] == [(8, 16)] * STEPS + [(12, 24)] * 2


def test_latents_that_a_callback_returns_replace_those_of_either_pass(pipeline, control_image):
    def zeros_at(place):
        return lambda step: np.zeros_like(step.x) if step.index == place else None

    plain, first, second = (
        pipeline(PROMPT, control_image, on_step=zeros_at(place), **hires()).images for place in (99, 4, STEPS + 2)
    )
    assert not np.array_equal(first, plain)
    assert not second.any()


def test_the_larger_picture_is_decoded_by_the_small_decoder(pipeline, control_image):
    functions = pipeline.manifest.libraries[0].launches
    assert {name for name in functions if name.startswith("vae")} == {VAE_DECODER, VAE_ENCODER}
    assert pipeline.manifest.sizes == (SMALL, LARGE)
    output = pipeline(PROMPT, control_image, **hires(output_type="pil"))
    assert output.images[0].size == LARGE[::-1]
    assert f"Hires steps: {STEPS}," in output.metadata["parameters"]
    again = pipeline(PROMPT, output.images[0], control_image=control_image, height=LARGE[0], width=LARGE[1], strength=0)
    assert again.images[0].size == LARGE[::-1]  # encoded in tiles too


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"hires_scale": 2}, "size of hires fix: got 256x128, wanted one of .*: 128x64, 192x96; .*--size 256x128"),
        ({"hires_scale": 0.5}, "hires scale: got 0.5, wanted a number of 1 or more"),
        ({"hires_steps": 4}, "hires steps: got one without a hires scale"),
        ({"hires_scale": 1.5, "mask_image": Image.new("L", (128, 64), 255)}, "hires scale: got a mask image beside it"),
    ],
)
def test_what_hires_fix_cannot_do_is_refused_before_anything_is_computed(
    pipeline, control_image, monkeypatch, arguments, message
):
    monkeypatch.setattr(pipeline.engine, "_call", lambda *_: pytest.fail("a component was called"))
    image = {"image": control_image} if "mask_image" in arguments else {}
    with pytest.raises(UserError, match=message):
        pipeline(PROMPT, control_image=control_image, **image, **arguments)
