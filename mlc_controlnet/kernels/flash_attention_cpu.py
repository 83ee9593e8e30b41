# mypy: disable-error-code="no-untyped-def, valid-type"
"""Flash attention for processors: the same online softmax, with a query in each lane of a vector.

A tile of queries is two or four vectors of one head, turned over once, [D, queries]. Then everything runs in lanes: the
scores of a key are its numbers, read one by one, times vectors of queries; the maxima and the sums of a softmax are
those of vectors, without any sum across lanes; and the result is [D, queries] until the end. Micro-tiles of `rows`
keys, or numbers of a head, stay in registers in both products.

A task owns up to eight such tiles and takes them past each tile of keys, which it copies for them: the keys of a head
lie thousands of bytes apart, each on a page of memory of its own, and no processor fetches those ahead. A task of one
tile reads keys and values where they lie.
"""

import math
from dataclasses import asdict
from functools import lru_cache

from tvm import tirx
from tvm.script import tirx as T
from tvm.target import Target

from mlc_controlnet.kernels.asked_for import asked_for
from mlc_controlnet.kernels.attention import Attention
from mlc_controlnet.kernels.flash_attention_signature import with_signature
from mlc_controlnet.kernels.flash_attention_steps_cpu import (
    KeyTile,
    Plan,
    Task,
    begin,
    copy_rows,
    exponentiate,
    mask,
    multiply_keys,
    multiply_values,
    turn_queries,
    write,
)
from mlc_controlnet.kernels.flash_attention_tile_cpu import Tile, default_tile, tiles
from mlc_controlnet.kernels.marks import rebuilt
from mlc_controlnet.kernels.registers_cpu import Registers, registers_of
from mlc_controlnet.kernels.tunable import Decisions, Operation, Tunable, params_of

VERSION = 1  # of what the decisions mean


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
def build(attention: Attention, registers: Registers, tile: Tile | None = None) -> tirx.PrimFunc:
    """Return the kernel with its loops as they shall run. See `flash_attention` for its parameters.

    tile: None is the rules'.
    """
    plan = Plan(attention, registers, tile)
    tile = plan.tile
    B, H, D = attention.batch, attention.heads, attention.head_size

    @T.macro
    def body(q, k, v, bias, place, output):
        for task in T.parallel(B * H * plan.tasks_of_head):
            with T.sblock("flash_attention"):
                T.reads()
                T.writes()
                queries = plan.in_memory(plan.query_tiles, D, plan.tile_queries)
                scores = plan.in_memory(plan.tile_keys, plan.tile_queries)
                result = plan.in_memory(plan.query_tiles, D, plan.tile_queries)
                copied_keys = plan.in_copy(plan.copies_keys, D)
                copied_values = plan.in_copy(plan.copies_values, plan.value_pitch)
                kept_max = plan.in_memory(plan.query_tiles, plan.tile_queries)
                kept_sum = plan.in_memory(plan.query_tiles, plan.tile_queries)
                row_max = plan.in_registers(tile.vectors)
                row_sum = plan.in_registers(tile.vectors)
                new_max = plan.in_registers(tile.vectors)
                decay = plan.in_registers(tile.vectors)
                power = plan.in_registers(1)
                score_sums = plan.in_registers(tile.rows, tile.vectors)
                result_sums = plan.in_registers(tile.depth_rows, tile.vectors)

                b: T.let[T.int32] = task // (H * plan.tasks_of_head)
                h: T.let[T.int32] = task // plan.tasks_of_head % H
                first_query: T.let[T.int32] = task % plan.tasks_of_head * plan.task_queries
                at = T.meta_var(Task(plan, place, b, h, first_query))

                turn_queries(at, q, queries)
                begin(plan, result, kept_max, kept_sum)
                for key_tile in T.serial(plan.key_tiles):
                    first_key: T.let[T.int32] = key_tile * plan.tile_keys
                    groups: T.let[T.int32] = T.min(tile.groups, plan.key_groups - key_tile * tile.groups)
                    count = T.meta_var(groups * tile.rows)
                    keys = T.meta_var(KeyTile("k", k, first_key, count, copied_keys if plan.copies_keys else None))
                    values = T.meta_var(
                        KeyTile("v", v, first_key, count, copied_values if plan.copies_values else None)
                    )
                    copy_rows(at, keys)
                    copy_rows(at, values)
                    for m in T.serial(plan.query_tiles):
                        for n in T.unroll(tile.vectors):
                            row_max[n] = kept_max[m, plan.vector(n)]
                            row_sum[n] = kept_sum[m, plan.vector(n)]
                        for group in T.serial(groups):
                            multiply_keys(at, keys, group, queries, m, score_sums, scores)
                        mask(at, keys, bias, m, scores)
                        exponentiate(plan, keys, scores, row_max, row_sum, new_max, decay, power)
                        for n in T.unroll(tile.vectors):
                            kept_max[m, plan.vector(n)] = new_max[n]
                            kept_sum[m, plan.vector(n)] = row_sum[n]
                        for part in T.serial(D // tile.depth_rows):
                            multiply_values(at, values, part, scores, decay, m, result_sums, result)
                for m in T.serial(plan.query_tiles):
                    write(at, m, result, kept_sum, row_sum, output)

    return with_signature(attention, body)
