import tvm
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R

from mlc_controlnet.passes.clean.drop_identities import DropIdentities


def test_a_division_by_one_and_a_cast_to_the_same_dtype_disappear() -> None:
    @I.ir_module
    class Before:
        @R.function
        def main(x: R.Tensor((1, 8), "float16")):
            with R.dataflow():
                y = R.divide(x, R.const(1.0, "float16"))
                z = R.astype(y, dtype="float16")
                w = R.multiply(z, R.const(1.0, "float16"))
                out = R.nn.silu(w)
                R.output(out)
            return out

    @I.ir_module
    class Expected:
        @R.function
        def main(x: R.Tensor((1, 8), "float16")):
            with R.dataflow():
                out = R.nn.silu(x)
                R.output(out)
            return out

    after = relax.transform.CanonicalizeBindings()(DropIdentities()(Before))
    tvm.ir.assert_structural_equal(after, Expected)


def test_what_changes_a_value_a_dtype_or_a_shape_stays() -> None:
    @I.ir_module
    class Before:
        @R.function
        def main(x: R.Tensor((1, 8), "float16"), ones: R.Tensor((4, 8), "float16")):
            with R.dataflow():
                y = R.divide(x, R.const(2.0, "float16"))
                z = R.multiply(y, ones)
                out = R.astype(z, dtype="float32")
                R.output(out)
            return out

    tvm.ir.assert_structural_equal(DropIdentities()(Before), Before)
