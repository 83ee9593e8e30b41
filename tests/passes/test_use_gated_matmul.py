import numpy as np
import pytest
import tvm
from tvm.script import ir as I
from tvm.script import relax as R

from mlc_controlnet.passes.use_gated_matmul import UseGatedMatmul
from tests.passes.evaluate import evaluate, ops


@I.ir_module
class Geglu:
    @R.function
    def main(x: R.Tensor((1, 12, 20), "float32"), w: R.Tensor((64, 20), "float32"), b: R.Tensor((64,), "float32")):
        with R.dataflow():
            t = R.permute_dims(w)
            m = R.matmul(x, t, out_dtype="float32")
            y = R.add(m, b)
            halves = R.split(y, indices_or_sections=2, axis=-1)
            value = halves[0]
            gate = halves[1]
            g = R.nn.gelu(gate)
            out = R.multiply(value, g)
            R.output(out)
        return out


def test_the_kernel_computes_what_linear_layer_split_and_gate_did() -> None:
    after = UseGatedMatmul()(Geglu)
    assert not {"relax.matmul", "relax.split", "relax.nn.gelu", "relax.multiply"} & ops(after["main"])
    rng = np.random.default_rng(0)
    x, w, b = (rng.standard_normal(shape, dtype=np.float32) for shape in ((1, 12, 20), (64, 20), (64,)))
    np.testing.assert_allclose(evaluate(after, x, w, b), evaluate(Geglu, x, w, b), rtol=1e-4, atol=1e-4)


def test_a_gated_layer_that_the_schedule_has_no_tile_for_stays() -> None:
    """The coarsest level of a picture of 64 x 128 pixels has two cells."""

    @I.ir_module
    class Before:
        @R.function
        def main(x: R.Tensor((1, 2, 20), "float32"), w: R.Tensor((64, 20), "float32"), b: R.Tensor((64,), "float32")):
            with R.dataflow():
                t = R.permute_dims(w)
                m = R.matmul(x, t, out_dtype="float32")
                y = R.add(m, b)
                halves = R.split(y, indices_or_sections=2, axis=-1)
                value = halves[0]
                gate = halves[1]
                g = R.nn.gelu(gate)
                out = R.multiply(value, g)
                R.output(out)
            return out

    tvm.ir.assert_structural_equal(UseGatedMatmul()(Before), Before)


def test_a_gate_the_other_way_round_stays() -> None:
    @I.ir_module
    class Before:
        @R.function
        def main(x: R.Tensor((1, 12, 20), "float32"), w: R.Tensor((64, 20), "float32"), b: R.Tensor((64,), "float32")):
            with R.dataflow():
                t = R.permute_dims(w)
                m = R.matmul(x, t, out_dtype="float32")
                y = R.add(m, b)
                halves = R.split(y, indices_or_sections=2, axis=-1)
                gate = halves[0]
                value = halves[1]
                g = R.nn.gelu(gate)
                out = R.multiply(value, g)
                R.output(out)
            return out

    tvm.ir.assert_structural_equal(UseGatedMatmul()(Before), Before)


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
