"""Find what convolution and matmul schedules need: one reduction, and elementwise blocks around it.

The reduction's results stay in registers: a tile of it is computed where the last elementwise block, the epilogue,
consumes it, and everything between the two is inlined.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tvm
from tvm import tirx
from tvm.s_tir import SBlock, Schedule, ScheduleError

from mlc_controlnet.kernels.convolution import STAGED
from mlc_controlnet.kernels.decoding import is_decoding, is_widening

Block = Any  # a block or loop handle of a Schedule

_has_condition: Callable[[SBlock], bool] = tvm.get_global_func("s_tir.schedule.HasIfThenElse")


@dataclass(frozen=True)
class Anchored:
    """`reduction` writes a local buffer that only `epilogue` reads; `pads` are left for the caller to place.

    Attributes:
        weights: blocks that compute a weight, left for the caller to inline into a copy of it: they decode or widen
            it, and those that were to be kept.
        copies: the epilogue computes nothing, it only brings the reduction's results to memory.
    """

    reduction: Block
    epilogue: Block
    pads: tuple[Block, ...]
    copies: bool
    weights: tuple[Block, ...] = ()


def anchor(schedule: Schedule, kinds: str, kept: str = "") -> Anchored | None:
    """Bring a function into the form above; None if it is of another kind.

    kinds: the reduction's axes, S for spatial and R for reduction: a convolution has SSSSRRR.
    kept: name of a block that computes a weight and is left for the caller.
    """
    root = schedule.get_sblock("root")
    blocks = schedule.get_child_blocks(root)
    reductions = [block for block in blocks if "R" in axis_kinds(schedule, block)]
    outputs = schedule.get_output_blocks(root)
    if len(reductions) != 1 or len(outputs) != 1 or axis_kinds(schedule, reductions[0]) != kinds:
        return None
    (reduction,), (output,) = reductions, outputs
    copies = same_block(schedule, reduction, output)
    pads, weights = [], []
    for block in blocks:
        if block is reduction or same_block(schedule, block, output):
            continue
        computed = schedule.get(block)
        if is_decoding(computed) or is_widening(computed) or computed.name_hint == kept:
            weights.append(block)
        elif schedule.get(block).name_hint == STAGED or has_condition(schedule, block):
            pads.append(block)
        elif not try_inline(schedule, block):
            return None
    if copies:
        output = schedule.cache_write(reduction, 0, "local")
    else:
        schedule.set_scope(reduction, 0, "local")
    return Anchored(reduction, output, tuple(pads), copies=copies, weights=tuple(weights))


def same_block(schedule: Schedule, one: Block, other: Block) -> bool:
    """Return whether two handles refer to the same block."""
    return bool(schedule.get_sref(one).same_as(schedule.get_sref(other)))


def axis_kinds(schedule: Schedule, block: Block) -> str:
    """Return the kinds of a block's axes as letters: S spatial, R reduction, O other."""
    letters = {tirx.IterVar.DataPar: "S", tirx.IterVar.CommReduce: "R"}
    return "".join(letters.get(axis.iter_type, "O") for axis in schedule.get(block).iter_vars)


def has_condition(schedule: Schedule, block: Block) -> bool:
    """Return whether the block's values depend on their position, as in a pad or a concatenation."""
    return bool(_has_condition(schedule.get(block)))


def try_inline(schedule: Schedule, block: Block) -> bool:
    """Inline a block into its readers; return False if TVM cannot."""
    try:
        schedule.compute_inline(block)
    except ScheduleError:
        return False
    return True


def inline_weights(schedule: Schedule, found: Anchored) -> None:
    """Compute each weight where it is read: in the copy that a schedule has made by now."""
    for block in found.weights:
        schedule.compute_inline(block)


def extents(schedule: Schedule, loops: list[Block]) -> list[int]:
    """Return the number of iterations of each loop."""
    return [int(schedule.get(loop).extent) for loop in loops]
