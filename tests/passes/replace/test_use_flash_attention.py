import dataclasses

import numpy as np
import pytest
import tvm
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R
from tvm.script import tirx as T
from tvm.target import Target

from mlc_controlnet.kernels.attention import Attention
from mlc_controlnet.kernels.flash_attention import flash_attention
from mlc_controlnet.passes.replace.use_flash_attention import UseFlashAttention
from tests.kernels.webgpu_device import WEBGPU
from tests.passes.evaluate import evaluate, ops

LLVM = Target({"kind": "llvm", "num-cores": 2})


@pytest.mark.parametrize("target", [LLVM, WEBGPU], ids=["llvm", "webgpu"])
def test_attention_becomes_one_kernel(target: Target) -> None:
    @I.ir_module
    class Before:
        @R.function
        def main(q: R.Tensor((1, 60, 4, 16), "float32"), k: R.Tensor((1, 77, 4, 16), "float32")):
            with R.dataflow():
                o = R.nn.attention(q, k, k)
                R.output(o)
            return o

    builder = relax.BlockBuilder()
    q = relax.Var("q", relax.TensorType((1, 60, 4, 16), "float32"))
    k = relax.Var("k", relax.TensorType((1, 77, 4, 16), "float32"))
    with builder.function("main", [q, k]):
        with builder.dataflow():
            kernel = flash_attention(Attention(1, 60, 77, 4, 16, "float32", 0.25), target)
            name = builder.add_func(kernel, "flash_attention_60x77_4x16")
            rows = [builder.emit(relax.op.reshape(x, (1, length, 64))) for x, length in ((q, 60), (k, 77), (k, 77))]
            y = builder.emit(relax.call_tir(name, rows, relax.TensorType((1, 60, 64), "float32")))
            o = builder.emit_output(relax.op.reshape(y, (1, 60, 4, 16)))
        builder.emit_func_output(o)
    tvm.ir.assert_structural_equal(UseFlashAttention(target)(Before), builder.get())


@I.ir_module
class SelfAttention:
    """q, k and v are the three thirds of the rows of one product."""

    @R.function
    def main(y: R.Tensor((1, 20, 96), "float32")):
        with R.dataflow():
            q = R.strided_slice(y, axes=[2], begin=[0], end=[32])
            k = R.strided_slice(y, axes=[2], begin=[32], end=[64])
            v = R.strided_slice(y, axes=[2], begin=[64], end=[96])
            qs = R.reshape(q, R.shape([1, 20, 2, 16]))
            ks = R.reshape(k, R.shape([1, 20, 2, 16]))
            vs = R.reshape(v, R.shape([1, 20, 2, 16]))
            o = R.nn.attention(qs, ks, vs)
            R.output(o)
        return o


@I.ir_module
class CrossAttentions:
    """Two attentions, the second with wider heads, whose keys and values are columns of one product."""

    @R.function
    def main(x: R.Tensor((1, 20, 32), "float32"), y: R.Tensor((1, 7, 88), "float32")):
        with R.dataflow():
            k0 = R.strided_slice(y, axes=[2], begin=[8], end=[40])
            v0 = R.strided_slice(y, axes=[2], begin=[56], end=[88])
            k1 = R.strided_slice(y, axes=[2], begin=[40], end=[72])
            v1 = R.strided_slice(y, axes=[2], begin=[0], end=[32])
            xs = R.reshape(x, R.shape([1, 20, 2, 16]))
            k0s = R.reshape(k0, R.shape([1, 7, 2, 16]))
            v0s = R.reshape(v0, R.shape([1, 7, 2, 16]))
            k1s = R.reshape(k1, R.shape([1, 7, 2, 16]))
            v1s = R.reshape(v1, R.shape([1, 7, 2, 16]))
            o0 = R.nn.attention(xs, k0s, v0s)
            o = R.nn.attention(o0, k1s, v1s)
            R.output(o)
        return o


@pytest.mark.parametrize("before", [SelfAttention, CrossAttentions], ids=["self", "cross"])
def test_packed_operands_are_read_where_they_lie(before: tvm.IRModule) -> None:
    after = UseFlashAttention(LLVM)(before)
    assert ops(after["main"]) == {"relax.reshape", "relax.call_tir"}
    assert len(after.get_global_vars()) == 2, "one kernel for both cross-attentions"
    rng = np.random.default_rng(0)
    inputs = [rng.standard_normal([int(d) for d in p.ty.shape], dtype=np.float32) for p in before["main"].params]
    np.testing.assert_allclose(evaluate(after, *inputs), evaluate(before, *inputs), rtol=1e-5, atol=1e-5)


def test_columns_that_no_vector_begins_at_are_sliced_before() -> None:
    @I.ir_module
    class Before:
        @R.function
        def main(x: R.Tensor((1, 20, 32), "float32"), y: R.Tensor((1, 7, 72), "float32")):
            with R.dataflow():
                k = R.strided_slice(y, axes=[2], begin=[2], end=[34])
                v = R.strided_slice(y, axes=[2], begin=[34], end=[66])
                xs = R.reshape(x, R.shape([1, 20, 2, 16]))
                ks = R.reshape(k, R.shape([1, 7, 2, 16]))
                vs = R.reshape(v, R.shape([1, 7, 2, 16]))
                o = R.nn.attention(xs, ks, vs)
                R.output(o)
            return o

    assert "relax.strided_slice" in ops(UseFlashAttention(LLVM)(Before)["main"])


def test_bias_scale_and_causal_mask_are_kept() -> None:
    @I.ir_module
    class Before:
        @R.function
        def main(q: R.Tensor((1, 77, 4, 16), "float32"), bias: R.Tensor((1, 1, 77, 77), "float32")):
            with R.dataflow():
                a = R.nn.attention(q, q, q, bias=bias)
                b = R.nn.attention(a, q, q, causal_mask="TopLeft")
                c = R.nn.attention(b, q, q, scale=T.float32(0.5))
                d = R.nn.attention(c, q, q, scale=T.float32(0.25))
                e = R.nn.attention(d, q, q)
                R.output(e)
            return e

    builder = relax.BlockBuilder()
    q = relax.Var("q", relax.TensorType((1, 77, 4, 16), "float32"))
    bias = relax.Var("bias", relax.TensorType((1, 1, 77, 77), "float32"))
    plain = Attention(1, 77, 77, 4, 16, "float32", 0.25)  # 0.25, the scale of d, is what e has by default
    asked = [
        dataclasses.replace(plain, bias_shape=(1, 1, 77, 77)),
        dataclasses.replace(plain, causal="TopLeft"),
        dataclasses.replace(plain, scale=0.5),
        plain,
        plain,
    ]
    with builder.function("main", [q, bias]):
        with builder.dataflow():
            kernels: dict[Attention, tvm.ir.GlobalVar] = {}
            y = None  # each attention reads the rows that the one before it wrote
            for attention in asked:
                rows = [] if y is None else [y]
                rows += [builder.emit(relax.op.reshape(q, (1, 77, 64))) for _ in range(3 - len(rows))]
                if attention not in kernels:
                    kernel = flash_attention(attention, LLVM)
                    kernels[attention] = builder.add_func(kernel, "flash_attention_77x77_4x16")
                operands = [*rows, bias] if attention.bias_shape else rows
                y = builder.emit(relax.call_tir(kernels[attention], operands, relax.TensorType((1, 77, 64), "float32")))
            o = builder.emit_output(relax.op.reshape(y, (1, 77, 4, 16)))
        builder.emit_func_output(o)
    tvm.ir.assert_structural_equal(UseFlashAttention(LLVM)(Before), builder.get())


def test_sliding_window_odd_heads_and_unequal_values_are_left_alone() -> None:
    @I.ir_module
    class Before:
        @R.function
        def main(
            q: R.Tensor((1, 77, 4, 16), "float32"),
            odd: R.Tensor((1, 77, 4, 10), "float32"),
            wide: R.Tensor((1, 77, 4, 32), "float32"),
        ):
            with R.dataflow():
                a = R.nn.attention(q, q, q, causal_mask="TopLeft", window_size=8)
                b = R.nn.attention(odd, odd, odd)
                c = R.nn.attention(q, q, wide)
                R.output(a, b, c)
            return (a, b, c)

    tvm.ir.assert_structural_equal(UseFlashAttention(LLVM)(Before), Before)
