import numpy as np
import pytest
import tvm
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R

from mlc_controlnet.passes.replace.use_gated_matmul import UseGatedMatmul
from tests.passes.evaluate import evaluate, ops


def geglu(rows: int = 12, depth: int = 20, gate: int = 1) -> tvm.IRModule:
    """A linear layer [rows, depth] to 64 columns, of which half number `gate` gates the other."""
    builder = relax.BlockBuilder()
    shapes = {"x": (1, rows, depth), "w": (depth, 64), "b": (64,)}
    x, w, b = (relax.Var(name, relax.TensorType(shape, "float32")) for name, shape in shapes.items())
    with builder.function("main", [x, w, b]):
        with builder.dataflow():
            y = builder.emit(relax.op.add(relax.op.matmul(x, w, out_dtype="float32"), b))
            halves = builder.emit(relax.op.split(y, 2, axis=-1))
            gelu = builder.emit(relax.op.nn.gelu(halves[gate]))
            out = builder.emit_output(relax.op.multiply(halves[1 - gate], gelu))
        builder.emit_func_output(out)
    return relax.transform.Normalize()(builder.get())


def test_the_kernel_computes_what_linear_layer_split_and_gate_did() -> None:
    before = geglu()
    after = UseGatedMatmul()(before)
    assert not {"relax.matmul", "relax.split", "relax.nn.gelu", "relax.multiply"} & ops(after["main"])
    rng = np.random.default_rng(0)
    x, w, b = (rng.standard_normal(shape, dtype=np.float32) for shape in ((1, 12, 20), (20, 64), (64,)))
    np.testing.assert_allclose(evaluate(after, x, w, b), evaluate(before, x, w, b), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "before",
    [geglu(rows=2), geglu(depth=18), geglu(gate=0)],
    ids=["two rows, as of a picture of 64 x 128 pixels", "a depth of 18", "the gate first"],
)
def test_a_gated_layer_that_the_schedule_does_not_take_stays(before: tvm.IRModule) -> None:
    tvm.ir.assert_structural_equal(UseGatedMatmul()(before), before)


@pytest.mark.parametrize("sections", [2, 4])
def test_a_split_that_nothing_gates_stays(sections: int) -> None:
    @I.ir_module
    class Before:
        @R.function
        def main(x: R.Tensor((1, 12, 64), "float32")):
            with R.dataflow():
                halves = R.split(x, indices_or_sections=sections, axis=-1)
                value = halves[0]
                gate = halves[1]
                out = R.multiply(value, gate)
                R.output(out)
            return out

    tvm.ir.assert_structural_equal(UseGatedMatmul()(Before), Before)
