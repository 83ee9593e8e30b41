"""The marks of a kernel that no pass may touch any more."""

from tvm import tirx

OPAQUE = 8  # OpPatternKind::kOpaque: FuseOps keeps its hands off


def mark_finished(kernel: tirx.PrimFunc) -> tirx.PrimFunc:
    """Schedule rules skip it, FuseOps leaves it alone, and its output shares memory with no input."""
    return kernel.with_attrs({"tirx.is_scheduled": True, "tirx.noalias": True, "op_pattern": OPAQUE})
