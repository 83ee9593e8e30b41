"""Pictures that a drawing starts from, on a bundle whose picture numpy can draw: img2img and masks."""

import numpy as np
import pytest
from PIL import Image

from mlc_controlnet.errors import UserError
from mlc_controlnet.runtime.mask_options import MASKED_CONTENTS
from mlc_controlnet.runtime.noise import standard_normal
from mlc_controlnet.runtime.pipeline import ControlNetPipeline
from mlc_controlnet.runtime.samplers.schedule import build_schedule
from tests.fixtures.linear_bundle import (
    HEIGHT,
    LATENT,
    SCALING_FACTOR,
    WIDTH,
    linear_model,
    sampler_descriptions,
)
from tests.runtime.test_pipeline import step_with_numpy, tokens

OPTIONS = {"num_inference_steps": 4, "guidance_scale": 1.0, "seed": 5}


@pytest.fixture(scope="module")
def pipeline(linear_bundle):
    return ControlNetPipeline.from_bundle(linear_bundle)


@pytest.fixture(scope="module")
def inpainting_pipeline(linear_inpainting_bundle):
    return ControlNetPipeline.from_bundle(linear_inpainting_bundle)


def random_picture(seed):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8))


@pytest.fixture
def ring():
    return random_picture(2)


@pytest.fixture
def picture():
    return random_picture(3)


@pytest.fixture
def mask():
    """White but for the last column of cells."""
    mask = Image.new("L", (WIDTH, HEIGHT), 255)
    mask.paste(0, (WIDTH - 8, 0, WIDTH, HEIGHT))
    return mask


def decoded(x):
    return np.rint(255 * np.clip(linear_model().vae_decoder(x)[0].transpose(1, 2, 0) / 2 + 0.5, 0, 1))


def latents_of(picture):
    moments = linear_model().vae_encoder((np.asarray(picture) / 127.5 - 1).transpose(2, 0, 1)[None])
    return moments[:, : LATENT[1]] * SCALING_FACTOR


def draw_with_numpy(ring, picture, strength, mask=None, sampler="ddim"):
    """OPTIONS, as diffusers' img2img and, with a mask, its inpainting with a UNet of four channels."""
    model, latents, noise = linear_model(), latents_of(picture), standard_normal(LATENT, 5).astype(np.float64)
    schedule = build_schedule(sampler_descriptions(), sampler, 4, strength=strength)
    control = model.control_embedding(np.asarray(ring).transpose(2, 0, 1)[None] / 255)
    context = model.text_encoder(tokens("gold"))

    def noised(i):
        if i == len(schedule.rows):
            return latents
        return schedule.rows[i].signal_scale * latents + schedule.rows[i].noise_scale * noise

    x = noise * schedule.init_noise_sigma if mask is not None and strength == 1 else noised(0)
    for i, row in enumerate(schedule.rows):
        scaled = x * row.input_scale
        residuals = model.controlnet(scaled, row.timestep, context, control, 1.0)
        x = step_with_numpy(row, x, model.unet(scaled, row.timestep, context, *residuals))
        if mask is not None:
            repainted = (np.asarray(mask) > 127)[None, None, ::8, ::8]
            x = np.where(repainted, x, noised(i + 1))
    return decoded(x)


@pytest.mark.parametrize("sampler", ["ddim", "euler"])
@pytest.mark.parametrize("strength", [0.25, 0.8, 1.0])
def test_img2img_is_what_numpy_draws(pipeline, ring, picture, strength, sampler):
    output = pipeline("gold", picture, control_image=ring, strength=strength, sampler=sampler, **OPTIONS)
    expected = draw_with_numpy(ring, picture, strength, sampler=sampler)
    assert np.abs(np.asarray(output.images[0]) - expected).max() <= 1


def test_strength_is_diffusers_if_it_is_left_out(pipeline, ring, picture, mask):
    assert pipeline("gold", picture, control_image=ring).settings.strength == 0.8
    assert pipeline("gold", picture, control_image=ring, mask_image=mask).settings.strength == 1.0


def test_strength_zero_is_the_way_through_the_vae(pipeline, ring, picture):
    steps = []
    output = pipeline("gold", picture, control_image=ring, strength=0, on_step=steps.append)
    assert np.abs(np.asarray(output.images[0]) - decoded(latents_of(picture))).max() <= 1
    assert steps == []


@pytest.mark.parametrize("sampler", ["ddim", "euler"])
@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_a_unet_of_four_channels_repaints_what_numpy_repaints(pipeline, ring, picture, mask, strength, sampler):
    options = {"strength": strength, "sampler": sampler, "apply_overlay": False, **OPTIONS}
    output = pipeline("gold", picture, control_image=ring, mask_image=mask, **options)
    expected = draw_with_numpy(ring, picture, strength, mask, sampler)
    assert np.abs(np.asarray(output.images[0]) - expected).max() <= 1
    assert np.abs(expected - draw_with_numpy(ring, picture, strength, sampler=sampler)).max() > 1


@pytest.mark.parametrize("strength", [0, 0.5])
def test_latents_in_place_of_the_picture_are_what_the_encoder_makes_of_it(
    pipeline, ring, picture, strength, monkeypatch
):
    options = {"control_image": ring, "strength": strength, **OPTIONS}
    wanted = pipeline("gold", picture, **options)
    latents = pipeline("gold", picture, output_type="latent", **{**options, "strength": 0}).images
    monkeypatch.setattr(pipeline.engine, "vae_encoder", lambda *_: pytest.fail("the latents were encoded"))
    assert np.array_equal(pipeline("gold", latents, **options).images[0], wanted.images[0])


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (
            np.zeros((1, 4, 3, 2), np.float32),
            r"image: got \[1, 4, 3, 2\], wanted \[1, 4, 2, 3\] of finite numbers; pass",
        ),
        (np.full((1, 4, 2, 3), np.inf, np.float32), "image: got .* with NaN or infinity"),
    ],
)
def test_latents_of_another_shape_are_refused(pipeline, ring, image, message):
    with pytest.raises(UserError, match=message):
        pipeline("gold", image, control_image=ring)


def test_latents_have_no_pixels_to_keep_outside_of_a_mask(pipeline, ring, mask):
    with pytest.raises(UserError, match="image: got latents beside a mask image, wanted a picture"):
        pipeline("gold", np.zeros((1, 4, 2, 3), np.float32), mask_image=mask, control_image=ring)


@pytest.mark.parametrize("kind", ["pipeline", "inpainting_pipeline"])
def test_each_masked_content_draws_another_picture(request, kind, ring, picture, mask):
    pipeline = request.getfixturevalue(kind)
    options = {"control_image": ring, "mask_image": mask, "strength": 0.5, **OPTIONS}
    drawn = {c: np.asarray(pipeline("gold", picture, masked_content=c, **options).images[0]) for c in MASKED_CONTENTS}
    assert len({array.tobytes() for array in drawn.values()}) == len(MASKED_CONTENTS)
    assert np.array_equal(drawn["original"], np.asarray(pipeline("gold", picture, **options).images[0]))


@pytest.mark.parametrize("kind", ["pipeline", "inpainting_pipeline"])
def test_the_picture_stays_as_it_is_outside_of_the_mask(request, kind, ring, picture, mask):
    pipeline = request.getfixturevalue(kind)
    drawn = np.asarray(pipeline("gold", picture, control_image=ring, mask_image=mask, **OPTIONS).images[0])
    kept = np.asarray(mask) == 0
    assert np.array_equal(drawn[kept], np.asarray(picture)[kept])
    assert not np.array_equal(drawn[~kept], np.asarray(picture)[~kept])


@pytest.mark.parametrize("kind", ["pipeline", "inpainting_pipeline"])
def test_a_black_mask_returns_the_picture(request, kind, ring, picture):
    pipeline, black = request.getfixturevalue(kind), Image.new("L", (WIDTH, HEIGHT), 0)
    drawn = pipeline("gold", picture, control_image=ring, mask_image=black, **OPTIONS).images[0]
    assert np.array_equal(np.asarray(drawn), np.asarray(picture))


def test_an_inpainting_model_of_nine_channels_starts_from_the_noised_picture(inpainting_pipeline, ring, picture, mask):
    options = {"control_image": ring, "mask_image": mask, **OPTIONS}
    drawn = [np.asarray(inpainting_pipeline("gold", picture, strength=s, **options).images[0]) for s in (0.5, 1.0)]
    assert not np.array_equal(*drawn)


def test_only_the_part_around_the_mask_is_drawn_and_put_back_into_a_large_photo(pipeline, ring):
    photo = Image.fromarray(np.random.default_rng(6).integers(0, 256, (300, 400, 3), np.uint8))
    mask = Image.new("L", photo.size, 0)
    mask.paste(255, (100, 120, 140, 150))
    output = pipeline("gold", photo, control_image=ring, mask_image=mask, padding_mask_crop=8, **OPTIONS)
    drawn, before = np.asarray(output.images[0]), np.asarray(photo)
    changed = (drawn != before).any(axis=2)
    assert drawn.shape == before.shape
    assert changed[120:150, 100:140].mean() > 0.9
    changed[120:150, 100:140] = False
    assert not changed.any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"strength": 1.5}, "strength: got 1.5, wanted a number from 0 to 1"),
        ({"mask_blur": -1}, "mask blur: got -1"),
        ({"padding_mask_crop": -1}, "padding mask crop: got -1"),
        ({"padding_mask_crop": 8, "mask_image": None}, "padding mask crop: got 8 without a mask image"),
        ({"image": None}, "image: got none, wanted a picture and a mask"),
        ({"apply_overlay": 1}, "apply overlay: got 1, wanted True or False"),
    ],
)
def test_a_bad_argument_is_refused_before_anything_is_computed(
    pipeline, ring, picture, mask, monkeypatch, arguments, message
):
    monkeypatch.setattr(pipeline.engine, "_call", lambda *_: pytest.fail("a component was called"))
    with pytest.raises(UserError, match=message):
        pipeline(**{"prompt": "a", "image": picture, "mask_image": mask, "control_image": ring, **arguments})
