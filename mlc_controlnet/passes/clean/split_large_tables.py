"""Split a table that is too large to bind into two params.

Before: main(ids, table): y = take(table, ids, axis=0)
After:  main(ids, low, high): y = where(ids < N, take(low, ids, axis=0), take(high, ids - N, axis=0))

CLIP's vocabulary is larger in float32 than what WebGPU binds by default, 128 MiB. `param_sources` says which rows of
the table each new param holds. All libraries of a bundle share their params, so a float16 library has two tables as
well. Ids outside the table read its ends.
"""

import logging
import math

import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

from mlc_controlnet.passes.clean.param_sources import ParamSource, inputs_of, param_sources, with_params
from mlc_controlnet.passes.matching import is_call, shape_of

log = logging.getLogger(__name__)

LARGEST_TABLE = 128 * 2**20 // 4  # numbers: WebGPU's default binding of 128 MiB, in a float32 library


@tvm.transform.module_pass(opt_level=0, name="SplitLargeTables")
class SplitLargeTables:
    def __init__(self, largest_table: int = LARGEST_TABLE) -> None:
        self.largest_table = largest_table

    def transform_module(self, mod: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        mod = mod.clone()
        for global_var, function in mod.functions_items():
            if isinstance(function, relax.Function):
                mod.update_func(global_var, _split(function, self.largest_table))
        return mod


def _split(function: relax.Function, largest_table: int) -> relax.Function:
    tables: dict[relax.Var, tuple[relax.Var, relax.Var]] = {}
    params: dict[relax.Var, ParamSource] = {}
    for param, source in zip(function.params[inputs_of(function) :], param_sources(function), strict=True):
        if _is_large(function, param, largest_table):
            low, high = tables[param] = _halves(param)
            boundary, end = shape_of(low)[0], shape_of(param)[0]
            params |= {low: source.part(range(boundary)), high: source.part(range(boundary, end))}
        else:
            params[param] = source
    log.info("%s: split %d tables", function.attrs["global_symbol"], len(tables))
    return with_params(function, _Splitter(tables).visit_expr(function), params)


def _is_large(function: relax.Function, param: relax.Var, largest_table: int) -> bool:
    """Return whether the param is over the limit and only rows of it are read."""
    if math.prod(shape_of(param)) <= largest_table:  # first: looking for readers takes as long as the function is
        return False
    values = [binding.value for block in function.body.blocks for binding in block.bindings]
    reading = [value for value in values if param in relax.analysis.free_vars(value)]
    return all(
        is_call(value, "relax.take") and value.args[0] == param and value.attrs.axis == 0 and value.attrs.mode == "clip"
        for value in reading
    )


def _halves(table: relax.Var) -> tuple[relax.Var, relax.Var]:
    rows, *row = shape_of(table)
    low, high = (
        relax.Var(f"{table.name}_{name}", relax.TensorType((size, *row), table.ty.dtype))
        for name, size in (("low", rows - rows // 2), ("high", rows // 2))
    )
    return low, high


@mutator
class _Splitter(PyExprMutator):
    def __init__(self, tables: dict[relax.Var, tuple[relax.Var, relax.Var]]) -> None:
        super().__init__()
        self.tables = tables

    def visit_call_(self, call: relax.Call) -> relax.Expr:
        if not is_call(call, "relax.take") or call.args[0] not in self.tables:
            return super().visit_call_(call)
        emit = self.builder_.emit
        low, high = self.tables[call.args[0]]
        ids = self.visit_expr(call.args[1])
        boundary = relax.const(shape_of(low)[0], ids.ty.dtype)
        in_low = emit(relax.op.reshape(emit(relax.op.less(ids, boundary)), (*shape_of(ids), 1)))
        return relax.op.where(
            in_low,
            emit(relax.op.take(low, ids, axis=0, mode="clip")),
            emit(relax.op.take(high, emit(relax.op.subtract(ids, boundary)), axis=0, mode="clip")),
        )
