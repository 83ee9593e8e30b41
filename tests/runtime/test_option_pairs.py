"""Options against each other. web/tests/engine/option_pairs.test.ts reads the same file of bad pairs."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mlc_controlnet.bundle.sampler_description import descriptions_from_json
from mlc_controlnet.bundle.variant import Variant
from mlc_controlnet.errors import UserError
from mlc_controlnet.runtime.option_pairs import check_pairs, notices_of
from mlc_controlnet.runtime.request import GenerateRequest
from mlc_controlnet.runtime.resolve import resolve
from tests.fixtures.linear_bundle import HEIGHT, TEXT_WIDTH, TOKENS, WIDTH

BAD_PAIRS = json.loads((Path(__file__).parents[1] / "fixtures" / "bad_pairs.json").read_text())
PIXEL = Image.new("RGB", (8, 8))


def request_of(options: dict) -> GenerateRequest:
    """The fixture's options: `pixel` stands for a picture, a number of embeds for so many chunks."""
    values = {"prompt": "gold", "control_image": PIXEL, **options}
    for name, value in values.items():
        if value == "pixel":
            values[name] = PIXEL
        if name.endswith("embeds"):
            values[name] = np.zeros((1, value * TOKENS, TEXT_WIDTH), np.float32)
    return GenerateRequest(**values)


@pytest.fixture
def settings_of(linear_bundle):
    manifest = linear_bundle.manifest
    samplers = descriptions_from_json(linear_bundle.read_file(manifest.samplers.file), "samplers.json")
    return lambda **options: resolve(request_of(options), manifest, samplers)


@pytest.mark.parametrize(("options", "complaint"), BAD_PAIRS)
def test_an_option_that_would_have_no_effect_is_refused(settings_of, options, complaint):
    with pytest.raises(UserError) as error:
        settings_of(**options)
    assert str(error.value).startswith(complaint)


def test_an_option_beside_the_one_that_it_needs_is_kept(settings_of):
    repaint = {"image": "pixel", "mask_image": "pixel"}
    assert settings_of(image="pixel", strength=0.5).strength == 0.5
    assert settings_of(**repaint, mask_blur=4).mask_blur == 4
    assert settings_of(**repaint, padding_mask_crop=8).padding_mask_crop == 8
    assert not settings_of(**repaint, apply_overlay=False).apply_overlay
    assert settings_of(prompt="", prompt_embeds=1, clip_skip=1).clip_skip == 1, "the negative prompt is a text"


def test_encoded_prompts_of_different_lengths_are_refused(settings_of, linear_bundle):
    """As diffusers does. The bundle's UNet reads one chunk, so this asks a check of a bundle that reads more."""
    manifest = linear_bundle.manifest
    manifest = dataclasses.replace(manifest, variants=(Variant(HEIGHT, WIDTH, 2, {}),))
    request = request_of({"prompt": "", "prompt_embeds": 1, "negative_prompt_embeds": 2})
    settings = settings_of()
    with pytest.raises(
        UserError, match=r"negative prompt embeds: got \[1, 154, 8\], wanted \[1, 77, 8\], the shape of"
    ):
        check_pairs(dataclasses.replace(settings, prompt=""), request, manifest)


@pytest.mark.parametrize(("scale", "told"), [(1, True), (0, True), (1.5, False)])
def test_what_only_guidance_reads_is_told_without_it(settings_of, linear_bundle, scale, told):
    request = request_of({"negative_prompt_embeds": 1})
    settings = settings_of(negative_prompt="navy", guidance_scale=scale)
    notices = notices_of(settings, request, linear_bundle.manifest)
    names = ("negative prompt", "negative prompt embeds")
    assert notices == (tuple(f"{name}: has no effect, guidance is off" for name in names) if told else ())
    rescaled = notices_of(
        settings_of(guidance_scale=scale, guidance_rescale=0.7), request_of({}), linear_bundle.manifest
    )
    assert rescaled == (("guidance rescale: has no effect, guidance is off",) if told else ())
    assert notices_of(settings_of(guidance_scale=scale), request_of({}), linear_bundle.manifest) == ()


@pytest.mark.parametrize(("sampler", "told"), [("euler", True), ("ddim", False), ("tcd", False)])
def test_an_eta_that_the_sampler_does_not_read_is_told(settings_of, linear_bundle, sampler, told):
    notices = notices_of(settings_of(eta=0.5, sampler=sampler), request_of({}), linear_bundle.manifest)
    assert notices == (("eta: has no effect, only the samplers ddim and tcd read it",) if told else ())
    assert notices_of(settings_of(sampler=sampler), request_of({}), linear_bundle.manifest) == ()
