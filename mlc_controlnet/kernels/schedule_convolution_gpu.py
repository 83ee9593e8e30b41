"""2-D convolution for GPUs: a tile of output pixels and channels a workgroup, a micro-tile a thread.

dlight schedules a convolution as an implicit matrix product: every element that it loads is found with four divisions
and four comparisons, again for each of the 3x3 taps. Here a workgroup keeps a tile of the padded input, with its halo,
and of the weights in workgroup memory, and all taps read the same tile; what follows the convolution (bias, residual,
silu) is computed on the accumulators.

    tile of a workgroup        CHANNELS output channels x ROWS x COLUMNS pixels
    micro-tile of a thread     4 or 8 channels x 4 neighbouring pixels (one vector), accumulated in registers
    per step                   as many input channels as fit into 16 KiB of workgroup memory

Weights lie as [C, kh, kw, N]: they come to workgroup memory and from there to registers in vectors of four channels.
Neighbouring threads read neighbouring vectors, without a division. For a row of taps a thread reads the strip of pixels
that they share once: with 3x3 taps and 8 channels, 6 pixels and 6 vectors of weights for 96 multiply-adds, where tap by
tap and number by number it was 36 loads. A GPU does four multiply-adds in the time of a load from workgroup memory, so
these 12 loads hide behind them, and 36 did not.

Winograd's F(2x2, 3x3) (arXiv 1509.09308) was tried as one kernel: 16 positions x 32 channels x 32 tiles a workgroup,
3x3 weights transformed as they load, 64 accumulators per thread. It multiplies 2.25 times less, but the loads here
hide behind the arithmetic already, and transforms and barriers take much of the rest. In turns with this kernel it was
1.4 to 1.6 times as fast on lavapipe, and 0.75 to 1.10 times on SwiftShader (320 channels at 16x16: 1.02, 512 at 16x16:
1.10, 1280 at 8x8: 0.81, 128 at 64x64: 0.75), for 13.5 KB of WGSL instead of 7 to 13. No GPU was at hand; counting
instructions gives it 1.3 to 1.5 there.
"""

import math
from dataclasses import dataclass

from tvm import sym, tirx
from tvm.runtime import DataType
from tvm.s_tir import Schedule
from tvm.s_tir.dlight.gpu.base import GPUScheduleRule
from tvm.s_tir.schedule import LoopRV, SBlockRV
from tvm.target import Target

from mlc_controlnet.kernels.anchored import Anchored, anchor
from mlc_controlnet.kernels.integers import ceil_div, next_power_of_two
from mlc_controlnet.kernels.vectors import LANES
from mlc_controlnet.kernels.workgroups import ENOUGH_WORKGROUPS, WORKGROUP_BYTES

ROWS = COLUMNS = 8  # output pixels a workgroup
PIXELS_A_THREAD = LANES
MAX_CHANNEL_STEP = 32  # input channels per step


@dataclass(frozen=True)
class Tiling:
    """Sizes of the tiles of one convolution; every one is a power of two."""

    channels: int  # output channels a workgroup
    channels_a_thread: int
    rows: int
    columns: int
    pixels_a_thread: int
    channel_step: int  # input channels in workgroup memory at once

    @property
    def threads(self) -> tuple[int, int]:
        """Along the pixels and along the channels."""
        return self.rows * self.columns // self.pixels_a_thread, self.channels // self.channels_a_thread

    @property
    def weight_lanes(self) -> int:
        """Weights in a vector."""
        return min(LANES, self.channels_a_thread)


def choose_tiling(
    output: tuple[int, int, int], input_channels: int, kernel: tuple[int, int], window: tuple[int, int], item_bytes: int
) -> Tiling:
    """Choose tiles for an output of [C, H, W].

    Args:
        kernel: [kh, kw].
        window: rows and columns of the input that ROWS x COLUMNS outputs read.
    """
    channels, height, width = output
    rows, columns = min(ROWS, next_power_of_two(height)), min(COLUMNS, next_power_of_two(width))
    tiles = ceil_div(height, rows) * ceil_div(width, columns)
    wide = channels >= 64 and tiles * ceil_div(channels, 64) >= ENOUGH_WORKGROUPS
    tile_channels = min(64 if wide else 32, next_power_of_two(channels))
    channel_bytes = item_bytes * (tile_channels * math.prod(kernel) + math.prod(window))
    fits = max(1, WORKGROUP_BYTES // channel_bytes)
    return Tiling(
        channels=tile_channels,
        channels_a_thread=min(8 if wide else 4, tile_channels),
        rows=rows,
        columns=columns,
        pixels_a_thread=min(PIXELS_A_THREAD, columns),
        channel_step=min(1 << (fits.bit_length() - 1), MAX_CHANNEL_STEP, next_power_of_two(input_channels)),
    )


class Convolution(GPUScheduleRule):
    """Schedules a fused PrimFunc around one NCHW convolution; leaves everything else to the rules that follow."""

    def apply(self, func: tirx.PrimFunc, target: Target, _tunable: bool) -> Schedule | None:
        if not isinstance(func, tirx.PrimFunc) or not self.is_target_available(target):
            return None
        schedule = Schedule(func)
        found = anchor(schedule, "SSSSRRR")
        if found is None or not _is_convolution(schedule, found.reduction) or len(found.pads) > 1:
            return None
        if _shape(schedule, found.epilogue)[:4] != _shape(schedule, found.reduction)[:4]:
            return None
        _schedule(schedule, found)
        return schedule


def _schedule(schedule: Schedule, found: Anchored) -> None:
    convolution = found.reduction
    _, out_channels, height, width, in_channels, kernel_y, kernel_x = _shape(schedule, convolution)
    stride_y, stride_x = _strides(schedule, convolution)
    tiling = choose_tiling(
        output=(out_channels, height, width),
        input_channels=in_channels,
        kernel=(kernel_y, kernel_x),
        window=((ROWS - 1) * stride_y + kernel_y, (COLUMNS - 1) * stride_x + kernel_x),
        item_bytes=DataType(str(schedule.get(convolution).reads[0].source.dtype)).itemsize,
    )

    # Down to the multiply-add: memory -> workgroup memory -> registers. Up from it: accumulators -> results -> memory.
    if found.pads:
        (window,) = found.pads
        schedule.set_scope(window, 0, "shared")
    else:
        window = schedule.cache_read(convolution, 0, "shared")
    weights = schedule.cache_read(convolution, 1, "shared")
    strip = schedule.cache_read(convolution, 0, "local")
    taps = schedule.cache_read(convolution, 1, "local")
    upward = [found.epilogue] if found.copies else [found.epilogue, schedule.cache_write(found.epilogue, 0, "local")]

    n, f, y, x, c, ky, kx = schedule.get_loops(convolution)
    per_thread = tiling.channels_a_thread
    f0, f1, f2 = schedule.split(f, [None, tiling.channels // per_thread, per_thread])
    y0, y1 = schedule.split(y, [None, tiling.rows])
    x0, x1, x2 = schedule.split(x, [None, tiling.columns // tiling.pixels_a_thread, tiling.pixels_a_thread])
    c0, c1 = schedule.split(c, [None, tiling.channel_step])
    schedule.reorder(n, y0, x0, f0, f1, y1, x1, c0, c1, ky, kx, f2, x2)
    schedule.bind(schedule.fuse(n, y0, x0), "blockIdx.x")
    schedule.bind(f0, "blockIdx.y")
    schedule.bind(f1, "threadIdx.y")
    thread_x = schedule.fuse(y1, x1)
    schedule.bind(thread_x, "threadIdx.x")
    schedule.compute_at(strip, ky, preserve_unit_loops=True)
    schedule.compute_at(taps, kx, preserve_unit_loops=True)
    for block, lanes in ((window, 1), (weights, tiling.weight_lanes)):
        schedule.compute_at(block, c0, preserve_unit_loops=True)
        elements = schedule.fuse(*schedule.get_loops(block)[-4:])
        _, ty, tx, vector = schedule.split(elements, [None, tiling.threads[1], tiling.threads[0], lanes])
        schedule.bind(ty, "threadIdx.y")
        schedule.bind(tx, "threadIdx.x")
        schedule.vectorize(vector)

    _write_out(schedule, f2, x2)
    start = schedule.decompose_reduction(convolution, c0)
    _write_out(schedule, *schedule.get_loops(start)[-2:])
    schedule.unroll(kx)
    schedule.unroll(schedule.get_loops(strip)[-1])
    groups, vector = schedule.split(schedule.get_loops(taps)[-1], [None, tiling.weight_lanes])
    schedule.unroll(groups)
    schedule.vectorize(vector)
    for block in upward:
        schedule.reverse_compute_at(block, thread_x, preserve_unit_loops=True)
        _, channels, _, columns = schedule.get_loops(block)[-4:]
        _write_out(schedule, channels, columns)


def _write_out(schedule: Schedule, channels: LoopRV, pixels: LoopRV) -> None:
    """Unroll a micro-tile, neighbouring pixels into one vector: a register has no address to compute."""
    schedule.unroll(channels)
    schedule.vectorize(pixels)


def _is_convolution(schedule: Schedule, block: SBlockRV) -> bool:
    """Recognize out[n, f, y, x] += data[n, c, y * s + ky, x * s + kx] * weight[c, ky, kx, f] by its structure."""
    statement = schedule.get(block)
    kinds = [int(v.iter_type) for v in statement.iter_vars]
    if kinds != [tirx.IterVar.DataPar] * 4 + [tirx.IterVar.CommReduce] * 3 or len(statement.reads) != 2:
        return False
    data, weight = statement.reads
    if len(data.source.shape) != 4 or len(weight.source.shape) != 4 or len(schedule.get_loops(block)) != 7:
        return False
    n, f, _, _, c, ky, kx = (v.var for v in statement.iter_vars)
    indices = [r.min for r in weight.region]
    return [i.same_as(v) for i, v in zip(indices, (c, ky, kx, f), strict=True)] == [True] * 4 and all(
        r.min.same_as(v) for r, v in zip(data.region[:2], (n, c), strict=True)
    )


def _strides(schedule: Schedule, block: SBlockRV) -> tuple[int, int]:
    """Return how far the window moves per row and per column: the factors of y and x in the data's indices."""
    statement = schedule.get(block)
    _, _, y, x, _, ky, kx = (v.var for v in statement.iter_vars)
    rows, columns = (r.min for r in statement.reads[0].region[2:])
    factor_y, *_ = sym.detect_linear_equation(rows, [y, ky])
    factor_x, *_ = sym.detect_linear_equation(columns, [x, kx])
    return int(factor_y), int(factor_x)


def _shape(schedule: Schedule, block: SBlockRV) -> tuple[int, ...]:
    return tuple(int(v.dom.extent) for v in schedule.get(block).iter_vars)
