# mypy: disable-error-code="no-untyped-def, valid-type"
"""Flash attention for GPUs, within WebGPU's limits.

A workgroup owns a tile of queries of one head and walks over tiles of keys. Its threads form a grid TY x TX. For a
tile of keys,

1. scores: thread (ty, tx) has the dot products of its `rows` queries with its `columns` keys tx, tx + TX, ... in
   registers, one vec4 of partial sums each, so that each vec4 read from workgroup memory serves rows or columns FMAs;
2. online softmax (2307.08691, algorithm 1): the row maximum is exchanged through workgroup memory, the row sum stays
   a partial sum per thread until the end, each thread exponentiates its own scores: no thread is idle;
3. output: thread (ty, tx) has its rows' depth vectors tx, tx + TX, ... in registers and adds P V.

Rows in workgroup memory are an odd number of vec4s apart, so that neighbouring keys lie in different banks. Keys and
values take turns in one place. Heads deeper than MAX_CHUNK vectors are read in chunks, the queries again for each tile
of keys; the VAE's single head of 512 fits that way. Values then take the queries' place too, in chunks as deep as fit:
each probability that is read serves all of a chunk. Only the micro-tiles are unrolled: WGSL text is start-up time.
"""

from dataclasses import dataclass, replace
from typing import Any

from tvm import tirx
from tvm.script import tirx as T

from mlc_controlnet.kernels.attention import LOWEST, Attention, Operand
from mlc_controlnet.kernels.exponential import LOG2_E
from mlc_controlnet.kernels.flash_attention_signature import with_signature
from mlc_controlnet.kernels.integers import ceil_div
from mlc_controlnet.kernels.vectors import LANES, sum_of
from mlc_controlnet.kernels.workgroups import ENOUGH_WORKGROUPS, WORKGROUP_BYTES, in_registers, in_workgroup

MAX_CHUNK = 20  # vec4s of a head in workgroup memory at a time
# Below this, tiles of queries are smaller. Each tile reads all keys and values, so tiles shrink later than those of
# other kernels: an integrated GPU runs about this many workgroups at a time.
FEWEST_WORKGROUPS = ENOUGH_WORKGROUPS // 2
LEAST_QUERIES = 16  # in a tile: with fewer, loading keys and values takes as long as the arithmetic


@dataclass(frozen=True)
class Tile:
    """The division of a workgroup's work; depths are counted in vec4s."""

    depth: int
    threads_x: int  # along keys, then along depth
    threads_y: int  # along queries
    rows: int  # queries per thread
    columns: int  # keys per thread
    chunk: int  # depth vectors of queries and keys in workgroup memory at a time

    @property
    def queries(self) -> int:
        """Queries per workgroup."""
        return self.threads_y * self.rows

    @property
    def keys(self) -> int:
        """Keys per pass over the loop."""
        return self.threads_x * self.columns

    @property
    def keeps_queries(self) -> bool:
        """Return whether the queries, read whole, stay in workgroup memory for all keys."""
        return self.chunk == self.depth

    @property
    def value_chunk(self) -> int:
        """Depth vectors of values at a time: as many as fit where queries and keys were, and a vector a thread."""
        if self.keeps_queries:
            return self.depth
        parts = self.depth // self.threads_x
        room = (self.queries + self.keys) * odd(self.chunk) // self.keys
        fitting = (
            n * self.threads_x for n in range(parts, 1, -1) if parts % n == 0 and odd(n * self.threads_x) <= room
        )
        return next(fitting, self.threads_x)

    @property
    def vectors(self) -> int:
        """Vectors of queries, keys and values in workgroup memory."""
        return max((self.queries + self.keys) * odd(self.chunk), self.keys * odd(self.value_chunk))

    def workgroup_bytes(self, element_bytes: int) -> int:
        """Count the bytes of queries, keys or values, probabilities, and a float32 per thread and row."""
        elements = self.vectors * LANES + self.queries * self.keys
        return elements * element_bytes + self.queries * self.threads_x * 4


def odd(vectors: int) -> int:
    """Return the distance of two rows of so many vectors in workgroup memory: odd, to avoid bank conflicts."""
    return vectors | 1


def choose_tile(attention: Attention) -> Tile:
    """Choose a tile: large enough for 8 to 16 FMAs per read, small enough for workgroup memory and about 100 registers.

    Heads deeper than 2 * MAX_CHUNK have a result of `rows * depth / threads_x` vectors per thread. In float16, the
    library of phones too, that is 64 registers. In float32, for desktop GPUs that lack shader-f16 but not registers, it
    is 128: half as many threads that each read a key once for four queries, where workgroup memory is the bottleneck.
    """
    depth = attention.head_size // LANES
    threads_x = _largest_divisor(depth, limit=10 if depth <= 40 else 16)
    chunk = threads_x * _largest_divisor(depth // threads_x, limit=max(1, MAX_CHUNK // threads_x))
    if depth <= MAX_CHUNK:
        rows, columns, threads_y = 4, 4, 8
    elif depth <= 2 * MAX_CHUNK:
        rows, columns, threads_y = 2, 4, 16
    elif attention.dtype == "float16":
        rows, columns, threads_y = 2, 2, 16
    else:
        rows, columns, threads_y = 4, 2, 8
    while threads_y * rows > LEAST_QUERIES and _workgroups(attention, threads_y * rows) < FEWEST_WORKGROUPS:
        threads_y //= 2
    tile = Tile(depth, threads_x, threads_y, rows, columns, chunk)
    element_bytes = 2 if attention.dtype == "float16" else 4
    while tile.workgroup_bytes(element_bytes) > WORKGROUP_BYTES:  # float32, of which half as much fits
        tile = _smaller(tile)
    return tile


def _smaller(tile: Tile) -> Tile:
    """Make a tile smaller.

    Less of the depth at a time costs only barriers. Fewer keys or queries cost reads. Half as many threads with twice
    the queries each make up for those.
    """
    if tile.chunk > tile.threads_x:
        parts = tile.chunk // tile.threads_x
        return replace(tile, chunk=tile.threads_x * _largest_divisor(parts, limit=parts - 1))
    if tile.columns > 2 and tile.rows < tile.columns:
        return replace(tile, columns=tile.columns // 2, rows=tile.rows * 2, threads_y=tile.threads_y // 2)
    if tile.columns > 2:
        return replace(tile, columns=tile.columns // 2)
    if tile.chunk == tile.threads_x and tile.chunk % 2 == 0:
        return replace(tile, chunk=tile.chunk // 2)
    return replace(tile, threads_y=tile.threads_y // 2)


def _largest_divisor(number: int, limit: int) -> int:
    return next(candidate for candidate in range(min(number, limit), 0, -1) if number % candidate == 0)


def _workgroups(attention: Attention, tile_queries: int) -> int:
    return attention.batch * attention.heads * ceil_div(attention.queries, tile_queries)


def build(attention: Attention) -> tirx.PrimFunc:
    """Return the kernel as thread-level TIR. See `flash_attention` for its parameters."""
    tile = choose_tile(attention)
    dtype = attention.dtype
    B, S, K, H, D = attention.batch, attention.queries, attention.keys, attention.heads, attention.head_size
    TX, TY, rows, columns = tile.threads_x, tile.threads_y, tile.rows, tile.columns
    chunk, value_chunk = tile.chunk, tile.value_chunk
    stride, value_stride = odd(chunk), odd(value_chunk)
    first_key_vector = tile.queries * stride
    first_value_vector = first_key_vector if tile.keeps_queries else 0
    parts = tile.depth // TX  # output vectors per thread and row
    chunk_parts = value_chunk // TX  # output vectors in one chunk
    query_tiles = ceil_div(S, tile.queries)
    key_tiles = ceil_div(K, tile.keys)
    vector = f"{dtype}x{LANES}"
    sums = f"float32x{LANES}"
    weight_vector = f"{dtype}x{columns}"
    has_bias = attention.bias_shape is not None

    def lane(value: Any, i: int) -> Any:
        return T.Shuffle([value], [i])

    def spread(value: Any) -> Any:
        return T.Broadcast(T.cast(value, "float32"), LANES)

    def pack(scores: Any, row: int) -> Any:
        return T.Shuffle([T.cast(scores[row * columns + j], dtype) for j in range(columns)], list(range(columns)))

    def biased(score: Any, bias: Any, b: Any, h: Any, query: Any, key: Any) -> Any:
        """Add the bias, in base 2. Rows and keys out of range read the last one: they are masked or never written."""
        if not has_bias:
            return score
        index = attention.bias_index(b, h, T.min(query, S - 1), T.min(key, K - 1))
        return score + T.cast(bias[tuple(index)], "float32") * T.float32(LOG2_E)

    # Rows of a tile, rows there are, depth vectors at a time, place in workgroup memory.
    layout = {
        "q": (tile.queries, S, chunk, 0),
        "k": (tile.keys, K, chunk, first_key_vector),
        "v": (tile.keys, K, value_chunk, first_value_vector),
    }

    def vector_at(operand: Operand, source: Any, place: Any, b: Any, row: Any, h: Any, d: Any) -> Any:
        *outer, first = attention.index(operand, place, b, T.min(row, layout[operand][1] - 1), h, d * LANES)
        return source[(*outer, T.ramp(first, 1, LANES))]

    @T.macro
    def load(operand, tiles, source, place, b, h, first, first_vector, thread):
        """Load a tile's rows of head h, from row `first` and depth vector `first_vector`; past the end the last row."""
        for step in T.serial(ceil_div(layout[operand][0] * layout[operand][2], TX * TY)):
            item: T.let[T.int32] = step * (TX * TY) + thread
            row: T.let[T.int32] = item // layout[operand][2]
            vector: T.let[T.int32] = item % layout[operand][2]
            if item < layout[operand][0] * layout[operand][2]:
                tiles[layout[operand][3] + row * odd(layout[operand][2]) + vector] = vector_at(
                    operand, source, place, b, first + row, h, first_vector + vector
                )

    @T.macro
    def body(q, k, v, bias, place, output):
        for bx in T.thread_binding(B * H * query_tiles, thread="blockIdx.x"):
            for ty in T.thread_binding(TY, thread="threadIdx.y"):
                for tx in T.thread_binding(TX, thread="threadIdx.x"):
                    with T.sblock("flash_attention"):
                        T.reads()
                        T.writes()
                        tiles = in_workgroup(tile.vectors, dtype=vector)
                        weights = in_workgroup(tile.queries * TX, dtype=weight_vector)
                        exchange = in_workgroup(tile.queries * TX)
                        products = in_registers(rows * columns, sums)
                        scores = in_registers(rows * columns)
                        result = in_registers(rows * parts, sums)
                        row_max = in_registers(rows)
                        row_sum = in_registers(rows)
                        new_max = in_registers(1)
                        decay = in_registers(1)
                        row_vectors = in_registers(rows, sums)
                        row_weights = in_registers(rows, weight_vector)
                        operand = in_registers(1, sums)
                        finished = in_registers(1, vector)

                        b: T.let[T.int32] = bx // (H * query_tiles)
                        h: T.let[T.int32] = bx // query_tiles % H
                        first_query: T.let[T.int32] = bx % query_tiles * tile.queries
                        thread: T.let[T.int32] = ty * TX + tx
                        row: T.let[T.int32] = ty * rows  # the thread's first, within the tile

                        for i in T.unroll(rows):
                            row_max[i] = T.float32(LOWEST)
                            row_sum[i] = T.float32(0)
                            # Written here so that they live as long as the tiles: with one tile of keys, TVM's
                            # StorageRewrite gives them its memory in spite of another vector width.
                            exchange[(row + i) * TX + tx] = T.float32(0)
                            weights[(row + i) * TX + tx] = T.Broadcast(T.Cast(dtype, T.float32(0)), columns)
                        for n in T.unroll(rows * parts):
                            result[n] = spread(T.float32(0))
                        if tile.keeps_queries:
                            load("q", tiles, q, place, b, h, first_query, 0, thread)

                        for step in T.serial(key_tiles):
                            first_key: T.let[T.int32] = step * tile.keys

                            # 1. scores
                            for ij in T.unroll(rows * columns):
                                products[ij] = spread(T.float32(0))
                            for c in T.serial(tile.depth // chunk):
                                T.tvm_storage_sync("shared")
                                if not tile.keeps_queries:
                                    load("q", tiles, q, place, b, h, first_query, c * chunk, thread)
                                load("k", tiles, k, place, b, h, first_key, c * chunk, thread)
                                T.tvm_storage_sync("shared")
                                for d in T.serial(chunk):
                                    for i in T.unroll(rows):
                                        row_vectors[i] = T.cast(tiles[(row + i) * stride + d], sums)
                                    for j in T.unroll(columns):
                                        operand[0] = T.cast(tiles[first_key_vector + (tx + TX * j) * stride + d], sums)
                                        for i in T.unroll(rows):
                                            products[i * columns + j] = (
                                                products[i * columns + j] + row_vectors[i] * operand[0]
                                            )

                            # 2. online softmax
                            for i in T.unroll(rows):
                                new_max[0] = T.float32(LOWEST)
                                for j in T.unroll(columns):
                                    scores[i * columns + j] = biased(
                                        sum_of(products[i * columns + j], LANES) * T.float32(attention.scale * LOG2_E),
                                        bias,
                                        b,
                                        h,
                                        first_query + row + i,
                                        first_key + tx + TX * j,
                                    )
                                    if not attention.is_visible(first_query + row + i, first_key + tx + TX * j):
                                        scores[i * columns + j] = T.float32(LOWEST)
                                    new_max[0] = T.max(new_max[0], scores[i * columns + j])
                                exchange[(row + i) * TX + tx] = new_max[0]
                            T.tvm_storage_sync("shared")
                            for i in T.unroll(rows):
                                new_max[0] = row_max[i]
                                for x in T.serial(TX):
                                    new_max[0] = T.max(new_max[0], exchange[(row + i) * TX + x])
                                decay[0] = T.exp2(row_max[i] - new_max[0])
                                row_max[i] = new_max[0]
                                row_sum[i] = row_sum[i] * decay[0]
                                for n in T.unroll(parts):
                                    result[i * parts + n] = result[i * parts + n] * spread(decay[0])
                                for j in T.unroll(columns):
                                    scores[i * columns + j] = T.exp2(scores[i * columns + j] - new_max[0])
                                    row_sum[i] = row_sum[i] + scores[i * columns + j]
                                weights[(row + i) * TX + tx] = pack(scores, i)

                            # 3. output
                            for c in T.unroll(tile.depth // value_chunk):
                                if c > 0:
                                    T.tvm_storage_sync("shared")
                                load("v", tiles, v, place, b, h, first_key, c * value_chunk, thread)
                                T.tvm_storage_sync("shared")
                                for x in T.serial(TX):
                                    for i in T.unroll(rows):
                                        row_weights[i] = weights[(row + i) * TX + x]
                                    for j in T.unroll(columns):
                                        for n in T.unroll(chunk_parts):
                                            operand[0] = T.cast(
                                                tiles[first_value_vector + (x + TX * j) * value_stride + tx + TX * n],
                                                sums,
                                            )
                                            for i in T.unroll(rows):
                                                result[i * parts + c * chunk_parts + n] = (
                                                    result[i * parts + c * chunk_parts + n]
                                                    + spread(lane(row_weights[i], j)) * operand[0]
                                                )

                        T.tvm_storage_sync("shared")
                        for i in T.unroll(rows):
                            exchange[(row + i) * TX + tx] = row_sum[i]
                        T.tvm_storage_sync("shared")
                        for i in T.unroll(rows):
                            row_sum[i] = T.float32(0)
                            for x in T.serial(TX):
                                row_sum[i] = row_sum[i] + exchange[(row + i) * TX + x]
                            if first_query + row + i < S:
                                for n in T.unroll(parts):
                                    finished[0] = T.cast(result[i * parts + n] / spread(row_sum[i]), vector)
                                    output[
                                        b,
                                        first_query + row + i,
                                        T.ramp(h * D + (tx + TX * n) * LANES, 1, LANES),
                                    ] = finished[0]

    return with_signature(attention, body)
