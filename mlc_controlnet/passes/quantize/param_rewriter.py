"""What passes share that give a function other params: its tuple of them is replaced, and so is each read of one."""

from collections.abc import Sequence

import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator

from mlc_controlnet.passes.clean.param_sources import inputs_of
from mlc_controlnet.passes.quantize.find_weights import is_param


class ParamRewriter(PyExprMutator):
    """Rewrites one function. A subclass, with TVM's decorator `mutator`, says what takes the place of each param.

    Args:
        function: of `mod`, after phase clean: it reads each param once, from its tuple.
        types: of the new params.
    """

    def __init__(self, mod: tvm.IRModule, function: relax.Function, types: Sequence[relax.Type]) -> None:
        super().__init__(mod)
        self.function = function
        self.bundled = relax.Var(function.params[inputs_of(function)].name, relax.TupleType(types))

    def replacement(self, number: int, var: relax.Var) -> relax.Expr:
        """Return what `var`, to which the old param `number` was bound, is bound to instead."""
        raise NotImplementedError

    def rewritten(self) -> relax.Function:
        """Return the function with the new params."""
        function = self.function
        body = self.visit_expr(function.body)
        inputs = list(function.params[: inputs_of(function)])
        return relax.Function([*inputs, self.bundled], body, function.ret_ty, function.is_pure, function.attrs)

    def visit_var_binding_(self, binding: relax.VarBinding) -> None:
        """Replace the read of a param."""
        if not is_param(binding.value, self.function):
            super().visit_var_binding_(binding)
            return
        value = self.replacement(binding.value.index, binding.var)
        self.builder_.emit_normalized(relax.VarBinding(binding.var, self.builder_.normalize(value)))


def param_types(function: relax.Function) -> list[relax.Type]:
    """Return the types of a function's params."""
    return list(function.params[inputs_of(function)].ty.fields)
