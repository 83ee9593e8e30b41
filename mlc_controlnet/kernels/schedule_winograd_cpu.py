"""A schedule for Winograd's convolution on processors, with whatever elementwise work was fused into it.

A task owns a block of tiles and a panel of output channels. For some input channels at a time it transforms the panel's
weights, which then lie in the second-level cache as [36, step, channels], and adds to 36 matrix products: a micro-tile
of tiles by channels stays in registers over these input channels. Then it transforms the results, in vectors of
channels, and turns them over into the picture's layout.

The 36 numbers of a transform lie a power of two of bytes apart, or nearly, where caches have few sets for them; so each
of the 36 matrices has a line of the cache more than it needs. The weights of a step are read and widened before any
of them is transformed: many lines are under way at a time, where one input channel's would be waited for one by one.

The transformed picture is written out once for all panels where it is small. A large one has many blocks: there the
weights are transformed once, and a task owns a block and goes through all panels.
"""

import math
from dataclasses import asdict, dataclass

from tvm import tirx
from tvm.s_tir import Schedule
from tvm.target import Target

from mlc_controlnet.kernels.anchored import Block, axis_kinds, extents, has_condition, same_block, try_inline
from mlc_controlnet.kernels.decoding import is_decoding, is_widening
from mlc_controlnet.kernels.integers import divisors
from mlc_controlnet.kernels.registers_cpu import Registers, in_vectors, in_words, registers_of
from mlc_controlnet.kernels.tunable import Decisions, Operation, Tunable, apply_in_place, params_of
from mlc_controlnet.kernels.winograd_convolution import RESULTS

VERSION = 1  # of what the decisions mean
KINDS = "SSSSSSR"  # picture, block; row and column of a tile, tile, output channel; input channel
TILES_OF_BLOCK = 128  # at most: so many repay transforming a panel's weights for them
PANEL = 64  # output channels at most, by the rules
LEAST_TASKS = 8  # of panels: fewer would leave threads without one
LARGE_PICTURE = 1 << 24  # numbers of a transformed picture that is not written out as a whole
VECTOR_LOAD = 3  # a vector comes from the second-level cache, a single number mostly from the first
STEP = 64 * 64  # of input by output channels: a second-level cache of 512 KB nearly holds their 36 matrices of weights
FULL_BLOCK = 128  # tiles: their sums want as much of that cache as half of these weights
LINE = 16  # numbers of a line of the cache
MOST_LANES_OF_STEPS = 8  # AVX-512's caches are larger, and steps are not measured there
LEAST_CHANNELS, LEAST_PIXELS = 32, 64  # of fewer, transforms take what the products save
LEAST_PIXELS_UNMEASURED = 256  # where steps are not measured: without them fewer did not repay the transforms


@dataclass(frozen=True)
class WinogradTile:
    """What a task keeps at hand.

    Attributes:
        channels: of a panel of weights.
        tiles, vectors: of the micro-tile that stays in registers, tiles by vectors of channels.
        whole: the transformed picture is written out before; else each task transforms its block.
        step: input channels whose weights a task transforms at once; all of them where they are transformed before.
    """

    channels: int
    tiles: int
    vectors: int
    whole: int
    step: int


@dataclass(frozen=True)
class _Stages:
    """The blocks of `convolve_tiles`, and those that were fused with it."""

    padded: Block
    picture_rows: Block
    picture: Block
    weight_rows: Block
    weights: Block
    products: Block
    result_rows: Block
    results: Block
    epilogue: Block
    decoded: tuple[Block, ...]
    pads: tuple[Block, ...]


def block_rows(height: int, width: int) -> int:
    """Return how many rows of tiles make a block."""
    rows, columns = height // RESULTS, width // RESULTS
    return divisors(rows, max(1, TILES_OF_BLOCK // columns))[-1]


def gains(channels: int, out_channels: int, height: int, width: int, registers: Registers) -> bool:
    """Return whether the schedule is faster than a direct convolution's."""
    return (
        height % RESULTS == 0
        and width % RESULTS == 0
        and height * width >= (LEAST_PIXELS if takes_steps(registers) else LEAST_PIXELS_UNMEASURED)
        and min(channels, out_channels) >= LEAST_CHANNELS
        and out_channels % registers.lanes == 0
    )


def default_tile(axes: list[int], registers: Registers) -> WinogradTile:
    """Return the tile of the rules, for the axes of the reduction."""
    *outer, tiles, out_channels, channels = axes
    best = max(
        (
            (count, vectors)
            for count in divisors(tiles, registers.count)
            for vectors in _vectors(out_channels, registers)
        ),
        key=lambda tile: (
            tile[0] * tile[1] <= registers.accumulators,
            tile[0] * tile[1] / (tile[0] + VECTOR_LOAD * tile[1]),
        ),
    )
    least = best[1] * registers.lanes
    panels = [panel for panel in divisors(out_channels, max(PANEL, least)) if panel % least == 0]
    enough = [panel for panel in panels if _tasks_of_panels(axes, panel) >= LEAST_TASKS]
    whole = math.prod(outer) * tiles * channels <= LARGE_PICTURE
    panel = max(enough, default=least)
    in_steps = whole and takes_steps(registers)
    return WinogradTile(panel, *best, int(whole), _step(axes, panel) if in_steps else channels)


def takes_steps(registers: Registers) -> bool:
    """Return whether the rules transform the weights of some input channels at a time."""
    return registers.lanes <= MOST_LANES_OF_STEPS


def _step(axes: list[int], panel: int) -> int:
    *_, tiles, _, channels = axes
    most = STEP if tiles < FULL_BLOCK else STEP // 2
    return divisors(channels, max(1, most // panel))[-1]


def tiles(axes: list[int], registers: Registers) -> list[WinogradTile]:
    """List the search space: micro-tiles that fill a quarter of the registers or more, panels of up to 256 channels.

    A search measures on one core: it must not choose panels so large that others would have no task.
    """
    *_, tile_count, out_channels, channels = axes
    least_tasks = min(LEAST_TASKS, _tasks_of_panels(axes, default_tile(axes, registers).channels))
    return [
        WinogradTile(panel, count, vectors, whole, step)
        for vectors in _vectors(out_channels, registers)
        for count in divisors(tile_count, registers.count)
        if registers.count // 4 <= count * vectors <= registers.count - 2
        for panel in divisors(out_channels, 4 * PANEL)
        if panel % (vectors * registers.lanes) == 0 and _tasks_of_panels(axes, panel) >= least_tasks
        for whole in (0, 1)
        for step in sorted({channels, _step(axes, panel) if whole else channels})
    ]


def _tasks_of_panels(axes: list[int], panel: int) -> int:
    batch, blocks, *_, out_channels, _ = axes
    return batch * blocks * out_channels // panel


def _vectors(out_channels: int, registers: Registers) -> list[int]:
    return divisors(out_channels // registers.lanes, registers.count // 4)


def tunable_winograd(function: tirx.PrimFunc, target: Target) -> Tunable | None:
    """Return what there is to decide about Winograd's convolution; None if the function is none."""
    schedule = Schedule(function)
    found = _stages(schedule)
    if found is None:
        return None
    registers = registers_of(target)
    axes = extents(schedule, schedule.get_loops(found.products))

    def apply(decisions: Decisions) -> tirx.PrimFunc:
        return apply_in_place(
            function, lambda schedule: schedule_winograd(schedule, registers, WinogradTile(**decisions))
        )

    return Tunable(
        Operation("winograd_cpu", VERSION, tuple(axes), (), params_of(function)),
        asdict(default_tile(axes, registers)),
        lambda: [asdict(tile) for tile in tiles(axes, registers)],
        apply,
        math.prod(axes),
    )


def schedule_winograd(schedule: Schedule, registers: Registers, tile: WinogradTile | None = None) -> bool:
    """Schedule in place. If the function is no `convolve_tiles`, return False; the schedule is unusable then."""
    found = _stages(schedule)
    if found is None:
        return False
    if tile is None:
        tile = default_tile(extents(schedule, schedule.get_loops(found.products)), registers)
    _spread(schedule, found)
    block, task = _tasks(schedule, found, tile, registers)
    _transform_results(schedule, found, task, registers)
    step = _multiply(schedule, found, task, tile, registers)
    at_once = bool(tile.whole) and tile.step * tile.channels <= STEP
    _transform_weights(schedule, found, step if tile.whole else None, at_once, registers)
    _transform_picture(schedule, found, None if tile.whole else block, registers)
    for pad in (found.padded, *found.pads):
        batch, channel, *_ = schedule.get_loops(pad)
        schedule.parallel(schedule.fuse(batch, channel))
    return True


def _spread(schedule: Schedule, found: _Stages) -> None:
    """Lay the 36 matrices of transformed weights and of sums a line of the cache farther apart than their sizes."""
    for block in (found.weights, found.products):
        schedule.storage_align(block, 0, axis=-3, factor=2 * LINE, offset=LINE)


def _tasks(schedule: Schedule, found: _Stages, tile: WinogradTile, registers: Registers) -> tuple[Block, Block]:
    """Divide the epilogue; returns the loop over blocks of tiles and the loop inside it over panels of channels."""
    _, blocks, *_ = extents(schedule, schedule.get_loops(found.products))
    batch, channel, y, x = schedule.get_loops(found.epilogue)
    (width,) = extents(schedule, [x])
    panel, channel = schedule.split(channel, [None, tile.channels])
    block, y = schedule.split(y, [blocks, None])
    schedule.reorder(batch, block, panel, y, channel, x)
    _, vector = schedule.split(x, [None, divisors(width, registers.lanes)[-1]])
    schedule.vectorize(vector)
    block = schedule.fuse(batch, block)
    if tile.whole:
        panel = schedule.fuse(block, panel)
        schedule.parallel(panel)
    else:
        schedule.parallel(block)
    return block, panel


def _transform_results(schedule: Schedule, found: _Stages, task: Block, registers: Registers) -> None:
    schedule.compute_at(found.results, task, preserve_unit_loops=True)
    *_, one, row, column, channel = schedule.get_loops(found.results)
    vectors, lane = schedule.split(channel, [None, registers.lanes])
    schedule.reorder(one, vectors, row, column, lane)
    _unrolled(schedule, row, column, lane)
    schedule.compute_at(found.result_rows, vectors, preserve_unit_loops=True)
    _unrolled(schedule, *schedule.get_loops(found.result_rows)[-3:])


def _multiply(schedule: Schedule, found: _Stages, task: Block, tile: WinogradTile, registers: Registers) -> Block:
    """Returns the loop that wants other weights each time: over input channels, or the task itself."""
    schedule.compute_at(found.products, task, preserve_unit_loops=True)
    *_, row, column, of_tile, channel, into = schedule.get_loops(found.products)
    (channels,) = extents(schedule, [into])
    of_tile, tile_of_tile = schedule.split(of_tile, [None, tile.tiles])
    channel, vector, lane = schedule.split(channel, [None, tile.vectors, registers.lanes])
    step, first = task, into
    if tile.step < channels:
        step, into = schedule.split(into, [None, tile.step])
        first = step
        schedule.reorder(step, row)
    schedule.reorder(row, column, channel, of_tile, into, tile_of_tile, vector, lane)
    _unrolled(schedule, tile_of_tile, vector, lane)
    start = schedule.decompose_reduction(found.products, first)
    _unrolled(schedule, *schedule.get_loops(start)[-3:])
    return step


def _transform_weights(
    schedule: Schedule, found: _Stages, step: Block | None, at_once: bool, registers: Registers
) -> None:
    """Transform the weights that a step wants in that step, or all of them before.

    at_once: all weights of a step are read before any of them is transformed; else those of an input channel.
    """
    read = found.decoded
    if at_once and not read:
        read = (schedule.cache_read(found.weight_rows, 0, "global"),)
    if step is not None:
        schedule.compute_at(found.weights, step, preserve_unit_loops=True)
    *_, row, column, into, channel = schedule.get_loops(found.weights)
    vectors, lane = schedule.split(channel, [None, registers.lanes])
    schedule.reorder(into, vectors, row, column, lane)
    _unrolled(schedule, row, column, lane)
    if step is None:
        schedule.parallel(into)
    schedule.compute_at(found.weight_rows, vectors, preserve_unit_loops=True)
    _unrolled(schedule, *schedule.get_loops(found.weight_rows)[-3:])
    for weight in read:
        schedule.compute_at(weight, step if at_once else into, preserve_unit_loops=True)
        channel = schedule.get_loops(weight)[-1]
        if is_decoding(schedule.get(weight)):
            in_words(schedule, channel)
        else:
            in_vectors(schedule, channel, registers)


def _transform_picture(schedule: Schedule, found: _Stages, block: Block | None, registers: Registers) -> None:
    """Transform a block of the picture in its task, or all of it before."""
    if block is not None:
        schedule.compute_at(found.picture, block, preserve_unit_loops=True)
    *outer, row, column, channel, tile_row, tile_column = schedule.get_loops(found.picture)
    (columns,) = extents(schedule, [tile_column])
    tile_column, lane = schedule.split(tile_column, [None, divisors(columns, registers.lanes)[-1]])
    schedule.reorder(channel, tile_row, tile_column, row, column, lane)
    _unrolled(schedule, row, column, lane)
    if block is None:
        schedule.parallel(schedule.fuse(*outer, channel))
    schedule.compute_at(found.picture_rows, tile_column, preserve_unit_loops=True)
    _unrolled(schedule, *schedule.get_loops(found.picture_rows)[-3:])


def _unrolled(schedule: Schedule, *loops: Block) -> None:
    """Unroll all loops but the last, which becomes a vector."""
    *unrolled, vector = loops
    for loop in unrolled:
        schedule.unroll(loop)
    schedule.vectorize(vector)


def _stages(schedule: Schedule) -> _Stages | None:
    """Find the blocks by who reads whom, and inline those between the results and the epilogue."""
    root = schedule.get_sblock("root")
    blocks = schedule.get_child_blocks(root)
    outputs = schedule.get_output_blocks(root)
    reductions = [block for block in blocks if "R" in axis_kinds(schedule, block)]
    if len(reductions) != 1 or len(outputs) != 1 or axis_kinds(schedule, reductions[0]) != KINDS:
        return None
    (products,), (epilogue,) = reductions, outputs
    picture, weights = schedule.get_producers(products)
    (picture_rows,), (weight_rows,) = schedule.get_producers(picture), schedule.get_producers(weights)
    (padded,) = schedule.get_producers(picture_rows)
    (result_rows,) = schedule.get_consumers(products)
    (results,) = schedule.get_consumers(result_rows)
    own = (padded, picture_rows, picture, weight_rows, weights, products, result_rows, results, epilogue)
    decoded, pads = [], []
    for block in blocks:
        if any(same_block(schedule, block, one) for one in own):
            continue
        computed = schedule.get(block)
        if is_decoding(computed) or is_widening(computed):
            decoded.append(block)
        elif has_condition(schedule, block):
            pads.append(block)
        elif not try_inline(schedule, block):
            return None
    return _Stages(*own, tuple(decoded), tuple(pads))
