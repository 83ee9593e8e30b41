"""Several ControlNets, guess mode and the control modes, on a bundle whose picture numpy can draw."""

import numpy as np
import pytest
from PIL import Image

from mlc_controlnet.errors import UserError
from mlc_controlnet.runtime.controls import guess_scales, mode_scales
from mlc_controlnet.runtime.noise import standard_normal
from mlc_controlnet.runtime.pipeline import ControlNetPipeline
from mlc_controlnet.runtime.samplers.schedule import build_schedule
from tests.fixtures.linear_bundle import HEIGHT, LATENT, WIDTH, linear_model, sampler_descriptions
from tests.runtime.test_pipeline import step_with_numpy, tokens

OPTIONS = {"num_inference_steps": 4, "guidance_scale": 2.0, "negative_prompt": "navy", "seed": 5}


@pytest.fixture(scope="module")
def pipeline(linear_bundle_of_two):
    return ControlNetPipeline.from_bundle(linear_bundle_of_two)


@pytest.fixture
def pictures():
    rng = np.random.default_rng(2)
    return [Image.fromarray(rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)) for _ in range(2)]


def draw_with_numpy(pictures, scales, windows=((0, 1), (0, 1)), prompt_only=(False, False)):
    """OPTIONS, in as few words as possible; `scales` holds the two residuals' scales of each ControlNet."""
    model, schedule = linear_model(), build_schedule(sampler_descriptions(), "ddim", 4)
    controls = [model.control_embedding(np.asarray(p).transpose(2, 0, 1)[None] / 255) for p in pictures]
    contexts = [model.text_encoder(tokens(text)) for text in ("navy", "gold")]
    x = standard_normal(LATENT, 5).astype(np.float64) * schedule.init_noise_sigma
    for i, row in enumerate(schedule.rows):
        scaled, outputs = x * row.input_scale, []
        for context, is_negative in zip(contexts, (True, False), strict=True):
            down, mid = np.zeros(LATENT), np.zeros(LATENT)
            for which, control in enumerate(controls):
                start, end = windows[which]
                if start <= i / 4 and (i + 1) / 4 <= end and not (is_negative and prompt_only[which]):
                    more = model.controlnet(scaled, row.timestep, context, control, scales[which], which)
                    down, mid = down + more[0], mid + more[1]
            outputs.append(model.unet(scaled, row.timestep, context, down, mid))
        x = step_with_numpy(row, x, outputs[0] + 2.0 * (outputs[1] - outputs[0]))
    return np.rint(255 * np.clip(model.vae_decoder(x)[0].transpose(1, 2, 0) / 2 + 0.5, 0, 1))


def differs(output, expected):
    return np.abs(np.asarray(output.images[0]) - expected).max()


SOFT = (0.825, 1.0)
CASES = [
    ({}, [(1, 1), (1, 1)], {}),
    ({"controlnet_conditioning_scale": [0.5, 2]}, [(0.5, 0.5), (2, 2)], {}),
    ({"controlnet_conditioning_scale": [1, 0]}, [(1, 1), (0, 0)], {}),
    (
        {"control_guidance_start": [0, 0.5], "control_guidance_end": [0.5, 1]},
        [(1, 1), (1, 1)],
        {"windows": ((0, 0.5), (0.5, 1))},
    ),
    ({"control_mode": "prompt"}, [SOFT, SOFT], {}),
    ({"control_mode": ["balanced", "control"]}, [(1, 1), SOFT], {"prompt_only": (False, True)}),
    ({"guess_mode": True}, [(0.1, 1), (0.1, 1)], {"prompt_only": (True, True)}),
]


@pytest.mark.parametrize(("options", "scales", "how"), CASES, ids=lambda case: str(case)[:60])
def test_two_controlnets_draw_what_numpy_draws(pipeline, pictures, options, scales, how):
    expected = draw_with_numpy(pictures, scales, **how)
    assert differs(pipeline("gold", pictures, **OPTIONS, **options), expected) <= 1
    if options:
        assert np.abs(expected - draw_with_numpy(pictures, [(1, 1), (1, 1)])).max() > 1


def test_a_picture_may_use_one_of_two_controlnets(pipeline, pictures):
    output = pipeline("gold", pictures[1], controlnets=["depth"], **OPTIONS)
    assert differs(output, draw_with_numpy(pictures, [(0, 0), (1, 1)])) <= 1


def test_one_picture_is_for_the_first_of_two_controlnets(pipeline, pictures):
    output = pipeline("gold", pictures[0], **OPTIONS)
    assert differs(output, draw_with_numpy(pictures, [(1, 1), (0, 0)])) <= 1


def test_a_picture_may_use_no_controlnet(pipeline, pictures):
    output = pipeline("gold", controlnets=[], **OPTIONS)
    assert differs(output, draw_with_numpy(pictures, [(0, 0), (0, 0)])) <= 1


def test_the_order_of_names_is_the_order_of_pictures(pipeline, pictures):
    output = pipeline("gold", pictures[::-1], controlnets=["depth", "lines"], **OPTIONS)
    assert differs(output, draw_with_numpy(pictures, [(1, 1), (1, 1)])) <= 1


def test_two_calls_of_a_controlnet_at_half_its_scale_are_one_at_its_whole(linear_bundle, linear_bundle_of_two):
    """The residuals of one control image, once at scale 1, and twice at 0.5 and added."""
    engine = ControlNetPipeline.from_bundle(linear_bundle_of_two).engine
    rng = np.random.default_rng(4)
    image, sample = rng.uniform(size=(1, 3, HEIGHT, WIDTH)).astype(np.float32), standard_normal(LATENT, 1)
    control = engine.control_embedding(image, linear_bundle_of_two.manifest.controlnets[0])
    context = engine.text_encoder(tokens("gold").astype(np.int32))
    whole = engine.controlnet(sample, 500.0, context, control, [1.0, 1.0])
    half = engine.controlnet(sample, 500.0, context, control, [0.5, 0.5])
    for one, twice in zip(whole.tensors, engine.residual_sum(half, half).tensors, strict=True):
        assert np.allclose(one.numpy(), twice.numpy(), rtol=1e-6)


def test_guess_mode_has_diffusers_scales():
    """ControlNetModel.forward: torch.logspace(-1, 0, 13)."""
    assert np.allclose(guess_scales(13), np.logspace(-1, 0, 13))
    assert guess_scales(1) == (0.1,)


def test_the_control_modes_weaken_the_finer_residuals():
    assert mode_scales("balanced", 3) == (1, 1, 1)
    assert mode_scales("prompt", 13) == mode_scales("control", 13) == tuple(0.825 ** (12 - i) for i in range(13))


BAD = [
    ({"image": None}, "control image: got none, wanted 2, one for each ControlNet in use .lines, depth.; pass as many"),
    ({"controlnets": ["lines"]}, r"control image: got 2, wanted 1, one for each ControlNet in use \(lines\)"),
    ({"controlnets": []}, "control image: got 2, wanted none: none is in use"),
    ({"controlnets": ["canny"]}, "controlnets: got 'canny', wanted one of lines, depth; choose one of these"),
    ({"controlnets": "lines"}, "controlnets: got 'lines', wanted a list of names"),
    ({"controlnets": ["lines", "lines"]}, "controlnets: got lines, lines, wanted each name once"),
    (
        {"controlnet_conditioning_scale": [1, 1, 1]},
        "controlnet conditioning scale: got 3 values, wanted one value, or 2",
    ),
    ({"controlnet_conditioning_scale": [1, float("nan")]}, "controlnet conditioning scale: got nan, wanted a finite"),
    ({"control_guidance_start": [0, 0.5], "control_guidance_end": 0.5}, "control guidance: got from 0.5 to 0.5"),
    ({"control_mode": "strong"}, "control mode: got 'strong', wanted one of balanced, prompt, control"),
    ({"guess_mode": 1}, "guess mode: got 1, wanted True or False"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD)
def test_a_bad_argument_is_refused_before_anything_is_computed(pipeline, pictures, monkeypatch, arguments, message):
    monkeypatch.setattr(pipeline.engine, "_call", lambda *_: pytest.fail("a component was called"))
    with pytest.raises(UserError, match=message):
        pipeline(**{"prompt": "gold", "image": pictures, **arguments})
