"""The bundled model on the native runtime: the picture is diffusers' own, and it shows what was asked for."""

import numpy as np
import pytest
import torch
from PIL import Image

from mlc_controlnet.export.sampler_descriptions import build_scheduler
from mlc_controlnet.runtime.noise import standard_normal
from mlc_controlnet.runtime.pipeline import ControlNetPipeline
from mlc_controlnet.train.circles.drawing import draw_source
from mlc_controlnet.train.circles.quality import measure
from mlc_controlnet.train.circles.recipe import load_model, unseen_circles

PROMPT = "gold circle with navy background"
MIN_PSNR_DB = 45.0  # of 8-bit pictures


@pytest.fixture(scope="module")
def pipeline(circles_bundle):
    return ControlNetPipeline.from_bundle(circles_bundle)


@pytest.fixture
def diffusers_pipeline(circles_model):
    pipeline = load_model(circles_model)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def psnr_db(picture: np.ndarray, reference: np.ndarray) -> float:
    mean_square = np.mean((picture.astype(np.float64) - reference.astype(np.float64)) ** 2)
    return float(10 * np.log10(255**2 / max(mean_square, 1e-6)))


@pytest.mark.parametrize("guidance_scale", [1.0, 2.0])
@pytest.mark.parametrize("sampler", ["ddim", "pndm", "euler", "heun", "dpmpp_2m", "unipc"])
def test_a_picture_is_diffusers_own(pipeline, diffusers_pipeline, sampler, guidance_scale):
    """The same initial latents, in torch float32 with diffusers' scheduler and compiled with the sampler's rows."""
    model = pipeline.manifest.model
    control_image = Image.fromarray(draw_source(unseen_circles(1)[0]))
    latents = standard_normal((1, model.latent_channels, model.height // 8, model.width // 8), seed=7)
    diffusers_pipeline.scheduler = build_scheduler(sampler, diffusers_pipeline.scheduler.config)
    reference = diffusers_pipeline(
        PROMPT,
        image=control_image,
        num_inference_steps=20,
        guidance_scale=guidance_scale,
        latents=torch.from_numpy(latents),
    ).images[0]
    drawn = pipeline(
        PROMPT, control_image, num_inference_steps=20, guidance_scale=guidance_scale, latents=latents, sampler=sampler
    ).images[0]
    assert np.asarray(reference).std() > 10  # not a flat picture
    assert psnr_db(np.asarray(drawn), np.asarray(reference)) >= MIN_PSNR_DB


@pytest.mark.parametrize("clip_skip", [None, 0, 1])
def test_a_context_is_diffusers_own(pipeline, diffusers_pipeline, clip_skip):
    text_encoder = diffusers_pipeline.text_encoder
    object.__setattr__(text_encoder, "text_model", text_encoder)  # where diffusers looks for the final norm
    with torch.no_grad():
        expected, _ = diffusers_pipeline.encode_prompt(PROMPT, "cpu", 1, False, clip_skip=clip_skip)
    token_ids = diffusers_pipeline.tokenizer(PROMPT, padding="max_length", return_tensors="np").input_ids
    context = pipeline.engine.text_encoder(token_ids.astype(np.int32), clip_skip or 0)
    np.testing.assert_allclose(context.tensor.numpy(), expected.numpy(), atol=1e-4)


def test_the_disc_is_where_the_outline_was_in_the_colours_of_the_prompt(pipeline):
    circles = unseen_circles(8)
    pictures = [
        np.asarray(pipeline(circle.prompt, Image.fromarray(draw_source(circle)), seed=seed).images[0])
        for seed, circle in enumerate(circles)
    ]
    quality = measure(pictures, circles)
    assert quality.fill_accuracy >= 7 / 8
    assert quality.background_accuracy >= 7 / 8
    assert quality.mean_iou >= 0.85


def test_without_conditioning_the_disc_is_somewhere_else(pipeline):
    circles = unseen_circles(4)
    pictures = [
        np.asarray(
            pipeline(
                circle.prompt, Image.fromarray(draw_source(circle)), controlnet_conditioning_scale=0.0, seed=seed
            ).images[0]
        )
        for seed, circle in enumerate(circles)
    ]
    assert measure(pictures, circles).mean_iou < 0.5
