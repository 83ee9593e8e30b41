"""A schedule for functions without a reduction on processors: one pass over memory, parallel where it is worth it."""

from tvm import tirx
from tvm.s_tir import Schedule, ScheduleError

from mlc_controlnet.kernels.anchored_cpu import WORTH_A_THREAD, axis_kinds, chooses, extents, largest_divisor

VECTOR = 16


def schedule_elementwise(function: tirx.PrimFunc) -> tirx.PrimFunc | None:
    """The scheduled function; None if it reduces something or has several outputs."""
    schedule = Schedule(function)
    root = schedule.get_sblock("root")
    blocks = schedule.get_child_blocks(root)
    outputs = schedule.get_output_blocks(root)
    if len(outputs) != 1 or any(set(axis_kinds(schedule, block)) - {"S"} for block in blocks):
        return None
    (output,) = outputs
    name = schedule.get(output).name_hint
    for block in blocks:
        if schedule.get(block).name_hint != name:
            try:
                schedule.compute_inline(block)
            except ScheduleError:
                return None
    loops = schedule.get_loops(output)
    if not loops:
        return None
    everything = schedule.fuse(*loops)
    (count,) = extents(schedule, [everything])
    outer, inner = schedule.split(everything, [None, largest_divisor(count, VECTOR)])
    if not chooses(schedule.get(output)):
        schedule.vectorize(inner)
    if count >= WORTH_A_THREAD:
        schedule.parallel(outer)
    return schedule.mod["main"]
