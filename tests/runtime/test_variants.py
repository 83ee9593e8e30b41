"""Sizes, prompts of several chunks and DeepCache on the linear bundle."""

import numpy as np
import pytest
from PIL import Image

from mlc_controlnet.errors import UserError
from mlc_controlnet.runtime.noise import standard_normal
from mlc_controlnet.runtime.pipeline import ControlNetPipeline
from mlc_controlnet.runtime.prompts import tokenize_prompt
from tests.fixtures.linear_bundle import HEIGHT, LATENT, WIDTH, linear_model
from tests.fixtures.variant_bundle import TURNED

NOISE = standard_normal(LATENT, seed=3)


@pytest.fixture(scope="module", params=[False, True], ids=["resident", "reduced"])
def pipeline(request, linear_variant_bundle):
    pipeline = ControlNetPipeline.from_bundle(linear_variant_bundle, reduced_memory=request.param)
    yield pipeline
    pipeline.unload()


@pytest.fixture(scope="module")
def picture():
    return Image.fromarray(np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8))


def turned(picture: Image.Image) -> Image.Image:
    return picture.transpose(Image.Transpose.TRANSPOSE)


def draw(pipeline, picture, prompt="gold", **options):
    return pipeline(prompt, picture, **{"latents": NOISE, "negative_prompt": "navy", **options})


def test_a_picture_on_its_side_is_the_picture_turned(pipeline, picture):
    upright = draw(pipeline, picture).images[0]
    size = {"height": TURNED[0], "width": TURNED[1]}
    on_its_side = draw(pipeline, turned(picture), latents=NOISE.swapaxes(2, 3), **size).images[0]
    assert on_its_side.size == (HEIGHT, WIDTH)
    np.testing.assert_array_equal(np.asarray(turned(on_its_side)), np.asarray(upright))
    assert np.asarray(upright).std() > 10  # not a flat picture


def test_a_picture_on_its_side_is_started_from_turned_too(pipeline, picture):
    control = Image.new("RGB", (WIDTH, HEIGHT), "gray")
    upright = draw(pipeline, picture, control_image=control, strength=0.5).images[0]
    options = {"height": TURNED[0], "width": TURNED[1], "strength": 0.5, "latents": NOISE.swapaxes(2, 3)}
    on_its_side = draw(pipeline, turned(picture), control_image=turned(control), **options).images[0]
    np.testing.assert_array_equal(np.asarray(turned(on_its_side)), np.asarray(upright))


def test_without_controlnets_the_residuals_have_the_pictures_size(pipeline, picture):
    size = {"height": TURNED[0], "width": TURNED[1], "controlnet_conditioning_scale": 0.0}
    on_its_side = draw(pipeline, turned(picture), latents=NOISE.swapaxes(2, 3), **size).images[0]
    upright = draw(pipeline, picture, controlnet_conditioning_scale=0.0).images[0]
    np.testing.assert_array_equal(np.asarray(turned(on_its_side)), np.asarray(upright))


def test_a_prompt_of_two_equal_chunks_is_that_of_one(pipeline, picture):
    """The UNet reads the mean of the context."""
    for size in ({}, {"height": TURNED[0], "width": TURNED[1], "latents": NOISE.swapaxes(2, 3)}):
        one = draw(pipeline, picture, "gold", negative_prompt="navy", **size)
        two = draw(pipeline, picture, "gold BREAK gold", negative_prompt="navy BREAK navy", **size)
        assert two.notices == one.notices
        difference = np.asarray(two.images[0], int) - np.asarray(one.images[0], int)
        assert np.abs(difference).max() <= 1


def test_a_text_gets_the_length_of_the_encoded_prompt_beside_it(pipeline, picture):
    long = "gold BREAK circle"
    chunks = tokenize_prompt(long, pipeline._tokenizers[0], max_chunks=2).chunks
    encoded = [pipeline.engine.text_encoder(c.token_ids).tensor.numpy() for c in chunks]
    negative = {"negative_prompt": "navy", "guidance_scale": 3.0, "seed": 5}
    by_text = pipeline(long, picture, **negative).images[0]
    by_embeds = pipeline(image=picture, prompt_embeds=np.concatenate(encoded, axis=1), **negative).images[0]
    assert np.array_equal(by_text, by_embeds)
    cut = pipeline(image=picture, prompt_embeds=encoded[0], **{**negative, "negative_prompt": long})
    assert cut.notices == ("negative prompt: longer than 77 tokens, this end was cut: 'circle'",)


def test_a_prompt_of_three_chunks_loses_the_third(pipeline, picture):
    (notice,) = draw(pipeline, picture, "gold BREAK navy BREAK teal").notices
    assert notice == "prompt: longer than 152 tokens, this end was cut: 'teal'"


def test_deepcache_reads_what_the_whole_steps_left(pipeline, picture):
    """Without a ControlNet, the linear UNet's feature is the text alone: the same in every step."""
    whole = draw(pipeline, picture, num_inference_steps=6).images[0]
    cached = draw(pipeline, picture, num_inference_steps=6, deepcache_interval=3).images[0]
    assert np.abs(np.asarray(cached, int) - np.asarray(whole, int)).max() > 1  # the residual of the middle is older
    uncontrolled = {"num_inference_steps": 6, "controlnet_conditioning_scale": 0.0}
    whole = draw(pipeline, picture, **uncontrolled).images[0]
    cached = draw(pipeline, picture, deepcache_interval=3, **uncontrolled).images[0]
    np.testing.assert_array_equal(np.asarray(cached), np.asarray(whole))


def test_a_size_that_the_bundle_does_not_have_is_refused_before_anything_runs(pipeline, picture):
    with pytest.raises(
        UserError, match="size: got 32x16, wanted one of this bundle's, width x height: 24x16, 16x24, 48x32"
    ):
        draw(pipeline, picture, width=32)


def test_hires_fix_decodes_in_tiles_what_the_decoder_makes_of_each_cell(pipeline, picture):
    """This decoder reads each latent cell alone, so tiles of it are the whole."""
    output = draw(pipeline, picture, hires_scale=2)
    assert output.images[0].size == (2 * WIDTH, 2 * HEIGHT)
    rgb = np.einsum("chw,rc->hwr", output.generated[0].latents[0].astype(np.float64), linear_model().colors)
    wanted = np.rint(255 * np.clip(rgb.repeat(8, 0).repeat(8, 1) / 2 + 0.5, 0, 1))
    assert np.abs(np.asarray(output.images[0]) - wanted).max() <= 1
    assert wanted.std() > 10  # not a flat picture
