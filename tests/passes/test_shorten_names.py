import tvm
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R

from mlc_controlnet.passes.shorten_names import ShortenNames


def test_weights_are_called_w_and_nothing_else_changes() -> None:
    @I.ir_module
    class Before:
        @R.function
        def main(
            x: R.Tensor((2,), "float32"), first_long_name: R.Tensor((2,), "float32"), second: R.Tensor((2,), "float32")
        ):
            R.func_attr({"num_input": 1})
            with R.dataflow():
                y = R.add(x, first_long_name)
                out = R.multiply(y, second)
                R.output(out)
            return out

    bundled = relax.transform.BundleModelParams()(Before)
    after = ShortenNames()(bundled)
    bindings = [binding for block in after["main"].body.blocks for binding in block.bindings]
    weights = [b.var.name for b in bindings if isinstance(b.value, relax.TupleGetItem)]
    assert len(weights) == 2
    assert all(name.startswith("w") for name in weights)
    tvm.ir.assert_structural_equal(after, bundled)  # names are no structure
