"""The bundled model draws, and its weights of few bits are rounded for what its layers read."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mlc_controlnet.calibration.biases import bias_of, decode, packed_weights, with_corrected_biases
from mlc_controlnet.calibration.gain import Gain, measure_gains
from mlc_controlnet.calibration.observe import KEPT_CALLS, Calls, Observations, observe
from mlc_controlnet.calibration.pictures import Picture, choose_pictures, held_out
from mlc_controlnet.capture import CapturedModel, Quantizer, capture
from mlc_controlnet.checkpoint import Checkpoint, load_checkpoint
from mlc_controlnet.components import COMPONENTS, RESIDUAL_SUM
from mlc_controlnet.config import CalibrationOption
from mlc_controlnet.errors import UserError
from mlc_controlnet.passes.pipeline import clean
from mlc_controlnet.passes.quantize.find_weights import find_weights
from mlc_controlnet.passes.quantize.quantize_model import quantize_model

pytestmark = pytest.mark.integration

PACKED = ("controlnet", "vae_decoder")
PROMPTS = ("gold circle with navy background", "teal circle with pink background")


@pytest.fixture(scope="module")
def checkpoint(circles_model: Path) -> Checkpoint:
    return load_checkpoint(circles_model)


@pytest.fixture(scope="module")
def cleaned(checkpoint: Checkpoint) -> CapturedModel:
    return clean(capture(checkpoint))


@pytest.fixture(scope="module")
def weights(cleaned: CapturedModel) -> set[str]:
    """The tensors whose layers are watched: fewer take less time."""
    found = find_weights(cleaned)
    return {rows.tensor for name in PACKED for param in cleaned.params[name] if param in found for rows in param.rows}


@pytest.fixture(scope="module")
def seen(checkpoint: Checkpoint, cleaned: CapturedModel, weights: set[str]) -> Observations:
    return observe(checkpoint, cleaned, choose_pictures(CalibrationOption(PROMPTS), checkpoint), weights)


@pytest.fixture(scope="module")
def packed(cleaned: CapturedModel, seen: Observations) -> CapturedModel:
    places = find_weights(cleaned)
    formats = {param: "int4" for name in PACKED for param in cleaned.params[name] if param in places}
    return quantize_model(cleaned, formats, places, Quantizer(seen.moments))


@pytest.fixture(scope="module")
def calibrated(checkpoint: Checkpoint, packed: CapturedModel, seen: Observations) -> Checkpoint:
    return with_corrected_biases(checkpoint, packed, seen.moments)


def test_every_component_is_called_and_every_layer_seen(seen: Observations, weights: set[str]) -> None:
    for calls in (seen.calls, seen.unseen):
        assert set(calls) == set(COMPONENTS) - {RESIDUAL_SUM}
        assert all(1 <= len(kept) <= KEPT_CALLS for kept in calls.values())
    assert set(seen.moments) == weights
    (first, *_), (other, *_) = seen.calls["unet"][0][0], seen.unseen["unet"][0][0]
    assert not torch.equal(first, other)


def test_components_with_packed_weights_change_less_on_pictures_that_calibration_has_not_seen(
    calibrated: Checkpoint, packed: CapturedModel, seen: Observations
) -> None:
    gains = {gain.component: gain for gain in measure_gains(calibrated, packed, seen.unseen)}
    assert set(gains) == set(PACKED)
    for gain in gains.values():
        assert gain.rounded > gain.plain + 5, str(gain)
        assert gain.corrected > gain.plain + 5, str(gain)


def test_the_mean_error_of_a_layer_is_in_its_bias(
    checkpoint: Checkpoint, calibrated: Checkpoint, packed: CapturedModel, seen: Observations
) -> None:
    tensors = checkpoint.tensors()
    (weight,) = (w for w in packed_weights(packed) if w.rows[0].tensor == "controlnet.mid_block.resnets.0.conv1.weight")
    stored = weight.weight.read(tensors).float()
    decoded = decode(weight.quantizer.quantize(weight.weight, weight.scheme, tensors), stored.shape)
    ((rows, error),) = weight.weight.parts(decoded - stored, tensors)
    change = calibrated.corrected_biases[bias_of(rows.tensor)].double() - tensors[bias_of(rows.tensor)].double()
    mean_error = error.flatten(1).double() @ seen.moments[rows.tensor].mean
    assert mean_error.abs().max() > 1e-4
    torch.testing.assert_close(change, -mean_error, rtol=0, atol=1e-3)  # of float16


def test_a_bundle_stores_corrected_biases_and_torch_compares_with_the_models_own(
    checkpoint: Checkpoint, calibrated: Checkpoint
) -> None:
    assert calibrated.corrected_biases
    for name, bias in calibrated.corrected_biases.items():
        assert torch.equal(calibrated.stored_tensors()[name], bias)
        assert torch.equal(calibrated.tensors()[name], checkpoint.tensors()[name])


def test_calls_are_kept_from_the_first_to_the_last() -> None:
    calls = Calls()
    for number in range(400):
        calls.add("unet", (torch.tensor(number),), ())
    kept = [int(inputs[0]) for inputs, _ in calls.kept["unet"]]
    assert len(kept) == KEPT_CALLS
    assert max(kept) > 200


def of_two(checkpoint: Checkpoint) -> Checkpoint:
    return dataclasses.replace(checkpoint, controlnets={"lines": "", "depth": ""})


def test_controlnets_take_turns_and_none_is_left_out(checkpoint: Checkpoint, tmp_path: Path) -> None:
    two = of_two(checkpoint)
    for prompts, names in ((PROMPTS[:1], ["lines", "depth"]), ((*PROMPTS, "c"), ["lines", "depth", "lines"])):
        assert [picture.controlnet for picture in choose_pictures(CalibrationOption(prompts), two)] == names
    files = []
    for number in range(2):
        files.append(tmp_path / f"{number}.png")
        Image.new("RGB", (8, 8), (number, 0, 0)).save(files[-1])
    pictures = choose_pictures(CalibrationOption(PROMPTS, tuple(files)), two)
    assert [p.control_image.getpixel((0, 0)) for p in pictures if p.control_image] == [(0, 0, 0), (1, 0, 0)]
    assert len(held_out([Picture("a", "lines"), Picture("b", "depth"), Picture("c", "lines")])) == 2


def test_control_images_are_as_many_as_controlnets(checkpoint: Checkpoint, tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "one.png")
    one = CalibrationOption(PROMPTS, (tmp_path / "one.png",))
    with pytest.raises(UserError, match=r"--calibrate-image: got 1 of them, wanted 2, .* \(lines, depth\)"):
        choose_pictures(one, of_two(checkpoint))
    missing = CalibrationOption(PROMPTS, (tmp_path / "none.png",))
    with pytest.raises(UserError, match=r"--calibrate-image .*none\.png: got no such file"):
        choose_pictures(missing, checkpoint)


def test_outlines_of_circles_stand_in_for_control_images(
    checkpoint: Checkpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    picture, other = choose_pictures(CalibrationOption(PROMPTS), checkpoint)
    assert picture.control_image is not None
    assert other.control_image is not None
    assert picture.control_image.size == (checkpoint.shape.width, checkpoint.shape.height)
    assert np.asarray(picture.control_image).max() == 255
    assert np.asarray(picture.control_image).tobytes() != np.asarray(other.control_image).tobytes()
    assert "outlines of circles" in capsys.readouterr().err


def test_a_gain_is_one_line() -> None:
    line = "unet: 24.4 dB without calibration, 30.8 with rounding for what layers read, 32.2 with corrected biases, too"
    assert str(Gain("unet", 24.41, 30.8, 32.2)) == line
