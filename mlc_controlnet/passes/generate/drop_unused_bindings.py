"""Drop names of values that nothing reads.

Before: let cse_v21 : i32 = 64i * n23 + cse_v12; let n24 : i32 = cse_v21; b10[cse_v21] = ...
After:  let cse_v21 : i32 = 64i * n23 + cse_v12; b10[cse_v21] = ...

Elimination of common subexpressions names a value a second time and reads the new name alone. Runs after it, on device
functions, whose bound values have no effects.
"""

import logging
from collections import Counter

import tvm
import tvm_ffi
from tvm import tirx

log = logging.getLogger(__name__)


@tvm.transform.module_pass(opt_level=0, name="DropUnusedBindings")
class DropUnusedBindings:
    def transform_module(self, mod: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        mod = mod.clone()
        fired = 0
        for global_var, function in mod.functions_items():
            if isinstance(function, tirx.PrimFunc):
                while unused := _unused(function):
                    fired += len(unused)
                    function = _without(function, unused)
                mod[global_var] = function
        log.info("dropped %d bindings", fired)
        return mod


def _unused(function: tirx.PrimFunc) -> set[tirx.Var]:
    seen: Counter[tirx.Var] = Counter()
    bound: set[tirx.Var] = set()
    tvm_ffi.structural_walk(function.body, (tirx.Var, lambda var: seen.update([var])), order="pre")
    tvm_ffi.structural_walk(function.body, (tirx.Bind, lambda bind: bound.add(bind.var)), order="pre")
    return {var for var in bound if seen[var] == 1}  # where it is bound


def _without(function: tirx.PrimFunc, unused: set[tirx.Var]) -> tirx.PrimFunc:
    def drop(bind: tirx.Bind) -> tirx.Stmt:
        return tirx.Evaluate(tirx.const(0, "int32")) if bind.var in unused else bind

    return tvm_ffi.structural_map(function, (tirx.Bind, drop))
