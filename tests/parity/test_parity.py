"""The gate: every component, compiled for llvm by the whole pass pipeline, against torch."""

import copy
import dataclasses
import re
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
import tvm

from mlc_controlnet.build import more_bits
from mlc_controlnet.capture import CapturedModel, capture, example_inputs
from mlc_controlnet.checkpoint import Checkpoint
from mlc_controlnet.compile.library import compile_library
from mlc_controlnet.components import COMPONENTS, ModelShape, component_specs
from mlc_controlnet.config import BuildConfig, CalibrationOption, WeightsOption
from mlc_controlnet.errors import UserError
from mlc_controlnet.parity.parity import (
    SEED,
    ParityError,
    check_parity,
    compared_inputs,
    measure_parity,
    run_references,
    signal_to_noise_db,
)
from mlc_controlnet.passes.pipeline import clean
from mlc_controlnet.quantize.formats import LEAST_DB
from tests.fixtures.quick_build import unoptimised

References = dict[str, list[np.ndarray]]
ALIGNMENT = 64  # bytes, which compiled functions ask of a tensor's memory
pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def references(checkpoint: Checkpoint) -> References:
    return run_references(checkpoint)


def test_every_component_reaches_sixty_decibels(
    checkpoint: Checkpoint, cleaned: CapturedModel, llvm_library: Path, references: References
) -> None:
    measured = measure_parity(checkpoint, cleaned, llvm_library, references)
    assert set(measured) == set(COMPONENTS)
    check_parity(measured, "float32")


def test_every_component_in_float16_reaches_forty_decibels(
    checkpoint: Checkpoint, references: References, tmp_path: Path
) -> None:
    cleaned = clean(capture(checkpoint, "float16"))
    config = BuildConfig("random", "llvm", ("float16",), out=tmp_path, tuning_db=tmp_path / "no-records")
    with unoptimised():
        library, _ = compile_library(cleaned.module, "random", "float16", config, tmp_path)
    check_parity(measure_parity(checkpoint, cleaned, library, references), "float16")


def test_one_components_weights_are_in_memory_at_a_time(
    checkpoint: Checkpoint,
    cleaned: CapturedModel,
    llvm_library: Path,
    references: References,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    alive: set[int] = set()
    held: list[int] = []

    def count(value: torch.Tensor, dtype: str) -> tvm.runtime.Tensor:
        wanted = value.numpy().astype(dtype)
        memory = np.empty(wanted.nbytes + ALIGNMENT, np.uint8)
        start = -memory.ctypes.data % ALIGNMENT
        numbers = memory[start:][: wanted.nbytes].view(dtype).reshape(wanted.shape)
        numbers[...] = wanted
        number = len(held)
        alive.add(number)
        held.append(len(alive))
        weakref.finalize(memory, alive.discard, number)
        return tvm.runtime.from_dlpack(numbers)

    monkeypatch.setattr("mlc_controlnet.parity.parity._tensor", count)
    own = {name: references[name] for name in ("controlnet", "unet")}
    measured = measure_parity(checkpoint, cleaned, llvm_library, own)
    check_parity(measured, "float32")
    assert not alive
    largest = max(len(cleaned.params[name]) + len(checkpoint.specs[name].inputs) for name in own)
    assert max(held) == largest < len(held)


def test_a_component_below_the_threshold_is_named() -> None:
    with pytest.raises(ParityError, match="unet"):
        check_parity({"unet": 59.9, "vae_decoder": 80.0}, "float32")


@pytest.mark.parametrize("format", LEAST_DB)
def test_weights_of_too_few_bits_are_a_line_that_says_what_helps(format: str) -> None:
    least = LEAST_DB[format]
    measured = {"unet": least, "controlnet": least - 2, "vae_decoder": least - 1, "text_encoder": 70.0}
    weights = {"unet": format, "controlnet": format, "vae_decoder": format}
    line = rf"--weights {format}: controlnet: got {least - 2} dB .*, and 1 more below theirs, wanted {least:g} dB at"
    with pytest.raises(UserError, match=line):
        check_parity(measured, "float32", lambda name: weights.get(name, "float16"))
    with pytest.raises(ParityError, match="text_encoder"):
        check_parity({**measured, "text_encoder": 50.0}, "float32", lambda name: weights.get(name, "float16"))


@pytest.mark.parametrize(
    ("weights", "prompts", "remedy"),
    [
        (
            "int4",
            (),
            "give it more bits with --weights controlnet=palette6, or round for your prompts with --",
        ),
        ("int8", ("a circle",), "give it more bits with --weights controlnet=float16$"),
        ("mixed", (), "raise --budget, or round for your prompts with --calibrate PROMPTS"),
    ],
)
def test_more_bits_are_named(weights: str, prompts: tuple[str, ...], remedy: str, tmp_path: Path) -> None:
    config = BuildConfig("x", "llvm", ("float32",), tmp_path, tmp_path, weights=(WeightsOption(weights),))
    config = dataclasses.replace(config, calibration=CalibrationOption(prompts) if prompts else None)
    assert re.match(remedy, more_bits("controlnet_2", config))


def test_what_a_component_read_as_it_drew_is_fitted_to_longer_prompts_and_other_sizes(checkpoint: Checkpoint) -> None:
    spec = checkpoint.specs["unet"]
    drawn = {"unet": example_inputs(spec, "float32", seed=5)}
    assert all(torch.equal(*pair) for pair in zip(compared_inputs(spec, drawn), drawn["unet"], strict=True))
    other = dataclasses.replace(spec, inputs=component_specs(longer_and_smaller(checkpoint.shape))["unet"].inputs)
    fitted = compared_inputs(other, drawn)
    assert [tuple(value.shape) for value in fitted] == [tensor.shape for tensor in other.inputs]
    (sample, _, context, *_), (own_sample, _, own_context, *_) = fitted, drawn["unet"]
    assert torch.equal(sample, own_sample[:, :, : sample.shape[2], : sample.shape[3]])
    assert torch.equal(context, torch.cat([own_context, own_context], 1))
    decoder = checkpoint.specs["vae_decoder"]
    assert torch.equal(compared_inputs(decoder, drawn)[0], example_inputs(decoder, "float32", SEED)[0])


def longer_and_smaller(shape: ModelShape) -> ModelShape:
    return dataclasses.replace(shape, height=64, width=64, chunks=2)


def test_nan_is_below_every_threshold() -> None:
    reference = np.ones(4, np.float32)
    got = np.array([1, 1, np.nan, 1], np.float32)
    assert signal_to_noise_db(reference, got) == -np.inf
    with pytest.raises(ParityError):
        check_parity({"unet": signal_to_noise_db(reference, got)}, "float32")


def test_a_tenth_of_noise_is_twenty_decibels() -> None:
    reference = np.full(100, 3.0)
    assert signal_to_noise_db(reference, reference * 1.1) == pytest.approx(20.0, abs=1e-6)


def test_one_weight_that_differs_is_noticed(checkpoint: Checkpoint, cleaned: CapturedModel, llvm_library: Path) -> None:
    vae = copy.deepcopy(checkpoint.parts["vae"])
    vae.post_quant_conv.weight.data *= 1.1
    altered = dataclasses.replace(checkpoint, parts={**checkpoint.parts, "vae": vae}, components=("vae_decoder",))
    measured = measure_parity(checkpoint, cleaned, llvm_library, run_references(altered))
    with pytest.raises(ParityError, match="vae_decoder"):
        check_parity(measured, "float32")
