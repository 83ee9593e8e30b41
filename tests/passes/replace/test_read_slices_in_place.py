from pathlib import Path

import numpy as np
import tvm
from tvm import relax, tirx
from tvm.relax import transform
from tvm.script import ir as I
from tvm.script import relax as R

from mlc_controlnet.kernels.schedule_convolution_gpu import Convolution
from mlc_controlnet.passes.clean.lay_out_weights import AS_TORCH
from mlc_controlnet.passes.replace.read_slices_in_place import ReadSlicesInPlace
from mlc_controlnet.passes.replace.use_direct_conv2d import UseDirectConv2d
from tests.kernels.webgpu_device import WEBGPU, run_on_webgpu
from tests.passes.evaluate import evaluate, ops


def residual_blocks(*begins: int) -> tvm.IRModule:
    """Convolutions one after another, each with eight of 40 columns added to its channels."""
    builder = relax.BlockBuilder()
    x, w, t = (
        relax.Var(name, relax.TensorType(shape, "float32"))
        for name, shape in {"x": (1, 8, 6, 10), "w": (8, 3, 3, 8), "t": (1, 40)}.items()
    )
    with builder.function("main", [x, w, t]):
        with builder.dataflow():
            emit, op = builder.emit, relax.op
            y, weight = x, emit(op.permute_dims(w, AS_TORCH))
            for begin in begins:
                columns = emit(op.strided_slice(t, axes=[1], begin=[begin], end=[begin + 8]))
                picture = emit(op.expand_dims(emit(op.expand_dims(columns, axis=2)), axis=3))
                y = emit(op.add(emit(op.nn.conv2d(y, weight, padding=[1, 1, 1, 1])), picture))
            out = builder.emit_output(y)
        builder.emit_func_output(out)
    return transform.Normalize()(builder.get())


def random_inputs() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape, dtype=np.float32) for shape in ((1, 8, 6, 10), (8, 3, 3, 8), (1, 40))]


def lower(mod: tvm.IRModule) -> tvm.IRModule:
    passes = [
        UseDirectConv2d(),
        transform.LegalizeOps(),
        transform.AnnotateTIROpPattern(),
        transform.FuseOps(),
        transform.FuseTIR(),
        transform.DeadCodeElimination(),
    ]
    with WEBGPU:
        return tvm.transform.Sequential(passes)(mod)


def kernels(mod: tvm.IRModule) -> list[tirx.PrimFunc]:
    return [function for function in mod.functions.values() if isinstance(function, tirx.PrimFunc)]


def test_the_columns_are_those_of_the_slice() -> None:
    before = residual_blocks(16, 32)
    after = ReadSlicesInPlace()(before)
    assert ops(after["main"]) == {"relax.permute_dims", "relax.nn.conv2d", "relax.add", "relax.call_tir"}
    np.testing.assert_allclose(evaluate(after, *random_inputs()), evaluate(before, *random_inputs()), rtol=1e-5)


def test_blocks_of_one_shape_share_one_kernel_that_holds_the_convolution_too() -> None:
    assert len(kernels(lower(ReadSlicesInPlace()(residual_blocks(0, 16, 32))))) == 1


def test_a_gpu_adds_the_right_columns(tmp_path: Path) -> None:
    (kernel,) = kernels(lower(ReadSlicesInPlace()(residual_blocks(16))))
    with WEBGPU:
        scheduled = Convolution().apply(kernel, WEBGPU, False)
    assert scheduled is not None
    x, w, t = random_inputs()
    *inputs, output = (str(p.name) for p in kernel.params)
    got = np.zeros((1, 8, 6, 10), np.float32)
    named = {"x": x, "w": w, "t": t}
    arguments = {name: named.get(name, np.array([16], np.int32)) for name in inputs}
    function = scheduled.mod["main"].with_attr("tirx.is_scheduled", True)
    run_on_webgpu([function], arguments, {output: got}, tmp_path)
    np.testing.assert_allclose(got, evaluate(residual_blocks(16), x, w, t), rtol=1e-4, atol=1e-4)


def test_only_slices_of_one_row_that_become_channels_are_read_in_place() -> None:
    @I.ir_module
    class Before:
        @R.function
        def main(t: R.Tensor((1, 40), "float32"), two: R.Tensor((2, 40), "float32")):
            with R.dataflow():
                columns = R.strided_slice(t, axes=[1], begin=[0], end=[8])
                row = R.expand_dims(columns, axis=[1])
                last = R.expand_dims(row, axis=[3])
                pair = R.strided_slice(two, axes=[1], begin=[0], end=[8])
                deep = R.expand_dims(pair, axis=[2])
                pictures = R.expand_dims(deep, axis=[3])
                R.output(last, pictures)
            return (last, pictures)

    tvm.ir.assert_structural_equal(ReadSlicesInPlace()(Before), Before)
