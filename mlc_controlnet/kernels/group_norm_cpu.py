# mypy: disable-error-code="no-untyped-def, valid-type"
"""Group norm for processors: one kernel where a group stays in the second-level cache, with a task for each group.

For larger groups there are two kernels: a task of statistics is a slice that stays in the first-level cache; of
normalize, a row. A row is one channel of one batch element: it has one scale and one shift.
"""

import math
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

from tvm import tirx
from tvm.script import tirx as T
from tvm.target import Target

from mlc_controlnet.kernels.asked_for import asked_for
from mlc_controlnet.kernels.exponential import LOG2_E, exp2
from mlc_controlnet.kernels.integers import ceil_div, divisors
from mlc_controlnet.kernels.lanes_cpu import across_lanes, chains_of
from mlc_controlnet.kernels.marks import rebuilt
from mlc_controlnet.kernels.normalization import GroupNorm
from mlc_controlnet.kernels.registers_cpu import Registers, registers_of
from mlc_controlnet.kernels.schedule_elementwise_cpu import WORTH_A_THREAD
from mlc_controlnet.kernels.tunable import Decisions, Operation, Tunable, params_of
from mlc_controlnet.kernels.vectors import neighbours, spread, vector_of

VERSION = 1  # of what the decisions mean
SLICE = 4096  # values: 16 KiB
LARGEST_WHOLE = 128 * 1024  # values of a group: 512 KiB
LONGEST_SUM, SHORTEST_SUM = 64, 16  # of float32 numbers that a lane adds before they join the sum of all
MOST_CHAINS = 8  # a search's


@dataclass(frozen=True)
class Tile:
    """How the one kernel of a small group adds: independent sums, and the vectors of each in a run."""

    chains: int
    steps: int


def default_tile(norm: GroupNorm, registers: Registers) -> Tile:
    """Return the tile of the rules."""
    vectors = _vectors(norm, registers)
    chains = chains_of(vectors)
    return Tile(chains, divisors(vectors // chains, LONGEST_SUM)[-1])


def tiles(norm: GroupNorm, registers: Registers) -> list[Tile]:
    """List the search space: the rules' tile, and other chains with runs that are no longer than the rules allow."""
    found = [default_tile(norm, registers)]
    vectors = _vectors(norm, registers)
    for chains in divisors(vectors, MOST_CHAINS):
        runs = divisors(vectors // chains, LONGEST_SUM)
        found += [Tile(chains, steps) for steps in runs if steps >= SHORTEST_SUM or steps == runs[-1]]
    return list(dict.fromkeys(found))


def tunable_group_norm(function: tirx.PrimFunc, target: Target) -> Tunable | None:
    """Return what there is to decide about the one kernel of a small group; None if the function is none."""
    norm = asked_for(function)
    if not isinstance(norm, GroupNorm):
        return None
    registers = registers_of(target)

    def schedule(decisions: Decisions) -> tirx.PrimFunc:
        return rebuilt(function, whole(norm, registers, Tile(**decisions)))

    return Tunable(
        Operation("group_norm_cpu", VERSION, norm.axes, ("silu",) if norm.silu else (), params_of(function)),
        asdict(default_tile(norm, registers)),
        lambda: [asdict(tile) for tile in tiles(norm, registers)],
        schedule,
        math.prod(norm.axes),
    )


def _vectors(norm: GroupNorm, registers: Registers) -> int:
    return norm.group_size // math.gcd(registers.lanes, norm.group_size)


def build(norm: GroupNorm, registers: Registers) -> tuple[tirx.PrimFunc, tirx.PrimFunc, int]:
    """Return (statistics, normalize, slices per group). See `GroupNormKernels` for their parameters."""
    shape, dtype, size = norm.shape, norm.dtype, norm.group_size
    groups = norm.batch * norm.groups
    slices = ceil_div(size, SLICE)
    values = math.prod(shape)
    group_lanes = math.gcd(2 * registers.lanes, size)
    row_lanes = math.gcd(2 * registers.lanes, norm.positions)

    def count(piece: Any) -> Any:
        """Return the number of values in a slice. All slices but the last are full."""
        return T.min(SLICE, size - piece * SLICE)

    def finish(y: Any) -> Any:
        return _finish(norm, y, row_lanes)

    @T.prim_func(s_tir=True, private=True)
    def statistics(x: T.Buffer(shape, dtype), partial: T.Buffer((groups, slices, 2), "float32")):
        for task in T.parallel(groups * slices):
            with T.sblock("statistics"):
                T.reads()
                T.writes()
                flat = T.decl_buffer((values,), dtype, data=x.data)
                total = T.sblock_alloc_buffer((1,), vector_of("float32", group_lanes), scope="local")
                deviation = T.sblock_alloc_buffer((1,), vector_of("float32", group_lanes), scope="local")
                mean = T.sblock_alloc_buffer((1,), "float32", scope="local")
                group: T.let[T.int32] = task // slices
                piece: T.let[T.int32] = task % slices
                first: T.let[T.int32] = group * size + piece * SLICE

                total[0] = spread(T.float32(0), group_lanes)
                for n in T.serial(count(piece) // group_lanes):
                    total[0] = total[0] + T.Cast(
                        vector_of("float32", group_lanes), flat[neighbours(first + n * group_lanes, group_lanes)]
                    )
                mean[0] = across_lanes(total[0], group_lanes) / T.cast(count(piece), "float32")

                total[0] = spread(T.float32(0), group_lanes)
                for n in T.serial(count(piece) // group_lanes):
                    deviation[0] = T.Cast(
                        vector_of("float32", group_lanes), flat[neighbours(first + n * group_lanes, group_lanes)]
                    ) - spread(mean[0], group_lanes)
                    total[0] = total[0] + deviation[0] * deviation[0]
                partial[group, piece, 0] = mean[0]
                partial[group, piece, 1] = across_lanes(total[0], group_lanes)

    @T.prim_func(s_tir=True, private=True)
    def normalize(
        x: T.Buffer(shape, dtype),
        partial: T.Buffer((groups, slices, 2), "float32"),
        gamma: T.Buffer((norm.channels,), dtype),
        beta: T.Buffer((norm.channels,), dtype),
        y: T.Buffer(shape, dtype),
    ):
        for row in T.parallel(norm.batch * norm.channels):
            with T.sblock("normalize"):
                T.reads()
                T.writes()
                x_flat = T.decl_buffer((values,), dtype, data=x.data)
                y_flat = T.decl_buffer((values,), dtype, data=y.data)
                total = T.sblock_alloc_buffer((1,), "float32", scope="local")
                mean = T.sblock_alloc_buffer((1,), "float32", scope="local")
                scale = T.sblock_alloc_buffer((1,), "float32", scope="local")
                normal = T.sblock_alloc_buffer((1,), vector_of("float32", row_lanes), scope="local")
                channel: T.let[T.int32] = row % norm.channels
                group: T.let[T.int32] = row // norm.group_channels

                total[0] = T.float32(0)
                for piece in T.serial(slices):
                    total[0] = total[0] + partial[group, piece, 0] * T.cast(count(piece), "float32")
                mean[0] = total[0] / T.float32(size)
                total[0] = T.float32(0)
                for piece in T.serial(slices):
                    scale[0] = partial[group, piece, 0] - mean[0]
                    total[0] = total[0] + partial[group, piece, 1]
                    total[0] = total[0] + scale[0] * scale[0] * T.cast(count(piece), "float32")
                scale[0] = T.cast(gamma[channel], "float32") / T.sqrt(
                    total[0] / T.float32(size) + T.float32(norm.epsilon)
                )

                for n in T.serial(norm.positions // row_lanes):
                    normal[0] = T.Cast(
                        vector_of("float32", row_lanes),
                        x_flat[neighbours(row * norm.positions + n * row_lanes, row_lanes)],
                    )
                    normal[0] = (normal[0] - spread(mean[0], row_lanes)) * spread(scale[0], row_lanes) + spread(
                        T.cast(beta[channel], "float32"), row_lanes
                    )
                    y_flat[neighbours(row * norm.positions + n * row_lanes, row_lanes)] = finish(normal[0])

    return statistics, normalize, slices


def is_whole(norm: GroupNorm) -> bool:
    """Return whether one kernel does everything: the group is read three times, and tasks are few."""
    return norm.group_size <= LARGEST_WHOLE


@lru_cache(maxsize=256)  # TVM parses its text anew each time: a tenth of a second
def whole(norm: GroupNorm, registers: Registers, tile: Tile | None = None) -> tirx.PrimFunc:
    """Return normalize (x, gamma, beta, y), which computes the statistics itself. tile: None is the rules'.

    What the mean lost to rounding is the mean of the deviations from it: the shift takes it up.
    """
    shape, dtype, size = norm.shape, norm.dtype, norm.group_size
    values = math.prod(shape)
    lanes = math.gcd(registers.lanes, size)
    tile = default_tile(norm, registers) if tile is None else tile
    chains, steps = tile.chains, tile.steps
    runs = size // lanes // chains // steps
    row_lanes = math.gcd(registers.lanes, norm.positions)
    vector = vector_of("float32", lanes)
    row_vector = vector_of("float32", row_lanes)
    tasks = T.parallel if values >= WORTH_A_THREAD else T.serial

    @T.prim_func(s_tir=True, private=True)
    def normalize(
        x: T.Buffer(shape, dtype),
        gamma: T.Buffer((norm.channels,), dtype),
        beta: T.Buffer((norm.channels,), dtype),
        y: T.Buffer(shape, dtype),
    ):
        for group in tasks(norm.batch * norm.groups):
            with T.sblock("group_norm"):
                T.reads()
                T.writes()
                x_flat = T.decl_buffer((values,), dtype, data=x.data)
                y_flat = T.decl_buffer((values,), dtype, data=y.data)
                total = T.sblock_alloc_buffer((chains,), vector, scope="local")
                of_runs = T.sblock_alloc_buffer((1,), vector, scope="local")
                deviation = T.sblock_alloc_buffer((1,), vector, scope="local")
                drift = T.sblock_alloc_buffer((chains,), vector, scope="local")
                mean = T.sblock_alloc_buffer((1,), "float32", scope="local")
                rounded_off = T.sblock_alloc_buffer((1,), "float32", scope="local")
                row_shift = T.sblock_alloc_buffer((1,), "float32", scope="local")
                scale = T.sblock_alloc_buffer((1,), "float32", scope="local")
                row_scale = T.sblock_alloc_buffer((1,), "float32", scope="local")
                normal = T.sblock_alloc_buffer((1,), row_vector, scope="local")

                of_runs[0] = spread(T.float32(0), lanes)
                for run in T.serial(runs):
                    for c in T.unroll(chains):
                        total[c] = spread(T.float32(0), lanes)
                    for n in T.serial(steps):
                        for c in T.unroll(chains):
                            total[c] = total[c] + T.Cast(
                                vector,
                                x_flat[neighbours(group * size + ((run * steps + n) * chains + c) * lanes, lanes)],
                            )
                    for c in T.unroll(chains):
                        of_runs[0] = of_runs[0] + total[c]
                mean[0] = across_lanes(of_runs[0], lanes) / T.float32(size)

                of_runs[0] = spread(T.float32(0), lanes)
                for c in T.unroll(chains):
                    drift[c] = spread(T.float32(0), lanes)
                for run in T.serial(runs):
                    for c in T.unroll(chains):
                        total[c] = spread(T.float32(0), lanes)
                    for n in T.serial(steps):
                        for c in T.unroll(chains):
                            deviation[0] = T.Cast(
                                vector,
                                x_flat[neighbours(group * size + ((run * steps + n) * chains + c) * lanes, lanes)],
                            ) - spread(mean[0], lanes)
                            total[c] = total[c] + deviation[0] * deviation[0]
                            drift[c] = drift[c] + deviation[0]
                    for c in T.unroll(chains):
                        of_runs[0] = of_runs[0] + total[c]
                for c in T.unroll(chains - 1):
                    drift[0] = drift[0] + drift[c + 1]
                rounded_off[0] = across_lanes(drift[0], lanes) / T.float32(size)
                scale[0] = T.float32(1) / T.sqrt(
                    across_lanes(of_runs[0], lanes) / T.float32(size) + T.float32(norm.epsilon)
                )

                for row in T.serial(norm.group_channels):
                    channel: T.let[T.int32] = group % norm.groups * norm.group_channels + row
                    first: T.let[T.int32] = group * size + row * norm.positions
                    row_scale[0] = scale[0] * T.cast(gamma[channel], "float32")
                    row_shift[0] = T.cast(beta[channel], "float32") - rounded_off[0] * row_scale[0]
                    for n in T.serial(norm.positions // row_lanes):
                        normal[0] = T.Cast(row_vector, x_flat[neighbours(first + n * row_lanes, row_lanes)])
                        normal[0] = (normal[0] - spread(mean[0], row_lanes)) * spread(row_scale[0], row_lanes) + spread(
                            row_shift[0], row_lanes
                        )
                        y_flat[neighbours(first + n * row_lanes, row_lanes)] = _finish(norm, normal[0], row_lanes)

    return normalize


def _finish(norm: GroupNorm, y: Any, lanes: int) -> Any:
    if norm.silu:
        y = y / (spread(T.float32(1), lanes) + exp2(y * spread(T.float32(-LOG2_E), lanes), lanes))
    return T.Cast(vector_of(norm.dtype, lanes), y)
