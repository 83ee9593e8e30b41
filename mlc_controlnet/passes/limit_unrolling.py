"""Keep loops rolled beyond the innermost micro-tile.

Before: a loop or block annotated with pragma_auto_unroll_max_step of, say, 256
After:  the same with at most MAX_STEPS

dlight unrolls a matrix product's whole inner tile into text: 198 kernels of `circles` are 5.1 MB of WGSL, which the
browser parses, validates and compiles before the first picture. A GPU's own compiler unrolls loops of constant length
anyway; what must be in the text is the 4x4 micro-tile, so that its accumulators become registers.
"""

import logging

import tvm
from tvm import tirx
from tvm.s_tir import Schedule

log = logging.getLogger(__name__)

PRAGMA = "pragma_auto_unroll_max_step"
MAX_STEPS = 16  # one 4x4 micro-tile of multiply-adds


@tvm.transform.module_pass(opt_level=0, name="LimitUnrolling")
class LimitUnrolling:
    def transform_module(self, mod: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        fired = 0
        for global_var, function in mod.functions_items():
            if isinstance(function, tirx.PrimFunc) and (limited := _limit(function)) is not None:
                mod[global_var] = limited
                fired += 1
        log.info("limited unrolling in %d PrimFuncs", fired)
        return mod


def _limit(function: tirx.PrimFunc) -> tirx.PrimFunc | None:
    """The function with smaller annotations, None where none is too large."""
    if PRAGMA not in function.script():
        return None
    schedule = Schedule(tvm.IRModule({"main": function}), enable_check=False)
    changed = False
    for block in schedule.get_child_blocks(schedule.get_sblock("root")):
        for loop in schedule.get_loops(block):
            if int(schedule.get(loop).annotations.get(PRAGMA, 0)) > MAX_STEPS:
                schedule.unannotate(loop, PRAGMA)
                schedule.annotate(loop, PRAGMA, MAX_STEPS)
                changed = True
    return schedule.mod["main"] if changed else None
