"""Keep the weights of convolutions and linear layers as their kernels read them: with the outputs innermost.

Before: main(x, w): y = nn.conv2d(x, w)                                        # w [N, C, kh, kw]
After:  main(x, w): y = nn.conv2d(x, permute_dims(w, axes=[3, 0, 1, 2]))       # w [C, kh, kw, N]

Before: main(x, w): y = matmul(x, permute_dims(w))                             # w [N, K]
After:  main(x, w): y = matmul(x, w)                                           # w [K, N]

A thread reads one tap, or one of K, of several neighbouring outputs. In this layout they lie side by side: one vector,
from the bundle's file to the registers. `param_sources` says how each param was permuted.
`UseDirectConv2d` and the passes that fold something into a convolution read the param and drop the permutation.
Linear layers of a few rows, such as the time embedding's, read [N, K] along K and keep that layout. A weight that
several functions share is laid out only if all of them can read it so: a small picture may have a few rows where a
large one has many.
"""

import logging
from collections.abc import Callable

import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

from mlc_controlnet.kernels.matmul_tile import LEAST_ROWS
from mlc_controlnet.passes.clean.param_sources import inputs_of, param_sources, tensors_of, with_params
from mlc_controlnet.passes.matching import axes_of, is_call, shape_of

log = logging.getLogger(__name__)

LAID_OUT = [1, 2, 3, 0]  # [N, C, kh, kw] -> [C, kh, kw, N]
AS_TORCH = [3, 0, 1, 2]  # and back
TRANSPOSED = [1, 0]  # [N, K] -> [K, N]


@tvm.transform.module_pass(opt_level=0, name="LayOutWeights")
class LayOutWeights:
    def transform_module(self, mod: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        mod = mod.clone()
        functions = {v: function for v, function in mod.functions_items() if isinstance(function, relax.Function)}
        weights = {global_var: _weights(function) for global_var, function in functions.items()}
        refused: set[tuple[str, ...]] = set()  # the weights that a function cannot read so, by their tensors
        tensors_of_function = {global_var: _tensors(function) for global_var, function in functions.items()}
        for global_var, tensors in tensors_of_function.items():
            refused |= set(tensors.values()) - {tensors[weight] for weight in weights[global_var]}
        for global_var, function in functions.items():
            tensors = tensors_of_function[global_var]
            axes = {weight: axes for weight, axes in weights[global_var].items() if tensors[weight] not in refused}
            mod.update_func(global_var, _lay_out(function, axes))
        return mod


def laid_out(weight: relax.Expr, bound: Callable[[relax.Var], relax.Expr | None]) -> relax.Expr:
    """Return a convolution's `weight` [N, C, kh, kw] as [C, kh, kw, N].

    Args:
        bound: returns the value that a variable is bound to.
    """
    value = bound(weight) if isinstance(weight, relax.Var) else weight
    if is_call(value, "relax.permute_dims") and axes_of(value) == AS_TORCH:
        return value.args[0]
    return relax.op.permute_dims(weight, LAID_OUT)


def is_direct(conv: relax.Call) -> bool:
    """Return whether `convolve` can compute this convolution: neither groups nor dilation."""
    attrs = conv.attrs
    return (
        attrs.groups == 1
        and (attrs.data_layout, attrs.kernel_layout) == ("NCHW", "OIHW")
        and all(int(step) == 1 for step in attrs.dilation)
    )


def _tensors(function: relax.Function) -> dict[relax.Var, tuple[str, ...]]:
    """Map each param to the names of the tensors that it consists of."""
    params = function.params[inputs_of(function) :]
    return {var: tensors_of(function, s) for var, s in zip(params, param_sources(function), strict=True)}


def _lay_out(function: relax.Function, axes: dict[relax.Var, list[int]]) -> relax.Function:
    new = {old: relax.Var(old.name, relax.TensorType(_permuted(old, axes[old]), old.ty.dtype)) for old in axes}
    params = {}
    for old, source in zip(function.params[inputs_of(function) :], param_sources(function), strict=True):
        params[new.get(old, old)] = source.permuted(axes[old]) if old in axes else source
    log.info("%s: %d weights are laid out", function.attrs["global_symbol"], len(axes))
    return with_params(function, _Permuter(new).visit_expr(function), params)


def _permuted(weight: relax.Var, axes: list[int]) -> list[int]:
    shape = shape_of(weight)
    return [shape[axis] for axis in axes]


def _weights(function: relax.Function) -> dict[relax.Var, list[int]]:
    """Map the params that are weights of such layers and nothing else to their permutations."""
    weights: dict[relax.Var, list[int]] = {}
    transposed: dict[relax.Var, relax.Var] = {}  # permute_dims(w) -> w
    others = set(relax.analysis.free_vars(function.body.body))
    for block in function.body.blocks:
        for binding in block.bindings:
            value = binding.value
            read = list(relax.analysis.free_vars(value))
            if is_call(value, "relax.nn.conv2d") and is_direct(value):
                weights[value.args[1]] = LAID_OUT
                read = [value.args[0]]
            elif _is_transposition(value):
                weights[value.args[0]] = TRANSPOSED
                transposed[binding.var] = value.args[0]
                read = []
            elif is_call(value, "relax.matmul") and value.args[1] in transposed and shape_of(value)[-2] >= LEAST_ROWS:
                read = [value.args[0]]
            others.update(read)
    others.update(weight for product, weight in transposed.items() if product in others)
    return {weight: axes for weight, axes in weights.items() if weight in set(function.params) - others}


def _is_transposition(expr: relax.Expr) -> bool:
    return is_call(expr, "relax.permute_dims") and axes_of(expr) == TRANSPOSED


@mutator
class _Permuter(PyExprMutator):
    """`laid_out`: weights -> the params that take their places."""

    def __init__(self, laid_out: dict[relax.Var, relax.Var]) -> None:
        super().__init__()
        self.laid_out = laid_out

    def visit_var_binding_(self, binding: relax.VarBinding) -> None:
        if _is_transposition(binding.value) and binding.value.args[0] in self.laid_out:
            self.set_var_remap(binding.var, self.laid_out[binding.value.args[0]])
        else:
            super().visit_var_binding_(binding)

    def visit_call_(self, call: relax.Call) -> relax.Expr:
        if not is_call(call, "relax.nn.conv2d") or call.args[1] not in self.laid_out:
            return super().visit_call_(call)
        weight = self.builder_.emit(relax.op.permute_dims(self.laid_out[call.args[1]], AS_TORCH))
        return relax.Call(call.op, [self.visit_expr(call.args[0]), weight], call.attrs)
