"""How flash attention for processors divides its work: the micro-tiles in registers, and what shares a copy of keys.

The rules' sizes are measured (docs/performance.md). 64 keys at a time take 0.85 to 1.00 of the time of 128, on every
instruction set: a value is a line of the cache, thousands of bytes from the next one, and few sets hold all of them.
Four vectors instead of two take 0.87 to 1.01 of that with AVX-512 and AVX2 where heads are small, and more beyond.
Three, which have twelve sums in registers instead of eight, take 0.92 with AVX2, heads of 160 and 256 keys, and 1.00 to
1.08 with smaller heads.
Eight tiles of queries for each tile of keys take 0.75 of the time of one, with 4096 tokens and heads of 40. One head
of 512 takes 0.86 with copies whose rows do not collide in the first cache and four vectors, 0.89 with AVX2.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from mlc_controlnet.kernels.attention import Attention
from mlc_controlnet.kernels.integers import ceil_div, divisors
from mlc_controlnet.kernels.registers_cpu import Registers

VECTORS, THREE_VECTORS, MANY_VECTORS = 2, 3, 4  # of queries in a tile, by the rules
KEYS = 64  # of a tile of keys at most
LARGEST_HEAD = 80  # with many vectors, or tiles of queries: copies of larger heads fill the first cache
COLLIDING_HEAD = 256  # its rows, and those of a multiple, lie on few sets of the first cache: copies move values apart
ROWS_OF_A_LARGE_HEAD = 4  # of keys with many vectors, at least: its queries come from the second-level cache each time
LEAST_LANES = 8  # with many vectors: WebAssembly gains nothing, Neon is not measured
LEAST_KEYS_OF_THREE = 256  # with three vectors: 77 keys gain nothing
LEAST_TASKS = 16  # with many vectors: fewer would leave threads without one
MOST_TILES, LEAST_TASKS_OF_TILES = 8, 32  # of queries in a task
MOST_VECTORS = 4  # a search's
TILES_OF_KEYS = (32, 64, 128, 256)  # a search's


@dataclass(frozen=True)
class Tile:
    """What a task keeps at hand.

    Attributes:
        vectors: of queries.
        rows: keys of the micro-tile of scores.
        groups: so many micro-tiles of scores wait for their softmax.
        depth_rows: numbers of a head of the result's micro-tile.
    """

    vectors: int
    rows: int
    groups: int
    depth_rows: int


def default_tile(attention: Attention, registers: Registers) -> Tile:
    """Return the tile of the rules."""
    two, three, many = (_filled(attention, registers, n) for n in (VECTORS, THREE_VECTORS, MANY_VECTORS))
    if _gains_by_many(attention, registers, many, two):
        return many
    return three if _gains_by_three(attention, registers, three, two) else two


def _filled(attention: Attention, registers: Registers, vectors: int) -> Tile:
    """Return the tile of so many vectors of queries whose micro-tiles fill the registers, with even tiles of keys."""
    most = min(registers.accumulators, registers.count - vectors - 1) // vectors  # beside the queries and a number
    rows = _rows(attention.keys, most)
    groups = ceil_div(attention.keys, rows)
    key_tiles = ceil_div(groups, max(1, KEYS // rows))
    return Tile(vectors, rows, ceil_div(groups, key_tiles), divisors(attention.head_size, most)[-1])


def _rows(keys: int, most: int) -> int:
    """Return how many keys a micro-tile has: a divisor of `keys` if there is one that fills half of the registers."""
    best = divisors(keys, most)[-1]
    return best if best >= most // 2 else most


def _gains_by_many(attention: Attention, registers: Registers, many: Tile, two: Tile) -> bool:
    """Return whether many vectors gain: a micro-tile that is as large, and no key or query that is nobody's beside."""

    def tasks(tile: Tile) -> int:
        return attention.batch * attention.heads * ceil_div(attention.queries, tile.vectors * registers.lanes)

    return (
        registers.lanes >= LEAST_LANES
        and _gains_by_copies(attention.head_size)
        and (attention.head_size <= LARGEST_HEAD or many.rows >= ROWS_OF_A_LARGE_HEAD)
        and attention.keys % many.rows == 0
        and many.vectors * many.rows >= two.vectors * two.rows
        and many.vectors * tasks(many) <= two.vectors * tasks(two)
        and tasks(many) >= LEAST_TASKS
    )


def _gains_by_three(attention: Attention, registers: Registers, three: Tile, two: Tile) -> bool:
    """Return whether three vectors gain: with AVX2, whose registers they fill, and large heads without copies."""
    return (
        registers.lanes == LEAST_LANES
        and not _gains_by_copies(attention.head_size)
        and attention.keys >= LEAST_KEYS_OF_THREE
        and attention.keys % three.rows == 0
        and three.vectors * min(three.rows, three.depth_rows) > two.vectors * min(two.rows, two.depth_rows)
    )


def _gains_by_copies(head_size: int) -> bool:
    return head_size <= LARGEST_HEAD or rows_collide(head_size)


def rows_collide(head_size: int) -> bool:
    """Return whether rows of a head that follow each other lie on few sets of the first-level cache."""
    return head_size % COLLIDING_HEAD == 0


def query_tiles_of_task(attention: Attention, registers: Registers, tile: Tile) -> int:
    """Return how many tiles of queries share a copy of each tile of keys: 1, 2, 4 or 8. No tile is nobody's."""
    if not _gains_by_copies(attention.head_size):
        return 1
    lanes = tile.vectors * registers.lanes
    query_tiles = ceil_div(attention.queries, lanes)
    count = MOST_TILES
    while count > 1 and (
        query_tiles % count != 0 or attention.batch * attention.heads * query_tiles < count * LEAST_TASKS_OF_TILES
    ):
        count //= 2
    return count


def tiles(attention: Attention, registers: Registers) -> list[Tile]:
    """List the search space: the rules' tile, and those whose micro-tiles fill a quarter of the registers or more."""
    return list(dict.fromkeys([default_tile(attention, registers), *_tiles(attention, registers)]))


def _tiles(attention: Attention, registers: Registers) -> Iterator[Tile]:
    least, most = registers.count // 4, registers.count - 2
    for vectors in range(1, MOST_VECTORS + 1):
        for rows in divisors(attention.keys, most // vectors):
            groups = ceil_div(attention.keys, rows)
            for depth_rows in divisors(attention.head_size, most // vectors):
                if vectors * min(rows, depth_rows) >= least:
                    for keys in TILES_OF_KEYS:
                        yield Tile(vectors, rows, min(groups, max(1, keys // rows)), depth_rows)
