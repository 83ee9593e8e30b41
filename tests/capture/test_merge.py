"""Weights that a library makes of a base and factors, against numpy."""

import numpy as np
import pytest
import tvm
from tvm import relax

from mlc_controlnet.capture.merge import Factors, MergeShape, Slice, factor_params, merge_module
from mlc_controlnet.capture.param import Param
from mlc_controlnet.compile.library import count_launches_and_bytes, generate_code, tvm_target
from mlc_controlnet.config import TARGETS
from mlc_controlnet.passes.pipeline import Pipeline

SHAPES = {
    "a linear layer": MergeShape((24, 16), True, ((24, 16),), (Slice(0, 0, 16),), (Factors(1, 16, 4),)),
    "a convolution": MergeShape((8, 3, 3, 16), True, ((8, 3, 3, 16),), (Slice(0, 0, 16),), (Factors(1, 16, 4),)),
    "a few rows": MergeShape((16, 24), False, ((16, 24),), (Slice(0, 0, 16),), (Factors(1, 16, 4),)),
    "q, k and v": MergeShape((16, 48), True, ((16, 48),), (Slice(0, 0, 48),), (Factors(3, 16, 4),)),
    "layers of two widths and ranks, the first of the base's": MergeShape(
        (16, 80), True, ((16, 112),), (Slice(0, 0, 80),), (Factors(3, 16, 4), Factors(1, 32, 8))
    ),
    "layers of two bases": MergeShape(
        (64, 24),
        False,
        ((32, 24), (80, 24)),
        (Slice(0, 16, 32), Slice(1, 32, 80)),
        (Factors(2, 16, 4), Factors(1, 32, 4)),
    ),
}


@pytest.fixture(scope="module", params=["float32", "float16"])
def library(request: pytest.FixtureRequest) -> tuple[str, relax.VirtualMachine]:
    pipeline = Pipeline(tvm_target(TARGETS["llvm"]))
    planned = pipeline.run(merge_module(SHAPES.values(), request.param))
    return request.param, relax.VirtualMachine(generate_code(planned, pipeline.target), tvm.cpu())


def numbers(shape: MergeShape) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [generator.normal(0, 0.2, sizes).astype(np.float16) for sizes in shape.arguments]


def merged(shape: MergeShape, arguments: list[np.ndarray]) -> np.ndarray:
    """The sum in float64."""
    count, axis = len(shape.bases), 1 if shape.outputs_last else 0
    factors = [factor.astype(np.float64) for factor in arguments[count:]]
    products = [one for left, right in zip(factors[::2], factors[1::2], strict=True) for one in left @ right]
    matrices = [b.reshape(-1, b.shape[-1]) if shape.outputs_last else b.reshape(len(b), -1) for b in arguments[:count]]
    slices = [np.take(matrices[part.base], range(part.start, part.stop), axis) for part in shape.slices]
    return (np.concatenate(slices, axis) + np.concatenate(products, axis)).reshape(shape.result)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_a_merged_weight_is_the_sum_rounded_to_float16_once(
    library: tuple[str, relax.VirtualMachine], shape: MergeShape
) -> None:
    dtype, vm = library
    arguments = numbers(shape)
    got = vm[shape.function](*(tvm.runtime.tensor(argument.astype(dtype)) for argument in arguments)).numpy()
    assert (got.dtype, got.shape) == (np.dtype(dtype), shape.result)
    wanted = merged(shape, arguments)
    # Half a unit in the last of float16's 11 bits, and float32's own error in a sum of 9 terms.
    assert np.all(np.abs(got - wanted) <= 2.0**-11 * np.abs(wanted) + 2e-7)
    is_normal = np.abs(wanted) > 2.0**-14
    assert np.array_equal(got[is_normal], got[is_normal].astype(np.float16))
    assert np.std(merged(shape, [a * (i < len(shape.bases)) for i, a in enumerate(arguments)]) - wanted) > 0.02


def test_the_product_of_a_single_layer_and_the_sum_are_one_launch() -> None:
    shape = SHAPES["a linear layer"]
    planned = Pipeline(tvm_target(TARGETS["llvm"])).run(merge_module([shape], "float32"))
    launches, activation_bytes = count_launches_and_bytes(planned)
    assert launches == {shape.function: 1}
    assert activation_bytes == {shape.function: 4096}  # the result, in whole pages


def test_merges_of_equal_shapes_share_a_function() -> None:
    names = {shape.function for shape in SHAPES.values()}
    assert len(names) == len(SHAPES)
    same = MergeShape((24, 16), True, ((24, 16),), (Slice(0, 0, 16),), (Factors(1, 16, 4),))
    assert same.function == SHAPES["a linear layer"].function == "merge_24x16_c9438564"  # in every process


def test_factors_lie_as_their_product_reads_them() -> None:
    left, right = factor_params(["a.up", "b.up"], ["a.down", "b.down"], outputs_last=True)
    assert (left, right) == (
        Param.joined(["a.down", "b.down"]).permuted([0, 2, 1]),
        Param.joined(["a.up", "b.up"]).permuted([0, 2, 1]),
    )
    assert factor_params(["a.up"], ["a.down"], outputs_last=False) == (Param.whole("a.up"), Param.whole("a.down"))
