import pytest
import tvm
from tvm import relax

from mlc_controlnet.passes.clean.cancel_permutes import CancelPermutes

Axes = list[int]


canonical = relax.transform.CanonicalizeBindings()


def cancel(mod: tvm.IRModule) -> tvm.IRModule:
    return canonical(CancelPermutes()(mod))


def permuted(*permutations: Axes, keeps_first: bool = False) -> tvm.IRModule:
    """The silu of x after these permutations; `keeps_first`: the result of the first one is an output as well."""
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((2, 3, 4), "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            steps = [x]
            for axes in permutations:
                steps.append(builder.emit(relax.op.permute_dims(steps[-1], axes)))
            out = builder.emit(relax.op.nn.silu(steps[-1]))
            result = builder.emit_output(relax.Tuple([steps[1], out]) if keeps_first else out)
        builder.emit_func_output(result)
    return builder.get()


@pytest.mark.parametrize(
    ("first", "second"), [([0, 2, 1], [0, 2, 1]), ([1, 2, 0], [2, 0, 1])], ids=["a swap", "a cycle of three"]
)
def test_a_permute_that_undoes_its_input_disappears(first: Axes, second: Axes) -> None:
    tvm.ir.assert_structural_equal(cancel(permuted(first, second)), canonical(permuted()))


def test_only_the_inner_ones_of_four_permutes_need_to_match() -> None:
    before = permuted([1, 2, 0], [0, 2, 1], [0, 2, 1], [2, 0, 1])
    tvm.ir.assert_structural_equal(cancel(cancel(before)), canonical(permuted()))


def test_two_permutes_that_do_not_cancel_stay() -> None:
    before = permuted([1, 2, 0], [1, 2, 0])
    tvm.ir.assert_structural_equal(cancel(before), canonical(before))


def test_an_inner_permute_with_another_reader_stays_for_it() -> None:
    after = cancel(permuted([0, 2, 1], [0, 2, 1], keeps_first=True))
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((2, 3, 4), "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            y = builder.emit(relax.op.permute_dims(x, [0, 2, 1]))
            out = builder.emit(relax.op.nn.silu(x))
            result = builder.emit_output(relax.Tuple([y, out]))
        builder.emit_func_output(result)
    tvm.ir.assert_structural_equal(after, canonical(builder.get()))
