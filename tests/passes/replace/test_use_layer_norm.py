import pytest
import tvm
from tvm import relax
from tvm.target import Target

from mlc_controlnet.kernels.layer_norm import layer_norm
from mlc_controlnet.kernels.normalization import LayerNorm
from mlc_controlnet.passes.replace.use_layer_norm import UseLayerNorm
from tests.kernels.webgpu_device import WEBGPU

LLVM = Target({"kind": "llvm", "num-cores": 2})


def norms(shape: tuple[int, ...], *all_axes: list[int], center: bool = True) -> tvm.IRModule:
    """Layer norms of x in turn, over these axes; all have the same gamma and beta."""
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType(shape, "float32"))
    normalized = [shape[axis] for axis in all_axes[0]]
    gamma, beta = (relax.Var(name, relax.TensorType(normalized, "float32")) for name in ("gamma", "beta"))
    with builder.function("main", [x, gamma, beta]):
        with builder.dataflow():
            y = x
            for index, axes in enumerate(all_axes):
                emit = builder.emit_output if index == len(all_axes) - 1 else builder.emit
                y = emit(relax.op.nn.layer_norm(y, gamma, beta, axes=axes, center=center))
        builder.emit_func_output(y)
    return builder.get()


@pytest.mark.parametrize("target", [LLVM, WEBGPU], ids=["processor", "gpu"])
def test_layer_norms_of_one_shape_share_a_kernel(target: Target) -> None:
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((1, 6, 32), "float32"))
    gamma, beta = (relax.Var(name, relax.TensorType((32,), "float32")) for name in ("gamma", "beta"))
    with builder.function("main", [x, gamma, beta]):
        with builder.dataflow():
            kernel = builder.add_func(layer_norm(LayerNorm((1, 6, 32), 1e-5, "float32"), target), "layer_norm")
            y = builder.emit(relax.call_tir(kernel, [x, gamma, beta], x.ty))
            z = builder.emit_output(relax.call_tir(kernel, [y, gamma, beta], x.ty))
        builder.emit_func_output(z)
    tvm.ir.assert_structural_equal(UseLayerNorm(target)(norms((1, 6, 32), [-1], [2])), builder.get())


def test_a_row_too_wide_for_a_workgroup_has_a_kernel_on_processors_only() -> None:
    before = norms((4, 8192), [-1])
    tvm.ir.assert_structural_equal(UseLayerNorm(WEBGPU)(before), before)
    on_processor = UseLayerNorm(LLVM)(before)
    assert [f.name_hint for f in on_processor.get_global_vars() if f.name_hint != "main"] == ["layer_norm"]


@pytest.mark.parametrize(
    "before",
    [norms((1, 6, 8), [1, 2]), norms((1, 6, 32), [-1], center=False)],
    ids=["over other axes", "without shift"],
)
def test_other_norms_stay(before: tvm.IRModule) -> None:
    tvm.ir.assert_structural_equal(UseLayerNorm(WEBGPU)(before), before)
