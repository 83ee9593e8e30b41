import pytest
import tvm
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R
from tvm.target import Target

from mlc_controlnet.kernels.group_norm import group_norm
from mlc_controlnet.kernels.normalization import GroupNorm
from mlc_controlnet.passes.replace.use_group_norm import UseGroupNorm

LLVM = Target({"kind": "llvm", "num-cores": 2})
WEBGPU = Target("webgpu")


def expect(silu: bool) -> tvm.IRModule:
    """x -> statistics -> normalize, built by hand."""
    kernels = group_norm(GroupNorm((1, 8, 6, 4), 2, 1e-5, "float32", silu), LLVM)
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((1, 8, 6, 4), "float32"))
    gamma, beta = (relax.Var(name, relax.TensorType((8,), "float32")) for name in ("gamma", "beta"))
    with builder.function("main", [x, gamma, beta]):
        with builder.dataflow():
            statistics = builder.add_func(kernels.statistics, "group_norm_statistics")
            normalize = builder.add_func(kernels.normalize, f"group_norm_normalize{'_silu' if silu else ''}")
            partial = builder.emit(relax.call_tir(statistics, [x], relax.TensorType(kernels.partial_shape, "float32")))
            y = builder.emit_output(relax.call_tir(normalize, [x, partial, gamma, beta], x.ty))
        builder.emit_func_output(y)
    return builder.get()


def test_group_norm_and_silu_become_two_kernels() -> None:
    @I.ir_module
    class Before:
        @R.function
        def main(
            x: R.Tensor((1, 8, 6, 4), "float32"), gamma: R.Tensor((8,), "float32"), beta: R.Tensor((8,), "float32")
        ):
            with R.dataflow():
                y = R.nn.group_norm(x, gamma, beta, num_groups=2, channel_axis=1, axes=[2, 3])
                z = R.nn.silu(y)
                R.output(z)
            return z

    tvm.ir.assert_structural_equal(UseGroupNorm(LLVM)(Before), expect(silu=True))


def test_group_norm_alone_becomes_two_kernels() -> None:
    @I.ir_module
    class Before:
        @R.function
        def main(
            x: R.Tensor((1, 8, 6, 4), "float32"), gamma: R.Tensor((8,), "float32"), beta: R.Tensor((8,), "float32")
        ):
            with R.dataflow():
                y = R.nn.group_norm(x, gamma, beta, num_groups=2, channel_axis=1, axes=[2, 3])
                R.output(y)
            return y

    tvm.ir.assert_structural_equal(UseGroupNorm(LLVM)(Before), expect(silu=False))


def test_silu_stays_where_the_norm_has_another_reader() -> None:
    @I.ir_module
    class Before:
        @R.function
        def main(
            x: R.Tensor((1, 8, 6, 4), "float32"), gamma: R.Tensor((8,), "float32"), beta: R.Tensor((8,), "float32")
        ):
            with R.dataflow():
                y = R.nn.group_norm(x, gamma, beta, num_groups=2, channel_axis=1, axes=[2, 3])
                z = R.nn.silu(y)
                out = R.add(y, z)
                R.output(out)
            return out

    text = UseGroupNorm(LLVM)(Before)["main"].script()
    assert "group_norm_normalize," in text and "R.nn.silu" in text and "R.nn.group_norm" not in text


def test_silu_stays_where_the_norm_is_an_output() -> None:
    @I.ir_module
    class Before:
        @R.function
        def main(
            x: R.Tensor((1, 8, 6, 4), "float32"), gamma: R.Tensor((8,), "float32"), beta: R.Tensor((8,), "float32")
        ):
            with R.dataflow():
                y = R.nn.group_norm(x, gamma, beta, num_groups=2, channel_axis=1, axes=[2, 3])
                z = R.nn.silu(y)
                R.output(y, z)
            return (y, z)

    text = UseGroupNorm(LLVM)(Before)["main"].script()
    assert "group_norm_normalize," in text and "R.nn.silu" in text


def test_chain_of_two_norms_reads_the_new_values() -> None:
    @I.ir_module
    class Before:
        @R.function
        def main(
            x: R.Tensor((1, 8, 6, 4), "float32"), gamma: R.Tensor((8,), "float32"), beta: R.Tensor((8,), "float32")
        ):
            with R.dataflow():
                a = R.nn.group_norm(x, gamma, beta, num_groups=2, channel_axis=1, axes=[2, 3])
                b = R.nn.silu(a)
                c = R.nn.group_norm(b, gamma, beta, num_groups=2, channel_axis=1, axes=[2, 3])
                d = R.nn.silu(c)
                R.output(d)
            return d

    after = UseGroupNorm(LLVM)(Before)
    assert after["main"].script().count("R.call_tir(") == 4
    assert len(after.get_global_vars()) == 3, "both norms share their kernels"
    relax.analysis.well_formed(after)  # raises


def test_channels_last_is_left_alone() -> None:
    @I.ir_module
    class Before:
        @R.function
        def main(
            x: R.Tensor((1, 6, 4, 8), "float32"), gamma: R.Tensor((8,), "float32"), beta: R.Tensor((8,), "float32")
        ):
            with R.dataflow():
                y = R.nn.group_norm(x, gamma, beta, num_groups=2, channel_axis=3, axes=[1, 2])
                z = R.nn.silu(y)
                R.output(z)
            return z

    tvm.ir.assert_structural_equal(UseGroupNorm(LLVM)(Before), Before)


@pytest.mark.parametrize(
    ("size", "kernels"), [(32, ["group_norm_silu"]), (64, ["group_norm_statistics", "group_norm_normalize_silu"])]
)
def test_a_small_group_is_one_kernel_of_a_gpu(size: int, kernels: list[str]) -> None:
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((1, 8, size, size), "float32"))
    gamma, beta = (relax.Var(name, relax.TensorType((8,), "float32")) for name in ("gamma", "beta"))
    with builder.function("main", [x, gamma, beta]):
        with builder.dataflow():
            y = builder.emit(relax.op.nn.group_norm(x, gamma, beta, num_groups=2, channel_axis=1, axes=[2, 3]))
            z = builder.emit_output(relax.op.nn.silu(y))
        builder.emit_func_output(z)
    after = UseGroupNorm(WEBGPU)(builder.get())
    calls = [binding.value.args[0].name_hint for binding in after["main"].body.blocks[0].bindings]
    assert calls == kernels
