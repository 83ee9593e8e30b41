"""Rewrite the calls of Relax functions by a rule, as most passes of this folder do.

A pass is a rule and a log message. The rule sees one call at a time, in the order of execution, and returns what takes
its place, or None to keep it. `rewrite_calls` owns the rest: the mutator, the count and the removal of dead bindings.

    def _cancel(call: relax.Call, site: Site) -> relax.Expr | None:
        inner = site.bound_to(call.args[0])
        return inner.args[0] if ... else None

    mod, fired = rewrite_calls(mod, _cancel)

Why not TVM's pattern language, `tvm.relax.dpl.rewrite_call`? Its callback gets the matched expressions and nothing
else. It has no BlockBuilder, so it can neither add a PrimFunc to the module (`add_func`, `call_te`), which most of our
rules do, nor emit a view once for several readers. It does not see bindings outside the pattern, such as the
permutation of a weight, nor who else reads a variable. Conditions on attributes (strides of 1, the inverse of a
permutation) would stay in Python next to the pattern. CancelPermutes was tried with it: the result and the time were
the same, and it needed as many lines. For the few rules that it can express, a second mechanism does not pay.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

from mlc_controlnet.passes.matching import Lookup, bound_to


@dataclass(frozen=True)
class Site:
    """The place of a call, and the changes that a rule may make there.

    Attributes:
        variable: the variable bound to the call before the pass; None for a call inside another expression.
        original: the call before the pass; the rule's own `call` has operands that are rewritten already.
        builder: emits into the function after the pass, before the call, and adds functions to its module.
        lookup: returns the value that a variable of the function after the pass is bound to.
    """

    variable: relax.Var | None
    original: relax.Call
    builder: relax.BlockBuilder
    lookup: Lookup

    def bound_to(self, expr: relax.Expr) -> relax.Expr | None:
        """Return the value of `expr`, a variable of the function after the pass; None for anything else."""
        return bound_to(expr, self.lookup)

    def emit(self, expr: relax.Expr) -> relax.Var:
        """Bind `expr` to a new variable before the call."""
        return self.builder.emit(expr)


Rule = Callable[[relax.Call, Site], relax.Expr | None]


class Rewritten(NamedTuple):
    """A module after `rewrite_calls`, and how many calls the rule replaced."""

    module: tvm.IRModule
    fired: int


def rewrite_calls(mod: tvm.IRModule, rule: Rule, begin: Callable[[relax.Function], None] | None = None) -> Rewritten:
    """Replace each call of a Relax function of `mod` for which `rule` returns an expression.

    Bindings that nothing reads afterwards are removed, so all calls must be pure.

    Args:
        begin: called with each function before its calls, for a rule that has to know who else reads a variable.
    """
    rewriter = _Rewriter(mod, rule)
    for global_var, function in mod.functions_items():
        if isinstance(function, relax.Function):
            if begin is not None:
                begin(function)
            rewritten = relax.analysis.remove_all_unused(rewriter.visit_expr(function))
            rewriter.builder_.update_func(global_var, rewritten)
    return Rewritten(rewriter.builder_.get(), rewriter.fired)


@mutator
class _Rewriter(PyExprMutator):
    def __init__(self, mod: tvm.IRModule, rule: Rule) -> None:
        super().__init__(mod)
        self.rule = rule
        self.variable: relax.Var | None = None  # the left side of the binding that is being visited
        self.fired = 0

    def visit_var_binding_(self, binding: relax.VarBinding) -> None:
        self.variable = binding.var
        super().visit_var_binding_(binding)

    def visit_call_(self, call: relax.Call) -> relax.Expr:
        variable, self.variable = self.variable, None  # a call among the operands is bound to nothing
        visited = super().visit_call_(call)
        replacement = self.rule(visited, Site(variable, call, self.builder_, self.lookup_binding))
        if replacement is None:
            return visited
        self.fired += 1
        return replacement
