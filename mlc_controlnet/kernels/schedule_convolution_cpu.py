"""A schedule for 2-d convolutions on processors, with whatever elementwise work was fused into them.

The padded picture is written out once, in the order in which micro-tiles read it: as rows of all channels, and for a
1x1 kernel as micro-tiles of all channels. As planes, a row's channels would lie kilobytes apart, on few sets of the
first-level cache. A panel of output channels is then packed and serves every pixel of a task. The panels of the same
rows of the picture follow each other, so that these rows stay in the second-level cache. A micro-tile of pixels by
channels stays in registers over the whole reduction: each step reads the weights of the channels as vectors, which lie
as [C, kh, kw, N], and multiplies them by one number of the picture per pixel. So neither the picture's width nor the
stride matters. At the end the tile is turned over into the picture's layout.

A doubled picture's four phases (doubled_convolution.py) are four convolutions: the sums of its weights are made in the
panel, and each phase writes every other pixel of every other row.

A 1x1 convolution has few steps to repay that turn: where the rows are long, its vectors run along the pixels. A task
copies several micro-tiles of pixels side by side, [tiles, C, pixels], and walks over the weights once for all of them;
its sums leave the registers after as many input channels as stay in the first-level cache.
"""

import math
from dataclasses import asdict, dataclass, replace

from tvm import tirx
from tvm.s_tir import Schedule
from tvm.s_tir.schedule import LoopRV
from tvm.target import Target

from mlc_controlnet.kernels.anchored import Anchored, Block, anchor, extents, inline_weights
from mlc_controlnet.kernels.decoding import is_decoding, reads_words
from mlc_controlnet.kernels.doubled_convolution import PHASES, SUMMED
from mlc_controlnet.kernels.integers import divisors
from mlc_controlnet.kernels.registers_cpu import Registers, in_vectors, in_words, registers_of
from mlc_controlnet.kernels.tunable import Decisions, Operation, Tunable, apply_in_place, params_of

VERSION = 1  # of what the decisions mean
KINDS = "SSSSRRR"  # n, c, y, x; in channels, kernel rows, kernel columns
PANEL = 192 * 1024  # numbers: what of the weights a task reads again and again, three eighths of a second-level cache
VECTOR_LOAD = 3  # a vector of weights comes from the second-level cache, a single number mostly from the first
PIXEL_LOAD = 2  # a vector of pixels: wide panels are copied faster, each of their rows lies on a page of its own
PIXEL_VECTORS = 4  # of a panel at most
ONE_SET = 1024  # numbers of a plane: planes whose distance is a multiple of it share a set of the first-level cache
SHALLOW = 512  # input channels of a 1x1 convolution that do not repay the turn with AVX-512
LONG_ROWS, LANES_OF_MEASURED_ROWS = 4096, 8  # pixels that repay it; with AVX-512 only ONE_SET and SHALLOW are measured
LEAST_NUMBERS = 128  # of all registers: with WebAssembly's 64, vectors along the pixels take 1.4 to 1.7 of the time
BLOCK = 6144  # numbers: a panel's weights of some input channels, half of a first-level cache
PIXEL_STEP = 80  # input channels along pixels: a micro-tile's weights of each lie in a line of their own, on few sets
PANEL_PIXELS, LEAST_PANELS = 64, 16  # of a panel along pixels at most; of them at least, each a task
PIXELS_OF_A_TASK = 512  # so many repay packing the weights
WORTH_A_THREAD = 1 << 18  # multiply-adds: a few microseconds


@dataclass(frozen=True)
class ConvolutionTile:
    """The part that stays in registers, and how its vectors run.

    Attributes:
        along_pixels: vectors are neighbours of a row, else channels.
        task_rows: rows of the picture that share a panel of weights; not along pixels.
        step: input channels whose weights are read again and again; not along pixels.
    """

    channels: int
    height: int
    width: int
    along_pixels: bool = False
    task_rows: int = 0
    step: int = 0

    def accumulators(self, registers: Registers) -> int:
        """Count the vector registers that hold the tile's sums."""
        if self.along_pixels:
            return self.channels * self.height * registers.filled_by(self.width)
        return self.height * self.width * registers.filled_by(self.channels)

    def loads(self, registers: Registers) -> int:
        """Weigh the reads of a step: single numbers, whose cache lines serve several steps, and vectors."""
        if self.along_pixels:
            return self.channels + PIXEL_LOAD * self.height * registers.filled_by(self.width)
        return self.height * self.width + VECTOR_LOAD * registers.filled_by(self.channels)

    def fullness(self, registers: Registers) -> float:
        """Return the part of the lanes that is in use."""
        return registers.fullness(self.width if self.along_pixels else self.channels)


def default_tile(function: tirx.PrimFunc, registers: Registers) -> ConvolutionTile:
    """Return the tile with full vectors and the most multiply-adds per read."""
    shape = _shape(function)
    _, channels, height, width, depth, *taps = shape
    steps = math.prod(taps)
    most = registers.accumulators + registers.count // 16
    along_pixels = _gains_along_pixels(shape, registers) and not reads_words(function)  # each tile would decode all
    found = [
        tile
        for tile_channels in divisors(channels, 6 * registers.lanes)
        for tile_height in divisors(height, 4)
        for tile_width in divisors(width, 4 * registers.lanes)
        if (tile := ConvolutionTile(tile_channels, tile_height, tile_width, along_pixels)).accumulators(registers)
        <= most
        and (along_pixels or tile_channels * depth * steps <= PANEL or tile_channels <= 2 * registers.lanes)
        and (tile_height == 1 or tile_width == width)
        and (not along_pixels or tile_height * registers.filled_by(tile_width) <= PIXEL_VECTORS)
    ]
    best = max(
        found,
        key=lambda tile: (
            tile.fullness(registers),
            min(tile.accumulators(registers), 8),
            tile.accumulators(registers) / tile.loads(registers),
        ),
    )
    return best if along_pixels else replace(best, task_rows=_task_rows(shape, best), step=_step(shape, best))


def _gains_along_pixels(shape: list[int], registers: Registers) -> bool:
    """Return whether the vectors of a 1x1 convolution run along the pixels."""
    _, _, height, width, depth, *taps = shape
    if math.prod(taps) > 1 or width % registers.lanes != 0 or registers.count * registers.lanes < LEAST_NUMBERS:
        return False
    if registers.lanes > LANES_OF_MEASURED_ROWS:
        return depth < SHALLOW or height * width >= ONE_SET
    return height * width >= LONG_ROWS


def _task_rows(shape: list[int], tile: ConvolutionTile) -> int:
    """Return as few rows as repay packing the weights, and half of them where one task would be left to one thread."""
    batch, channels, height, width, *_ = shape
    enough = PIXELS_OF_A_TASK
    if batch * channels == tile.channels and math.prod(shape) >= WORTH_A_THREAD:
        enough = min(enough, height * width // 2)
    rows = next(rows for rows in divisors(height, height) if rows * width >= enough or rows == height)
    return math.lcm(rows, tile.height)


def _step(shape: list[int], tile: ConvolutionTile) -> int:
    """Return as many input channels as have their weights in the first-level cache."""
    depth, kernel_y, kernel_x = shape[4:]
    return divisors(depth, max(1, BLOCK // (tile.channels * kernel_y * kernel_x)))[-1]


def tiles(function: tirx.PrimFunc, registers: Registers) -> list[ConvolutionTile]:
    """List the search space: every tile that the registers hold and that has work for at least a quarter of them.

    Along channels each comes with the rules' rows of a task and step, and with the neighbours of both among divisors.
    """
    shape = _shape(function)
    _, channels, height, width, depth, *taps = shape
    steps = math.prod(taps)
    least, most = registers.count // 4, registers.count - 2
    found = [
        tile
        for along_pixels in ((False, True) if steps == 1 and not reads_words(function) else (False,))
        for tile_channels in divisors(channels, registers.count if along_pixels else 6 * registers.lanes)
        for tile_height in divisors(height, 4)
        for tile_width in divisors(width, 4 * registers.lanes if along_pixels else registers.count)
        if least
        <= (tile := ConvolutionTile(tile_channels, tile_height, tile_width, along_pixels)).accumulators(registers)
        <= most
    ]
    return [
        replace(tile, task_rows=rows, step=step)
        for tile in found
        for rows in ((0,) if tile.along_pixels else _around(height, _task_rows(shape, tile), tile.height))
        for step in ((0,) if tile.along_pixels else _around(depth, _step(shape, tile), 1))
    ]


def _around(whole: int, chosen: int, multiple: int) -> list[int]:
    """Return the divisors of `whole` next to `chosen`, and itself, of those that are multiples of a number."""
    fitting = [divisor for divisor in divisors(whole, whole) if divisor % multiple == 0]
    at = fitting.index(chosen)
    return fitting[max(0, at - 1) : at + 2]


def tile_of(decisions: Decisions) -> ConvolutionTile:
    """Return the tile of a search's decisions."""
    sizes = {name: int(value) for name, value in decisions.items() if name != "along_pixels"}
    return ConvolutionTile(**sizes, along_pixels=bool(decisions["along_pixels"]))


def tunable_convolution(function: tirx.PrimFunc, target: Target) -> Tunable | None:
    """Return what there is to decide about a convolution; None if the function is none."""
    schedule = Schedule(function)
    found = anchor(schedule, KINDS, kept=SUMMED)
    if found is None:
        return None
    registers = registers_of(target)
    axes = extents(schedule, schedule.get_loops(found.reduction))

    def apply(decisions: Decisions) -> tirx.PrimFunc:
        tile = tile_of(decisions)
        return apply_in_place(function, lambda schedule: schedule_convolution(schedule, registers, tile))

    return Tunable(
        Operation("convolution_cpu", VERSION, tuple(axes), (), params_of(function)),
        asdict(default_tile(function, registers)),
        lambda: [asdict(tile) for tile in tiles(function, registers)],
        apply,
        math.prod(axes),
    )


def schedule_convolution(schedule: Schedule, registers: Registers, tile: ConvolutionTile | None = None) -> bool:
    """Schedule in place. If the function is no NCHW convolution, return False; the schedule is unusable then."""
    function = schedule.mod["main"]
    found = anchor(schedule, KINDS, kept=SUMMED)
    if found is None:
        return False
    _split_phases(schedule, found)
    if tile is None:
        tile = default_tile(function, registers)
    if tile.along_pixels:
        _along_pixels(schedule, found, tile, registers)
    else:
        _along_channels(schedule, found, tile, registers)
    for pad in found.pads:
        *outer, _, _ = schedule.get_loops(pad)
        schedule.parallel(schedule.fuse(*outer))
    return True


def _along_channels(schedule: Schedule, found: Anchored, tile: ConvolutionTile, registers: Registers) -> None:
    *_, width = extents(schedule, schedule.get_loops(found.epilogue))
    batch, channel, y, x = schedule.get_loops(found.epilogue)
    channel, tile_channel = schedule.split(channel, [None, tile.channels])
    task, y = schedule.split(y, [None, tile.task_rows])
    schedule.reorder(batch, task, channel, y, tile_channel, x)
    panel = schedule.fuse(batch, task, channel)
    schedule.parallel(panel)
    _, tile_x = schedule.split(x, [None, divisors(width, registers.lanes)[-1]])
    schedule.vectorize(tile_x)

    product = schedule.get(found.reduction)
    channel_is_last = product.reads[1].region[-1].min.same_as(product.iter_vars[1].var)
    _write_in_reading_order(schedule, found, tile)
    weights = schedule.cache_read(found.reduction, 1, "global", [found.reduction])
    decodes = any(is_decoding(schedule.get(block)) for block in found.weights)
    inline_weights(schedule, found)
    schedule.set_scope(found.reduction, 0, "global")
    schedule.compute_at(found.reduction, panel, preserve_unit_loops=True)
    schedule.transform_layout(found.reduction, ("write", 0), lambda b, c, i, j: (b, i, j, c))
    *_, out, row, column, into, kernel_y, kernel_x = schedule.get_loops(found.reduction)
    row, tile_row = schedule.split(row, [None, tile.height])
    column, tile_column = schedule.split(column, [None, tile.width])
    block, into = schedule.split(into, [None, tile.step])
    schedule.reorder(block, row, column, into, kernel_y, kernel_x, tile_row, tile_column, out)
    for loop in (kernel_x, tile_row, tile_column):
        schedule.unroll(loop)
    in_vectors(schedule, out, registers)
    start = schedule.decompose_reduction(found.reduction, block)
    in_vectors(schedule, schedule.get_loops(start)[-1], registers)

    schedule.compute_at(weights, panel, preserve_unit_loops=True)
    if decodes:
        in_words(schedule, schedule.get_loops(weights)[-1])
    elif channel_is_last:
        in_vectors(schedule, schedule.get_loops(weights)[-1], registers)
    else:
        schedule.transform_layout(weights, ("write", 0), lambda n, c, i, j: (c, i, j, n))


def _write_in_reading_order(schedule: Schedule, found: Anchored, tile: ConvolutionTile) -> None:
    """Lay the padded picture out as [b, y, C, x]; copy one that needs no padding to [b, y, x / width, C, width]."""
    for pad in found.pads:
        schedule.transform_layout(pad, ("write", 0), lambda b, c, y, x: (b, y, c, x))
    _, channels, _, width, _, *taps = extents(schedule, schedule.get_loops(found.reduction))
    if found.pads or math.prod(taps) > 1 or channels == tile.channels or _picture_width(schedule, found) != width:
        return  # one panel reads a picture once, as a copy would
    picture = schedule.cache_read(found.reduction, 0, "global", [found.reduction])
    schedule.transform_layout(picture, ("write", 0), lambda b, c, y, x: (b, y, x // tile.width, c, x % tile.width))
    batch, channel, y, x = schedule.get_loops(picture)
    x, tile_x = schedule.split(x, [None, tile.width])
    schedule.reorder(batch, y, x, channel, tile_x)
    schedule.parallel(schedule.fuse(batch, y))
    schedule.vectorize(tile_x)


def _picture_width(schedule: Schedule, found: Anchored) -> int:
    return int(schedule.get(found.reduction).reads[0].source.shape[-1])


def _along_pixels(schedule: Schedule, found: Anchored, tile: ConvolutionTile, registers: Registers) -> None:
    rows, columns = _tiles_of_panel(extents(schedule, schedule.get_loops(found.reduction)), tile)
    batch, channel, y, x = schedule.get_loops(found.epilogue)
    channel, tile_channel = schedule.split(channel, [None, tile.channels])
    y, row_of_panel, tile_y = schedule.split(y, [None, rows, tile.height])
    x, column_of_panel, tile_x = schedule.split(x, [None, columns, tile.width])
    schedule.reorder(batch, y, x, channel, row_of_panel, column_of_panel, tile_channel, tile_y, tile_x)
    panel = schedule.fuse(batch, y, x)
    schedule.parallel(panel)
    in_vectors(schedule, tile_x, registers)

    pixels = schedule.cache_read(found.reduction, 0, "global", [found.reduction])
    if rows * columns > 1:
        _in_steps(schedule, found, tile, panel, registers)
    else:
        _at_once(schedule, found, channel, registers)
    schedule.compute_at(pixels, panel, preserve_unit_loops=True)
    _, pixel = schedule.split(schedule.get_loops(pixels)[-1], [None, tile.width])
    in_vectors(schedule, pixel, registers)
    schedule.transform_layout(
        pixels,
        ("write", 0),
        lambda b, c, y, x: (b, y // tile.height, x // tile.width, c, y % tile.height, x % tile.width),
    )
    for weights in found.weights:  # widened once for all pixels: a tile reads single numbers of them
        _widen_all(schedule, weights, registers)


def _tiles_of_panel(shape: list[int], tile: ConvolutionTile) -> tuple[int, int]:
    """Return how many micro-tiles a panel of pixels has, one below and beside another."""
    batch, _, height, width, *_ = shape
    panels = batch * (height // tile.height) * (width // tile.width)
    most = max(1, min(PANEL_PIXELS // (tile.height * tile.width), panels // LEAST_PANELS))
    columns = divisors(width // tile.width, most)[-1]
    rows = divisors(height // tile.height, most // columns)[-1] if columns * tile.width == width else 1
    return rows, columns


def _at_once(schedule: Schedule, found: Anchored, channel: LoopRV, registers: Registers) -> None:
    """Keep a micro-tile in registers over the whole reduction."""

    def in_registers(block: Block) -> None:
        *_, out, row, column = schedule.get_loops(block)
        schedule.unroll(out)
        schedule.unroll(row)
        in_vectors(schedule, column, registers)

    schedule.compute_at(found.reduction, channel, preserve_unit_loops=True)
    *_, out, row, column, into, kernel_y, kernel_x = schedule.get_loops(found.reduction)
    schedule.reorder(into, kernel_y, kernel_x, out, row, column)
    in_registers(found.reduction)
    in_registers(schedule.decompose_reduction(found.reduction, into))


def _in_steps(schedule: Schedule, found: Anchored, tile: ConvolutionTile, panel: LoopRV, registers: Registers) -> None:
    """Add up a panel's sums in memory: a step's pixels and weights stay in the first-level cache."""
    schedule.set_scope(found.reduction, 0, "global")
    schedule.compute_at(found.reduction, panel, preserve_unit_loops=True)
    *_, out, row, column, into, kernel_y, kernel_x = schedule.get_loops(found.reduction)
    (depth,) = extents(schedule, [into])
    step, into = schedule.split(into, [None, divisors(depth, PIXEL_STEP)[-1]])
    out, tile_out = schedule.split(out, [None, tile.channels])
    row, tile_row = schedule.split(row, [None, tile.height])
    column, tile_column = schedule.split(column, [None, tile.width])
    schedule.reorder(step, out, row, column, into, kernel_y, kernel_x, tile_out, tile_row, tile_column)
    schedule.unroll(tile_out)
    schedule.unroll(tile_row)
    in_vectors(schedule, tile_column, registers)
    start = schedule.decompose_reduction(found.reduction, step)
    in_vectors(schedule, schedule.get_loops(start)[-1], registers)


def _widen_all(schedule: Schedule, weights: Block, registers: Registers) -> None:
    everything = schedule.fuse(*schedule.get_loops(weights))
    (count,) = extents(schedule, [everything])
    outer, inner = schedule.split(everything, [None, divisors(count, registers.lanes)[-1]])
    schedule.vectorize(inner)
    schedule.parallel(outer)


def _split_phases(schedule: Schedule, found: Anchored) -> None:
    """Make the epilogue of a doubled picture one over phases and their pixels, as the convolution is."""
    rows, columns = extents(schedule, schedule.get_loops(found.reduction))[2:4]
    if extents(schedule, schedule.get_loops(found.epilogue))[2:] != [2 * rows, 2 * columns]:
        return
    schedule.transform_block_layout(
        found.epilogue, lambda b, n, i, j: (b * PHASES + i % 2 * 2 + j % 2, n, i // 2, j // 2)
    )
    (sums,) = (region.source for region in schedule.get(found.reduction).writes)
    sources = [region.source for region in schedule.get(found.epilogue).reads]
    number = next(number for number, source in enumerate(sources) if source.same_as(sums))
    # Left alone, TVM takes the remainders in the new indices for a read of all phases up to this one.
    schedule.annotate_buffer_access(found.epilogue, number, "read", lambda b, n, y, x: (b, n, y, x))


def _shape(function: tirx.PrimFunc) -> list[int]:
    """Return batch, output channels, rows, columns, input channels, and the kernel's rows and columns."""
    schedule = Schedule(function)
    found = anchor(schedule, KINDS, kept=SUMMED)
    assert found is not None, "a convolution"
    return extents(schedule, schedule.get_loops(found.reduction))
