"""A schedule for 2-d convolutions on processors, with whatever elementwise work was fused into them.

The padded picture is written out once. Then a micro-tile of some channels by some pixels stays in registers over the
whole reduction: each step reads a row of the picture and one weight per channel, and multiplies them as vectors.
"""

from dataclasses import dataclass

from tvm import tirx
from tvm.s_tir import Schedule

from mlc_controlnet.kernels.anchored import anchor
from mlc_controlnet.kernels.integers import divisors
from mlc_controlnet.kernels.registers_cpu import Registers

KINDS = "SSSSRRR"  # n, c, y, x; in channels, kernel rows, kernel columns


@dataclass(frozen=True)
class ConvolutionTile:
    """The part that stays in registers, and whether the loop over a kernel's row is unrolled."""

    channels: int
    height: int
    width: int
    unroll_kernel_row: bool = False

    def accumulators(self, registers: Registers) -> int:
        """Count the vector registers that hold the tile's sums."""
        return self.channels * self.height * registers.filled_by(self.width)


def default_tile(function: tirx.PrimFunc, registers: Registers) -> ConvolutionTile:
    """Return a tile as wide as a vector, with as many channels as there are registers."""
    _, channels, height, width = _output_shape(function)
    tile_width = divisors(width, 2 * registers.lanes)[-1]
    tile_height = divisors(height, max(1, 2 * registers.lanes // tile_width))[-1]
    rows = tile_height * registers.filled_by(tile_width)
    tile_channels = divisors(channels, max(1, registers.accumulators // rows))[-1]
    return ConvolutionTile(tile_channels, tile_height, tile_width)


def tiles(function: tirx.PrimFunc, registers: Registers) -> list[ConvolutionTile]:
    """List the search space: every tile that the registers hold and that has work for at least a quarter of them."""
    least, most = registers.count // 4, registers.count - 2
    _, channels, height, width = _output_shape(function)
    return [
        tile
        for tile_channels in divisors(channels, registers.count)
        for tile_height in divisors(height, 4)
        for tile_width in divisors(width, 4 * registers.lanes)
        for unroll in (False, True)
        if least
        <= (tile := ConvolutionTile(tile_channels, tile_height, tile_width, unroll)).accumulators(registers)
        <= most
    ]


def schedule_convolution(schedule: Schedule, registers: Registers, tile: ConvolutionTile | None = None) -> bool:
    """Schedule in place. If the function is no NCHW convolution, return False; the schedule is unusable then."""
    function = schedule.mod["main"]
    found = anchor(schedule, KINDS)
    if found is None:
        return False
    if tile is None:
        tile = default_tile(function, registers)
    batch, channel, y, x = schedule.get_loops(found.epilogue)
    channel, tile_channel = schedule.split(channel, [None, tile.channels])
    y, tile_y = schedule.split(y, [None, tile.height])
    x, tile_x = schedule.split(x, [None, tile.width])
    schedule.reorder(batch, channel, y, x, tile_channel, tile_y, tile_x)
    schedule.parallel(schedule.fuse(batch, channel, y))
    schedule.vectorize(tile_x)

    schedule.compute_at(found.reduction, x, preserve_unit_loops=True)
    *_, out, row, column, into, kernel_y, kernel_x = schedule.get_loops(found.reduction)
    schedule.reorder(into, kernel_y, kernel_x, out, row, column)
    if tile.unroll_kernel_row:
        schedule.unroll(kernel_x)
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
    return True


def _output_shape(function: tirx.PrimFunc) -> list[int]:
    return [int(size) for size in function.params[-1].ty.shape]
