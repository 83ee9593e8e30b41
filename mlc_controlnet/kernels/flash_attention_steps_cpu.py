# mypy: disable-error-code="no-untyped-def, valid-type"
"""The steps of flash attention on processors: a task's queries and keys, scores, their softmax, and the result's sums.

Axes in the task's memory: `m` its tiles of queries, `i` queries of a tile, `n` vectors of them, `t` keys of a tile of
keys, `d` numbers of a head. All of it is float32.
"""

from dataclasses import dataclass
from typing import Any

from tvm.script import tirx as T

from mlc_controlnet.kernels.attention import LOWEST, Attention, Operand
from mlc_controlnet.kernels.exponential import LOG2_E, exp2
from mlc_controlnet.kernels.flash_attention_tile_cpu import Tile, default_tile, query_tiles_of_task, rows_collide
from mlc_controlnet.kernels.integers import ceil_div
from mlc_controlnet.kernels.registers_cpu import Registers
from mlc_controlnet.kernels.vectors import neighbours, spread, vector_of


class Plan:
    """What is known of a kernel when it is made.

    Attributes:
        query_tiles: of a task; they share each tile of keys.
        tile_queries, task_queries: queries of a tile, one in each lane of its vectors, and of a task.
        tasks_of_head: the last one may have queries past the end.
        tile_keys, key_groups, key_tiles: keys of a tile of keys; micro-tiles of all keys, and tiles of those.
        copies_keys, copies_values: whether a task copies a tile of them before its tiles of queries go past it.
        value_pitch: numbers from one copied value to the next.
        turned: numbers of a head that are turned over at a time, so that their lines stay at hand.
        is_masked: whether scores have a bias, or some keys are hidden from some queries.
    """

    def __init__(self, attention: Attention, registers: Registers, tile: Tile | None = None) -> None:
        """Plan a kernel. tile: None is the rules' choice."""
        self.attention = attention
        self.head_size = head_size = attention.head_size
        self.lanes = registers.lanes
        self.tile = tile = default_tile(attention, registers) if tile is None else tile
        collides = rows_collide(head_size)
        self.query_tiles = query_tiles_of_task(attention, registers, tile)
        self.tile_queries = tile.vectors * self.lanes
        self.task_queries = self.query_tiles * self.tile_queries
        self.tasks_of_head = ceil_div(attention.queries, self.task_queries)
        self.tile_keys = tile.groups * tile.rows
        self.key_groups = ceil_div(attention.keys, tile.rows)
        self.key_tiles = ceil_div(self.key_groups, tile.groups)
        self.copies_values = self.query_tiles > 1
        self.copies_keys = self.copies_values and not collides  # a micro-tile reads few keys: their lines stay
        self.value_pitch = head_size + self.lanes if collides else head_size
        self.turned = self.lanes if head_size % self.lanes == 0 else head_size
        self.is_masked = (
            attention.bias_shape is not None or attention.causal is not None or attention.keys % tile.rows != 0
        )

    def in_memory(self, *shape: int) -> Any:
        """Allocate numbers that live in the caches."""
        return T.sblock_alloc_buffer(shape, "float32")

    def in_registers(self, *shape: int) -> Any:
        """Allocate vectors of queries."""
        return T.sblock_alloc_buffer(shape, vector_of("float32", self.lanes), scope="local")

    def in_copy(self, is_copied: bool, pitch: int) -> Any:
        """Allocate a copy of a tile of keys or values; next to nothing if they are read where they lie."""
        return self.in_memory(self.tile_keys, pitch) if is_copied else self.in_memory(1, 1)

    def vector(self, n: Any) -> Any:
        """Return the index of vector n among the queries of a tile."""
        return neighbours(n * self.lanes, self.lanes)

    def spread(self, number: Any) -> Any:
        """Return a number for every query of a vector."""
        return spread(number, self.lanes)


@dataclass(frozen=True)
class Task:
    """Where a task is: a head `h` of batch element `b`, from `first_query` on."""

    plan: Plan
    place: Any
    b: Any
    h: Any
    first_query: Any

    @property
    def tile(self) -> Tile:
        """The division of work."""
        return self.plan.tile

    def query(self, m: Any, i: Any) -> Any:
        """Return the row of query i of tile m."""
        return self.first_query + m * self.plan.tile_queries + i

    def number(self, operand: Operand, source: Any, row: Any, d: Any) -> Any:
        """Read number d of a row of q, k or v. The last row replaces rows past the end, where there are any."""
        attention = self.plan.attention
        rows, group = (
            (attention.queries, self.plan.tile_queries) if operand == "q" else (attention.keys, self.tile.rows)
        )
        if rows % group != 0:
            row = T.min(row, rows - 1)
        return T.cast(source[tuple(attention.index(operand, self.place, self.b, row, self.h, d))], "float32")

    def masked(self, score: Any, bias: Any, query: Any, key: Any) -> Any:
        """Mask a score, in base 2. Rows and keys past the end read the last bias: they are hidden or never written."""
        attention = self.plan.attention
        if attention.bias_shape is not None:
            row, column = T.min(query, attention.queries - 1), T.min(key, attention.keys - 1)
            index = tuple(attention.bias_index(self.b, self.h, row, column))
            score = score + T.cast(bias[index], "float32") * T.float32(LOG2_E)
        return T.Select(attention.is_visible(query, key), score, T.float32(LOWEST))


@dataclass(frozen=True)
class KeyTile:
    """A tile of keys, or of their values: `count` rows of the operand from `first` on.

    copy: what the task has copied them to; None: they are read where they lie.
    """

    operand: Operand
    source: Any
    first: Any
    count: Any
    copy: Any | None

    def number(self, at: Task, t: Any, d: Any) -> Any:
        """Read number d of row t of the tile."""
        return at.number(self.operand, self.source, self.first + t, d) if self.copy is None else self.copy[t, d]


@T.macro
def turn_queries(at, q, queries):
    """Bring the task's queries to [m, d, i], with their scale to base 2."""
    for m, part, i, d in T.grid(
        at.plan.query_tiles, at.plan.head_size // at.plan.turned, at.plan.tile_queries, at.plan.turned
    ):
        queries[m, part * at.plan.turned + d, i] = at.number(
            "q", q, at.query(m, i), part * at.plan.turned + d
        ) * T.float32(at.plan.attention.scale * LOG2_E)


@T.macro
def begin(plan, result, kept_max, kept_sum):
    """Start with nothing."""
    for m, d, n in T.grid(plan.query_tiles, plan.head_size, plan.tile.vectors):
        result[m, d, plan.vector(n)] = plan.spread(T.float32(0))
    for m, n in T.grid(plan.query_tiles, plan.tile.vectors):
        kept_max[m, plan.vector(n)] = plan.spread(T.float32(LOWEST))
        kept_sum[m, plan.vector(n)] = plan.spread(T.float32(0))


@T.macro
def copy_rows(at, rows):
    """Copy a tile of keys or values, if it is read from a copy."""
    if rows.copy is not None:
        for t, d in T.grid(rows.count, at.plan.head_size):
            rows.copy[t, d] = at.number(rows.operand, rows.source, rows.first + t, d)


@T.macro
def multiply_keys(at, keys, group, queries, m, sums, scores):
    """Compute the scores of a micro-tile of keys: each number of a key times vectors of queries."""
    for i, n in T.grid(at.tile.rows, at.tile.vectors):
        sums[i, n] = at.plan.spread(T.float32(0))
    for d in T.serial(at.plan.head_size):
        for i in T.unroll(at.tile.rows):
            for n in T.unroll(at.tile.vectors):
                sums[i, n] = (
                    sums[i, n]
                    + at.plan.spread(keys.number(at, group * at.tile.rows + i, d)) * queries[m, d, at.plan.vector(n)]
                )
    for i in T.unroll(at.tile.rows):
        for n in T.unroll(at.tile.vectors):
            scores[group * at.tile.rows + i, at.plan.vector(n)] = sums[i, n]


@T.macro
def mask(at, keys, bias, m, scores):
    """Add the bias to the scores, and hide the keys that a query does not attend to."""
    if at.plan.is_masked:
        for t, i in T.grid(keys.count, at.plan.tile_queries):
            scores[t, i] = at.masked(scores[t, i], bias, at.query(m, i), keys.first + t)


@T.macro
def exponentiate(plan, keys, scores, row_max, row_sum, new_max, decay, power):
    """Turn scores to probabilities, relative to the new maximum of their query, and add them to its sum."""
    for n in T.unroll(plan.tile.vectors):
        new_max[n] = row_max[n]
    for t in T.serial(keys.count):
        for n in T.unroll(plan.tile.vectors):
            new_max[n] = T.max(new_max[n], scores[t, plan.vector(n)])
    for n in T.unroll(plan.tile.vectors):
        power[0] = exp2(row_max[n] - new_max[n], plan.lanes)
        row_sum[n] = row_sum[n] * power[0]
        decay[n] = power[0]
    for t in T.serial(keys.count):
        for n in T.unroll(plan.tile.vectors):
            power[0] = exp2(scores[t, plan.vector(n)] - new_max[n], plan.lanes)
            row_sum[n] = row_sum[n] + power[0]
            scores[t, plan.vector(n)] = power[0]


@T.macro
def multiply_values(at, values, part, scores, decay, m, sums, result):
    """Let a micro-tile of the result decay and add the tile's probabilities times its values."""
    for i in T.unroll(at.tile.depth_rows):
        for n in T.unroll(at.tile.vectors):
            sums[i, n] = result[m, part * at.tile.depth_rows + i, at.plan.vector(n)] * decay[n]
    for t in T.serial(values.count):
        for i in T.unroll(at.tile.depth_rows):
            for n in T.unroll(at.tile.vectors):
                sums[i, n] = (
                    sums[i, n]
                    + at.plan.spread(values.number(at, t, part * at.tile.depth_rows + i)) * scores[t, at.plan.vector(n)]
                )
    for i in T.unroll(at.tile.depth_rows):
        for n in T.unroll(at.tile.vectors):
            result[m, part * at.tile.depth_rows + i, at.plan.vector(n)] = sums[i, n]


@T.macro
def write(at, m, result, kept_sum, factor, output):
    """Divide a tile's result by its sums, turn it back and write the queries that there are."""
    for n in T.unroll(at.tile.vectors):
        factor[n] = at.plan.spread(T.float32(1)) / kept_sum[m, at.plan.vector(n)]
        for d in T.serial(at.plan.head_size):
            result[m, d, at.plan.vector(n)] = result[m, d, at.plan.vector(n)] * factor[n]
    for part, i in T.grid(at.plan.head_size // at.plan.turned, at.plan.tile_queries):
        if at.query(m, i) < at.plan.attention.queries:
            for d in T.serial(at.plan.turned):
                output[at.b, at.query(m, i), at.h * at.plan.head_size + part * at.plan.turned + d] = T.cast(
                    result[m, part * at.plan.turned + d, i], at.plan.attention.dtype
                )
