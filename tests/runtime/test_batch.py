"""Calls for several pictures, and the ways in which diffusers' callers take part in a drawing."""

import numpy as np
import pytest
import torch
from PIL import Image

from mlc_controlnet.errors import UserError
from mlc_controlnet.runtime.batch import seeds_of
from mlc_controlnet.runtime.noise import standard_normal
from mlc_controlnet.runtime.pipeline import ControlNetPipeline
from tests.fixtures.linear_bundle import HEIGHT, LATENT, TEXT_WIDTH, TOKENS, WIDTH


@pytest.fixture(scope="module")
def pipeline(linear_bundle):
    return ControlNetPipeline.from_bundle(linear_bundle)


@pytest.fixture
def ring():
    return Image.fromarray(np.random.default_rng(2).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8))


def test_a_call_for_two_pictures_draws_what_two_calls_draw(pipeline, ring):
    both = pipeline(["gold", "red"], ring, negative_prompt=["navy", "white"], seed=5)
    singles = [
        pipeline(prompt, ring, negative_prompt=negative, seed=seed).images[0]
        for prompt, negative, seed in [("gold", "navy", 5), ("red", "white", 6)]
    ]
    assert [np.array_equal(*pair) for pair in zip(both.images, singles, strict=True)] == [True, True]
    assert not np.array_equal(*singles)


def test_pictures_of_a_prompt_have_consecutive_seeds(pipeline, ring):
    output = pipeline(["gold", "red"], ring, num_images_per_prompt=2, seed=7)
    made = [(picture.settings.prompt, picture.settings.seed) for picture in output.generated]
    assert made == [("gold", 7), ("gold", 8), ("red", 9), ("red", 10)]


def test_every_picture_may_have_its_seed(pipeline, ring):
    output = pipeline("gold", ring, num_images_per_prompt=2, seed=[4, 1])
    assert [picture.settings.seed for picture in output.generated] == [4, 1]


def test_a_picture_is_given_out_when_it_is_finished(pipeline, ring):
    events = []
    pipeline(
        ["gold", "red"],
        ring,
        num_inference_steps=2,
        on_step=lambda step: events.append(step.index),
        on_image=lambda picture: events.append(picture.settings.prompt),
    )
    assert events == [0, 1, "gold", 0, 1, "red"]


def test_a_picture_that_cannot_be_drawn_ends_the_call_before_the_first_is(pipeline, ring, monkeypatch):
    monkeypatch.setattr(pipeline.engine, "_call", lambda *_: pytest.fail("a component was called"))
    with pytest.raises(UserError, match="prompt: got int"):
        pipeline(["gold", 3], ring)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"prompt": ["a", "b"], "negative_prompt": ["a", "b", "c"]},
            "negative prompt: got 3 texts, wanted one text, or 2",
        ),
        ({"prompt": ["a", "b"], "seed": [1]}, "seed: got 1 seeds, wanted one, or 2, one for each picture"),
        ({"prompt": []}, "num images per prompt: got 0 pictures, wanted 1 to 1000 in one call"),
        ({"num_images_per_prompt": 0}, "num images per prompt: got 0 pictures"),
        ({"num_images_per_prompt": 2.0}, "num images per prompt: got 2.0, wanted an integer"),
        (
            {"num_images_per_prompt": 2, "latents": np.zeros(LATENT)},
            r"latents: got \[1, 4, 2, 3\], wanted \[2, C, h, w\]",
        ),
        ({"seed": 2**53 - 1, "num_images_per_prompt": 2}, "seed: got 9007199254740992"),
        ({"output_type": "pt"}, "output type: got 'pt', wanted one of pil, np, latent"),
        ({"generator": 3}, "generator: got int, wanted a torch.Generator"),
        ({"prompt_embeds": np.zeros((1, 3, 8))}, r"prompt embeds: got \[1, 3, 8\], wanted \[1, 77, 8\]"),
        ({"prompt_embeds": [1, 2]}, "prompt embeds: got list, wanted a float32 array"),
        ({"prompt_embeds": np.full((1, 77, 8), np.nan)}, "prompt embeds: got NaN or infinity, wanted finite numbers"),
        ({"prompt": "gold", "prompt_embeds": np.zeros((1, 77, 8))}, "prompt: got a text beside prompt embeds"),
        ({"seed": 3, "generator": torch.Generator()}, "seed and generator: got both, wanted one of them"),
        ({"on_step": print, "callback_on_step_end": print}, "on_step and callback_on_step_end: got both"),
        ({"callback_on_step_end_tensor_inputs": ["prompt_embeds"]}, r"callback tensor inputs: got \['prompt_embeds'\]"),
        ({"output_type": "latent", "padding_mask_crop": 8}, "output type: got latent beside a padding mask crop"),
        ({"timesteps": [1, 2]}, "timesteps: got"),
        ({"eta": 2}, "eta: got 2, wanted a number from 0 to 1"),
    ],
)
def test_a_bad_argument_is_refused_before_anything_is_computed(pipeline, ring, monkeypatch, arguments, message):
    monkeypatch.setattr(pipeline.engine, "_call", lambda *_: pytest.fail("a component was called"))
    with pytest.raises(UserError, match=message):
        pipeline(**{"image": ring, "sampler": "tcd", **arguments})


def test_random_seeds_leave_room_for_the_others():
    first, second, third = seeds_of(None, 3)
    assert (second, third) == (first + 1, first + 2)


def test_a_generators_seed_is_read(pipeline, ring):
    drawn = pipeline("gold", ring, generator=torch.Generator().manual_seed(11)).images[0]
    assert np.array_equal(drawn, pipeline("gold", ring, seed=11).images[0])


def test_a_tuple_takes_the_place_of_the_output_as_in_diffusers(pipeline, ring):
    images, has_nsfw_concept = pipeline("gold", ring, seed=5, return_dict=False)
    assert np.array_equal(images[0], pipeline("gold", ring, seed=5).images[0])
    assert has_nsfw_concept is None


def test_a_callback_of_diffusers_changes_the_latents(pipeline, ring):
    seen = []

    def replace(pipe, index, timestep, values):
        seen.append((pipe is pipeline, index, timestep))
        return {"latents": np.zeros_like(values["latents"])} if index == 3 else {}

    drawn = np.asarray(pipeline("gold", ring, num_inference_steps=4, callback_on_step_end=replace).images[0])
    assert [index for _, index, _ in seen] == [0, 1, 2, 3]
    assert all(is_pipeline for is_pipeline, _, _ in seen)
    assert (drawn == 128).all()  # what the decoder makes of zeros


def test_latents_of_another_shape_from_a_callback_are_refused(pipeline, ring):
    with pytest.raises(UserError, match=r"latents of the callback: got \[1\], wanted \[1, 4, 2, 3\]"):
        pipeline("gold", ring, callback_on_step_end=lambda *_: {"latents": np.zeros(1)})


def test_pictures_come_as_arrays_or_as_latents(pipeline, ring):
    options = {"seed": 5, "num_images_per_prompt": 2}
    pictures = pipeline("gold", ring, **options)
    arrays = pipeline("gold", ring, output_type="np", **options).images
    assert arrays.shape == (2, HEIGHT, WIDTH, 3)
    assert np.array_equal(np.rint(255 * arrays[1]), np.asarray(pictures.images[1]))
    latents = pipeline("gold", ring, output_type="latent", **options).images
    assert latents.shape == (2, *LATENT[1:])
    assert np.array_equal(latents[:1], pictures.generated[0].latents)


def test_embeddings_take_the_place_of_the_prompts(pipeline, ring):
    rng = np.random.default_rng(3)
    embeds = {
        name: rng.normal(size=(1, TOKENS, TEXT_WIDTH)).astype(np.float32)
        for name in ("prompt_embeds", "negative_prompt_embeds")
    }
    by_embeds = np.asarray(pipeline(image=ring, seed=5, **embeds).images[0])
    by_text = np.asarray(pipeline("gold", ring, seed=5).images[0])
    assert not np.array_equal(by_embeds, by_text)


def test_a_sampler_with_noise_draws_the_same_picture_again(pipeline, ring):
    options = {"sampler": "euler_a", "num_inference_steps": 4}
    first, again, other = (np.asarray(pipeline("gold", ring, seed=s, **options).images[0]) for s in (5, 5, 6))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    latents = standard_normal(LATENT, 5)
    same_start = np.asarray(pipeline("gold", ring, seed=6, latents=latents, **options).images[0])
    assert not np.array_equal(first, same_start), "the steps' noise is the seed's"


def test_a_call_while_another_one_is_running_is_refused(pipeline, ring):
    """From another thread, or from a callback of the first."""
    with pytest.raises(UserError, match="pipeline: got a call while another one is running, wanted one call at a time"):
        pipeline("gold", ring, on_step=lambda step: pipeline("red", ring))
    assert pipeline("gold", ring).images  # the pipeline goes on working
