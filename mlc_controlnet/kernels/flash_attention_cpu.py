# mypy: disable-error-code="no-untyped-def, valid-type"
"""Flash attention for processors: the same online softmax, tiled for caches and vector registers.

A task owns a tile of queries of one head. Per tile of keys it packs the keys transposed, so that the scores of one
query are neighbours and fill vectors; micro-tiles of ROWS queries by one vector stay in registers in both products.
"""

import operator
from collections.abc import Callable
from typing import Any

from tvm import tirx
from tvm.script import tirx as T

from mlc_controlnet.kernels.attention import LOWEST, Attention, Operand
from mlc_controlnet.kernels.exponential import LOG2_E, exp2
from mlc_controlnet.kernels.flash_attention_signature import with_signature
from mlc_controlnet.kernels.integers import ceil_div
from mlc_controlnet.kernels.vectors import LANES

QUERIES = 16  # a task's tile; its working set is about 30 KiB at head size 64, an L1 cache
KEYS = 32
ROWS = 4  # micro-tile: ROWS vectors of VECTOR float32 are eight of AVX2's sixteen registers
VECTOR = 16


def build(attention: Attention) -> tirx.PrimFunc:
    """Return the kernel with its loops as they shall run. See `flash_attention` for its parameters."""
    B, S, K, H, D = attention.batch, attention.queries, attention.keys, attention.heads, attention.head_size
    dtype = attention.dtype
    query_tiles = ceil_div(S, QUERIES)
    key_tiles = ceil_div(K, KEYS)
    depth_vector = next(lanes for lanes in (16, 8, LANES) if D % lanes == 0)
    has_bias = attention.bias_shape is not None

    is_masked = has_bias or attention.causal is not None or K % KEYS != 0

    def masked(score: Any, bias: Any, b: Any, h: Any, query: Any, key: Any) -> Any:
        """Mask a score, in base 2. Rows and keys out of range read the last bias: they are hidden or never written."""
        if has_bias:
            index = attention.bias_index(b, h, T.min(query, S - 1), T.min(key, K - 1))
            score = score + T.cast(bias[tuple(index)], "float32") * T.float32(LOG2_E)
        return T.Select(attention.is_visible(query, key), score, T.float32(LOWEST))

    rows_there = {"q": S, "k": K, "v": K}

    def at(operand: Operand, source: Any, place: Any, b: Any, row: Any, h: Any, d: Any, lanes: int = 1) -> Any:
        """Read `lanes` numbers of an operand. The last row replaces rows past the end."""
        *outer, first = attention.index(operand, place, b, T.min(row, rows_there[operand] - 1), h, d)
        return source[(*outer, first if lanes == 1 else T.ramp(first, 1, lanes))]

    def across_lanes(combine: Callable[[Any, Any], Any], vector: Any) -> Any:
        numbers = [T.Shuffle([vector], [lane]) for lane in range(VECTOR)]
        while len(numbers) > 1:
            numbers = [combine(a, b) for a, b in zip(numbers[::2], numbers[1::2], strict=True)]
        return numbers[0]

    @T.macro
    def body(q, k, v, bias, place, output):
        for task in T.parallel(B * H * query_tiles):
            with T.sblock("flash_attention"):
                T.reads()
                T.writes()
                queries = T.sblock_alloc_buffer((QUERIES, D), "float32")
                keys = T.sblock_alloc_buffer((D, KEYS), "float32")
                scores = T.sblock_alloc_buffer((QUERIES, KEYS), "float32")
                result = T.sblock_alloc_buffer((QUERIES, D), "float32")
                row_max = T.sblock_alloc_buffer((QUERIES,), "float32")
                row_sum = T.sblock_alloc_buffer((QUERIES,), "float32")
                new_max = T.sblock_alloc_buffer((1,), "float32", scope="local")
                decay = T.sblock_alloc_buffer((1,), "float32", scope="local")
                vector_of = T.sblock_alloc_buffer((1,), f"float32x{VECTOR}", scope="local")  # maxima, then sums
                power = T.sblock_alloc_buffer((1,), f"float32x{VECTOR}", scope="local")
                score_vectors = T.sblock_alloc_buffer((ROWS,), f"float32x{VECTOR}", scope="local")
                result_vectors = T.sblock_alloc_buffer((ROWS,), f"float32x{depth_vector}", scope="local")

                b: T.let[T.int32] = task // (H * query_tiles)
                h: T.let[T.int32] = task // query_tiles % H
                first_query: T.let[T.int32] = task % query_tiles * QUERIES

                for i in T.serial(QUERIES):
                    row_max[i] = T.float32(LOWEST)
                    row_sum[i] = T.float32(0)
                    for d in T.serial(D):
                        result[i, d] = T.float32(0)
                        queries[i, d] = T.cast(at("q", q, place, b, first_query + i, h, d), "float32") * T.float32(
                            attention.scale * LOG2_E
                        )

                for key_tile in T.serial(key_tiles):
                    first_key: T.let[T.int32] = key_tile * KEYS
                    for t, d in T.grid(KEYS, D):
                        keys[d, t] = T.cast(at("k", k, place, b, first_key + t, h, d), "float32")

                    for row_tile, vector in T.grid(QUERIES // ROWS, KEYS // VECTOR):
                        for i in T.unroll(ROWS):
                            score_vectors[i] = T.Broadcast(T.float32(0), VECTOR)
                        for d in T.serial(D):
                            for i in T.unroll(ROWS):
                                score_vectors[i] = (
                                    score_vectors[i]
                                    + T.Broadcast(queries[row_tile * ROWS + i, d], VECTOR)
                                    * keys[d, T.ramp(vector * VECTOR, 1, VECTOR)]
                                )
                        for i in T.unroll(ROWS):
                            scores[row_tile * ROWS + i, T.ramp(vector * VECTOR, 1, VECTOR)] = score_vectors[i]

                    for i in T.serial(QUERIES):
                        if is_masked:
                            for t in T.vectorized(KEYS):
                                scores[i, t] = masked(scores[i, t], bias, b, h, first_query + i, first_key + t)
                        vector_of[0] = scores[i, T.ramp(0, 1, VECTOR)]
                        for n in T.serial(1, KEYS // VECTOR):
                            vector_of[0] = T.max(vector_of[0], scores[i, T.ramp(n * VECTOR, 1, VECTOR)])
                        new_max[0] = T.max(row_max[i], across_lanes(T.max, vector_of[0]))
                        decay[0] = T.exp2(row_max[i] - new_max[0])
                        row_max[i] = new_max[0]
                        vector_of[0] = T.Broadcast(T.float32(0), VECTOR)
                        for n in T.serial(KEYS // VECTOR):
                            power[0] = exp2(
                                scores[i, T.ramp(n * VECTOR, 1, VECTOR)] - T.Broadcast(new_max[0], VECTOR), VECTOR
                            )
                            vector_of[0] = vector_of[0] + power[0]
                            scores[i, T.ramp(n * VECTOR, 1, VECTOR)] = power[0]
                        row_sum[i] = row_sum[i] * decay[0] + across_lanes(operator.add, vector_of[0])
                        for d in T.vectorized(D):
                            result[i, d] = result[i, d] * decay[0]

                    for row_tile, vector in T.grid(QUERIES // ROWS, D // depth_vector):
                        for i in T.unroll(ROWS):
                            result_vectors[i] = result[
                                row_tile * ROWS + i, T.ramp(vector * depth_vector, 1, depth_vector)
                            ]
                        for t in T.serial(KEYS):
                            for i in T.unroll(ROWS):
                                result_vectors[i] = result_vectors[i] + T.Broadcast(
                                    scores[row_tile * ROWS + i, t], depth_vector
                                ) * T.cast(
                                    at("v", v, place, b, first_key + t, h, vector * depth_vector, depth_vector),
                                    f"float32x{depth_vector}",
                                )
                        for i in T.unroll(ROWS):
                            result[row_tile * ROWS + i, T.ramp(vector * depth_vector, 1, depth_vector)] = (
                                result_vectors[i]
                            )

                for i in T.serial(QUERIES):
                    if first_query + i < S:
                        for d in T.vectorized(D):
                            output[b, first_query + i, h * D + d] = T.cast(result[i, d] / row_sum[i], dtype)

    return with_signature(attention, body)
