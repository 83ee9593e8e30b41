import tvm
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R

from mlc_controlnet.passes.clean.cancel_permutes import CancelPermutes


def test_a_permute_that_undoes_its_input_disappears() -> None:
    @I.ir_module
    class Before:
        @R.function
        def main(x: R.Tensor((1, 8, 77, 40), "float32")):
            with R.dataflow():
                y = R.permute_dims(x, axes=[0, 2, 1, 3])
                z = R.permute_dims(y, axes=[0, 2, 1, 3])
                out = R.nn.silu(z)
                R.output(out)
            return out

    @I.ir_module
    class Expected:
        @R.function
        def main(x: R.Tensor((1, 8, 77, 40), "float32")):
            with R.dataflow():
                out = R.nn.silu(x)
                R.output(out)
            return out

    after = relax.transform.CanonicalizeBindings()(CancelPermutes()(Before))
    tvm.ir.assert_structural_equal(after, Expected)


def test_a_three_cycle_and_its_inverse_cancel() -> None:
    @I.ir_module
    class Before:
        @R.function
        def main(x: R.Tensor((2, 3, 4), "float32")):
            with R.dataflow():
                y = R.permute_dims(x, axes=[1, 2, 0])
                z = R.permute_dims(y, axes=[2, 0, 1])
                out = R.nn.silu(z)
                R.output(out)
            return out

    after = CancelPermutes()(Before)
    assert "permute_dims" not in after.script()
    assert [int(d) for d in after["main"].ret_ty.shape] == [2, 3, 4]


def test_two_permutes_that_do_not_cancel_stay() -> None:
    @I.ir_module
    class Before:
        @R.function
        def main(x: R.Tensor((2, 3, 4), "float32")):
            with R.dataflow():
                y = R.permute_dims(x, axes=[1, 2, 0])
                z = R.permute_dims(y, axes=[1, 2, 0])
                out = R.nn.silu(z)
                R.output(out)
            return out

    assert CancelPermutes()(Before).script().count("permute_dims") == 2


def test_an_inner_permute_with_another_reader_stays_for_it() -> None:
    @I.ir_module
    class Before:
        @R.function
        def main(x: R.Tensor((2, 3), "float32")):
            with R.dataflow():
                y = R.permute_dims(x)
                z = R.permute_dims(y)
                out = (y, R.nn.silu(z))
                R.output(out)
            return out

    after = CancelPermutes()(Before)
    assert after.script().count("permute_dims") == 1
    relax.analysis.well_formed(after)
