import numpy as np
import pytest
import tvm
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R

from mlc_controlnet.passes.replace.use_pointwise_matmul import UsePointwiseMatmul
from tests.passes.evaluate import evaluate, ops


@I.ir_module
class IntoTokens:
    """A convolution, its bias, and the change from pictures to tokens: where a transformer begins."""

    @R.function
    def main(
        x: R.Tensor((1, 24, 6, 10), "float32"),
        w: R.Tensor((24, 1, 1, 16), "float32"),
        b: R.Tensor((16,), "float32"),
    ):
        with R.dataflow():
            weight = R.permute_dims(w, axes=[3, 0, 1, 2])
            y = R.nn.conv2d(x, weight, out_dtype="float32")
            bias = R.reshape(b, R.shape([1, 16, 1, 1]))
            a = R.add(y, bias)
            p = R.permute_dims(a, axes=[0, 2, 3, 1])
            out = R.reshape(p, R.shape([1, 60, 16]))
            R.output(out)
        return out


@I.ir_module
class IntoPicture:
    """The change back, a convolution, its bias and the residual: where a transformer ends."""

    @R.function
    def main(
        t: R.Tensor((1, 60, 24), "float32"),
        w: R.Tensor((24, 1, 1, 16), "float32"),
        b: R.Tensor((16,), "float32"),
        r: R.Tensor((1, 16, 6, 10), "float32"),
    ):
        with R.dataflow():
            q = R.reshape(t, R.shape([1, 6, 10, 24]))
            p = R.permute_dims(q, axes=[0, 3, 1, 2])
            weight = R.permute_dims(w, axes=[3, 0, 1, 2])
            y = R.nn.conv2d(p, weight, out_dtype="float32")
            bias = R.reshape(b, R.shape([1, 16, 1, 1]))
            a = R.add(y, bias)
            s = R.add(r, a)
            out = R.nn.silu(s)
            R.output(out)
        return out


@pytest.mark.parametrize("before", [IntoTokens, IntoPicture], ids=["into tokens", "into a picture"])
def test_the_product_computes_what_the_convolution_and_the_permute_did(before: tvm.IRModule) -> None:
    after = UsePointwiseMatmul()(before)
    assert not {"relax.nn.conv2d", "relax.permute_dims"} & ops(after["main"])
    rng = np.random.default_rng(0)
    inputs = [rng.standard_normal([int(d) for d in p.ty.shape], dtype=np.float32) for p in before["main"].params]
    np.testing.assert_allclose(evaluate(after, *inputs), evaluate(before, *inputs), rtol=1e-4, atol=1e-4)


def test_bias_and_residual_are_added_before_the_reshape() -> None:
    """There they are neighbours of the product, and are fused with it."""
    main = UsePointwiseMatmul()(IntoPicture)["main"]
    order = [binding.value for block in main.body.blocks for binding in block.bindings]
    names = [value.op.name for value in order if isinstance(value, relax.Call) and isinstance(value.op, tvm.ir.Op)]
    last_add = len(names) - 1 - names[::-1].index("relax.add")
    assert names[last_add + 1 :] == ["relax.reshape", "relax.nn.silu"]


@I.ir_module
class Alone:
    """A convolution with its bias, a scale and a residual, as at a ControlNet's outputs."""

    @R.function
    def main(
        x: R.Tensor((1, 48, 8, 12), "float32"),
        w: R.Tensor((48, 1, 1, 16), "float32"),
        b: R.Tensor((16,), "float32"),
        scale: R.Tensor((1,), "float32"),
        r: R.Tensor((1, 16, 8, 12), "float32"),
    ):
        with R.dataflow():
            weight = R.permute_dims(w, axes=[3, 0, 1, 2])
            y = R.nn.conv2d(x, weight, out_dtype="float32")
            bias = R.reshape(b, R.shape([1, 16, 1, 1]))
            a = R.add(y, bias)
            s = R.multiply(a, scale)
            out = R.add(s, r)
            R.output(out)
        return out


def test_a_convolution_without_a_permute_is_a_product_of_the_picture_as_it_lies() -> None:
    after = UsePointwiseMatmul()(Alone)
    assert not {"relax.nn.conv2d", "relax.permute_dims"} & ops(after["main"])
    *_, last = (binding.value for block in after["main"].body.blocks for binding in block.bindings)
    assert last.op.name == "relax.reshape"  # the product, and right after it all that is fused with it
    rng = np.random.default_rng(0)
    inputs = [rng.standard_normal([int(d) for d in p.ty.shape], dtype=np.float32) for p in Alone["main"].params]
    np.testing.assert_allclose(evaluate(after, *inputs), evaluate(Alone, *inputs), rtol=1e-4, atol=1e-4)


def test_wider_convolutions_and_small_ones_stay() -> None:
    @I.ir_module
    class Before:
        @R.function
        def main(
            t: R.Tensor((1, 60, 24), "float32"),
            w: R.Tensor((16, 24, 3, 3), "float32"),
            v: R.Tensor((16, 16, 1, 1), "float32"),
        ):
            with R.dataflow():
                q = R.reshape(t, R.shape([1, 6, 10, 24]))
                p = R.permute_dims(q, axes=[0, 3, 1, 2])
                y = R.nn.conv2d(p, w, padding=[1, 1, 1, 1], out_dtype="float32")
                out = R.nn.conv2d(y, v, out_dtype="float32")
                R.output(out)
            return out

    tvm.ir.assert_structural_equal(UsePointwiseMatmul()(Before), Before)
