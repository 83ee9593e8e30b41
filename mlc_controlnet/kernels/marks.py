"""The attributes of a PrimFunc by which kernels and passes tell each other what may be done to it."""

from collections.abc import Sequence

from tvm import tirx

_IS_SCHEDULED = "tirx.is_scheduled"  # TVM's: dlight and the schedule rules skip such a function
_OP_PATTERN = "op_pattern"  # TVM's: how FuseOps may fuse the function
_OVERWRITABLE = "overwritable"  # ours, see `mark_overwritable`
_NAMED = "named"  # ours, see `mark_named`
_COMPUTES = "computes"  # ours, see `mark_finished`
_TUNED = "tuned"  # ours, see `mark_tuned`

BROADCAST = 1  # OpPatternKind::kBroadcast: FuseOps takes the function into the kernel of its reader
INJECTIVE = 2  # OpPatternKind::kInjective: with BROADCAST and below, what FuseOps takes into a kernel of such functions
ENDS_KERNEL = 3  # OpPatternKind::kCommReduce: FuseOps takes broadcasts before the function, and nothing after it
ANCHOR = 4  # OpPatternKind::kOutEWiseFusable: FuseOps takes broadcasts after the function; a kernel has one at most
OPAQUE = 8  # OpPatternKind::kOpaque: FuseOps fuses the function with nothing


def mark_scheduled(function: tirx.PrimFunc) -> tirx.PrimFunc:
    """Mark a function that no schedule rule may change."""
    return function.with_attr(_IS_SCHEDULED, True)


def is_scheduled(function: tirx.PrimFunc) -> bool:
    """Return whether a schedule, a tuning record or a kernel's author decided how the function runs."""
    return bool((function.attrs or {}).get(_IS_SCHEDULED, False))


def mark_tuned(function: tirx.PrimFunc, source: str) -> tirx.PrimFunc:
    """Mark a function that a tuning record scheduled. source: where the record's figures are from, for readers."""
    return function.with_attr(_TUNED, source)


def tuned_from(function: tirx.PrimFunc) -> str | None:
    """Return where the figures are from by which the function was tuned; None if the rules scheduled it."""
    return (function.attrs or {}).get(_TUNED)


def mark_finished(kernel: tirx.PrimFunc, computes: object) -> tirx.PrimFunc:
    """Mark a kernel that is complete: scheduled, fused with nothing, its output apart from its inputs in memory.

    computes: what the kernel computes; its text goes with the kernel, for readers of the IR and for tests.
    """
    return kernel.with_attrs({_IS_SCHEDULED: True, "tirx.noalias": True, _OP_PATTERN: OPAQUE, _COMPUTES: str(computes)})


def rebuilt(kernel: tirx.PrimFunc, again: tirx.PrimFunc) -> tirx.PrimFunc:
    """Return the same kernel, made again with other sizes of tiles, under the name and the marks of the first."""
    return again.with_attrs(dict(kernel.attrs))


def computed_by(kernel: tirx.PrimFunc) -> str | None:
    """Return what a finished kernel computes; None for a function that no kernel's author finished."""
    return (kernel.attrs or {}).get(_COMPUTES)


def mark_pattern(function: tirx.PrimFunc, pattern: int) -> tirx.PrimFunc:
    """Mark how FuseOps may fuse the function: BROADCAST, OPAQUE or another of TVM's OpPatternKinds."""
    return function.with_attr(_OP_PATTERN, pattern)


def pattern_of(function: tirx.PrimFunc) -> int:
    """Return how FuseOps may fuse the function: what it is marked with, or OPAQUE."""
    return int((function.attrs or {}).get(_OP_PATTERN, OPAQUE))


def mark_named(kernel: tirx.PrimFunc) -> tirx.PrimFunc:
    """Mark a kernel whose variables keep their names."""
    return kernel.with_attr(_NAMED, True)


def is_named(function: tirx.PrimFunc) -> bool:
    """Return whether the function's variables keep their names."""
    return bool((function.attrs or {}).get(_NAMED, False))


def mark_overwritable(function: tirx.PrimFunc, params: Sequence[int]) -> tirx.PrimFunc:
    """Mark the params, by index, over which the function may write its result."""
    return function.with_attr(_OVERWRITABLE, list(params))


def overwritable(function: tirx.PrimFunc) -> list[int]:
    """Return the params, by index, over which the function may write its result."""
    return [int(index) for index in function.attrs.get(_OVERWRITABLE, ())]
