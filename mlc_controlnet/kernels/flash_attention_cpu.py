# mypy: disable-error-code="no-untyped-def, valid-type"
"""Flash attention for processors: the same online softmax, with a query in each lane of a vector.

A tile of queries is two or four vectors of one head, turned over once, [D, queries]. Then everything runs in lanes: the
scores of a key are its numbers, read one by one, times vectors of queries; the maxima and the sums of a softmax are
those of vectors, without any sum across lanes; and the result is [D, queries] until the end. Micro-tiles of `rows`
keys, or numbers of a head, stay in registers in both products.

A task owns up to eight such tiles and takes them past each tile of keys, which it copies for them: the keys of a head
lie thousands of bytes apart, each on a page of memory of its own, and no processor fetches those ahead. A task of one
tile reads keys and values where they lie.

The rules' sizes are measured (docs/performance.md). 64 keys at a time take 0.85 to 1.00 of the time of 128, on every
instruction set: a value is a line of the cache, thousands of bytes from the next one, and few sets hold all of them.
Four vectors instead of two take 0.87 to 1.01 of that with AVX-512 and AVX2 where heads are small, and more beyond.
Eight tiles of queries for each tile of keys take 0.75 of the time of one, with 4096 tokens and heads of 40. One head
of 512 takes 0.86 with copies whose rows do not collide in the first cache and four vectors, 0.89 with AVX2.
"""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

from tvm import tirx
from tvm.script import tirx as T
from tvm.target import Target

from mlc_controlnet.kernels.asked_for import asked_for
from mlc_controlnet.kernels.attention import LOWEST, Attention, Operand
from mlc_controlnet.kernels.exponential import LOG2_E, exp2
from mlc_controlnet.kernels.flash_attention_signature import with_signature
from mlc_controlnet.kernels.integers import ceil_div, divisors
from mlc_controlnet.kernels.marks import rebuilt
from mlc_controlnet.kernels.registers_cpu import Registers, registers_of
from mlc_controlnet.kernels.tunable import Decisions, Operation, Tunable, params_of

VERSION = 1  # of what the decisions mean
VECTORS, MANY_VECTORS = 2, 4  # of queries in a task, by the rules
KEYS = 64  # of a tile of keys at most
LARGEST_HEAD = 80  # with many vectors, or tiles of queries: copies of larger heads fill the first cache
COLLIDING_HEAD = 256  # its rows, and those of a multiple, lie on few sets of the first cache: copies move values apart
ROWS_OF_A_LARGE_HEAD = 4  # of keys with many vectors, at least: its queries come from the second-level cache each time
LEAST_LANES = 8  # with many vectors: WebAssembly gains nothing, Neon is not measured
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
    two, many = (_tile(attention, registers, vectors) for vectors in (VECTORS, MANY_VECTORS))
    return many if _fits(attention, registers, many, two) else two


def _gains_by_copies(head_size: int) -> bool:
    return head_size <= LARGEST_HEAD or head_size % COLLIDING_HEAD == 0


def _tile(attention: Attention, registers: Registers, vectors: int) -> Tile:
    """Return the tile of so many vectors of queries whose micro-tiles fill the registers, with even tiles of keys."""
    most = min(registers.accumulators, registers.count - vectors - 1) // vectors  # beside the queries and a number
    rows = _rows(attention.keys, most)
    groups = ceil_div(attention.keys, rows)
    key_tiles = ceil_div(groups, max(1, KEYS // rows))
    return Tile(vectors, rows, ceil_div(groups, key_tiles), divisors(attention.head_size, most)[-1])


def _fits(attention: Attention, registers: Registers, many: Tile, two: Tile) -> bool:
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


def tunable_attention(function: tirx.PrimFunc, target: Target) -> Tunable | None:
    """Return what there is to decide about a kernel of this module; None if the function is none, or shares keys.

    Keys that attentions share lie in a tensor whose size only the caller knows.
    """
    attention = asked_for(function)
    if not isinstance(attention, Attention) or attention.layout == "shared":
        return None
    registers = registers_of(target)

    def schedule(decisions: Decisions) -> tirx.PrimFunc:
        return rebuilt(function, build(attention, registers, Tile(**decisions)))

    return Tunable(
        Operation("attention_cpu", VERSION, attention.axes, attention.form, params_of(function)),
        asdict(default_tile(attention, registers)),
        lambda: [asdict(tile) for tile in tiles(attention, registers)],
        schedule,
        math.prod(attention.axes),
    )


@lru_cache(maxsize=256)  # TVM parses its text anew each time: a tenth of a second
def build(attention: Attention, registers: Registers, decided: Tile | None = None) -> tirx.PrimFunc:
    """Return the kernel with its loops as they shall run. See `flash_attention` for its parameters."""
    B, S, K, H, D = attention.batch, attention.queries, attention.keys, attention.heads, attention.head_size
    dtype, lanes = attention.dtype, registers.lanes
    decided = default_tile(attention, registers) if decided is None else decided
    vectors, rows, groups_of_tile, depth_rows = decided.vectors, decided.rows, decided.groups, decided.depth_rows
    queries_of_tile = vectors * lanes
    tiles_of_task = query_tiles_of_task(attention, registers, decided)
    is_copied = tiles_of_task > 1
    queries_of_task = tiles_of_task * queries_of_tile
    tasks_of_head = ceil_div(S, queries_of_task)
    groups = ceil_div(K, rows)
    tile = groups_of_tile * rows
    has_bias = attention.bias_shape is not None
    pitch = D + lanes if D % COLLIDING_HEAD == 0 else D  # of copied rows
    block = lanes if D % lanes == 0 else D  # of numbers that are turned over at a time: their lines stay at hand
    are_keys_copied = is_copied and pitch == D  # a micro-tile reads few keys, whose lines do not collide
    value_shape = (tile, pitch) if is_copied else (1, 1)
    key_shape = (tile, D) if are_keys_copied else (1, 1)
    is_masked = has_bias or attention.causal is not None or K % rows != 0
    vector = f"float32x{lanes}"

    def masked(score: Any, bias: Any, b: Any, h: Any, query: Any, key: Any) -> Any:
        """Mask a score, in base 2. Rows and keys out of range read the last bias: they are hidden or never written."""
        if has_bias:
            index = attention.bias_index(b, h, T.min(query, S - 1), T.min(key, K - 1))
            score = score + T.cast(bias[tuple(index)], "float32") * T.float32(LOG2_E)
        return T.Select(attention.is_visible(query, key), score, T.float32(LOWEST))

    def at(operand: Operand, source: Any, place: Any, b: Any, row: Any, h: Any, d: Any) -> Any:
        """Read a number of an operand as float32. The last row replaces rows past the end, where there are any."""
        past_the_end = S % queries_of_tile if operand == "q" else K % rows
        if past_the_end:
            row = T.min(row, (S if operand == "q" else K) - 1)
        return T.cast(source[tuple(attention.index(operand, place, b, row, h, d))], "float32")

    def of(number: Any) -> Any:
        return T.Broadcast(number, lanes)

    def lanes_at(n: Any) -> Any:
        return T.ramp(n * lanes, 1, lanes)

    def in_tile(
        operand: Operand, source: Any, copied: Any, place: Any, b: Any, first: Any, t: Any, h: Any, d: Any
    ) -> Any:
        """Read a number of the key or value t of a tile."""
        is_there = are_keys_copied if operand == "k" else is_copied
        return copied[t, d] if is_there else at(operand, source, place, b, first + t, h, d)

    @T.macro
    def body(q, k, v, bias, place, output):
        for task in T.parallel(B * H * tasks_of_head):
            with T.sblock("flash_attention"):
                T.reads()
                T.writes()
                queries = T.sblock_alloc_buffer((tiles_of_task, D, queries_of_tile), "float32")
                scores = T.sblock_alloc_buffer((tile, queries_of_tile), "float32")
                result = T.sblock_alloc_buffer((tiles_of_task, D, queries_of_tile), "float32")
                keys = T.sblock_alloc_buffer(key_shape, "float32")
                values = T.sblock_alloc_buffer(value_shape, "float32")
                kept_max = T.sblock_alloc_buffer((tiles_of_task, queries_of_tile), "float32")
                kept_sum = T.sblock_alloc_buffer((tiles_of_task, queries_of_tile), "float32")
                row_max = T.sblock_alloc_buffer((vectors,), vector, scope="local")
                row_sum = T.sblock_alloc_buffer((vectors,), vector, scope="local")
                new_max = T.sblock_alloc_buffer((vectors,), vector, scope="local")
                rescale = T.sblock_alloc_buffer((vectors,), vector, scope="local")
                power = T.sblock_alloc_buffer((1,), vector, scope="local")
                score_vectors = T.sblock_alloc_buffer((rows, vectors), vector, scope="local")
                result_vectors = T.sblock_alloc_buffer((depth_rows, vectors), vector, scope="local")

                b: T.let[T.int32] = task // (H * tasks_of_head)
                h: T.let[T.int32] = task // tasks_of_head % H
                first_of_task: T.let[T.int32] = task % tasks_of_head * queries_of_task

                for m, turned, i, d in T.grid(tiles_of_task, D // block, queries_of_tile, block):
                    queries[m, turned * block + d, i] = at(
                        "q", q, place, b, first_of_task + m * queries_of_tile + i, h, turned * block + d
                    ) * T.float32(attention.scale * LOG2_E)
                for m, d, n in T.grid(tiles_of_task, D, vectors):
                    result[m, d, lanes_at(n)] = of(T.float32(0))
                for m, n in T.grid(tiles_of_task, vectors):
                    kept_max[m, lanes_at(n)] = of(T.float32(LOWEST))
                    kept_sum[m, lanes_at(n)] = of(T.float32(0))

                for key_tile in T.serial(ceil_div(groups, groups_of_tile)):
                    first_key: T.let[T.int32] = key_tile * tile
                    there: T.let[T.int32] = T.min(groups_of_tile, groups - key_tile * groups_of_tile)

                    if are_keys_copied:
                        for t, d in T.grid(there * rows, D):
                            keys[t, d] = at("k", k, place, b, first_key + t, h, d)
                    if is_copied:
                        for t, d in T.grid(there * rows, D):
                            values[t, d] = at("v", v, place, b, first_key + t, h, d)

                    for m in T.serial(tiles_of_task):
                        for n in T.unroll(vectors):
                            row_max[n] = kept_max[m, lanes_at(n)]
                            row_sum[n] = kept_sum[m, lanes_at(n)]

                        for group in T.serial(there):
                            for i, n in T.grid(rows, vectors):
                                score_vectors[i, n] = of(T.float32(0))
                            for d in T.serial(D):
                                for i in T.unroll(rows):
                                    for n in T.unroll(vectors):
                                        score_vectors[i, n] = (
                                            score_vectors[i, n]
                                            + of(in_tile("k", k, keys, place, b, first_key, group * rows + i, h, d))
                                            * queries[m, d, lanes_at(n)]
                                        )
                            for i in T.unroll(rows):
                                for n in T.unroll(vectors):
                                    scores[group * rows + i, lanes_at(n)] = score_vectors[i, n]
                        if is_masked:
                            for t, i in T.grid(there * rows, queries_of_tile):
                                scores[t, i] = masked(
                                    scores[t, i], bias, b, h, first_of_task + m * queries_of_tile + i, first_key + t
                                )

                        for n in T.unroll(vectors):
                            new_max[n] = row_max[n]
                        for t in T.serial(there * rows):
                            for n in T.unroll(vectors):
                                new_max[n] = T.max(new_max[n], scores[t, lanes_at(n)])
                        for n in T.unroll(vectors):
                            power[0] = exp2(row_max[n] - new_max[n], lanes)
                            row_sum[n] = row_sum[n] * power[0]
                            rescale[n] = power[0]  # of what the result has so far, when it is read next
                        for t in T.serial(there * rows):
                            for n in T.unroll(vectors):
                                power[0] = exp2(scores[t, lanes_at(n)] - new_max[n], lanes)
                                row_sum[n] = row_sum[n] + power[0]
                                scores[t, lanes_at(n)] = power[0]
                        for n in T.unroll(vectors):
                            kept_max[m, lanes_at(n)] = new_max[n]
                            kept_sum[m, lanes_at(n)] = row_sum[n]

                        for part in T.serial(D // depth_rows):
                            for i in T.unroll(depth_rows):
                                for n in T.unroll(vectors):
                                    result_vectors[i, n] = result[m, part * depth_rows + i, lanes_at(n)] * rescale[n]
                            for t in T.serial(there * rows):
                                for i in T.unroll(depth_rows):
                                    for n in T.unroll(vectors):
                                        result_vectors[i, n] = (
                                            result_vectors[i, n]
                                            + of(
                                                in_tile(
                                                    "v", v, values, place, b, first_key, t, h, part * depth_rows + i
                                                )
                                            )
                                            * scores[t, lanes_at(n)]
                                        )
                            for i in T.unroll(depth_rows):
                                for n in T.unroll(vectors):
                                    result[m, part * depth_rows + i, lanes_at(n)] = result_vectors[i, n]

                for m in T.serial(tiles_of_task):
                    for n in T.unroll(vectors):
                        row_sum[n] = of(T.float32(1)) / kept_sum[m, lanes_at(n)]
                        for d in T.serial(D):
                            result[m, d, lanes_at(n)] = result[m, d, lanes_at(n)] * row_sum[n]
                    for turned, i in T.grid(D // block, queries_of_tile):
                        if first_of_task + m * queries_of_tile + i < S:
                            for d in T.serial(block):
                                output[b, first_of_task + m * queries_of_tile + i, h * D + turned * block + d] = T.cast(
                                    result[m, turned * block + d, i], dtype
                                )

    return with_signature(attention, body)


def _rows(keys: int, most: int) -> int:
    """Return how many keys a micro-tile has: a divisor of `keys` if there is one that fills half of the registers."""
    best = divisors(keys, most)[-1]
    return best if best >= most // 2 else most
