"""Keep the loops rolled that dlight would unroll into text.

Before: a loop annotated with pragma_auto_unroll_max_step = 256
After:  the same with 0

WGSL text is start-up time: the browser parses, validates and compiles all of it before the first picture. With dlight's
unrolling a library has several times as much text. Unrolling pays where micro-tiles lie in registers: in convolutions
and matrix products. Those have schedules of ours, which unroll the micro-tiles and nothing else.
"""

import logging

import tvm
from tvm import tirx
from tvm.s_tir import Schedule

log = logging.getLogger(__name__)

PRAGMA = "pragma_auto_unroll_max_step"


@tvm.transform.module_pass(opt_level=0, name="KeepLoopsRolled")
class KeepLoopsRolled:
    def transform_module(self, mod: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        mod = mod.clone()  # assigning below would change the caller's module
        fired = 0
        for global_var, function in mod.functions_items():
            if isinstance(function, tirx.PrimFunc) and (rolled := _roll(function)) is not None:
                mod[global_var] = rolled
                fired += 1
        log.info("kept the loops of %d PrimFuncs rolled", fired)
        return mod


def _roll(function: tirx.PrimFunc) -> tirx.PrimFunc | None:
    """Return the function without unrolling; None if no loop asks for it."""
    if PRAGMA not in function.script():
        return None
    schedule = Schedule(tvm.IRModule({"main": function}), enable_check=False)
    changed = False
    for block in schedule.get_child_blocks(schedule.get_sblock("root")):
        for loop in schedule.get_loops(block):
            if int(schedule.get(loop).annotations.get(PRAGMA, 0)) > 0:
                schedule.unannotate(loop, PRAGMA)
                schedule.annotate(loop, PRAGMA, 0)
                changed = True
    return schedule.mod["main"] if changed else None
