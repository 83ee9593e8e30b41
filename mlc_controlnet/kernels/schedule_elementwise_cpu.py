"""A schedule for functions without a reduction on processors: one pass over memory, parallel where it is worth it."""

from tvm.s_tir import Schedule

from mlc_controlnet.kernels.anchored import axis_kinds, extents, has_condition, same_block, try_inline
from mlc_controlnet.kernels.integers import divisors
from mlc_controlnet.kernels.registers_cpu import Registers

WORTH_A_THREAD = 1 << 14  # numbers; with fewer, waking a thread costs more than the work


def schedule_elementwise(schedule: Schedule, registers: Registers) -> bool:
    """Schedule in place. For a reduction or several outputs, return False; the schedule is unusable then."""
    root = schedule.get_sblock("root")
    blocks = schedule.get_child_blocks(root)
    outputs = schedule.get_output_blocks(root)
    if len(outputs) != 1 or any(set(axis_kinds(schedule, block)) - {"S"} for block in blocks):
        return False
    (output,) = outputs
    if not all(try_inline(schedule, block) for block in blocks if not same_block(schedule, block, output)):
        return False
    loops = schedule.get_loops(output)
    if not loops:
        return False
    everything = schedule.fuse(*loops)
    (count,) = extents(schedule, [everything])
    outer, inner = schedule.split(everything, [None, divisors(count, 2 * registers.lanes)[-1]])
    if not has_condition(schedule, output):
        schedule.vectorize(inner)
    if count >= WORTH_A_THREAD:
        schedule.parallel(outer)
    return True
