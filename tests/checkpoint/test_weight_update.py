"""Each kind of update against the sum that its paper writes."""

import pytest
import torch

from mlc_controlnet.checkpoint.lora_factors import read_difference, split_key
from mlc_controlnet.checkpoint.weight_update import Hadamard, Kronecker, Magnitude, Product, WeightUpdate, Whole
from tests.checkpoint.lycoris import CONVOLUTIONS_ALONE, EVERYWHERE, dora

LINEAR, CONVOLUTION, POINTWISE = (48, 20), (24, 20, 3, 5), (24, 20, 1, 1)
CASES = [(kind, shape) for kind in EVERYWHERE for shape in (LINEAR, CONVOLUTION, POINTWISE)]
CASES += [(kind, CONVOLUTION) for kind in CONVOLUTIONS_ALONE]


def close(got: torch.Tensor, wanted: torch.Tensor) -> bool:
    return got.dtype == torch.float32 and torch.allclose(got.double(), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("kind", "shape"), CASES)
def test_an_update_adds_the_papers_sum(kind: str, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    weight = torch.randn(shape).half()
    factors, difference = {**EVERYWHERE, **CONVOLUTIONS_ALONE}[kind](torch.Size(shape))
    made, rank = read_difference({split_key(f"layer.{name}")[1]: factor for name, factor in factors.items()}, kind)
    assert made.shape == (shape[0], torch.Size(shape[1:]).numel())
    assert rank == (None if kind == "lokr_whole" else 3)
    got = WeightUpdate(made, scale=0.5, weight=-0.75).applied_to(weight)
    assert close(got, weight.double() - 0.375 * difference)


@pytest.mark.parametrize("shape", [LINEAR, CONVOLUTION])
@pytest.mark.parametrize("axis", [0, 1])
def test_dora_gives_each_output_or_each_input_its_norm(shape: tuple[int, ...], axis: int) -> None:
    torch.manual_seed(1)
    weight = torch.randn(shape)
    factors, difference = EVERYWHERE["lora"](torch.Size(shape))
    norms = torch.rand(shape[axis]) + 0.5
    magnitude = norms.reshape([shape[axis] if at == axis else 1 for at in range(len(shape))])
    product = Product(factors["lora_up.weight"], factors["lora_down.weight"])
    update = WeightUpdate(product, 0.25, 1.0, Magnitude(norms, axis))
    wanted = dora(weight, 0.25 * difference, magnitude)
    assert close(update.applied_to(weight), wanted)
    assert not close(WeightUpdate(product, 0.25, 0.5, update.magnitude).applied_to(weight), wanted)


def test_doras_weight_goes_from_the_base_to_the_trained_weight_in_a_line() -> None:
    torch.manual_seed(2)
    weight, norms = torch.randn(LINEAR), torch.rand(LINEAR[0])
    product = Product(torch.randn(LINEAR[0], 2), torch.randn(2, LINEAR[1]))

    def merged(share: float) -> torch.Tensor:
        return WeightUpdate(product, 0.5, share, Magnitude(norms, 0)).applied_to(weight)

    assert torch.equal(merged(0.0), weight)
    assert close(merged(0.7), 0.3 * weight.double() + 0.7 * merged(1.0).double())


def test_doras_untrained_norms_leave_the_weight_as_it_was() -> None:
    torch.manual_seed(3)
    weight = torch.randn(CONVOLUTION)
    product = Product(torch.zeros(CONVOLUTION[0], 2), torch.randn(2, 20, 3, 5))
    norms = weight.flatten(1).norm(dim=1)
    assert close(WeightUpdate(product, 1.0, 1.0, Magnitude(norms, 0)).applied_to(weight), weight.double())


def test_an_output_of_zeros_stays_zero() -> None:
    weight = torch.ones(3, 4)
    weight[1] = 0
    got = Magnitude(torch.full((3,), 5.0), 0).imposed_on(weight)
    assert torch.equal(got, 2.5 * weight)


def test_factors_that_do_not_fit_one_another_have_no_shape() -> None:
    fits, other = Product(torch.zeros(6, 2), torch.zeros(2, 9)), Product(torch.zeros(6, 2), torch.zeros(2, 8))
    torn = Product(torch.zeros(6, 2), torch.zeros(3, 9))
    assert (fits.shape, torn.shape, Hadamard(fits, fits).shape) == ((6, 9), None, (6, 9))
    assert Hadamard(fits, other).shape is None
    assert Kronecker(Whole(torch.zeros(2, 3)), torn).shape is None
    assert Kronecker(Whole(torch.zeros(2, 3)), fits).shape == (12, 27)
    assert Product(torch.zeros(6, 2), torch.zeros(3, 9), torch.zeros(2, 3, 3, 3)).shape == (6, 81)
    assert Product(torch.zeros(6, 2), torch.zeros(3, 9), torch.zeros(3, 2, 3, 3)).shape is None
