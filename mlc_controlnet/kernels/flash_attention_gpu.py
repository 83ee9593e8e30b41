# mypy: disable-error-code="no-untyped-def, valid-type"
"""Flash attention for GPUs, within WebGPU's limits.

A workgroup owns a tile of queries of one head and walks over tiles of keys. Its threads form a grid TY x TX. For a
tile of keys,

1. scores: thread (ty, tx) has the dot products of its `rows` queries with its `columns` keys in registers, one vec4 of
   partial sums each, so that each vec4 read from workgroup memory serves rows or columns FMAs;
2. online softmax (2307.08691, algorithm 1): the row maximum is exchanged through workgroup memory, the row sum stays
   a partial sum per thread until the end, each thread exponentiates its own scores: no thread is idle;
3. output: thread (ty, tx) has its rows' depth vectors tx, tx + TX, ... in registers and adds P V.

In float16 the sums are float16 over short runs (see `float16_sums`): of scores over at most 16 vectors of depth, each
of the four lanes for itself; of the output over the eight keys of two threads, whose probabilities are at most 1. Each
run is added to float32 in the instruction that converts it; the decay of the output is the factor in the first. The
maximum is exchanged in float16: which number near it is taken does not matter as long as all threads take the same.
Signal to noise: 65 to 71 dB of the bundled model's queries and keys, 60 to 63 of normal numbers. Scores of hundreds
lose what float16 sums of that size lose, some hundredths.

Cost, as RDNA 3's compiler takes it (`bench compilers`, navi31), over a whole tile of keys with loads and softmax:

    head                                  40     64     80     160    512
    multiply-adds a vector instruction    1.36   1.50   1.44   1.33   1.52
    and a read of workgroup memory        14.2   16.0   14.5   9.5    17.3

Heads of 160 at 16x16 make too few workgroups: there a thread has two queries (1.33 and 17.7 with four). At 8x8 all
heads together are 48 workgroups of one wave: their 168 registers would let 6 waves run on a SIMD, where never more than
one is there to run. NVIDIA's takes 64 to 127 registers; up to 161 for heads of 160 and 512, of which the result alone
takes 64.

Keys and values take turns in one place. Queries stay in workgroup memory if they fit beside; the VAE's single head of
512 is read in chunks, the queries again for each tile of keys. Only the micro-tiles are unrolled: WGSL text is start-up
time.
"""

import math

from tvm import tirx
from tvm.script import tirx as T
from tvm.target import Target

from mlc_controlnet.kernels.asked_for import asked_for
from mlc_controlnet.kernels.attention import LOWEST, Attention
from mlc_controlnet.kernels.flash_attention_plan import Plan
from mlc_controlnet.kernels.flash_attention_signature import with_signature
from mlc_controlnet.kernels.flash_attention_steps import (
    At,
    add_keys,
    add_row_sums,
    add_values,
    begin,
    exponentiate,
    load,
    mask,
    rows_of,
)
from mlc_controlnet.kernels.flash_attention_tile import Tile, choose_tile, decisions_of, list_tiles, tile_of
from mlc_controlnet.kernels.marks import rebuilt
from mlc_controlnet.kernels.tunable import Decisions, Operation, Tunable, params_of
from mlc_controlnet.kernels.vectors import LANES, spread, vector_of
from mlc_controlnet.kernels.workgroups import in_registers, in_workgroup

VERSION = 1  # of what the decisions mean
MOST = {"float16": 65504.0, "float32": -LOWEST}  # the largest maximum of a row


def tunable_attention(function: tirx.PrimFunc, _target: Target) -> Tunable | None:
    """Return what there is to decide about a kernel of this module; None if the function is none, or shares keys.

    Keys that attentions share lie in a tensor whose size only the caller knows.
    """
    attention = asked_for(function)
    if not isinstance(attention, Attention) or attention.layout == "shared":
        return None

    def schedule(decisions: Decisions) -> tirx.PrimFunc:
        return rebuilt(function, build(attention, tile_of(attention, decisions)))

    return Tunable(
        Operation("attention_gpu", VERSION, attention.axes, attention.form, params_of(function)),
        decisions_of(choose_tile(attention)),
        lambda: [decisions_of(tile) for tile in list_tiles(attention)],
        schedule,
        math.prod(attention.axes),
    )


def build(attention: Attention, tile: Tile | None = None) -> tirx.PrimFunc:
    """Return the kernel as thread-level TIR. See `flash_attention` for its parameters. tile: None is the rules'."""
    plan = Plan(attention, tile)
    tile = plan.tile
    most = MOST[attention.dtype]
    S, D = attention.queries, attention.head_size
    B, H = attention.batch, attention.heads
    TX, TY, rows, columns, parts = tile.threads_x, tile.threads_y, tile.rows, tile.columns, plan.parts

    @T.macro
    def body(q, k, v, bias, where, output):
        for bx in T.thread_binding(B * H * plan.query_tiles, thread="blockIdx.x"):
            for ty in T.thread_binding(TY, thread="threadIdx.y"):
                for tx in T.thread_binding(TX, thread="threadIdx.x"):
                    with T.sblock("flash_attention"):
                        T.reads()
                        T.writes()
                        tiles = in_workgroup(tile.vectors, dtype=plan.vector)
                        weights = in_workgroup(tile.queries * TX, dtype=vector_of(plan.dtype, columns))
                        exchange = in_workgroup(TY * TX, dtype=vector_of(plan.dtype, rows))
                        products = in_registers(rows * max(columns, plan.chunk_parts), plan.run_vector)
                        scores = in_registers(rows * columns)
                        result = in_registers(rows * parts, plan.sums)
                        row_max = in_registers(1, vector_of(plan.dtype, rows))
                        old_max = in_registers(1, vector_of(plan.dtype, rows))
                        row_sum = in_registers(rows)
                        decay = in_registers(rows)
                        fading = in_registers(rows)
                        number = in_registers(rows)
                        operands = in_registers(rows, plan.run_vector)
                        operand = in_registers(1, plan.run_vector)
                        row_weights = in_registers(rows, vector_of(plan.dtype, columns))
                        finished = in_registers(1, plan.vector)

                        b: T.let[T.int32] = bx // (H * plan.query_tiles)
                        h: T.let[T.int32] = bx // plan.query_tiles % H
                        first_query: T.let[T.int32] = bx % plan.query_tiles * tile.queries
                        query: T.let[T.int32] = first_query + ty * rows  # the thread's first
                        at = T.meta_var(
                            At(
                                plan,
                                where,
                                b,
                                h,
                                ty,
                                tx,
                                tiles,
                                weights,
                                exchange,
                                products,
                                scores,
                                result,
                                operands,
                                operand,
                                row_weights,
                            )
                        )

                        if tile.keeps_queries:
                            load(at, rows_of(plan, "q"), q, first_query, 0)
                        else:
                            tiles[at.thread] = plan.zeros(LANES)
                        begin(at, -most, row_max, row_sum)
                        for step in T.serial(plan.key_tiles):
                            first_key: T.let[T.int32] = step * tile.keys
                            add_keys(at, q, k, first_query, first_key)
                            mask(at, bias, query, first_key + tx * columns, step == plan.key_tiles - 1)
                            exponentiate(at, most, row_max, old_max, row_sum, decay, number)
                            add_values(at, v, first_key, decay, fading)
                        add_row_sums(at, row_sum, number)
                        for i in T.unroll(rows):
                            if query + i < S:
                                for n in T.unroll(parts):
                                    finished[0] = T.cast(
                                        result[i * parts + n]
                                        * spread(T.float32(1 / plan.value_factor) / number[i], LANES),
                                        plan.vector,
                                    )
                                    output[b, query + i, T.ramp(h * D + (tx + TX * n) * LANES, 1, LANES)] = finished[0]

    return with_signature(attention, body)
