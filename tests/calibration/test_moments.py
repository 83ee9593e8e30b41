import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mlc_controlnet.calibration.moments import ROWS_OF_A_CALL, Watch
from mlc_controlnet.quantize.input_moments import BLOCK, InputMoments


def moments_of(layer: nn.Module, *inputs: torch.Tensor) -> InputMoments:
    watch = Watch([("unet.layer.weight", layer)])
    with torch.no_grad():
        for x in inputs:
            layer(x)
    return watch.end()["unet.layer.weight"]


def check(moments: InputMoments, rows: torch.Tensor) -> None:
    """All rows were few enough for products, too."""
    rows = rows.double()
    assert moments.rows == len(rows)
    torch.testing.assert_close(moments.mean, rows.mean(0), rtol=0, atol=1e-5)
    torch.testing.assert_close(moments.mean_square, rows.square().mean(0), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 8, 3, padding=1),
        nn.Conv2d(4, 8, 3, stride=2, padding=(1, 0)),
        nn.Conv2d(4, 8, (3, 1), dilation=2, bias=False),
        nn.Conv2d(4, 8, 1),
    ],
)
def test_a_convolution_reads_patches_and_zeros_around_the_picture(layer: nn.Conv2d) -> None:
    inputs = [torch.randn(1, 4, 9, 12, generator=torch.Generator().manual_seed(seed)) + seed for seed in range(2)]
    moments = moments_of(layer, *inputs)
    patches = [F.unfold(x, layer.kernel_size, layer.dilation, layer.padding, layer.stride) for x in inputs]  # type: ignore[arg-type]
    check(moments, torch.cat([one[0].t() for one in patches]))
    assert moments.has_bias == (layer.bias is not None)
    # The chosen patches are patches: their layer's outputs are outputs.
    torch.testing.assert_close(moments.means[0].double(), moments.mean, rtol=0, atol=0.4)


def test_a_linear_layer_reads_rows_and_products_are_of_neighbours() -> None:
    layer = nn.Linear(BLOCK + 32, 4)
    x = torch.randn(2, 100, BLOCK + 32, generator=torch.Generator().manual_seed(0)) + 1
    moments = moments_of(layer, x)
    rows = x.flatten(0, 1)
    check(moments, rows)
    assert [len(block) for block in moments.products] == [BLOCK, 32]
    torch.testing.assert_close(moments.products[1], rows[:, BLOCK:].t() @ rows[:, BLOCK:] / 200, rtol=0, atol=1e-4)
    covariance = rows[:, BLOCK:].double().t().cov(correction=0)
    hessian = list(moments.hessians())[1]
    damping = (hessian - covariance).diag()
    torch.testing.assert_close(hessian - covariance, damping.diag(), rtol=0, atol=1e-4)
    assert (damping > 0.005).all()


def test_of_many_rows_some_are_multiplied_the_same_for_layers_that_read_the_same() -> None:
    x = torch.randn(1, 4 * ROWS_OF_A_CALL, 32, generator=torch.Generator().manual_seed(0))
    query, key = nn.Linear(32, 8, bias=False), nn.Linear(32, 8, bias=False)
    watch = Watch([("query", query), ("key", key)])
    query(x), key(x)
    moments = watch.end()
    assert moments["query"].rows == 4 * ROWS_OF_A_CALL
    assert torch.equal(moments["query"].products[0], moments["key"].products[0])
    torch.testing.assert_close(moments["query"].products[0], torch.eye(32), rtol=0, atol=0.3)


def test_a_watch_that_has_ended_sees_nothing() -> None:
    layer = nn.Linear(8, 8)
    watch = Watch([("weight", layer)])
    layer(torch.ones(3, 8))
    first = watch.end()["weight"].rows
    layer(torch.ones(3, 8))
    assert watch.end()["weight"].rows == first == 3
