from pathlib import Path

import numpy as np
import pytest
import tvm
from tvm import relax, tirx
from tvm.relax import transform
from tvm.script import ir as I
from tvm.script import relax as R

from mlc_controlnet.passes.replace.read_elements_in_place import ReadElementsInPlace
from mlc_controlnet.passes.schedule.schedule_for_gpu import ScheduleForGPU
from tests.kernels.webgpu_device import WEBGPU, run_on_webgpu
from tests.passes.evaluate import evaluate, fuse


def gated_layers(*places: int, dtype: str = "float32") -> tvm.IRModule:
    """Products with a weight, twice a gate: as a layer of a text encoder gates its attention and its MLP."""
    builder = relax.BlockBuilder()
    x, w, gates = (
        relax.Var(name, relax.TensorType(shape, kind))
        for name, shape, kind in (("x", (6, 8), dtype), ("w", (8, 8), dtype), ("gates", (5,), "float32"))
    )
    with builder.function("main", [x, w, gates]):
        with builder.dataflow():
            emit, op = builder.emit, relax.op
            y = x
            for place in places:
                gate = emit(op.strided_slice(gates, axes=[0], begin=[place], end=[place + 1], strides=[1]))
                gate = gate if dtype == "float32" else emit(op.astype(gate, dtype))
                y = emit(op.add(y, emit(op.multiply(gate, emit(op.matmul(y, w))))))
                y = emit(op.add(y, emit(op.multiply(emit(op.matmul(y, w)), gate))))
            out = builder.emit_output(y)
        builder.emit_func_output(out)
    return transform.Normalize()(builder.get())


def launches(mod: tvm.IRModule) -> tuple[int, int]:
    """The calls of kernels after fusion, and the kernels."""
    fused = fuse(mod)
    calls = [b for block in fused["main"].body.blocks for b in block.bindings if isinstance(b.value, relax.Call)]
    return len(calls), sum(isinstance(function, tirx.PrimFunc) for function in fused.functions.values())


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_elements_are_those_of_the_slices(dtype: str) -> None:
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal(shape).astype(dtype) for shape in ((6, 8), (8, 8)))
    gates = rng.standard_normal(5, dtype=np.float32)
    before = gated_layers(3, 1, dtype=dtype)
    after = ReadElementsInPlace()(before)
    got, wanted = evaluate(after, x, w, gates), evaluate(before, x, w, gates)
    np.testing.assert_allclose(got, wanted, rtol=1e-5 if dtype == "float32" else 1e-2)
    other = evaluate(gated_layers(3, 2, dtype=dtype), x, w, gates)
    assert np.abs(other - wanted).max() > 0.1, "another place is another result"


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_no_launch_copies_a_number_and_layers_share_their_kernels(dtype: str) -> None:
    before, _ = launches(gated_layers(3, 1, dtype=dtype))
    after, kernels = launches(ReadElementsInPlace()(gated_layers(3, 1, dtype=dtype)))
    assert (before, after, kernels) == (6, 4, 2)


def test_an_element_of_more_axes_is_read_in_place_too() -> None:
    """1x1 convolutions that became products scale [1, C, P] by a number of three axes."""

    @I.ir_module
    class Before:
        @R.function
        def main(x: R.Tensor((1, 4, 6), "float32"), w: R.Tensor((1, 6, 8), "float32"), v: R.Tensor((5,), "float32")):
            with R.dataflow():
                one = R.strided_slice(v, axes=[0], begin=[3], end=[4])
                scale = R.reshape(one, R.shape([1, 1, 1]))
                product = R.matmul(x, w)
                scaled = R.multiply(product, scale)
                R.output(scaled)
            return scaled

    rng = np.random.default_rng(0)
    values = [rng.standard_normal(shape, dtype=np.float32) for shape in ((1, 4, 6), (1, 6, 8), (5,))]
    after = ReadElementsInPlace()(Before)
    np.testing.assert_allclose(evaluate(after, *values), evaluate(Before, *values), rtol=1e-5)
    assert (launches(Before)[0], launches(after)[0]) == (2, 1)


def test_a_gpu_reads_the_right_element(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal(shape, dtype=np.float32) for shape in ((6, 8), (8, 8)))
    gates, zeros = rng.standard_normal(5, dtype=np.float32), np.zeros((6, 8), np.float32)
    fused = fuse(ReadElementsInPlace()(gated_layers(3)))
    with WEBGPU:
        scheduled = ScheduleForGPU()(fused)
    first, second = (
        b.value for block in fused["main"].body.blocks for b in block.bindings if isinstance(b.value, relax.Call)
    )
    got = x
    for call in (first, second):
        kernel = scheduled[call.args[0]].with_attr("global_symbol", "kernel")
        names = [str(p.name) for p in kernel.params]
        arguments = {}
        for name, operand in zip(names, call.args[1], strict=False):
            inputs = {"x": x, "w": w, "gates": gates}
            is_place = not isinstance(operand, relax.Var)
            arguments[name] = np.array([3], np.int32) if is_place else inputs.get(str(operand), got)
        output = zeros.copy()
        run_on_webgpu([kernel], arguments, {names[-1]: output}, tmp_path)
        got = output
    np.testing.assert_allclose(got, evaluate(gated_layers(3), x, w, gates), rtol=1e-4, atol=1e-4)


def test_only_products_with_one_number_of_a_vector_read_it_in_place() -> None:
    @I.ir_module
    class Before:
        @R.function
        def main(x: R.Tensor((2, 8), "float32"), v: R.Tensor((5,), "float32"), m: R.Tensor((5, 8), "float32")):
            with R.dataflow():
                pair = R.strided_slice(v, axes=[0], begin=[1], end=[3])
                doubled = R.multiply(pair, pair)
                row = R.strided_slice(m, axes=[0], begin=[1], end=[2])
                scaled = R.multiply(x, row)
                one = R.strided_slice(v, axes=[0], begin=[1], end=[2])
                moved = R.add(x, one)
                R.output(doubled, scaled, moved)
            return (doubled, scaled, moved)

    tvm.ir.assert_structural_equal(ReadElementsInPlace()(Before), Before)
