"""The mutator that applies a pass's rule to each call."""

import tvm
from tvm import relax

from mlc_controlnet.passes.matching import is_call
from mlc_controlnet.passes.rewriting import Site, rewrite_calls


def two_functions() -> tvm.IRModule:
    """Each computes exp(negative(x)); `second` returns negative(x) as well."""
    builder = relax.BlockBuilder()
    for name in ("first", "second"):
        x = relax.Var("x", relax.TensorType((2, 3), "float32"))
        with builder.function(name, [x]):
            with builder.dataflow():
                y = builder.emit(relax.op.negative(x), "y")
                z = builder.emit(relax.op.exp(y), "z")
                out = builder.emit_output(z if name == "first" else relax.Tuple([y, z]))
            builder.emit_func_output(out)
    return builder.get()


def ops_of(mod: tvm.IRModule, function: str) -> list[str]:
    values = [binding.value for block in mod[function].body.blocks for binding in block.bindings]
    return [value.op.name for value in values if isinstance(value, relax.Call)]


def reciprocal_of_exp(call: relax.Call, site: Site) -> relax.Expr | None:
    """exp(-x) = 1 / exp(x)"""
    negative = site.bound_to(call.args[0]) if is_call(call, "relax.exp") else None
    if not is_call(negative, "relax.negative"):
        return None
    return relax.op.divide(relax.const(1.0), site.emit(relax.op.exp(negative.args[0])))


def test_dead_operands_go_and_those_with_other_readers_stay() -> None:
    after, fired = rewrite_calls(two_functions(), reciprocal_of_exp)
    assert fired == 2
    assert ops_of(after, "first") == ["relax.exp", "relax.divide"]
    assert ops_of(after, "second") == ["relax.negative", "relax.exp", "relax.divide"]


def test_a_rule_that_never_fires_changes_nothing() -> None:
    before = two_functions()
    after, fired = rewrite_calls(before, lambda _call, _site: None)
    assert fired == 0
    tvm.ir.assert_structural_equal(after, before)


def test_a_rule_sees_operands_after_and_variables_before_the_rewriting() -> None:
    seen: list[tuple[str, str, str]] = []

    def absolute(call: relax.Call, site: Site) -> relax.Expr | None:
        if is_call(call, "relax.exp"):
            operand = site.bound_to(call.args[0])
            seen.append((site.variable.name, site.original.args[0].name, operand.op.name))
        return relax.op.abs(call.args[0]) if is_call(call, "relax.negative") else None

    rewrite_calls(two_functions(), absolute)
    assert seen == [("z", "y", "relax.abs"), ("z1", "y1", "relax.abs")]


def test_begin_is_called_with_each_function_before_its_calls() -> None:
    order: list[str] = []

    def note(call: relax.Call, _site: Site) -> None:
        order.append(call.op.name)

    rewrite_calls(two_functions(), note, begin=lambda function: order.append(str(function.attrs["global_symbol"])))
    assert order == ["first", "relax.negative", "relax.exp", "second", "relax.negative", "relax.exp"]
