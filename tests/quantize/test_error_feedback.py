import dataclasses
import math

import numpy as np
import pytest
import torch

from mlc_controlnet.quantize.input_moments import BLOCK, InputMoments
from mlc_controlnet.quantize.scheme import LINEAR, PALETTE, choose_scheme
from mlc_controlnet.quantize.weight import QuantizedWeight, dequantize, quantize

KINDS = [(LINEAR, 8), (LINEAR, 4), (PALETTE, 6), (PALETTE, 4), (PALETTE, 2)]
INPUTS, OUTPUTS = 96, 64


def rows_of(inputs: int, rank: int = 24) -> torch.Tensor:
    """What a layer reads: few patterns and a little noise around a mean, as in a network."""
    generator = torch.Generator().manual_seed(3)
    patterns = torch.randn(rank, inputs, generator=generator)
    strength = torch.randn(2048, rank, generator=generator)
    return strength @ patterns + 0.1 * torch.randn(2048, inputs, generator=generator) + 2.0


def moments_of(rows: torch.Tensor, has_bias: bool = True) -> InputMoments:
    blocks = rows.split(BLOCK, 1)
    products = tuple(block.t() @ block / len(rows) for block in blocks)
    means = tuple(block.mean(0) for block in blocks)
    return InputMoments(len(rows), rows.double().mean(0), rows.double().square().mean(0), products, means, has_bias)


def weight_of(inputs: int) -> torch.Tensor:
    return torch.randn(inputs, OUTPUTS, generator=torch.Generator().manual_seed(4)) / 30


def output_error(weight: torch.Tensor, quantized: QuantizedWeight, rows: torch.Tensor, with_bias: bool) -> float:
    error = rows @ (torch.from_numpy(dequantize(quantized)) - weight)
    return float((error - error.mean(0) if with_bias else error).square().sum())


@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize(("method", "bits"), KINDS)
def test_outputs_change_less_if_it_is_known_what_a_layer_reads(method: str, bits: int, has_bias: bool) -> None:
    rows, weight = rows_of(INPUTS), weight_of(INPUTS)
    seen, unseen = rows[:1024], rows[1024:]
    scheme = choose_scheme(method, bits, INPUTS, OUTPUTS)
    plain, calibrated = quantize(weight, scheme), quantize(weight, scheme, moments_of(seen, has_bias))
    errors = [output_error(weight, one, unseen, has_bias) for one in (plain, calibrated)]
    assert 10 * math.log10(errors[0] / errors[1]) > 3


def test_weights_of_large_inputs_are_rounded_better_without_feedback_too() -> None:
    rows, weight = rows_of(INPUTS), weight_of(INPUTS)
    rows[:, ::4] *= 8
    weight[::4] /= 8
    scheme = choose_scheme(PALETTE, 4, INPUTS, OUTPUTS)
    plain, weighted = quantize(weight, scheme), quantize(weight, scheme, moments_of(rows), feedback=False)
    large = [np.square(dequantize(one) - weight.numpy())[::4].sum() for one in (plain, weighted)]
    assert large[1] < 0.7 * large[0]


@pytest.mark.parametrize(("method", "bits"), KINDS)
def test_either_layout_of_a_weight_is_rounded_alike(method: str, bits: int) -> None:
    rows, weight = rows_of(INPUTS), weight_of(INPUTS)
    last = quantize(weight, choose_scheme(method, bits, INPUTS, OUTPUTS), moments_of(rows))
    first = quantize(weight.t(), choose_scheme(method, bits, OUTPUTS, INPUTS, outputs_last=False), moments_of(rows))
    np.testing.assert_array_equal(dequantize(last), dequantize(first).T)


def test_inputs_of_several_blocks_are_all_rounded() -> None:
    inputs = BLOCK + 64
    rows, weight = rows_of(inputs), weight_of(inputs)
    decoded = dequantize(quantize(weight, choose_scheme(LINEAR, 8, inputs, OUTPUTS), moments_of(rows)))
    assert np.abs(decoded - weight.numpy()).max() < 0.05 * weight.abs().max()


def test_a_weight_that_its_codes_hold_exactly_stays_as_it_is() -> None:
    weight = torch.tensor([-0.5, 0.25, 1.0, 2.0])[torch.randint(0, 4, (INPUTS, OUTPUTS))]
    scheme = choose_scheme(PALETTE, 4, INPUTS, OUTPUTS)
    np.testing.assert_array_equal(dequantize(quantize(weight, scheme, moments_of(rows_of(INPUTS)))), weight.numpy())


def test_inputs_that_are_always_zero_do_no_harm() -> None:
    rows, weight = rows_of(INPUTS), weight_of(INPUTS)
    for silent in (torch.zeros_like(rows), torch.cat([rows[:, :48], torch.zeros(len(rows), 48)], 1)):
        decoded = dequantize(quantize(weight, choose_scheme(LINEAR, 8, INPUTS, OUTPUTS), moments_of(silent)))
        assert np.abs(decoded - weight.numpy()).max() < 0.05 * weight.abs().max()


def test_few_rows_correct_no_bias_and_no_errors() -> None:
    moments = moments_of(rows_of(INPUTS))
    assert moments.corrects_bias
    few = dataclasses.replace(moments, rows=8)
    assert not few.corrects_bias
    assert not dataclasses.replace(moments, has_bias=False).corrects_bias
    weight, scheme = weight_of(INPUTS), choose_scheme(LINEAR, 4, INPUTS, OUTPUTS)
    without = dequantize(quantize(weight, scheme, few, feedback=False))
    np.testing.assert_array_equal(dequantize(quantize(weight, scheme, few)), without)
    assert (dequantize(quantize(weight, scheme, moments)) != without).any()
