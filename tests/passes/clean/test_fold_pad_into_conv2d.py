import numpy as np
import pytest
import tvm
from tvm import relax

from mlc_controlnet.passes.clean.fold_pad_into_conv2d import FoldPadIntoConv2d
from tests.passes.evaluate import evaluate


def convolution(
    pad_width: list[int] | None, padding: int | list[int] = 0, pad_value: float = 0.0, pad_mode: str = "constant"
) -> tvm.IRModule:
    """A strided convolution, after a pad if `pad_width` is given."""
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((1, 3, 9, 12), "float32"))
    w = relax.Var("w", relax.TensorType((5, 3, 3, 3), "float32"))
    with builder.function("main", [x, w]):
        with builder.dataflow():
            y = x
            if pad_width is not None:
                y = builder.emit(relax.op.nn.pad(x, pad_width, pad_value=pad_value, pad_mode=pad_mode))
            out = builder.emit_output(relax.op.nn.conv2d(y, w, strides=2, padding=padding))
        builder.emit_func_output(out)
    return builder.get()


def test_the_vae_encoders_uneven_pad_moves_into_the_convolution() -> None:
    before, expected = convolution([0, 0, 0, 0, 0, 1, 2, 3]), convolution(None, padding=[0, 2, 1, 3])
    tvm.ir.assert_structural_equal(FoldPadIntoConv2d()(before), expected)
    rng = np.random.default_rng(0)
    inputs = [rng.standard_normal(s, dtype=np.float32) for s in ((1, 3, 9, 12), (5, 3, 3, 3))]
    np.testing.assert_allclose(evaluate(expected, *inputs), evaluate(before, *inputs), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "before",
    [
        convolution([0, 0, 0, 0, 0, 1, 0, 1], padding=1),
        convolution([0, 0, 0, 0, 0, 1, 0, 1], pad_value=1.0),
        convolution([0, 0, 0, 0, 0, 1, 0, 1], pad_mode="reflect"),
    ],
    ids=["the convolution pads already", "the pad is not zero", "the pad is a reflection"],
)
def test_other_pads_stay(before: tvm.IRModule) -> None:
    tvm.ir.assert_structural_equal(FoldPadIntoConv2d()(before), before)
