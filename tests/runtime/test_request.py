import argparse
import dataclasses
import json
import subprocess
import sys
import types
import typing
from pathlib import Path

import pytest
from PIL import Image

from mlc_controlnet.bundle.manifest import Manifest
from mlc_controlnet.bundle.sampler_description import descriptions_from_json
from mlc_controlnet.cli import generate
from mlc_controlnet.errors import UserError
from mlc_controlnet.runtime.option_checks import MAX_SEED
from mlc_controlnet.runtime.option_text import json_number, one_or_more
from mlc_controlnet.runtime.request import OPTIONS, GenerateRequest, Settings, to_record
from mlc_controlnet.runtime.resolve import resolve

NUMBERS = Path(__file__).parents[1] / "fixtures" / "json_numbers.json"
COMPLETE = Settings(
    prompt="gold",
    negative_prompt="navy",
    prompt_syntax="webui",
    clip_skip=0,
    seed=5,
    num_inference_steps=4,
    guidance_scale=2.5,
    guidance_rescale=0.0,
    controlnets=("lines",),
    controlnet_conditioning_scale=1.0,
    control_guidance_start=0.0,
    control_guidance_end=1.0,
    control_mode="balanced",
    guess_mode=False,
    sampler="ddim",
    schedule_type=None,
    eta=0.0,
    timesteps=None,
    sigmas=None,
    height=16,
    width=24,
    hires_scale=None,
    hires_strength=None,
    hires_steps=None,
    hires_upscaler=None,
    deepcache_interval=1,
    strength=1.0,
    mask_blur=0.0,
    padding_mask_crop=None,
    masked_content="original",
    apply_overlay=True,
)


@pytest.fixture
def settings_of(linear_bundle):
    """Resolve a request that sets these options for the linear bundle."""
    manifest: Manifest = linear_bundle.manifest
    samplers = descriptions_from_json(linear_bundle.read_file(manifest.samplers.file), "samplers.json")
    given = {"prompt": "gold", "control_image": Image.new("RGB", (8, 8))}
    return lambda **options: resolve(GenerateRequest(**{**given, **options}), manifest, samplers)


def test_every_option_gets_a_value_of_its_declared_type(settings_of):
    settings, hints = settings_of(), typing.get_type_hints(Settings)
    for field in dataclasses.fields(Settings):
        declared = hints[field.name]
        kinds = typing.get_args(declared) if isinstance(declared, types.UnionType) else (declared,)
        assert type(getattr(settings, field.name)) in [typing.get_origin(kind) or kind for kind in kinds], field.name


def test_complete_settings_stay_as_they_are(settings_of):
    assert settings_of(**dataclasses.asdict(COMPLETE)) == COMPLETE


def test_an_integer_is_a_number(settings_of):
    assert repr(settings_of(guidance_scale=3).guidance_scale) == "3.0"


def test_random_seeds_fill_the_whole_range(settings_of):
    seeds = [settings_of().seed for _ in range(64)]
    assert all(0 <= seed <= MAX_SEED for seed in seeds)
    assert max(seeds) > 2**32


@pytest.mark.parametrize("seed", [-1, MAX_SEED + 1, 1.0, "7", True])
def test_a_seed_that_is_not_an_integer_in_range_is_refused(settings_of, seed):
    with pytest.raises(UserError, match=r"seed: got .*, wanted an integer from 0 to 9007199254740991"):
        settings_of(seed=seed)


@pytest.mark.parametrize("prompt", [None, 3, ["a"], b"a"])
def test_a_prompt_that_is_not_a_string_is_refused(settings_of, prompt):
    with pytest.raises(UserError, match=f"^prompt: got {type(prompt).__name__}, wanted one string"):
        settings_of(prompt=prompt)


def test_a_prompt_that_is_not_utf8_is_refused(settings_of):
    with pytest.raises(UserError, match=r"^negative prompt: got bytes that are not UTF-8"):
        settings_of(negative_prompt=b"\xff".decode(errors="surrogateescape"))


@pytest.mark.parametrize("clip_skip", [-1, 3])
def test_layers_that_the_text_encoder_does_not_have_cannot_be_skipped(settings_of, clip_skip):
    wanted = f"clip skip: got {clip_skip}, wanted 0 to 2: the text encoder has 3 layers"
    with pytest.raises(UserError, match=wanted):
        settings_of(clip_skip=clip_skip)


def test_an_unknown_prompt_syntax_is_refused(settings_of):
    with pytest.raises(UserError, match="prompt syntax: got 'a1111', wanted one of webui, plain; choose one of these"):
        settings_of(prompt_syntax="a1111")


@pytest.mark.parametrize("name", ["prompt", "negative_prompt"])
def test_a_prompt_that_cannot_be_read_is_refused_with_the_request(settings_of, name):
    with pytest.raises(UserError, match=rf"^{name.replace('_', ' ')}: got \[a\|b\], wanted words that are the same"):
        settings_of(**{name: "[a|b]"})
    assert settings_of(**{name: "[a|b]"}, prompt_syntax="plain").prompt_syntax == "plain"


def test_the_command_line_has_every_option_with_its_help():
    parser = argparse.ArgumentParser()
    generate.add_arguments(parser)
    text = " ".join(parser.format_help().split())
    for name, option in OPTIONS.items():
        assert f"--{name.replace('_', '-')}" in text
        assert option.help in text


def test_the_record_has_every_option_that_is_set():
    assert to_record(COMPLETE) == {
        "prompt": "gold",
        "negative_prompt": "navy",
        "prompt_syntax": "webui",
        "clip_skip": "0",
        "seed": "5",
        "num_inference_steps": "4",
        "guidance_scale": "2.5",
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
    }


def test_the_record_lists_a_value_for_each_controlnet():
    settings = dataclasses.replace(COMPLETE, controlnets=("a", "b"), controlnet_conditioning_scale=(1.0, 0.5))
    metadata = to_record(settings)
    assert (metadata["controlnets"], metadata["controlnet_conditioning_scale"]) == ('["a","b"]', "[1,0.5]")


def test_a_new_option_reaches_the_record_without_further_change(monkeypatch):
    """It needs its field: here one that the class does not have."""
    monkeypatch.setitem(OPTIONS, "sharpness", OPTIONS["guidance_scale"])
    settings = dataclasses.replace(COMPLETE)
    object.__setattr__(settings, "sharpness", 0.75)
    assert to_record(settings)["sharpness"] == "0.75"


@pytest.mark.parametrize(("value", "text"), json.loads(NUMBERS.read_text()))
def test_a_number_is_written_as_javascript_writes_it(value, text):
    """`text` is what JSON.stringify returns: web/tests/engine/request.test.ts reads the same file."""
    assert json_number(value) == text
    assert float(text) == value


def test_the_command_line_reads_the_options_without_numpy_or_tvm():
    code = "import sys, mlc_controlnet.cli.generate; print({'numpy', 'tvm', 'PIL'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "set()\n"


def test_a_size_that_the_bundle_does_not_have_lists_those_it_has(settings_of):
    wanted = "size: got 24x32, wanted one of this bundle's, width x height: 24x16; .*--size 24x32"
    with pytest.raises(UserError, match=wanted):
        settings_of(height=32)


def test_hires_fix_needs_the_larger_size(settings_of):
    with pytest.raises(UserError, match="size of hires fix: got 48x32, wanted one of this bundle's"):
        settings_of(hires_scale=2)


def test_hires_fix_has_defaults_only_if_it_is_on(settings_of):
    settings = settings_of(hires_scale=1)
    assert (settings.hires_strength, settings.hires_steps, settings.hires_upscaler) == (
        0.7,
        settings.num_inference_steps,
        "bilinear",
    )


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"hires_scale": 1, "hires_upscaler": "lanczos"}, "hires upscaler: got 'lanczos', wanted one of bilinear, "),
        ({"hires_scale": 1, "hires_steps": 0}, "hires steps: got 0"),
        ({"hires_scale": 1, "hires_strength": 1.5}, "hires strength: got 1.5, wanted a number from 0 to 1"),
        ({"deepcache_interval": 0}, "deepcache interval: got 0, wanted 1 or more"),
        ({"deepcache_interval": 2}, "deepcache interval: got 2, wanted 1, because .*--deepcache"),
    ],
)
def test_what_this_bundle_cannot_do_is_refused(settings_of, options, complaint):
    with pytest.raises(UserError, match=complaint):
        settings_of(**options)


def test_the_command_line_names_the_type_of_an_option_that_takes_several_values() -> None:
    assert one_or_more(float)("0.5,1") == [0.5, 1] and one_or_more(float)("2") == 2
    assert one_or_more(float).__name__ == "float"
