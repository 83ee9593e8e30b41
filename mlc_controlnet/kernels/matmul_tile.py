"""How the workgroups of a GPU share a product of two matrices: which tile each computes, and how its threads share it.

A micro-tile of a thread, for each step of k, reads `rows` + `columns` numbers and multiplies `rows` x `columns`:

    float16    4 x 8: 32 float32 sums, 16 registers of packed float16 runs, 10 of operands: 80 to 120 registers in all.
               With 8 x 8 they are 128 on NVIDIA and 240 on AMD, where only half as many threads fit, and a read of
               workgroup memory serves 27 multiply-adds instead of 18: neither waits for it
    float32    8 x 8, or 4 x 8 if there is little work

A low resolution has few tiles, and a GPU wants two workgroups for each compute unit: float16 tiles shrink until there
are 240, or 120 if only the smallest are that many, and float32 tiles until there are 120. A tile that would leave an
eighth of its rows idle is passed over: CLIP's 77 tokens are 5 tiles of 16. Micro-tiles stay as they are, because
smaller ones wait for workgroup memory. Instead a micro-tile of a small tile is shared by 2 or 4 threads, each with a
slice of every step of k. Their sums meet in 8 KB of workgroup memory, in float32 where an operand lay. That leaves room
for 3 to 6 waves a SIMD; with so few workgroups no more would be there. Predicted by `bench compilers` for 64x1280 by
1280x1280 in float16 on a Radeon Pro W7900: 5.5 us, 76 % of the chip's limit; 6.9 with 2 x 4 in 64 threads, 10.0 with
4 x 4, of which there are 80 workgroups. In float32, of the time of 4 x 4 in 64 threads:

                               W7900    W6800    RTX 4090
    256x2560 by 2560x640        0.78     1.02        0.78    tiles of 32 x 32, 2 slices
    64x1280 by 1280x1280        0.90     0.97        0.79    tiles of 16 x 32, 4 slices
    77x768 by 768x1280          0.62     0.98        0.76    tiles of 16 x 32, 4 slices

320 tiles of 64 x 64 on 96 units leave the busiest one with 4 where the mean is 3.3, and one wave more weighs more where
there are fewer tiles. So a product takes a finer tile where that leaves less to the busiest SIMD of GPUS. In float16
128 threads share it, with 4 x 4 sums each: 32 x 64 numbers, 32 x 32 in two slices, 16 x 32 in four. Where both fill a
GPU it takes 1.05 to 1.1 of the time, and it reads operands up to twice as often: the prediction leaves out what caches
miss. Workgroup memory is busy for 0.9 of the time: a still smaller one would wait for it. In float32 4 x 8 do already:
only workgroups of 32 threads, and 64 rows for 77, are divided. Packed weights take none that decodes them for fewer
rows, or for fewer columns where they are on the left: with 6 bits 1024x2560 by 2560x640 takes 0.92 on the W7900, and
320x320 by a picture of 64x64 0.92; 4096x320 by 320x320 would take 1.00. Predicted by `tune`'s compilers, of the time of
the coarser tile:

                                        W7900    W6800    RTX 4090
    float16    4096x320 by 320x320       0.93     0.96        0.84
               1024x2560 by 2560x640     0.93     0.94        0.64
               256x1280 by 1280x1280     0.92     0.96        0.62
               64x1280 by 1280x1280      0.99     0.74        0.99
               77x768 by 768x1280        0.75     1.00        1.03
               77x768 by 768x24960       0.94     0.93        0.98
    float32    256x1280 by 1280x1280     1.00     0.75        0.53
               77x768 by 768x24960       0.90     0.69        0.93
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Literal

from mlc_controlnet.kernels.float16_sums import run_length
from mlc_controlnet.kernels.integers import ceil_div, next_power_of_two, round_up
from mlc_controlnet.kernels.vectors import LANES
from mlc_controlnet.kernels.workgroups import (
    ENOUGH_WORKGROUPS,
    WORKGROUP_BYTES,
    WORTH_ANOTHER_TILE,
    busiest_simd,
    mean_share,
)

STEP_BYTES = 8 * 1024  # of both operands, in workgroup memory at once
TALL = 20  # threads down a tile of 80 rows
LEAST_ROWS = 8  # fewer are a matrix times a few vectors: one thread an output is better
NARROWEST = 16  # columns of a tile
PADDING_BYTES = 1024  # between rows in workgroup memory, at most
MANY_WORKGROUPS = 240  # two for each of 120 compute units
FEWEST_WORKGROUPS = 120  # two for each of 60

# What a search tries.
POWERS = (1, 2, 4, 8, 16, 32)  # threads down and across a tile
SLICES = (1, 2, 4)
LONGEST_STEP = 128
LEAST_THREADS, MOST_THREADS = 16, 256


Side = Literal["left", "right"]


@dataclass(frozen=True)
class Product:
    """[batch, rows, depth] by [depth, columns], or by [depth, 2, columns] if it is gated."""

    batch: int
    rows: int
    columns: int
    depth: int
    dtype: str  # of the operands
    is_gated: bool = False
    transposes: bool = False  # the right operand has k last, and is turned as it is brought to workgroup memory
    packed: Side | None = None  # the operand whose numbers each workgroup decodes for itself

    @property
    def item_bytes(self) -> int:
        """Bytes of a number of the operands."""
        return 2 if self.dtype == "float16" else 4


@dataclass(frozen=True)
class MatmulTile:
    """The part of the result that a workgroup computes, and how its threads share it."""

    threads_y: int
    threads_x: int
    rows: int  # a thread
    columns: int  # a thread
    slices: int = 1  # of each step of k: threads that share a micro-tile
    step: int = 0  # of k, in workgroup memory at once
    run: int | None = None  # of k, summed in float16

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the result per workgroup."""
        return self.threads_y * self.rows, self.threads_x * self.columns

    @property
    def threads(self) -> int:
        """Threads of a workgroup."""
        return self.threads_y * self.threads_x * self.slices

    def workgroups(self, product: Product) -> int:
        """Count the tiles of a product, of which the last row of tiles may be filled in part."""
        rows, columns = self.shape
        return product.batch * ceil_div(product.rows, rows) * (product.columns // columns)


# For float16, from the largest to the smallest. None but the last has fewer than 64 threads, if k is deep enough.
HALF_TILES = (
    MatmulTile(16, 8, 4, 8),
    MatmulTile(8, 8, 4, 8),
    MatmulTile(16, 4, 4, 8),
    MatmulTile(8, 4, 4, 8, slices=2),
    MatmulTile(16, 2, 4, 8, slices=2),
    MatmulTile(4, 4, 4, 8, slices=4),
    MatmulTile(8, 2, 4, 8, slices=4),
    MatmulTile(4, 2, 4, 8, slices=4),
)
HALF_TILES_GATED = (MatmulTile(16, 8, 4, 4), MatmulTile(8, 8, 4, 4), MatmulTile(16, 4, 4, 4), MatmulTile(8, 4, 4, 4))

SMALL_SINGLE_TILES = (MatmulTile(8, 4, 4, 8, slices=2), MatmulTile(4, 4, 4, 8, slices=4))  # for float32

# In place of those where they fill GPUs better, by dtype, each with the time that a product takes where both fill one.
FINER_TILES = {
    "float16": (
        (MatmulTile(8, 16, 4, 4, step=16), 1.05),  # with 32 of k RADV takes 1.11 for the W6800
        (MatmulTile(8, 8, 4, 4, slices=2), 1.05),
        (MatmulTile(4, 16, 4, 4, slices=2), 1.05),
        (MatmulTile(4, 8, 4, 4, slices=4), 1.1),
    ),
    "float32": (
        (MatmulTile(4, 4, 8, 8, slices=2, step=16), 1.03),
        (MatmulTile(4, 16, 4, 8), 1.45),  # waits for workgroup memory: for 77 rows, which leave tiles of 64 idle
    ),
}
SLICED = {1: 1.0, 2: 1.08, 4: 1.1}  # likewise of the others, by slices


def has_tile(rows: int, columns: int) -> bool:
    """Return whether there is a tile for an output of this size; then `choose_tile` finds one."""
    return rows >= LEAST_ROWS and columns % NARROWEST == 0


def choose_tile(product: Product) -> MatmulTile | None:
    """Return the tile; None if none fits, or if k is not a multiple of a vector."""
    if not has_tile(product.rows, product.columns):
        return None
    tile = _with_step(product, _half_tile(product) if product.dtype == "float16" else _single_tile(product))
    if tile is None or product.is_gated:
        return tile
    best, least = tile, WORTH_ANOTHER_TILE
    for finer, factor in _finer_tiles(product, tile):
        mean = mean_share(_times(product, finer, factor), _times(product, tile, SLICED[tile.slices]))
        if mean < least:
            best, least = finer, mean
    return best


def _with_step(product: Product, tile: MatmulTile) -> MatmulTile | None:
    """Return the tile with its longest step and as many slices as that has; None if k is not a multiple of a vector."""
    step = choose_step(product, tile)
    if step is None:
        return None
    step = min(step, tile.step or step)
    run = run_length(product.dtype, step)
    slices = min(tile.slices, step // (run or LANES))
    return replace(tile, slices=slices, step=step, run=run)


def _finer_tiles(product: Product, tile: MatmulTile) -> Iterator[tuple[MatmulTile, float]]:
    """Yield tiles that divide a product finer, with no fewer threads, and the time of a product.

    Float32: RDNA 3 issues two products at once in waves of 64 threads alone. An operand is transposed in squares of
    four by four: with fewer of them than threads it takes 1.17 of the time on a W6800.
    """
    for small, factor in FINER_TILES[product.dtype]:
        if product.columns % small.shape[1] == 0 and _fills_rows(product, small):
            finer = _with_step(product, small)
            if finer is None or finer.threads < tile.threads or _decodes_more(product, finer, tile):
                continue
            squares = finer.shape[1] * finer.step // LANES**2
            if not product.transposes or squares >= finer.threads:
                yield finer, factor


def _decodes_more(product: Product, finer: MatmulTile, tile: MatmulTile) -> bool:
    """Return whether packed weights would be decoded for fewer rows, or columns if they are on the left."""
    if product.packed is None:
        return False
    axis = 0 if product.packed == "right" else 1
    return finer.shape[axis] < tile.shape[axis]


def _times(product: Product, tile: MatmulTile, factor: float) -> list[float]:
    """Return how long the busiest SIMD of each of GPUS takes, in products of as many threads as it runs at once."""
    products = factor * tile.rows * tile.columns / tile.slices
    return [products * waves for waves in busiest_simd(tile.workgroups(product), tile.threads)]


def _half_tile(product: Product) -> MatmulTile:
    known = HALF_TILES_GATED if product.is_gated else HALF_TILES
    dividing = [tile for tile in known if product.columns % tile.shape[1] == 0]
    filling = [tile for tile in dividing if _fills_rows(product, tile)]
    for tiles, least in ((filling[:-1], MANY_WORKGROUPS), (filling, FEWEST_WORKGROUPS)):
        for tile in tiles:
            if tile.workgroups(product) >= least:
                return tile
    return dividing[-1]


def _single_tile(product: Product) -> MatmulTile:
    """64 accumulators per thread if there is enough work, otherwise 32, or 16 where no small tile fits."""
    for size in (8, 4):
        threads_y = min(8, next_power_of_two(ceil_div(product.rows, size)))
        if size == LANES and round_up(product.rows, TALL * size) < round_up(product.rows, threads_y * size):
            threads_y = TALL
        for threads_x in (8, 4):
            tile = MatmulTile(threads_y, threads_x, size, LANES if product.is_gated else size)
            enough = size == LANES or tile.workgroups(product) >= ENOUGH_WORKGROUPS
            if product.columns % tile.shape[1] == 0 and enough:
                return tile if size > LANES or product.is_gated else _smaller_tile(product, tile)
    raise AssertionError(f"no tile divides {product.columns} columns")


def _smaller_tile(product: Product, tile: MatmulTile) -> MatmulTile:
    """Return a small tile in place of one of 4 x 4: the larger one if it fills a GPU, else that of most workgroups."""
    smaller = [
        small for small in SMALL_SINGLE_TILES if product.columns % small.shape[1] == 0 and _fills_rows(product, small)
    ]
    enough = (small for small in smaller if small.workgroups(product) >= FEWEST_WORKGROUPS)
    return next(enough, max([tile, *smaller], key=lambda tile: tile.workgroups(product)))


def _fills_rows(product: Product, tile: MatmulTile) -> bool:
    """Return whether at most an eighth of the rows of its tiles are idle."""
    return round_up(product.rows, tile.shape[0]) * 7 <= product.rows * 8


def choose_step(product: Product, tile: MatmulTile) -> int | None:
    """Return how much of k one step covers; None if k is not a multiple of a vector."""
    bytes_of_k = sum(_operand_bytes(product, tile))
    return next((step for step in reversed(_steps(product, tile)) if step * bytes_of_k <= STEP_BYTES), None)


def _operand_bytes(product: Product, tile: MatmulTile) -> tuple[int, int]:
    """Return the bytes of the left and of the right operand's tile for each of k."""
    rows, columns = tile.shape
    return product.item_bytes * rows, product.item_bytes * (1 + product.is_gated) * columns


def _steps(product: Product, tile: MatmulTile) -> list[int]:
    """List the steps of k that divide it and whose operands fit workgroup memory, the shortest first.

    In float32 sums of slices meet where an operand lay before: TVM's StorageRewrite sees that it is no longer read, and
    that both have one dtype.
    """
    rows, columns = tile.shape
    sums_bytes = 4 * tile.slices * rows * columns if tile.slices > 1 else 0

    def fits(step: int) -> bool:
        left, right = (step * bytes_of_k for bytes_of_k in _operand_bytes(product, tile))
        beside = max(left, right) if product.dtype == "float32" else left + right
        return max(left + right, sums_bytes + beside) + PADDING_BYTES <= WORKGROUP_BYTES

    powers = (1 << exponent for exponent in range(LANES.bit_length() - 1, LONGEST_STEP.bit_length()))
    return [step for step in powers if product.depth % step == 0 and fits(step)]


def list_tiles(product: Product) -> list[MatmulTile]:
    """List the search space of a product: every tile that a workgroup can hold, with its longest three steps.

    A micro-tile has 4 or 8 rows and, unless it is gated, 4 or 8 columns. At most a quarter of the rows are idle.
    """
    found = []
    sizes = [(y, x, rows, columns) for y in POWERS for x in POWERS for rows in (4, 8) for columns in (4, 8)]
    for threads_y, threads_x, rows, columns in sizes:
        tile = MatmulTile(threads_y, threads_x, rows, columns)
        high, wide = tile.shape
        if product.columns % wide or (product.is_gated and columns != LANES):
            continue
        if round_up(product.rows, high) * 3 > product.rows * 4:
            continue
        for slices in SLICES:
            if not LEAST_THREADS <= threads_y * threads_x * slices <= MOST_THREADS:
                continue
            for step in _steps(product, replace(tile, slices=slices))[-3:]:
                run = run_length(product.dtype, step)
                if step % ((run or LANES) * slices) == 0 or slices == 1:
                    found.append(replace(tile, slices=slices, step=step, run=run))
    return found


def decisions_of(tile: MatmulTile) -> dict[str, int]:
    """Return what a search decides about a tile: all but the runs, which follow from the step."""
    return {name: size for name, size in asdict(tile).items() if name != "run"}


def tile_of(product: Product, decisions: Mapping[str, int]) -> MatmulTile:
    """Return the tile of a search's decisions."""
    return MatmulTile(**decisions, run=run_length(product.dtype, decisions["step"]))
