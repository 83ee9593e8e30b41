import dataclasses
import itertools
import json

import numpy as np
import pytest
import tvm
from PIL import Image

from mlc_controlnet.errors import UserError
from mlc_controlnet.runtime.control_image import prepare_control_image
from mlc_controlnet.runtime.denoising import Conditions, denoise, guide, to_picture
from mlc_controlnet.runtime.noise import standard_normal
from mlc_controlnet.runtime.pipeline import ControlNetPipeline
from mlc_controlnet.runtime.request import GenerateRequest
from mlc_controlnet.runtime.resolve import schedule_of
from mlc_controlnet.runtime.samplers.schedule import build_schedule
from tests.fixtures.linear_bundle import (
    BEGIN_ID,
    END_ID,
    HEIGHT,
    LATENT,
    SCALING_FACTOR,
    TEXT_WIDTH,
    TOKENS,
    WIDTH,
    linear_model,
    sampler_descriptions,
)


@pytest.fixture(scope="module")
def pipeline(linear_bundle):
    return ControlNetPipeline.from_bundle(linear_bundle.path)


@pytest.fixture
def ring():
    return Image.fromarray(np.random.default_rng(2).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8))


def tokens(prompt):
    """By hand: the linear bundle's tokenizer has one token a letter, in the order of the byte-level alphabet."""
    ids = [BEGIN_ID, *(ord(letter) - ord("!") for letter in prompt), END_ID]
    return np.array([ids + [END_ID] * (TOKENS - len(ids))])


def step_with_numpy(row, x, m):
    """A row of a sampler without history, as ddim and euler are."""
    (sample,), (output,) = row.next_samples, row.next_outputs
    return sample * x + output * (row.output_sample * x + row.output_model * m)


def draw_with_numpy(
    prompt,
    negative,
    image,
    steps,
    guidance,
    scale,
    seed,
    sampler="ddim",
    negative_scale=None,
    extra_channels=(),
    encode=lambda text: linear_model().text_encoder(tokens(text)),
):
    """The pipeline's semantics once more, in float64 and in as few words as possible."""
    model, schedule = linear_model(), build_schedule(sampler_descriptions(), sampler, steps)
    control = model.control_embedding(np.asarray(image).transpose(2, 0, 1)[None] / 255)
    contexts = [encode(text) for text in (negative, prompt)]
    scales = [scale if negative_scale is None else negative_scale, scale]
    x = standard_normal(LATENT, seed).astype(np.float64) * schedule.init_noise_sigma
    for row in schedule.rows:
        scaled = x * row.input_scale
        residuals = [
            model.controlnet(scaled, row.timestep, c, control, s) for c, s in zip(contexts, scales, strict=True)
        ]
        sample = np.concatenate([scaled, *extra_channels], axis=1)
        outputs = [model.unet(sample, row.timestep, c, *r) for c, r in zip(contexts, residuals, strict=True)]
        x = step_with_numpy(row, x, outputs[0] + guidance * (outputs[1] - outputs[0]))
    return np.rint(255 * np.clip(model.vae_decoder(x)[0].transpose(1, 2, 0) / 2 + 0.5, 0, 1))


@pytest.mark.parametrize(
    ("steps", "guidance", "scale", "sampler"),
    [(1, 2.0, 1.0, "ddim"), (4, 3.5, 0.5, "ddim"), (20, 2.0, 1.0, "ddim"), (4, 2.0, 0.0, "euler")],
)
def test_a_picture_is_what_numpy_draws(pipeline, ring, steps, guidance, scale, sampler):
    output = pipeline(
        "gold",
        ring,
        num_inference_steps=steps,
        guidance_scale=guidance,
        negative_prompt="navy",
        controlnet_conditioning_scale=scale,
        seed=5,
        sampler=sampler,
    )
    expected = draw_with_numpy("gold", "navy", ring, steps, guidance, scale, 5, sampler)
    assert output.images[0].size == (WIDTH, HEIGHT)
    assert np.abs(np.asarray(output.images[0]) - expected).max() <= 1  # a value near .5 may round the other way
    assert expected.std() > 1  # not a flat picture


def test_weights_and_skipped_layers_change_the_contexts(pipeline, ring):
    weights = {"gold": [1, 1, 1.5, 1.5, 0.5, *[1] * 72], "navy": [1, *[0.7] * 4, *[1] * 72]}

    def encode(text):
        context = linear_model().text_encoder(tokens(text), clip_skip=1)
        weighted = context * np.array(weights[text])[None, :, None]
        return weighted * context.mean() / weighted.mean()

    options = {"num_inference_steps": 4, "guidance_scale": 2.0, "seed": 5}
    output = pipeline("g(ol:1.5)(d:.5)", ring, negative_prompt="(navy:0.7)", clip_skip=1, **options)
    expected = draw_with_numpy("gold", "navy", ring, 4, 2.0, 1.0, 5, encode=encode)
    plain = draw_with_numpy("gold", "navy", ring, 4, 2.0, 1.0, 5)
    picture = np.asarray(output.images[0])
    assert np.abs(picture - expected).max() <= 1
    assert np.abs(picture - plain).max() > 10


def test_a_plain_prompt_has_brackets_and_no_weights(pipeline, ring):
    options = {"num_inference_steps": 4, "guidance_scale": 2.0, "negative_prompt": "[a|b]", "seed": 5}
    output = pipeline("(gold:1.5)", ring, prompt_syntax="plain", **options)
    expected = draw_with_numpy("(gold:1.5)", "[a|b]", ring, 4, 2.0, 1.0, 5)
    assert np.abs(np.asarray(output.images[0]) - expected).max() <= 1


def test_without_guidance_the_negative_prompt_is_not_read(pipeline, ring):
    pictures = [
        np.asarray(pipeline("gold", ring, guidance_scale=1.0, negative_prompt=text, seed=5).images[0])
        for text in ("navy", "red")
    ]
    assert np.array_equal(*pictures)
    assert np.abs(pictures[0] - draw_with_numpy("gold", "navy", ring, 4, 1.0, 1.0, 5)).max() <= 1


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_a_controlnet_that_pools_its_residuals_runs_for_the_prompt_only(linear_bundle, ring, monkeypatch, guidance):
    manifest = linear_bundle.manifest
    controlnets = (dataclasses.replace(manifest.controlnets[0], global_pool_conditions=True),)
    pools = dataclasses.replace(manifest, controlnets=controlnets)
    pipeline = ControlNetPipeline.from_bundle(dataclasses.replace(linear_bundle, manifest=pools))
    calls, sound = [], pipeline.engine._call
    monkeypatch.setattr(pipeline.engine, "_call", lambda name, *inputs: [calls.append(name), sound(name, *inputs)][1])
    output = pipeline("gold", ring, num_inference_steps=4, guidance_scale=guidance, negative_prompt="navy", seed=5)
    expected = draw_with_numpy("gold", "navy", ring, 4, guidance, 1.0, 5, negative_scale=0.0)
    assert np.abs(np.asarray(output.images[0]) - expected).max() <= 1
    assert (calls.count("controlnet"), calls.count("unet")) == (4, 4 * guidance)


@pytest.fixture(scope="module")
def inpainting_pipeline(linear_inpainting_bundle):
    return ControlNetPipeline.from_bundle(linear_inpainting_bundle)


@pytest.fixture
def picture():
    return Image.fromarray(np.random.default_rng(3).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8))


@pytest.fixture
def mask():
    """White but for the last column of cells."""
    mask = Image.new("L", (WIDTH, HEIGHT), 255)
    mask.paste(0, (WIDTH - 8, 0, WIDTH, HEIGHT))
    return mask


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_an_inpainting_models_picture_is_what_numpy_draws(inpainting_pipeline, ring, picture, mask, guidance):
    options = {"num_inference_steps": 4, "guidance_scale": guidance, "negative_prompt": "navy", "seed": 5}
    options["apply_overlay"] = False
    output = inpainting_pipeline("gold", picture, mask_image=mask, control_image=ring, **options)
    kept = (np.asarray(picture) / 127.5 - 1) * (np.asarray(mask) < 128)[..., None]
    moments = linear_model().vae_encoder(kept.transpose(2, 0, 1)[None])
    extra_channels = [(np.asarray(mask) > 127)[None, None, ::8, ::8], moments[:, : LATENT[1]] * SCALING_FACTOR]
    expected = draw_with_numpy("gold", "navy", ring, 4, guidance, 1.0, 5, extra_channels=extra_channels)
    assert np.abs(np.asarray(output.images[0]) - expected).max() <= 1
    without = draw_with_numpy("gold", "navy", ring, 4, guidance, 1.0, 5)
    assert np.abs(without - expected).max() > 10


def test_changes_to_the_picture_and_the_mask_are_reported(inpainting_pipeline, ring, picture, mask):
    double = (2 * WIDTH, 2 * HEIGHT)
    output = inpainting_pipeline("a", picture.resize(double), mask_image=mask.resize(double), control_image=ring)
    assert output.notices == tuple(f"{name}: 48x32 was scaled to cover 24x16" for name in ("image", "mask image"))


@pytest.mark.parametrize(
    ("lacking", "message"),
    [
        ("image", "^image: got none, wanted a picture and a mask that is white where the model repaints; pass both"),
        ("mask_image", "^mask image: got none, wanted a picture and a mask"),
        ("control_image", "^control image: got none, wanted 1, one for each ControlNet in use"),
    ],
)
def test_an_inpainting_model_needs_three_pictures(
    inpainting_pipeline, ring, picture, mask, monkeypatch, lacking, message
):
    monkeypatch.setattr(inpainting_pipeline.engine, "_call", lambda *_: pytest.fail("a component was called"))
    with pytest.raises(UserError, match=message):
        inpainting_pipeline("a", **{"image": picture, "mask_image": mask, "control_image": ring, lacking: None})


def test_an_inpainting_model_does_not_draw_from_a_control_image_alone(inpainting_pipeline, ring):
    with pytest.raises(UserError, match="image: got none, wanted a picture and a mask"):
        inpainting_pipeline("gold", ring)


def test_a_nan_in_the_encoder_is_named(linear_inpainting_bundle, ring, picture, mask, monkeypatch):
    pipeline = ControlNetPipeline.from_bundle(linear_inpainting_bundle)
    monkeypatch.setattr(pipeline.engine, "vae_encoder", lambda image: np.full((1, 2 * LATENT[1], 2, 3), np.nan))
    with pytest.raises(UserError, match="vae_encoder, before step 1: got NaN or infinity in 48 of 48 numbers"):
        pipeline("gold", picture, mask_image=mask, control_image=ring)


def test_the_bundles_defaults_replace_missing_options(pipeline, ring):
    options = {"num_inference_steps": 4, "guidance_scale": 2.0, "negative_prompt": "", "sampler": "ddim"}
    explicit = pipeline("gold", ring, seed=0, controlnet_conditioning_scale=1.0, **options)
    by_default = pipeline("gold", ring, seed=0)
    assert by_default.settings == explicit.settings
    assert np.array_equal(by_default.images[0], explicit.images[0])


def test_the_schedule_of_the_same_options_is_computed_once(pipeline, ring, monkeypatch):
    made = []
    monkeypatch.setattr(
        "mlc_controlnet.runtime.samplers.schedule.build_schedule",
        lambda *given, **options: made.append(given[2]) or build_schedule(*given, **options),
    )
    for steps in (17, 17, 18):  # that no other test draws with
        pipeline("gold", ring, num_inference_steps=steps, seed=5)
    assert made == [17, 18]


def test_an_option_that_does_not_exist_is_refused(pipeline, ring):
    with pytest.raises(TypeError, match="stpes"):
        pipeline("gold", ring, stpes=4)


def test_seed_zero_is_kept(pipeline, ring):
    assert pipeline("gold", ring, seed=0).settings.seed == 0


@pytest.mark.parametrize(
    ("interval", "steered"),
    [((0.0, 1.0), [0, 1, 2, 3]), ((0.0, 0.5), [0, 1]), ((0.25, 0.75), [1, 2]), ((0.3, 1.0), [2, 3]), ((0.9, 1.0), [])],
)
def test_only_the_steps_of_its_share_run_the_controlnet(pipeline, ring, monkeypatch, interval, steered):
    calls, sound = [], pipeline.engine._call
    monkeypatch.setattr(pipeline.engine, "_call", lambda name, *inputs: [calls.append(name), sound(name, *inputs)][1])
    zeros, make_zeros = [], pipeline.engine.zero_residuals
    monkeypatch.setattr(pipeline.engine, "zero_residuals", lambda *size: [zeros.append(1), make_zeros(*size)][1])
    start, end = interval
    shares = {"control_guidance_start": start, "control_guidance_end": end}
    pipeline("gold", ring, num_inference_steps=4, guidance_scale=1.0, seed=5, **shares)
    steps = [[]]
    for name in (name for name in calls if name in ("controlnet", "unet")):
        steps[-1].append(name)
        if name == "unet":
            steps.append([])
    assert [index for index, step in enumerate(steps) if "controlnet" in step] == steered
    assert len(zeros) == (len(steered) < 4), "once per picture, if a step needs them"


def test_a_missing_seed_is_random_and_reported(pipeline, ring):
    first, second = pipeline("gold", ring), pipeline("gold", ring)
    assert first.settings.seed != second.settings.seed
    again = pipeline("gold", ring, seed=first.settings.seed)
    assert np.array_equal(first.images[0], again.images[0])


def test_zero_is_a_guidance_and_a_conditioning_scale(pipeline, ring):
    settings = pipeline("gold", ring, guidance_scale=0, controlnet_conditioning_scale=0).settings
    assert (settings.guidance_scale, settings.controlnet_conditioning_scale) == (0, 0)


def test_latents_replace_the_seeds_noise(pipeline, ring):
    latents = standard_normal(LATENT, 5)
    by_seed, by_latents = pipeline("gold", ring, seed=5), pipeline("gold", ring, seed=6, latents=latents)
    assert np.array_equal(by_seed.images[0], by_latents.images[0])


def test_the_loop_belongs_to_the_caller(pipeline, ring):
    """Only as many steps are computed as are asked for."""
    request = GenerateRequest(prompt="gold", control_image=ring, num_inference_steps=20, seed=5)
    settings = pipeline.resolve(request)
    controls = pipeline.embed_controls(settings, [prepare_control_image(ring, HEIGHT, WIDTH).array])
    contexts, _ = pipeline.encode_prompts(settings, request)
    schedule = schedule_of(settings, sampler_descriptions())
    steps = denoise(
        pipeline.engine, settings, schedule, Conditions(contexts, controls), pipeline.initial_noise(settings)
    )
    seen = list(itertools.islice(steps, 3))
    assert [(step.index, step.count, step.timestep) for step in seen] == [(0, 20, 951), (1, 20, 901), (2, 20, 851)]


def test_every_step_is_reported_with_a_preview(pipeline, ring):
    steps = []
    pipeline("gold", ring, seed=5, on_step=steps.append)
    assert [step.index for step in steps] == [0, 1, 2, 3]
    preview = pipeline.manifest.latent_preview
    rgb = np.einsum("rc,chw->hwr", np.array(preview.weight), steps[-1].x0[0]) + np.array(preview.bias)
    assert steps[-1].preview.size == (LATENT[3], LATENT[2])
    assert np.array_equal(np.asarray(steps[-1].preview), np.rint(255 * rgb.clip(0, 1)))


def test_a_callback_can_end_the_loop(pipeline, ring):
    class Enough(Exception):
        pass

    def stop(step):
        raise Enough

    with pytest.raises(Enough):
        pipeline("gold", ring, on_step=stop)
    assert pipeline("gold", ring, seed=1).images  # the pipeline goes on working


def test_the_metadata_says_how_the_picture_was_made(pipeline, linear_bundle, ring):
    output = pipeline("gold", ring, seed=9007199254740991, negative_prompt="navy", guidance_scale=7.25)
    assert set(output.metadata) == {"parameters", "mlc-controlnet"}
    assert output.metadata["parameters"].startswith("gold\nNegative prompt: navy\nSteps: 4, Sampler: DDIM, ")
    assert json.loads(output.metadata["mlc-controlnet"]) == {
        "prompt": "gold",
        "negative_prompt": "navy",
        "prompt_syntax": "webui",
        "clip_skip": "0",
        "seed": "9007199254740991",
        "num_inference_steps": "4",
        "guidance_scale": "7.25",
        "guidance_rescale": "0",
        "controlnets": '["lines"]',
        "controlnet_conditioning_scale": "1",
        "control_guidance_start": "0",
        "control_guidance_end": "1",
        "control_mode": "balanced",
        "guess_mode": "false",
        "sampler": "ddim",
        "eta": "0",
        "height": "16",
        "width": "24",
        "deepcache_interval": "1",
        "strength": "1",
        "mask_blur": "0",
        "masked_content": "original",
        "apply_overlay": "true",
        "model": "linear",
        "bundle_sha256": linear_bundle.sha256,
    }


def test_a_prompt_that_is_too_long_is_cut_with_a_notice(pipeline, ring):
    output = pipeline("x" * (TOKENS - 3) + " and the end", ring)
    assert output.notices == ("prompt: longer than 77 tokens, this end was cut: 'and the end'",)


def test_changes_to_the_control_image_are_reported(pipeline):
    assert "scaled to cover 24x16" in pipeline("gold", Image.new("RGB", (50, 50))).notices[0]


BAD_ARGUMENTS = [
    ({"num_inference_steps": 0}, "num inference steps: got 0, wanted 1 to 1000 for the sampler ddim"),
    ({"num_inference_steps": 1001}, "num inference steps: got 1001"),
    ({"num_inference_steps": -1}, "num inference steps: got -1"),
    ({"num_inference_steps": 4.0}, "num inference steps: got 4.0, wanted an integer"),
    ({"sampler": "plms"}, "sampler: got 'plms', wanted one of ddim, dpmpp_2m, euler"),
    ({"guidance_scale": float("nan")}, "guidance scale: got nan, wanted a finite number"),
    ({"controlnet_conditioning_scale": float("inf")}, "controlnet conditioning scale: got inf"),
    ({"control_guidance_start": float("nan")}, "control guidance start: got nan, wanted a finite number"),
    ({"control_guidance_end": 1.5}, "control guidance: got from 0 to 1.5, wanted 0 <= start < end <= 1; leave both"),
    ({"control_guidance_start": 0.6, "control_guidance_end": 0.6}, "control guidance: got from 0.6 to 0.6"),
    ({"seed": -1}, "seed: got -1"),
    ({"prompt": ["gold", 3]}, "prompt: got int, wanted one string"),
    ({"negative_prompt": 3}, "negative prompt: got int, wanted one string"),
    ({"image": "ring.png"}, "control image: got str"),
    ({"latents": np.zeros((1, 4, 3, 2), np.float32)}, r"latents: got \[1, 4, 3, 2\], wanted \[1, 4, 2, 3\]"),
    ({"latents": np.full(LATENT, np.nan)}, "latents: got .* with NaN or infinity"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD_ARGUMENTS)
def test_a_bad_argument_is_refused_before_anything_is_computed(pipeline, ring, monkeypatch, arguments, message):
    monkeypatch.setattr(pipeline.engine, "_call", lambda *_: pytest.fail("a component was called"))
    with pytest.raises(UserError, match=message):
        pipeline(**{"prompt": "gold", "image": ring, **arguments})


@pytest.mark.parametrize("component", ["text_encoder", "control_embedding", "controlnet", "unet"])
def test_a_nan_names_the_component_it_came_from_and_the_step(linear_bundle, ring, monkeypatch, component):
    """What runs once a picture at once, the others from the second step on; NaN spreads to whatever reads it."""
    pipeline = ControlNetPipeline.from_bundle(linear_bundle)
    once = {"text_encoder": (1, TOKENS, TEXT_WIDTH), "control_embedding": LATENT}
    sound = pipeline.engine._call
    calls = itertools.count()

    def broken(name, *inputs):
        if name != component or (name not in once and next(calls) == 0):
            return sound(name, *inputs)
        if name in once:
            return tvm.runtime.tensor(np.full(once[name], np.nan, np.float32))
        return sound(name, np.full(LATENT, np.nan, np.float32), *inputs[1:])

    monkeypatch.setattr(pipeline.engine, "_call", broken)
    step = 1 if component in once else 2
    with pytest.raises(UserError, match=rf"{component}, step {step} of 4: got NaN or infinity in .* numbers"):
        pipeline("gold", ring, guidance_scale=1.0, seed=5)


def test_a_nan_in_the_decoder_is_named_too(linear_bundle, ring, monkeypatch):
    pipeline = ControlNetPipeline.from_bundle(linear_bundle)
    monkeypatch.setattr(pipeline.engine, "vae_decoder", lambda x: np.full((1, 3, HEIGHT, WIDTH), np.inf))
    with pytest.raises(UserError, match="vae_decoder, after 4 steps: got NaN or infinity"):
        pipeline("gold", ring, seed=5)


def test_guidance_moves_from_the_negative_output_through_the_positive_one():
    negative, positive = np.full(LATENT, 1.0, np.float32), np.full(LATENT, 3.0, np.float32)
    assert (guide([negative, positive], 2.5) == 6.0).all()
    assert (guide([positive], 2.5) == 3.0).all()


def test_a_picture_is_clipped_and_rounded():
    rgb = np.array([[[-1.0, 0.0, 0.499 / 255], [0.501 / 255, 1.0, 2.0]]])
    assert np.asarray(to_picture(rgb)).tolist() == [[[0, 0, 0], [1, 255, 255]]]


def test_a_damaged_sampler_file_is_named(linear_bundle):
    manifest = linear_bundle.manifest
    moved = dataclasses.replace(manifest, samplers=dataclasses.replace(manifest.samplers, file=manifest.tokenizer.file))
    with pytest.raises(UserError, match=r"tokenizer/tokenizer.json"):
        ControlNetPipeline.from_bundle(dataclasses.replace(linear_bundle, manifest=moved))
