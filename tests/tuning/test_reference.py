import numpy as np
import pytest
import torch
from tvm.tirx import PrimFunc

from mlc_controlnet.tuning.reference import make_reference
from tests.tuning.operations import LLVM, make_convolution, make_linear


@pytest.fixture(scope="module")
def convolution():
    return make_reference(make_convolution(), LLVM)


def test_some_rows_of_a_convolution_are_what_torch_computes(convolution) -> None:
    x, weight, bias = (torch.from_numpy(value) for value in convolution.arguments[:-1])
    want = torch.conv2d(x, weight.permute(3, 0, 1, 2), padding=1) + bias
    known = ~np.isnan(convolution.want)
    assert 0.05 < known.mean() < 1
    np.testing.assert_allclose(convolution.want[known], want.numpy()[known], rtol=1e-4, atol=1e-5)
    assert convolution.decibels(want.numpy()) > 100


def test_some_rows_of_a_product_are_what_numpy_computes() -> None:
    reference = make_reference(make_linear(64)["NT_matmul"], LLVM)
    x, weight = reference.arguments[:2]
    assert reference.decibels(x @ weight.T) > 100


def test_a_wrong_output_is_told(convolution) -> None:
    right = np.nan_to_num(convolution.want)
    assert convolution.decibels(right) == 200
    assert convolution.decibels(np.roll(right, 1, axis=-1)) < 20
    assert convolution.decibels(np.full_like(right, np.nan)) == -np.inf
    assert convolution.problem(convolution.decibels(right * 1.01)) == "differs from the reference: 40 dB, wanted 80"
    assert not convolution.problem(convolution.decibels(right))


@pytest.mark.parametrize("rounds", [True, False])
def test_sums_of_float16_products_need_not_be_better_where_they_come_as_float32(rounds: bool) -> None:
    """Parts of a deep convolution are such sums: another launch adds them up."""
    (function,) = (
        f for _, f in make_linear(64, dtype="float16", rounds=rounds).functions_items() if isinstance(f, PrimFunc)
    )
    reference = make_reference(function, LLVM)
    assert str(reference.want.dtype) == ("float16" if rounds else "float32")
    assert not reference.problem(60.0) and reference.problem(40.0)
