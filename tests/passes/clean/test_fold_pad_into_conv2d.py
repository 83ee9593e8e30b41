import numpy as np
import pytest
import tvm
from tvm import relax

from mlc_controlnet.passes.clean.fold_pad_into_conv2d import FoldPadIntoConv2d


def padded_convolution(pad_width: list[int], conv_padding: int = 0, pad_value: float = 0.0) -> tvm.IRModule:
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((1, 3, 9, 12), "float32"))
    w = relax.Var("w", relax.TensorType((5, 3, 3, 3), "float32"))
    with builder.function("main", [x, w]):
        with builder.dataflow():
            y = builder.emit(relax.op.nn.pad(x, pad_width, pad_value=pad_value))
            out = builder.emit_output(relax.op.nn.conv2d(y, w, strides=2, padding=conv_padding))
        builder.emit_func_output(out)
    return builder.get()


def run(mod: tvm.IRModule, *inputs: np.ndarray) -> np.ndarray:
    vm = relax.VirtualMachine(tvm.compile(mod, "llvm"), tvm.cpu())
    return vm["main"](*(tvm.runtime.tensor(value) for value in inputs)).numpy()


def test_the_vae_encoders_uneven_pad_moves_into_the_convolution() -> None:
    before = padded_convolution([0, 0, 0, 0, 0, 1, 2, 3])
    after = FoldPadIntoConv2d()(before)
    assert "R.nn.pad" not in after.script()
    assert "padding=[0, 2, 1, 3]" in after.script()
    rng = np.random.default_rng(0)
    inputs = [rng.standard_normal(s, dtype=np.float32) for s in ((1, 3, 9, 12), (5, 3, 3, 3))]
    np.testing.assert_allclose(run(after, *inputs), run(before, *inputs), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "mod",
    [
        padded_convolution([0, 0, 0, 0, 0, 1, 0, 1], conv_padding=1),
        padded_convolution([0, 0, 0, 0, 0, 1, 0, 1], pad_value=1.0),
    ],
    ids=["the convolution pads already", "the pad is not zero"],
)
def test_other_pads_stay(mod: tvm.IRModule) -> None:
    assert "R.nn.pad" in FoldPadIntoConv2d()(mod).script()
