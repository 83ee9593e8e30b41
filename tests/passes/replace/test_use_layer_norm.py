import pytest
import tvm
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R
from tvm.target import Target

from mlc_controlnet.kernels.layer_norm import layer_norm
from mlc_controlnet.kernels.normalization import LayerNorm
from mlc_controlnet.passes.replace.use_layer_norm import UseLayerNorm
from tests.kernels.webgpu_device import WEBGPU

LLVM = Target({"kind": "llvm", "num-cores": 2})


@pytest.mark.parametrize("target", [LLVM, WEBGPU], ids=["processor", "gpu"])
def test_layer_norms_of_one_shape_share_a_kernel(target: Target) -> None:
    @I.ir_module
    class Before:
        @R.function
        def main(
            x: R.Tensor((1, 6, 32), "float32"), gamma: R.Tensor((32,), "float32"), beta: R.Tensor((32,), "float32")
        ):
            with R.dataflow():
                y = R.nn.layer_norm(x, gamma, beta, axes=[-1])
                z = R.nn.layer_norm(y, gamma, beta, axes=[2])
                R.output(z)
            return z

    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((1, 6, 32), "float32"))
    gamma, beta = (relax.Var(name, relax.TensorType((32,), "float32")) for name in ("gamma", "beta"))
    with builder.function("main", [x, gamma, beta]):
        with builder.dataflow():
            kernel = builder.add_func(layer_norm(LayerNorm((1, 6, 32), 1e-5, "float32"), target), "layer_norm")
            y = builder.emit(relax.call_tir(kernel, [x, gamma, beta], x.ty))
            z = builder.emit_output(relax.call_tir(kernel, [y, gamma, beta], x.ty))
        builder.emit_func_output(z)
    tvm.ir.assert_structural_equal(UseLayerNorm(target)(Before), builder.get())


@pytest.mark.parametrize(("target", "kernels"), [(LLVM, 1), (WEBGPU, 0)], ids=["processor", "gpu"])
def test_a_row_too_wide_for_a_workgroup_is_a_processors_alone(target: Target, kernels: int) -> None:
    @I.ir_module
    class Before:
        @R.function
        def main(
            x: R.Tensor((4, 8192), "float32"), gamma: R.Tensor((8192,), "float32"), beta: R.Tensor((8192,), "float32")
        ):
            with R.dataflow():
                y = R.nn.layer_norm(x, gamma, beta, axes=[-1])
                R.output(y)
            return y

    after = UseLayerNorm(target)(Before)
    assert len([f for _, f in after.functions_items() if isinstance(f, tvm.tirx.PrimFunc)]) == kernels


def test_a_norm_over_other_axes_is_left_alone() -> None:
    @I.ir_module
    class Before:
        @R.function
        def main(
            x: R.Tensor((1, 6, 8), "float32"), gamma: R.Tensor((6, 8), "float32"), beta: R.Tensor((6, 8), "float32")
        ):
            with R.dataflow():
                y = R.nn.layer_norm(x, gamma, beta, axes=[1, 2])
                R.output(y)
            return y

    tvm.ir.assert_structural_equal(UseLayerNorm(WEBGPU)(Before), Before)


def test_a_norm_without_shift_is_left_alone() -> None:
    @I.ir_module
    class Before:
        @R.function
        def main(
            x: R.Tensor((1, 6, 32), "float32"), gamma: R.Tensor((32,), "float32"), beta: R.Tensor((32,), "float32")
        ):
            with R.dataflow():
                y = R.nn.layer_norm(x, gamma, beta, axes=[-1], center=False)
                R.output(y)
            return y

    tvm.ir.assert_structural_equal(UseLayerNorm(WEBGPU)(Before), Before)
