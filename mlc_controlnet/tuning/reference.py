"""What a kernel should compute: its loops as they were fused, without any schedule of ours, over some of its rows.

A finished kernel has no such loops: numpy computes what it was asked for (finished_reference.py).
"""

from dataclasses import dataclass

import numpy as np
import tvm
import tvm_ffi
from tvm import tirx
from tvm.s_tir import Schedule
from tvm.target import Target

from mlc_controlnet.kernels import schedule_winograd_cpu
from mlc_controlnet.kernels.anchored import anchor, axis_kinds, inline_weights
from mlc_controlnet.kernels.asked_for import asked_for
from mlc_controlnet.tuning.finished_reference import compute
from mlc_controlnet.tuning.values import draw_values

ROWS = 16  # of the output, about: all of a direct convolution would take minutes without a schedule
LEAST_DB = {"float32": 80.0, "float16": 50.0}  # a wrong index is at 30 dB or less


@dataclass(frozen=True)
class Reference:
    """What a kernel is given, and what it should make of it.

    Attributes:
        arguments: random ones, the last one of zeros for the output.
        want: what that should hold; NaN where nobody computed it.
        dtype: of the numbers that are multiplied. Sums of float16 products are no better where they come as float32.
    """

    arguments: tuple[np.ndarray, ...]
    want: np.ndarray
    dtype: str

    @property
    def known(self) -> tuple[tuple[int, int], ...]:
        """The first place and the length of each run of elements of the flat output that somebody computed."""
        known = ~np.isnan(self.want.reshape(-1))
        edges = np.flatnonzero(np.diff(known, prepend=False, append=False)).reshape(-1, 2)
        return tuple((int(begin), int(end - begin)) for begin, end in edges)

    def decibels(self, got: np.ndarray) -> float:
        """Return the agreement of an output, as a signal-to-noise ratio."""
        known = ~np.isnan(self.want)
        want, values = self.want[known].astype(np.float64), got[known].astype(np.float64)
        noise = float(np.square(want - values).sum())
        if not np.isfinite(noise):
            return -np.inf
        return 200.0 if noise == 0 else float(min(10 * np.log10(np.square(want).sum() / noise), 200.0))

    def problem(self, decibels: float) -> str:
        """Say that a kernel of that agreement is wrong; empty if it is right."""
        least = LEAST_DB[self.dtype]
        return "" if decibels >= least else f"differs from the reference: {decibels:.0f} dB, wanted {least:.0f}"


def make_reference(function: tirx.PrimFunc, target: Target) -> Reference:
    """Draw arguments and compute some rows of the output on this machine's processor.

    target: of this machine; its vectors are not used.
    """
    shapes = [[int(size) for size in parameter.ty.shape] for parameter in function.params]
    dtypes = [str(parameter.ty.dtype) for parameter in function.params]
    arguments = [
        draw_values(dtype, shape, seed) for seed, (dtype, shape) in enumerate(zip(dtypes, shapes, strict=True))
    ]
    output = arguments[-1]
    asked = asked_for(function)
    if asked is not None:
        want = compute(asked, arguments[:-1]).astype(output.dtype)
        return Reference((*arguments[:-1], np.zeros_like(output)), want, str(output.dtype))
    some_rows, dtype = _some_rows(function)
    library = tvm.compile(tvm.IRModule({"main": some_rows}), target=target)
    tensors = [tvm.runtime.tensor(value) for value in (*arguments[:-1], np.full_like(output, np.nan))]
    library["main"](*tensors)
    output[...] = 0
    return Reference(tuple(arguments), tensors[-1].numpy(), dtype)


def _some_rows(function: tirx.PrimFunc) -> tuple[tirx.PrimFunc, str]:
    """Restrict a function to some rows of its output, evenly distributed: its other work is done for them alone.

    Returns also the dtype of what it multiplies: float32 unless both operands are float16.
    """
    schedule = Schedule(tvm.IRModule({"main": function.with_attr("global_symbol", "main")}))
    blocks = schedule.get_child_blocks(schedule.get_sblock("root"))
    (kinds,) = (kinds for block in blocks if "R" in (kinds := axis_kinds(schedule, block)))
    if kinds == schedule_winograd_cpu.KINDS:  # each row of results needs all products of its tiles, which are few
        return schedule.mod["main"], "float32"
    found = anchor(schedule, kinds)
    assert found is not None, "tasks have one reduction"
    inline_weights(schedule, found)
    operands = {str(read.source.dtype) for read in schedule.get(found.reduction).reads}
    dtype = "float16" if operands == {"float16"} else "float32"
    *outer, _ = schedule.get_loops(found.epilogue)
    rows = schedule.fuse(*outer)
    schedule.compute_at(found.reduction, rows, preserve_unit_loops=True)
    loop = schedule.get(rows)
    count = int(loop.extent)
    step = -(-count // ROWS)

    def restrict(node: tirx.For) -> tirx.For:
        if not node.loop_var.same_as(loop.loop_var):
            return node
        number = tirx.Var(node.loop_var.name, node.loop_var.ty)
        row = number * step
        body = tvm_ffi.structural_map(node.body, (tirx.Var, lambda var: row if var.same_as(node.loop_var) else var))
        return tirx.For(number, node.min, tirx.const(-(-count // step), str(number.ty.dtype)), node.kind, body)

    return tvm_ffi.structural_map(schedule.mod["main"], (tirx.For, restrict)), dtype
