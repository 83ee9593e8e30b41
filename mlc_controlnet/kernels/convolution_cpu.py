"""A schedule for 2-d convolutions on processors, with whatever elementwise work was fused into them.

The padded picture is written out once. Then a micro-tile of some channels by a row of pixels stays in registers over
the whole reduction: each step reads a row of the picture and one weight a channel, and multiplies them as vectors.
"""

from tvm import tirx
from tvm.s_tir import Schedule

from mlc_controlnet.kernels.anchored_cpu import ACCUMULATORS, VECTOR, anchor, extents, largest_divisor


def schedule_convolution(function: tirx.PrimFunc) -> tirx.PrimFunc | None:
    """The scheduled function; None if it is no NCHW convolution of batch 1."""
    schedule = Schedule(function)
    found = anchor(schedule, "SSSSRRR")
    if found is None:
        return None
    batch, channel, y, x = schedule.get_loops(found.epilogue)
    _, channels, height, width = extents(schedule, [batch, channel, y, x])
    tile_width = largest_divisor(width, VECTOR)
    tile_height = largest_divisor(height, max(1, VECTOR // tile_width))
    registers_a_channel = tile_height * -(-tile_width // 8)
    tile_channels = largest_divisor(channels, max(1, ACCUMULATORS // registers_a_channel))

    channel, tile_channel = schedule.split(channel, [None, tile_channels])
    y, tile_y = schedule.split(y, [None, tile_height])
    x, tile_x = schedule.split(x, [None, tile_width])
    schedule.reorder(batch, channel, y, x, tile_channel, tile_y, tile_x)
    schedule.parallel(schedule.fuse(batch, channel, y))
    schedule.vectorize(tile_x)

    schedule.compute_at(found.reduction, x, preserve_unit_loops=True)
    *_, out, row, column, into, kernel_y, kernel_x = schedule.get_loops(found.reduction)
    schedule.reorder(into, kernel_y, kernel_x, out, row, column)
    for loop in (out, row):
        schedule.unroll(loop)
    schedule.vectorize(column)
    start = schedule.decompose_reduction(found.reduction, into)
    *_, out, row, column = schedule.get_loops(start)
    for loop in (out, row):
        schedule.unroll(loop)
    schedule.vectorize(column)

    for pad in found.pads:
        *outer, _, _ = schedule.get_loops(pad)
        schedule.parallel(schedule.fuse(*outer))
    return schedule.mod["main"]
