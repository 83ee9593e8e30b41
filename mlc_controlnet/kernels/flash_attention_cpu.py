# mypy: disable-error-code="no-untyped-def, valid-type"
"""Flash attention for processors: the same online softmax, with a query in each lane of a vector.

A task owns two vectors of queries of one head, which it turns over once, [D, queries]. Then everything runs in lanes:
the scores of a key are its numbers, read one by one, times vectors of queries; the maxima and the sums of a softmax are
those of vectors, without any sum across lanes; and the result is [D, queries] until the end. Keys and values are read
where they lie and never packed. Micro-tiles of `rows` keys, or numbers of a head, stay in registers in both products.
"""

from typing import Any

from tvm import tirx
from tvm.script import tirx as T

from mlc_controlnet.kernels.attention import LOWEST, Attention, Operand
from mlc_controlnet.kernels.exponential import LOG2_E, exp2
from mlc_controlnet.kernels.flash_attention_signature import with_signature
from mlc_controlnet.kernels.integers import ceil_div, divisors
from mlc_controlnet.kernels.registers_cpu import Registers

VECTORS = 2  # of queries in a task; more would leave the first-level cache with heads of 160
KEYS = 128  # of a tile of keys at most: its scores are 16 KiB with AVX-512


def build(attention: Attention, registers: Registers) -> tirx.PrimFunc:
    """Return the kernel with its loops as they shall run. See `flash_attention` for its parameters."""
    B, S, K, H, D = attention.batch, attention.queries, attention.keys, attention.heads, attention.head_size
    dtype, lanes = attention.dtype, registers.lanes
    queries_of_task = VECTORS * lanes
    query_tiles = ceil_div(S, queries_of_task)
    rows = _rows(K, registers)
    groups = ceil_div(K, rows)
    groups_of_tile = divisors(groups, max(1, KEYS // rows))[-1]
    if groups_of_tile * rows < min(K, KEYS) // 2:  # few divisors: the last tile is shorter
        groups_of_tile = KEYS // rows
    tile = groups_of_tile * rows
    depth_rows = divisors(D, registers.accumulators // VECTORS)[-1]
    has_bias = attention.bias_shape is not None
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
        past_the_end = S % queries_of_task if operand == "q" else K % rows
        if past_the_end:
            row = T.min(row, (S if operand == "q" else K) - 1)
        return T.cast(source[tuple(attention.index(operand, place, b, row, h, d))], "float32")

    def of(number: Any) -> Any:
        return T.Broadcast(number, lanes)

    def lanes_at(n: Any) -> Any:
        return T.ramp(n * lanes, 1, lanes)

    @T.macro
    def body(q, k, v, bias, place, output):
        for task in T.parallel(B * H * query_tiles):
            with T.sblock("flash_attention"):
                T.reads()
                T.writes()
                queries = T.sblock_alloc_buffer((D, queries_of_task), "float32")
                scores = T.sblock_alloc_buffer((tile, queries_of_task), "float32")
                result = T.sblock_alloc_buffer((D, queries_of_task), "float32")
                row_max = T.sblock_alloc_buffer((VECTORS,), vector, scope="local")
                row_sum = T.sblock_alloc_buffer((VECTORS,), vector, scope="local")
                new_max = T.sblock_alloc_buffer((VECTORS,), vector, scope="local")
                power = T.sblock_alloc_buffer((1,), vector, scope="local")
                score_vectors = T.sblock_alloc_buffer((rows, VECTORS), vector, scope="local")
                result_vectors = T.sblock_alloc_buffer((depth_rows, VECTORS), vector, scope="local")

                b: T.let[T.int32] = task // (H * query_tiles)
                h: T.let[T.int32] = task // query_tiles % H
                first_query: T.let[T.int32] = task % query_tiles * queries_of_task

                for n in T.unroll(VECTORS):
                    row_max[n] = of(T.float32(LOWEST))
                    row_sum[n] = of(T.float32(0))
                for i, d in T.grid(queries_of_task, D):
                    queries[d, i] = at("q", q, place, b, first_query + i, h, d) * T.float32(attention.scale * LOG2_E)
                for d, n in T.grid(D, VECTORS):
                    result[d, lanes_at(n)] = of(T.float32(0))

                for key_tile in T.serial(ceil_div(groups, groups_of_tile)):
                    first_key: T.let[T.int32] = key_tile * tile
                    there: T.let[T.int32] = T.min(groups_of_tile, groups - key_tile * groups_of_tile)

                    for group in T.serial(there):
                        for i, n in T.grid(rows, VECTORS):
                            score_vectors[i, n] = of(T.float32(0))
                        for d in T.serial(D):
                            for i in T.unroll(rows):
                                for n in T.unroll(VECTORS):
                                    score_vectors[i, n] = (
                                        score_vectors[i, n]
                                        + of(at("k", k, place, b, first_key + group * rows + i, h, d))
                                        * queries[d, lanes_at(n)]
                                    )
                        for i in T.unroll(rows):
                            for n in T.unroll(VECTORS):
                                scores[group * rows + i, lanes_at(n)] = score_vectors[i, n]
                    if is_masked:
                        for t, i in T.grid(there * rows, queries_of_task):
                            scores[t, i] = masked(scores[t, i], bias, b, h, first_query + i, first_key + t)

                    for n in T.unroll(VECTORS):
                        new_max[n] = row_max[n]
                    for t in T.serial(there * rows):
                        for n in T.unroll(VECTORS):
                            new_max[n] = T.max(new_max[n], scores[t, lanes_at(n)])
                    for n in T.unroll(VECTORS):
                        power[0] = exp2(row_max[n] - new_max[n], lanes)
                        row_max[n] = new_max[n]
                        row_sum[n] = row_sum[n] * power[0]
                        for d in T.serial(D):
                            result[d, lanes_at(n)] = result[d, lanes_at(n)] * power[0]
                    for t in T.serial(there * rows):
                        for n in T.unroll(VECTORS):
                            power[0] = exp2(scores[t, lanes_at(n)] - new_max[n], lanes)
                            row_sum[n] = row_sum[n] + power[0]
                            scores[t, lanes_at(n)] = power[0]

                    for part in T.serial(D // depth_rows):
                        for i in T.unroll(depth_rows):
                            for n in T.unroll(VECTORS):
                                result_vectors[i, n] = result[part * depth_rows + i, lanes_at(n)]
                        for t in T.serial(there * rows):
                            for i in T.unroll(depth_rows):
                                for n in T.unroll(VECTORS):
                                    result_vectors[i, n] = (
                                        result_vectors[i, n]
                                        + of(at("v", v, place, b, first_key + t, h, part * depth_rows + i))
                                        * scores[t, lanes_at(n)]
                                    )
                        for i in T.unroll(depth_rows):
                            for n in T.unroll(VECTORS):
                                result[part * depth_rows + i, lanes_at(n)] = result_vectors[i, n]

                for n in T.unroll(VECTORS):
                    row_sum[n] = of(T.float32(1)) / row_sum[n]
                    for d in T.serial(D):
                        result[d, lanes_at(n)] = result[d, lanes_at(n)] * row_sum[n]
                for i in T.serial(queries_of_task):
                    if first_query + i < S:
                        for d in T.serial(D):
                            output[b, first_query + i, h * D + d] = T.cast(result[d, i], dtype)

    return with_signature(attention, body)


def _rows(keys: int, registers: Registers) -> int:
    """Return how many keys a micro-tile has: a divisor of `keys` if there is one that fills half of the registers."""
    most = registers.accumulators // VECTORS
    best = divisors(keys, most)[-1]
    return best if best >= most // 2 else most
