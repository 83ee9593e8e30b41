import copy
import dataclasses

import numpy as np
import pytest
import torch

from mlc_controlnet.capture import CapturedModel, Param, build_references, example_inputs
from mlc_controlnet.checkpoint import Checkpoint
from mlc_controlnet.config import Budget
from mlc_controlnet.errors import UserError
from mlc_controlnet.parity.mixed_bits import mix_bits
from mlc_controlnet.parity.parity import signal_to_noise_db
from mlc_controlnet.parity.sensitivity import SEED, expected_errors, measure_sensitivities
from mlc_controlnet.passes.quantize.find_weights import Place, find_weights
from mlc_controlnet.quantize.formats import FORMATS, MIXED, MIXED_FORMATS
from mlc_controlnet.quantize.scheme import Scheme, choose_scheme
from mlc_controlnet.quantize.weight import dequantize, quantize

COMPONENT = "controlnet"


@pytest.fixture(scope="module")
def places(cleaned: CapturedModel) -> dict[Param, Place]:
    return find_weights(cleaned)


@pytest.fixture(scope="module")
def one_component(checkpoint: Checkpoint) -> Checkpoint:
    return dataclasses.replace(checkpoint, components=(COMPONENT,))


def outputs(checkpoint: Checkpoint) -> list[np.ndarray]:
    inputs = example_inputs(checkpoint.specs[COMPONENT], "float32", SEED)
    with torch.no_grad():
        return [output.numpy() for output in build_references(checkpoint)[COMPONENT](*inputs)]


def measured_error(checkpoint: Checkpoint, weight: Param, scheme: Scheme, wanted: list[np.ndarray]) -> float:
    """The noise of the outputs, as a part of their power, if a weight has the scheme: by running it."""
    parts = copy.deepcopy(dict(checkpoint.parts))
    changed = dataclasses.replace(checkpoint, parts=parts)
    tensors = changed.tensors()
    stored = weight.read(tensors)
    decoded = torch.from_numpy(dequantize(quantize(stored, scheme))).reshape(stored.shape)
    decoded = decoded.permute(tuple(np.argsort(weight.axes).tolist())) if weight.axes else decoded
    first = 0
    for rows in weight.rows:
        own = tensors[rows.tensor][rows.start : rows.stop]
        own.copy_(decoded[first : first + len(own)])
        first += len(own)
    pairs = zip(wanted, outputs(changed), strict=True)
    return float(np.mean([10 ** (-signal_to_noise_db(one, other) / 10) for one, other in pairs]))


def test_two_gradients_say_what_a_run_for_each_weight_measures(
    one_component: Checkpoint, cleaned: CapturedModel, places: dict[Param, Place]
) -> None:
    squares = measure_sensitivities(one_component, [COMPONENT])
    tensors = one_component.tensors()
    wanted = outputs(one_component)
    weights = [param for param in cleaned.params[COMPONENT] if param in places]
    ratios = []
    for weight in weights[:: max(1, len(weights) // 8)]:
        scheme = places[weight].scheme(*FORMATS["palette4"])
        (expected,) = expected_errors(squares, weight, [scheme], tensors)
        ratios.append(10 * np.log10(expected / measured_error(one_component, weight, scheme, wanted)))
    assert len(ratios) >= 8
    assert abs(np.mean(ratios)) < 1
    assert np.median(np.abs(ratios)) < 1
    # One weight is 3.3 dB off, with more probes too: its errors of rounding are correlated, which the diagonal leaves
    # out. Formats differ by 12 dB and more.
    assert np.max(np.abs(ratios)) < 4


def test_a_sample_of_outputs_says_what_the_whole_weight_does(
    one_component: Checkpoint, cleaned: CapturedModel, places: dict[Param, Place]
) -> None:
    squares = measure_sensitivities(one_component, [COMPONENT])
    tensors = one_component.tensors()
    ratios = []
    for weight in [param for param in cleaned.params[COMPONENT] if param in places][::2]:
        schemes = [places[weight].scheme(*FORMATS[name]) for name in MIXED_FORMATS]
        whole, sampled = (expected_errors(squares, weight, schemes, tensors, None, count) for count in (10**9, 1))
        if sampled != whole:  # small weights are one group, and their own sample
            ratios.append(10 * np.log10(np.array(sampled) / whole))
    assert len(ratios) >= 8
    assert np.median(np.abs(ratios)) < 0.3
    assert np.max(np.abs(ratios)) < 3


def test_a_smaller_picture_says_what_a_larger_one_does(
    one_component: Checkpoint, cleaned: CapturedModel, places: dict[Param, Place]
) -> None:
    sizes = 96 * 128, 48 * 64
    larger, smaller = (measure_sensitivities(one_component, [COMPONENT], most_pixels=size) for size in sizes)
    tensors = one_component.tensors()
    ratios = []
    for weight in [param for param in cleaned.params[COMPONENT] if param in places]:
        scheme = places[weight].scheme(*FORMATS["palette4"])
        one, other = (expected_errors(squares, weight, [scheme], tensors)[0] for squares in (larger, smaller))
        ratios.append(10 * np.log10(one / other))
    assert 0 < np.median(np.abs(ratios)) < 2
    # Queries and keys of attention between 12 pixels matter 7 to 9 dB less than of 3. Formats differ by 12 dB and more.
    assert np.max(np.abs(ratios)) < 10


def mix(checkpoint: Checkpoint, cleaned: CapturedModel, places: dict[Param, Place], budget: Budget) -> dict[Param, str]:
    model = dataclasses.replace(cleaned, params={COMPONENT: cleaned.params[COMPONENT]})
    formats = {param: MIXED for param in model.params[COMPONENT] if param in places}
    return mix_bits(model, checkpoint, places, formats, budget)


def test_mixed_weights_take_what_the_budget_allows(
    one_component: Checkpoint, cleaned: CapturedModel, places: dict[Param, Place], capsys: pytest.CaptureFixture[str]
) -> None:
    formats = mix(one_component, cleaned, places, Budget(bits=4.5))
    sizes = {p: choose_scheme(*FORMATS[name], places[p].rows, places[p].columns).bytes for p, name in formats.items()}
    numbers = sum(places[param].rows * places[param].columns for param in formats)
    assert 4.0 < 8 * sum(sizes.values()) / numbers <= 4.5
    assert len(set(formats.values())) > 1
    assert set(formats.values()) <= set(MIXED_FORMATS)
    assert "bits a weight" in capsys.readouterr().out


def test_a_budget_without_room_says_how_much_there_must_be(
    one_component: Checkpoint, cleaned: CapturedModel, places: dict[Param, Place]
) -> None:
    message = r"--budget 0.001MB: got 0.0 MB, wanted [\d.]+ MB at least: .* with 2 bits a weight, and [\d.]+ MB of what"
    with pytest.raises(UserError, match=message):
        mix(one_component, cleaned, places, Budget(bytes=1000))
    with pytest.raises(UserError, match=r"--budget 1bits: got 1 bits a weight, wanted 2\.\d+ at least"):
        mix(one_component, cleaned, places, Budget(bits=1.0))
