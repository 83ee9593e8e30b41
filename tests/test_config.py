"""Options of the command line that have a grammar of their own."""

import dataclasses
from pathlib import Path

import pytest

from mlc_controlnet.config import LORA_PARTS, WEIGHTS, Budget, BuildConfig, LoraOption, WeightsOption
from mlc_controlnet.errors import UserError
from mlc_controlnet.quantize.formats import FLOAT16, FORMATS, LEAST_DB, MIXED


@pytest.mark.parametrize(
    ("text", "file", "weight"),
    [
        ("style.safetensors", "style.safetensors", 1.0),
        ("style.safetensors:0.75", "style.safetensors", 0.75),
        ("a:b/style.safetensors:-1", "a:b/style.safetensors", -1.0),
        ("C:/style.safetensors", "C:/style.safetensors", 1.0),
        ("C:/a=b/style.safetensors", "C:/a=b/style.safetensors", 1.0),
        ("C:\\a=b.safetensors", "C:\\a=b.safetensors", 1.0),
        ("org/name/style.safetensors@main:.5", "org/name/style.safetensors@main", 0.5),
    ],
)
def test_a_loras_weight_follows_the_last_colon(text: str, file: str, weight: float) -> None:
    option = LoraOption.parse(text)
    assert option == LoraOption(file, weight)
    assert [option.weight_of(part) for part in LORA_PARTS] == [weight] * 3


@pytest.mark.parametrize(
    ("end", "unet", "text_encoder"),
    [
        ("unet=0.8,text_encoder=0.4", 0.8, 0.4),
        ("text_encoder=-.5, unet=2", 2.0, -0.5),
        ("unet=0", 0.0, 1.0),
        ("text_encoder=0", 1.0, 0.0),
    ],
)
def test_a_lora_has_a_weight_for_each_part_and_1_for_the_others(end: str, unet: float, text_encoder: float) -> None:
    option = LoraOption.parse(f"a:b/style.safetensors:{end}")
    assert option.file == "a:b/style.safetensors"
    assert (option.weight_of("unet"), option.weight_of("text_encoder")) == (unet, text_encoder)


@pytest.mark.parametrize(
    "text", ["a.safetensors:0.5", "a.safetensors:unet=0.8,text_encoder=0.4", "a.safetensors:unet=2"]
)
def test_a_lora_is_printed_as_it_is_given(text: str) -> None:
    assert str(LoraOption.parse(text)) == text


@pytest.mark.parametrize(
    ("end", "complaint"),
    [
        ("unte=0.8", "part: got 'unte', wanted one of text_encoder, text_encoder_2, unet"),
        ("unet=0.8,0.4", "part: got '0.4', wanted one of text_encoder, text_encoder_2, unet"),
        ("vae=1", "part: got 'vae'"),
        ("unet=high", "got weight 'high', wanted a number, such as 0.8"),
        ("unet=", "got weight ''"),
        ("unet=nan", "got weight 'nan'"),
        ("unet=1e999", "got weight '1e999'"),
        ("1e999", "got weight '1e999'"),
        ("unet=1,unet=2", "got unet twice, wanted one weight for each part"),
    ],
)
def test_a_malformed_weight_is_refused_with_the_option(end: str, complaint: str) -> None:
    with pytest.raises(UserError) as error:
        LoraOption.parse(f"style.safetensors:{end}")
    assert str(error.value).startswith(f"--lora style.safetensors:{end}")
    assert complaint in str(error.value)


@pytest.mark.parametrize(
    ("target", "dtypes", "instruction_sets", "captured"),
    [
        ("webgpu", ("float16",), ("wasm-simd128",), ("float16", "float32")),
        ("webgpu", ("float32", "float16"), ("wasm-simd128",), ("float32", "float16")),
        ("webgpu", ("float16",), (), ("float16",)),
        ("llvm", ("float16",), ("x86-64-v3",), ("float16",)),
    ],
)
def test_a_browsers_processor_computes_in_float32(tmp_path, target, dtypes, instruction_sets, captured) -> None:
    config = BuildConfig("circles", target, dtypes, tmp_path, tmp_path, instruction_sets=instruction_sets)
    assert config.captured_dtypes == captured


def test_weights_of_a_component_count_before_those_of_all() -> None:
    options = tuple(map(WeightsOption.parse, ("unet=palette6", "int8", "unet=int4")))
    config = BuildConfig("circles", "llvm", ("float32",), Path("out"), Path("records"), weights=options)
    assert config.weights_of("unet") == "int4"
    assert config.weights_of("controlnet_2") == "int8"
    assert dataclasses.replace(config, weights=()).weights_of("unet") == "float16"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("int3", r"--weights: got 'int3', wanted one of float16, int8"),
        ("body=int8", r"--weights body=int8: component: got 'body', wanted one of text_encoder"),
        ("unet=", r"--weights unet=: got '', wanted one of float16, int8"),
    ],
)
def test_unknown_weights_are_a_users_error(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        WeightsOption.parse(text)


def test_every_format_of_weights_is_known() -> None:
    assert (FLOAT16, *(name for name in FORMATS if name != "palette2"), MIXED) == WEIGHTS
    assert {FLOAT16, *LEAST_DB} == set(WEIGHTS)


@pytest.mark.parametrize(
    ("text", "budget"),
    [("850MB", Budget(850_000_000)), ("0.85 gb", Budget(850_000_000)), ("4.5bits", Budget(bits=4.5))],
)
def test_a_budget_has_a_unit(text: str, budget: Budget) -> None:
    assert Budget.parse(text) == budget
    assert Budget.parse(str(budget)) == budget


@pytest.mark.parametrize("text", ["850", "0MB", "-1MB", "4.5", "much", "1TB", "0.0bits"])
def test_a_budget_of_another_form_is_a_users_error(text: str) -> None:
    with pytest.raises(UserError, match=r"--budget: got '.*', wanted 850MB, 0.85GB or 4.5bits"):
        Budget.parse(text)


def test_a_budget_without_mixed_weights_is_a_users_error() -> None:
    options = (WeightsOption.parse("int8"),)
    with pytest.raises(UserError, match=r"--budget 4.5bits: got --weights int8, wanted --weights mixed"):
        BuildConfig("circles", "llvm", ("float32",), Path("a"), Path("b"), weights=options, budget=Budget())
