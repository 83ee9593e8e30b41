import pytest
import tvm
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R
from tvm.script import tirx as T
from tvm.target import Target

from mlc_controlnet.kernels.attention import Attention
from mlc_controlnet.kernels.flash_attention import flash_attention
from mlc_controlnet.passes.use_flash_attention import UseFlashAttention

LLVM = Target({"kind": "llvm", "num-cores": 2})
WEBGPU = Target("webgpu", host={"kind": "llvm", "mtriple": "wasm32-unknown-unknown-wasm"})


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
            o = builder.emit_output(relax.call_tir(name, [q, k, k], q.ty))
        builder.emit_func_output(o)
    tvm.ir.assert_structural_equal(UseFlashAttention(target)(Before), builder.get())


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

    after = UseFlashAttention(LLVM)(Before)
    assert "R.nn.attention" not in after["main"].script()
    assert len(after.get_global_vars()) == 5, "main and a kernel for each; the scale of d is what e has by default"


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
