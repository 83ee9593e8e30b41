# mypy: disable-error-code="no-untyped-def, valid-type"
"""The steps of flash attention on GPUs: bringing rows to workgroup memory, scores, and the output's sums."""

from dataclasses import dataclass
from typing import Any

from tvm.script import tirx as T

from mlc_controlnet.kernels.attention import LOWEST, Operand
from mlc_controlnet.kernels.exponential import LOG2_E
from mlc_controlnet.kernels.flash_attention_plan import Plan
from mlc_controlnet.kernels.flash_attention_tile import Tile, place
from mlc_controlnet.kernels.integers import ceil_div
from mlc_controlnet.kernels.vectors import LANES, spread, sum_of


@dataclass(frozen=True)
class Rows:
    """An operand's rows in workgroup memory: `count` of `total`, `depth` vectors of each, from place `first` on.

    `group` neighbours belong to a thread. Each number is multiplied by `factor` on its way in.
    """

    operand: Operand
    count: int
    total: int
    depth: int
    first: int
    group: int
    factor: float

    def read(self, at: Any, source: Any, row: Any, d: Any) -> Any:
        """Return depth vector d of a row of the tensor, past the end of the last row."""
        *outer, number = at.plan.attention.index(
            self.operand, at.where, at.b, T.min(row, self.total - 1), at.h, d * LANES
        )
        vector = source[(*outer, T.ramp(number, 1, LANES))]
        if self.factor == 1.0:
            return vector
        return vector * spread(T.Cast(at.plan.dtype, T.float32(self.factor)), LANES)


def rows_of(plan: Plan, operand: Operand) -> Rows:
    """Return how rows of q, k or v lie in workgroup memory."""
    tile, attention = plan.tile, plan.attention
    if operand == "q":
        depth = tile.query_depth
        return Rows("q", tile.queries, attention.queries, depth, tile.first_query, tile.rows, plan.query_factor)
    if operand == "k":
        return Rows("k", tile.keys, attention.keys, tile.chunk, 0, tile.columns, 1.0)
    return Rows("v", tile.values, attention.keys, tile.value_chunk, 0, tile.columns, plan.value_factor)


@dataclass(frozen=True)
class At:
    """Where a thread is, and its memory: `tiles`, `weights` and `exchange` are the workgroup's."""

    plan: Plan
    where: Any
    b: Any
    h: Any
    ty: Any
    tx: Any
    tiles: Any
    weights: Any
    exchange: Any
    products: Any
    scores: Any
    result: Any
    operands: Any
    operand: Any
    row_weights: Any

    @property
    def thread(self) -> Any:
        """The thread's number in the workgroup."""
        return self.ty * self.tile.threads_x + self.tx

    @property
    def tile(self) -> Tile:
        """The division of work."""
        return self.plan.tile

    def query(self, i: Any, d: Any) -> Any:
        """Return depth vector d of the thread's query i, in the dtype of sums."""
        tile = self.tile
        first = tile.first_query + place(self.ty * tile.rows, tile.rows, tile.query_depth)
        return T.cast(self.tiles[first + i * tile.query_depth + d], self.plan.run_vector)

    def key(self, j: Any, d: Any) -> Any:
        """Return depth vector d of the thread's key j."""
        tile = self.tile
        first = place(self.tx * tile.columns, tile.columns, tile.chunk)
        return T.cast(self.tiles[first + j * tile.chunk + d], self.plan.run_vector)

    def value(self, x: Any, j: Any, n: Any) -> Any:
        """Return the thread's depth vector n of the value of key j of thread x, counted from the first at hand."""
        tile = self.tile
        first = place(x * tile.columns, tile.columns, tile.value_chunk)
        return T.cast(
            self.tiles[first + j * tile.value_chunk + self.tx + tile.threads_x * n],
            self.plan.run_vector,
        )

    def weight(self, i: Any, j: Any) -> Any:
        """Return the probability of a row that `multiply_values` has read, as a vector."""
        return T.cast(T.Broadcast(T.Shuffle([self.row_weights[i]], [j]), LANES), self.plan.run_vector)


def added(sums: Any, n: Any, product: Any, is_first: Any) -> Any:
    """Return sum n with a product added, or the product if it is the first."""
    return T.if_then_else(is_first, product, sums[n] + product)


@T.macro
def load(at, rows, source, first, first_vector):
    """Bring rows of a head to workgroup memory, from row `first` and depth vector `first_vector` of the tensor on."""
    if rows.depth % at.tile.threads_x == 0:
        for step in T.serial(ceil_div(rows.count, at.tile.threads_y)):
            row: T.let[T.int32] = step * at.tile.threads_y + at.ty
            if row < rows.count:
                for n in T.serial(rows.depth // at.tile.threads_x):
                    at.tiles[rows.first + place(row, rows.group, rows.depth) + at.tx + at.tile.threads_x * n] = (
                        rows.read(at, source, first + row, first_vector + at.tx + at.tile.threads_x * n)
                    )
    else:
        for step in T.serial(ceil_div(rows.count * rows.depth, at.tile.threads)):
            item: T.let[T.int32] = step * at.tile.threads + at.ty * at.tile.threads_x + at.tx
            row: T.let[T.int32] = item // rows.depth
            vector: T.let[T.int32] = item % rows.depth
            if item < rows.count * rows.depth:
                at.tiles[rows.first + place(row, rows.group, rows.depth) + vector] = rows.read(
                    at, source, first + row, first_vector + vector
                )


@T.macro
def multiply_keys(at, query_vector, key_vector, is_first):
    """Add the products of a depth vector of every query with that of every key."""
    for i in T.unroll(at.tile.rows):
        at.operands[i] = at.query(i, query_vector)
    for j in T.unroll(at.tile.columns):
        at.operand[0] = at.key(j, key_vector)
        for i in T.unroll(at.tile.rows):
            at.products[i * at.tile.columns + j] = added(
                at.products, i * at.tile.columns + j, at.operands[i] * at.operand[0], is_first
            )


@T.macro
def add_scores(at, is_first):
    """Add a run's sums, or all sums, to the scores."""
    for ij in T.unroll(at.tile.rows * at.tile.columns):
        at.scores[ij] = added(at.scores, ij, sum_of(T.cast(at.products[ij], at.plan.sums), LANES), is_first)


@T.macro
def multiply_key_runs(at, first):
    """Add the products of a chunk, in runs, to the scores; `first` is the chunk's place in queries that stay."""
    for r in T.serial(at.tile.chunk // at.plan.run):
        d: T.let[T.int32] = r * at.plan.run
        multiply_keys(at, first + d, d, True)
        for e in T.unroll(at.plan.pair - 1):
            multiply_keys(at, first + d + 1 + e, d + 1 + e, False)
        for n in T.serial(at.plan.run // at.plan.pair - 1):
            for e in T.unroll(at.plan.pair):
                multiply_keys(at, first + d + (n + 1) * at.plan.pair + e, d + (n + 1) * at.plan.pair + e, False)
        add_scores(at, at.tile.depth == at.plan.run)


@T.macro
def add_bias(at, bias, query, key):
    """Rows and keys out of range read the last one: they are masked or never written."""
    for i in T.unroll(at.tile.rows):
        for j in T.unroll(at.tile.columns):
            at.scores[i * at.tile.columns + j] = at.scores[i * at.tile.columns + j] + T.cast(
                bias[
                    tuple(
                        at.plan.attention.bias_index(
                            at.b,
                            at.h,
                            T.min(query + i, at.plan.attention.queries - 1),
                            T.min(key + j, at.plan.attention.keys - 1),
                        )
                    )
                ],
                "float32",
            ) * T.float32(LOG2_E / at.plan.score_factor)


@T.macro
def hide(at, query, key):
    """Give keys that a query does not attend to the lowest score."""
    for i in T.unroll(at.tile.rows):
        for j in T.unroll(at.tile.columns):
            if not at.plan.attention.is_visible(query + i, key + j):
                at.scores[i * at.tile.columns + j] = T.float32(LOWEST)


@T.macro
def multiply_values(at, x, first, sums, stride, offset, is_first):
    """Add thread x's probabilities times the values of its keys to the sums; `first` is the first thread at hand."""
    for i in T.unroll(at.tile.rows):
        at.row_weights[i] = at.weights[(at.ty * at.tile.rows + i) * at.tile.threads_x + x]
    for j in T.unroll(at.tile.columns):
        for n in T.unroll(at.plan.chunk_parts):
            at.operand[0] = at.value(x - first, j, n)
            for i in T.unroll(at.tile.rows):
                sums[i * stride + offset + n] = added(
                    sums, i * stride + offset + n, at.weight(i, j) * at.operand[0], is_first and j == 0
                )


@T.macro
def multiply_value_runs(at, first, part, fading):
    """Add the products of the values at hand, in runs, to the output's vectors from `part` on.

    fading: factors of the output's rows before the first run; 1 after it.
    """
    for t in T.serial(at.tile.value_threads // at.plan.value_pair):
        x: T.let[T.int32] = first + t * at.plan.value_pair
        multiply_values(at, x, first, at.products, at.plan.chunk_parts, 0, True)
        for e in T.unroll(at.plan.value_pair - 1):
            multiply_values(at, x + 1 + e, first, at.products, at.plan.chunk_parts, 0, False)
        for i in T.unroll(at.tile.rows):
            for n in T.unroll(at.plan.chunk_parts):
                at.result[i * at.plan.parts + part + n] = at.result[i * at.plan.parts + part + n] * spread(
                    fading[i], LANES
                ) + T.cast(at.products[i * at.plan.chunk_parts + n], at.plan.sums)
            fading[i] = T.float32(1)


@T.macro
def begin(at, lowest, row_max, row_sum):
    """Start with nothing.

    Workgroup memory is written here so that all of it lives as long as the tiles: with one tile of keys, TVM's
    StorageRewrite gives one buffer another's place in spite of another vector width.
    """
    row_max[0] = T.Broadcast(T.Cast(at.plan.dtype, T.float32(lowest)), at.tile.rows)
    at.exchange[at.thread] = row_max[0]
    for i in T.unroll(at.tile.rows):
        row_sum[i] = T.float32(0)
        at.weights[(at.ty * at.tile.rows + i) * at.tile.threads_x + at.tx] = at.plan.zeros(at.tile.columns)
    for n in T.unroll(at.tile.rows * at.plan.parts):
        at.result[n] = spread(T.float32(0), LANES)


@T.macro
def add_keys(at, q, k, first_query, first_key):
    """Compute the scores of a tile of keys."""
    if at.plan.run is None:
        for ij in T.unroll(at.tile.rows * at.tile.columns):
            at.products[ij] = spread(T.float32(0), LANES)
    elif at.tile.depth > at.plan.run:
        for ij in T.unroll(at.tile.rows * at.tile.columns):
            at.scores[ij] = T.float32(0)
    for c in T.serial(at.tile.depth // at.tile.chunk):
        T.tvm_storage_sync("shared")
        if not at.tile.keeps_queries:
            load(at, rows_of(at.plan, "q"), q, first_query, c * at.tile.chunk)
        load(at, rows_of(at.plan, "k"), k, first_key, c * at.tile.chunk)
        T.tvm_storage_sync("shared")
        first: T.let[T.int32] = c * at.tile.chunk if at.tile.keeps_queries else 0
        if at.plan.run is None:
            for d in T.serial(at.tile.chunk):
                multiply_keys(at, first + d, d, False)
        else:
            multiply_key_runs(at, first)
    if at.plan.run is None:
        add_scores(at, True)


@T.macro
def mask(at, bias, query, key, is_last):
    """Add the bias to the scores, and hide keys: beyond the last one only in the last tile."""
    if at.plan.attention.bias_shape is not None:
        add_bias(at, bias, query, key)
    if at.plan.attention.causal is not None or (at.plan.attention.keys % at.tile.keys > 0 and is_last):
        hide(at, query, key)


@T.macro
def exponentiate(at, most, row_max, old_max, row_sum, decay, number):
    """Turn scores to probabilities, relative to the new maximum of their rows, for all threads to read."""
    for i in T.unroll(at.tile.rows):
        number[i] = T.float32(-most)
        for j in T.unroll(at.tile.columns):
            number[i] = T.max(number[i], at.scores[i * at.tile.columns + j])
        number[i] = T.min(number[i], T.float32(most))
    at.exchange[at.thread] = at.plan.pack(number, 0, at.tile.rows)
    T.tvm_storage_sync("shared")
    old_max[0] = row_max[0]
    for x in T.serial(at.tile.threads_x):
        row_max[0] = T.max(row_max[0], at.exchange[at.ty * at.tile.threads_x + x])
    for i in T.unroll(at.tile.rows):
        number[i] = at.plan.scaled(row_max[0], i)
        decay[i] = T.exp2(at.plan.scaled(old_max[0], i) - number[i])
        row_sum[i] = row_sum[i] * decay[i]
        for j in T.unroll(at.tile.columns):
            at.scores[i * at.tile.columns + j] = T.exp2(
                at.scores[i * at.tile.columns + j] * T.float32(at.plan.score_factor) - number[i]
            )
            row_sum[i] = row_sum[i] + at.scores[i * at.tile.columns + j]
        at.weights[(at.ty * at.tile.rows + i) * at.tile.threads_x + at.tx] = at.plan.pack(
            at.scores, i * at.tile.columns, at.tile.columns
        )


@T.macro
def add_values(at, v, first_key, decay, fading):
    """Let the output decay and add the tile's probabilities times its values."""
    if at.plan.run is None:
        for i in T.unroll(at.tile.rows):
            for n in T.unroll(at.plan.parts):
                at.result[i * at.plan.parts + n] = at.result[i * at.plan.parts + n] * spread(decay[i], LANES)
    for c in T.unroll(at.tile.depth // at.tile.value_chunk):
        for i in T.unroll(at.tile.rows):
            fading[i] = decay[i]
        for s in T.serial(at.tile.threads_x // at.tile.value_threads):
            first: T.let[T.int32] = s * at.tile.value_threads
            if at.tile.depth > at.tile.value_chunk or at.tile.threads_x > at.tile.value_threads:
                T.tvm_storage_sync("shared")
            load(at, rows_of(at.plan, "v"), v, first_key + first * at.tile.columns, c * at.tile.value_chunk)
            T.tvm_storage_sync("shared")
            if at.plan.run is None:
                for x in T.serial(at.tile.value_threads):
                    multiply_values(at, first + x, first, at.result, at.plan.parts, c * at.plan.chunk_parts, False)
            else:
                multiply_value_runs(at, first, c * at.plan.chunk_parts, fading)


@T.macro
def add_row_sums(at, row_sum, number):
    """Add the threads' parts of a row's sum; in float16 it takes two numbers to exchange one of float32."""
    for i in T.unroll(at.tile.rows):
        number[i] = T.float32(0)
    for _ in T.unroll(2 if at.plan.dtype == "float16" else 1):
        T.tvm_storage_sync("shared")
        at.exchange[at.thread] = at.plan.pack(row_sum, 0, at.tile.rows)
        T.tvm_storage_sync("shared")
        for x in T.serial(at.tile.threads_x):
            for i in T.unroll(at.tile.rows):
                number[i] = number[i] + T.cast(T.Shuffle([at.exchange[at.ty * at.tile.threads_x + x]], [i]), "float32")
        for i in T.unroll(at.tile.rows):
            row_sum[i] = row_sum[i] - T.cast(T.cast(row_sum[i], at.plan.dtype), "float32")
