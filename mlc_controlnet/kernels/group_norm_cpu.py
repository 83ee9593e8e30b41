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


def _vectors(norm: GroupNorm, registers: Registers) -> int:
    return norm.group_size // math.gcd(registers.lanes, norm.group_size)


@dataclass(frozen=True)
class Runs:
    """How a whole group is added: in runs, whose vectors take turns at the tile's chains.

    A sum of a run is short, and rounds little; what joins the sum of all is one vector a run and chain.
    """

    norm: GroupNorm
    tile: Tile
    lanes: int

    @property
    def count(self) -> int:
        """Runs of a group."""
        return self.norm.group_size // self.lanes // self.tile.chains // self.tile.steps

    def load(self, x: Any, group: Any, run: Any, n: Any, c: Any) -> Any:
        """Return the vector that chain c adds in step n of a run, in float32."""
        vector = (run * self.tile.steps + n) * self.tile.chains + c
        return _load(x, group * self.norm.group_size + vector * self.lanes, self.lanes)

    def zeros(self) -> Any:
        """Return a vector of zeros."""
        return spread(T.float32(0), self.lanes)


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


def is_whole(norm: GroupNorm) -> bool:
    """Return whether one kernel does everything: the group is read three times, and tasks are few."""
    return norm.group_size <= LARGEST_WHOLE


def partial_shape(norm: GroupNorm) -> tuple[int, int, int]:
    """Return the shape of the statistics: mean and sum of squared deviations of every slice of every group."""
    return norm.batch * norm.groups, ceil_div(norm.group_size, SLICE), 2


def _filled(norm: GroupNorm, piece: Any) -> Any:
    """Return the number of values in a slice. All slices but the last are full."""
    return T.min(SLICE, norm.group_size - piece * SLICE)


def _load(x: Any, first: Any, lanes: int) -> Any:
    """Return the vector of neighbours that begins at `first`, in float32."""
    return T.Cast(vector_of("float32", lanes), x[neighbours(first, lanes)])


def _finish(norm: GroupNorm, y: Any, lanes: int) -> Any:
    if norm.silu:
        y = y / (spread(T.float32(1), lanes) + exp2(y * spread(T.float32(-LOG2_E), lanes), lanes))
    return T.Cast(vector_of(norm.dtype, lanes), y)


@T.macro
def add_numbers(runs, x, group, of_run, total):
    """Set total[0] to the sum of a group's numbers, lane by lane."""
    total[0] = runs.zeros()
    for run in T.serial(runs.count):
        for c in T.unroll(runs.tile.chains):
            of_run[c] = runs.zeros()
        for n in T.serial(runs.tile.steps):
            for c in T.unroll(runs.tile.chains):
                of_run[c] = of_run[c] + runs.load(x, group, run, n, c)
        for c in T.unroll(runs.tile.chains):
            total[0] = total[0] + of_run[c]


@T.macro
def add_deviations(runs, x, group, mean, deviation, of_run, drift, total):
    """Set total[0] to the sum of squared deviations from mean[0], and drift[0] to that of deviations, lane by lane."""
    total[0] = runs.zeros()
    for c in T.unroll(runs.tile.chains):
        drift[c] = runs.zeros()
    for run in T.serial(runs.count):
        for c in T.unroll(runs.tile.chains):
            of_run[c] = runs.zeros()
        for n in T.serial(runs.tile.steps):
            for c in T.unroll(runs.tile.chains):
                deviation[0] = runs.load(x, group, run, n, c) - spread(mean[0], runs.lanes)
                of_run[c] = of_run[c] + deviation[0] * deviation[0]
                drift[c] = drift[c] + deviation[0]
        for c in T.unroll(runs.tile.chains):
            total[0] = total[0] + of_run[c]
    for c in T.unroll(runs.tile.chains - 1):
        drift[0] = drift[0] + drift[c + 1]


@T.macro
def combine_slices(norm, partial, group, mean, deviation, total):
    """Compute mean[0] of a group, and its sum of squared deviations total[0]."""
    total[0] = T.float32(0)
    for piece in T.serial(partial_shape(norm)[1]):
        total[0] = total[0] + partial[group, piece, 0] * T.cast(_filled(norm, piece), "float32")
    mean[0] = total[0] / T.float32(norm.group_size)
    total[0] = T.float32(0)
    for piece in T.serial(partial_shape(norm)[1]):
        deviation[0] = partial[group, piece, 0] - mean[0]
        total[0] = total[0] + partial[group, piece, 1]
        total[0] = total[0] + deviation[0] * deviation[0] * T.cast(_filled(norm, piece), "float32")


@T.macro
def write_row(norm, lanes, x, y, first, mean, scale, shift, normal):
    """Write (x - mean) * scale + shift, and its silu if that is asked for, of the row that begins at `first`."""
    for n in T.serial(norm.positions // lanes):
        normal[0] = _load(x, first + n * lanes, lanes)
        normal[0] = (normal[0] - spread(mean, lanes)) * spread(scale, lanes) + spread(shift, lanes)
        y[neighbours(first + n * lanes, lanes)] = _finish(norm, normal[0], lanes)


@lru_cache(maxsize=256)  # TVM parses its text anew each time: a tenth of a second
def statistics(norm: GroupNorm, registers: Registers) -> tirx.PrimFunc:
    """(x, partial): mean and sum of squared deviations of every slice."""
    size = norm.group_size
    groups, slices, _ = partial_shape(norm)
    lanes = math.gcd(2 * registers.lanes, size)
    vector = vector_of("float32", lanes)

    @T.prim_func(s_tir=True, private=True)
    def statistics(x: T.Buffer(norm.shape, norm.dtype), partial: T.Buffer((groups, slices, 2), "float32")):
        for task in T.parallel(groups * slices):
            with T.sblock("statistics"):
                T.reads()
                T.writes()
                flat = T.decl_buffer((groups * size,), norm.dtype, data=x.data)
                total = T.sblock_alloc_buffer((1,), vector, scope="local")
                deviation = T.sblock_alloc_buffer((1,), vector, scope="local")
                mean = T.sblock_alloc_buffer((1,), "float32", scope="local")
                group: T.let[T.int32] = task // slices
                piece: T.let[T.int32] = task % slices
                first: T.let[T.int32] = group * size + piece * SLICE

                total[0] = spread(T.float32(0), lanes)
                for n in T.serial(_filled(norm, piece) // lanes):
                    total[0] = total[0] + _load(flat, first + n * lanes, lanes)
                mean[0] = across_lanes(total[0], lanes) / T.cast(_filled(norm, piece), "float32")

                total[0] = spread(T.float32(0), lanes)
                for n in T.serial(_filled(norm, piece) // lanes):
                    deviation[0] = _load(flat, first + n * lanes, lanes) - spread(mean[0], lanes)
                    total[0] = total[0] + deviation[0] * deviation[0]
                partial[group, piece, 0] = mean[0]
                partial[group, piece, 1] = across_lanes(total[0], lanes)

    return statistics


@lru_cache(maxsize=256)
def normalize(norm: GroupNorm, registers: Registers) -> tirx.PrimFunc:
    """(x, partial, gamma, beta, y): every row combines the slices of its group and normalizes itself."""
    values = math.prod(norm.shape)
    lanes = math.gcd(2 * registers.lanes, norm.positions)

    @T.prim_func(s_tir=True, private=True)
    def normalize(
        x: T.Buffer(norm.shape, norm.dtype),
        partial: T.Buffer(partial_shape(norm), "float32"),
        gamma: T.Buffer((norm.channels,), norm.dtype),
        beta: T.Buffer((norm.channels,), norm.dtype),
        y: T.Buffer(norm.shape, norm.dtype),
    ):
        for row in T.parallel(norm.batch * norm.channels):
            with T.sblock("normalize"):
                T.reads()
                T.writes()
                x_flat = T.decl_buffer((values,), norm.dtype, data=x.data)
                y_flat = T.decl_buffer((values,), norm.dtype, data=y.data)
                total = T.sblock_alloc_buffer((1,), "float32", scope="local")
                mean = T.sblock_alloc_buffer((1,), "float32", scope="local")
                scale = T.sblock_alloc_buffer((1,), "float32", scope="local")
                normal = T.sblock_alloc_buffer((1,), vector_of("float32", lanes), scope="local")
                channel: T.let[T.int32] = row % norm.channels
                group: T.let[T.int32] = row // norm.group_channels

                combine_slices(norm, partial, group, mean, scale, total)
                scale[0] = T.cast(gamma[channel], "float32") / T.sqrt(
                    total[0] / T.float32(norm.group_size) + T.float32(norm.epsilon)
                )
                shift = T.meta_var(T.cast(beta[channel], "float32"))
                write_row(norm, lanes, x_flat, y_flat, row * norm.positions, mean[0], scale[0], shift, normal)

    return normalize


@lru_cache(maxsize=256)
def whole(norm: GroupNorm, registers: Registers, tile: Tile | None = None) -> tirx.PrimFunc:
    """(x, gamma, beta, y): everything in one kernel, for groups that `is_whole` takes. tile: None is the rules'.

    What the mean lost to rounding is the mean of the deviations from it: the shift takes it up.
    """
    size = norm.group_size
    values = math.prod(norm.shape)
    tile = default_tile(norm, registers) if tile is None else tile
    lanes = math.gcd(registers.lanes, size)
    runs = Runs(norm, tile, lanes)
    row_lanes = math.gcd(registers.lanes, norm.positions)
    vector = vector_of("float32", lanes)
    tasks = T.parallel if values >= WORTH_A_THREAD else T.serial

    @T.prim_func(s_tir=True, private=True)
    def normalize(
        x: T.Buffer(norm.shape, norm.dtype),
        gamma: T.Buffer((norm.channels,), norm.dtype),
        beta: T.Buffer((norm.channels,), norm.dtype),
        y: T.Buffer(norm.shape, norm.dtype),
    ):
        for group in tasks(norm.batch * norm.groups):
            with T.sblock("group_norm"):
                T.reads()
                T.writes()
                x_flat = T.decl_buffer((values,), norm.dtype, data=x.data)
                y_flat = T.decl_buffer((values,), norm.dtype, data=y.data)
                of_run = T.sblock_alloc_buffer((tile.chains,), vector, scope="local")
                total = T.sblock_alloc_buffer((1,), vector, scope="local")
                deviation = T.sblock_alloc_buffer((1,), vector, scope="local")
                drift = T.sblock_alloc_buffer((tile.chains,), vector, scope="local")
                mean = T.sblock_alloc_buffer((1,), "float32", scope="local")
                rounded_off = T.sblock_alloc_buffer((1,), "float32", scope="local")
                row_shift = T.sblock_alloc_buffer((1,), "float32", scope="local")
                scale = T.sblock_alloc_buffer((1,), "float32", scope="local")
                row_scale = T.sblock_alloc_buffer((1,), "float32", scope="local")
                normal = T.sblock_alloc_buffer((1,), vector_of("float32", row_lanes), scope="local")

                add_numbers(runs, x_flat, group, of_run, total)
                mean[0] = across_lanes(total[0], lanes) / T.float32(size)
                add_deviations(runs, x_flat, group, mean, deviation, of_run, drift, total)
                rounded_off[0] = across_lanes(drift[0], lanes) / T.float32(size)
                scale[0] = T.float32(1) / T.sqrt(
                    across_lanes(total[0], lanes) / T.float32(size) + T.float32(norm.epsilon)
                )
                for row in T.serial(norm.group_channels):
                    channel: T.let[T.int32] = group % norm.groups * norm.group_channels + row
                    first: T.let[T.int32] = group * size + row * norm.positions
                    row_scale[0] = scale[0] * T.cast(gamma[channel], "float32")
                    row_shift[0] = T.cast(beta[channel], "float32") - rounded_off[0] * row_scale[0]
                    write_row(norm, row_lanes, x_flat, y_flat, first, mean[0], row_scale[0], row_shift[0], normal)

    return normalize
