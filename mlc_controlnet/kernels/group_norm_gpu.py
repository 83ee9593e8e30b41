# mypy: disable-error-code="no-untyped-def, valid-type"
"""Group norm for GPUs: small groups in one kernel, a workgroup each; large ones in slices, a workgroup a slice.

Neighbouring threads read neighbouring vectors of four; single values where four do not divide a picture's row.
Statistics keeps its values in registers between the mean and the deviations. The one kernel reads its group three
times, twice of them from cache: it is for groups of a few kilobytes, where a second launch costs more.
"""

import functools
import math
from dataclasses import dataclass
from typing import Any

from tvm import tirx
from tvm.script import tirx as T
from tvm.target import Target

from mlc_controlnet.kernels.asked_for import asked_for
from mlc_controlnet.kernels.integers import ceil_div
from mlc_controlnet.kernels.marks import rebuilt
from mlc_controlnet.kernels.normalization import GroupNorm
from mlc_controlnet.kernels.row_reduction import add, combine_over_row
from mlc_controlnet.kernels.tunable import Decisions, Operation, Tunable, params_of
from mlc_controlnet.kernels.vectors import neighbours, spread, sum_of, vector_of
from mlc_controlnet.kernels.workgroups import ENOUGH_WORKGROUPS, in_registers, in_workgroup

VERSION = 1  # of what the decisions mean
THREADS = 256
FOLD = 16  # see `combine_over_row`
MAX_VALUES = 16  # registers per thread
FEW_SLICES = 32
MAX_WHOLE = (
    40 * THREADS
)  # values of a group that one workgroup takes in 10 rounds of vectors; [1280, 16, 16] in 32 groups


@dataclass(frozen=True)
class Slices:
    """The slices of a norm's groups: `count` slices of at most `size` neighbours in memory, `values` per thread."""

    norm: GroupNorm
    values: int

    @property
    def rounds(self) -> int:
        """Vectors per thread."""
        return self.values // self.norm.lanes

    @property
    def size(self) -> int:
        """Numbers per slice."""
        return THREADS * self.values

    @property
    def count(self) -> int:
        """Slices per group."""
        return ceil_div(self.norm.group_size, self.size)

    @property
    def groups(self) -> int:
        """Groups of all pictures of the batch."""
        return self.norm.batch * self.norm.groups

    @property
    def partial_shape(self) -> tuple[int, int, int]:
        """Mean and sum of squared deviations of every slice."""
        return self.groups, self.count, 2

    def filled(self, piece: Any) -> Any:
        """Return the number of values in a slice. All slices but the last are full."""
        return T.cast(T.min(self.size, self.norm.group_size - piece * self.size), "float32")


def choose_slices(norm: GroupNorm) -> Slices:
    """Choose the most values per thread that still leave enough workgroups to fill a GPU."""
    values = MAX_VALUES
    groups = norm.batch * norm.groups
    while values > norm.lanes and groups * ceil_div(norm.group_size, THREADS * values) < ENOUGH_WORKGROUPS:
        values //= 2
    return Slices(norm, values)


def tunable_group_norm(function: tirx.PrimFunc, _target: Target) -> Tunable | None:
    """Return what there is to decide about the one kernel of a small group; None if the function is none."""
    norm = asked_for(function)
    if not isinstance(norm, GroupNorm):
        return None

    def schedule(decisions: Decisions) -> tirx.PrimFunc:
        return rebuilt(function, whole(norm, **decisions))

    return Tunable(
        Operation("group_norm_gpu", VERSION, norm.axes, ("silu",) if norm.silu else (), params_of(function)),
        {"threads": THREADS},
        lambda: [{"threads": threads} for threads in (THREADS // 8, THREADS // 4, THREADS // 2, THREADS)],
        schedule,
        math.prod(norm.axes),
    )


def is_whole(norm: GroupNorm) -> bool:
    """Return whether one workgroup computes a whole group."""
    return norm.group_size <= MAX_WHOLE


def _element(norm: GroupNorm, group: Any, offset: Any) -> tuple[Any, ...]:
    """Return the index into x of a group's vector that begins at `offset`; past the end of the group, of its last."""
    lanes = norm.lanes
    flat = group * norm.group_size + T.min(offset, norm.group_size - lanes)
    index = []
    for extent in reversed(norm.shape[1:]):
        index.append(flat % extent)
        flat = flat // extent
    last, *others = index
    return (flat, *reversed(others), neighbours(last, lanes))


def _load(norm: GroupNorm, x: Any, group: Any, offset: Any) -> Any:
    """Return a group's vector that begins at `offset`, in float32."""
    return T.cast(x[_element(norm, group, offset)], vector_of("float32", norm.lanes))


def _channel(norm: GroupNorm, group: Any, offset: Any) -> Any:
    return group % norm.groups * norm.group_channels + offset // norm.positions


def _finish(norm: GroupNorm, y: Any) -> Any:
    if norm.silu:
        y = y / (spread(T.float32(1), norm.lanes) + T.exp(spread(T.float32(0), norm.lanes) - y))
    return T.cast(y, vector_of(norm.dtype, norm.lanes))


@T.macro
def combine_slices(slices, partial, group, thread, total, mean, scale, gathered, folded):
    """Compute mean[0] and scale[0], 1 / sqrt(variance + epsilon), of a group in every thread.

    If there are few slices, every thread adds them all. The threads read the same numbers, and need no barriers: four
    of them cost as much as the normalization.
    """
    if slices.count <= FEW_SLICES:
        total[0] = T.float32(0)
        for n in T.serial(slices.count):
            total[0] = total[0] + partial[group, n, 0] * slices.filled(n)
        mean[0] = total[0] / T.float32(slices.norm.group_size)
        total[0] = T.float32(0)
        for n in T.serial(slices.count):
            scale[0] = partial[group, n, 0] - mean[0]
            total[0] = total[0] + partial[group, n, 1] + scale[0] * scale[0] * slices.filled(n)
    else:
        total[0] = T.float32(0)
        for n in T.serial(ceil_div(slices.count, THREADS)):
            if n * THREADS + thread < slices.count:
                total[0] = total[0] + partial[group, n * THREADS + thread, 0] * slices.filled(n * THREADS + thread)
        combine_over_row(total, thread, 0, THREADS, FOLD, gathered, folded, add, 0.0)
        mean[0] = total[0] / T.float32(slices.norm.group_size)

        total[0] = T.float32(0)
        for n in T.serial(ceil_div(slices.count, THREADS)):
            if n * THREADS + thread < slices.count:
                scale[0] = partial[group, n * THREADS + thread, 0] - mean[0]
                total[0] = total[0] + partial[group, n * THREADS + thread, 1]
                total[0] = total[0] + scale[0] * scale[0] * slices.filled(n * THREADS + thread)
        combine_over_row(total, thread, 0, THREADS, FOLD, gathered, folded, add, 0.0)
    scale[0] = T.rsqrt(total[0] / T.float32(slices.norm.group_size) + T.float32(slices.norm.epsilon))


@T.macro
def write_normalized(norm, x, gamma, beta, y, group, first, threads, rounds, mean, scale):
    """Write every vector of a group that is `threads` after the one before, from value `first` on."""
    for n in T.serial(rounds):
        offset: T.let[T.int32] = first + n * (threads * norm.lanes)
        if offset < norm.group_size:
            y[_element(norm, group, offset)] = _finish(
                norm,
                (_load(norm, x, group, offset) - spread(mean[0], norm.lanes))
                * spread(scale[0] * T.cast(gamma[_channel(norm, group, offset)], "float32"), norm.lanes)
                + spread(T.cast(beta[_channel(norm, group, offset)], "float32"), norm.lanes),
            )


@functools.cache
def statistics(norm: GroupNorm) -> tirx.PrimFunc:
    """(x, partial): mean and sum of squared deviations of every slice."""
    slices = choose_slices(norm)
    lanes, vector = norm.lanes, vector_of("float32", norm.lanes)

    @T.prim_func(s_tir=True, private=True)
    def statistics(x: T.Buffer(norm.shape, norm.dtype), partial: T.Buffer(slices.partial_shape, "float32")):
        for bx in T.thread_binding(slices.groups * slices.count, thread="blockIdx.x"):
            for thread in T.thread_binding(THREADS, thread="threadIdx.x"):
                with T.sblock("statistics"):
                    T.reads()
                    T.writes()
                    gathered = in_workgroup(1, THREADS)
                    folded = in_workgroup(1, FOLD)
                    held = in_registers(slices.rounds, vector)
                    total = in_registers(1)
                    mean = in_registers(1)
                    group: T.let[T.int32] = bx // slices.count
                    piece: T.let[T.int32] = bx % slices.count
                    first: T.let[T.int32] = piece * slices.size + thread * lanes

                    total[0] = T.float32(0)
                    for n in T.unroll(slices.rounds):
                        held[n] = _load(norm, x, group, first + n * (THREADS * lanes))
                        if first + n * (THREADS * lanes) < norm.group_size:
                            total[0] = total[0] + sum_of(held[n], lanes)
                    combine_over_row(total, thread, 0, THREADS, FOLD, gathered, folded, add, 0.0)
                    mean[0] = total[0] / slices.filled(piece)

                    total[0] = T.float32(0)
                    for n in T.unroll(slices.rounds):
                        if first + n * (THREADS * lanes) < norm.group_size:
                            held[n] = held[n] - spread(mean[0], norm.lanes)
                            total[0] = total[0] + sum_of(held[n] * held[n], lanes)
                    combine_over_row(total, thread, 0, THREADS, FOLD, gathered, folded, add, 0.0)
                    if thread == 0:
                        partial[group, piece, 0] = mean[0]
                        partial[group, piece, 1] = total[0]

    return statistics


@functools.cache
def normalize(norm: GroupNorm) -> tirx.PrimFunc:
    """(x, partial, gamma, beta, y): every slice combines the slices of its group and normalizes itself."""
    slices = choose_slices(norm)

    @T.prim_func(s_tir=True, private=True)
    def normalize(
        x: T.Buffer(norm.shape, norm.dtype),
        partial: T.Buffer(slices.partial_shape, "float32"),
        gamma: T.Buffer((norm.channels,), norm.dtype),
        beta: T.Buffer((norm.channels,), norm.dtype),
        y: T.Buffer(norm.shape, norm.dtype),
    ):
        for bx in T.thread_binding(slices.groups * slices.count, thread="blockIdx.x"):
            for thread in T.thread_binding(THREADS, thread="threadIdx.x"):
                with T.sblock("normalize"):
                    T.reads()
                    T.writes()
                    gathered = in_workgroup(1, THREADS)
                    folded = in_workgroup(1, FOLD)
                    total = in_registers(1)
                    mean = in_registers(1)
                    scale = in_registers(1)
                    group: T.let[T.int32] = bx // slices.count
                    first: T.let[T.int32] = bx % slices.count * slices.size + thread * norm.lanes

                    combine_slices(slices, partial, group, thread, total, mean, scale, gathered, folded)
                    write_normalized(norm, x, gamma, beta, y, group, first, THREADS, slices.rounds, mean, scale)

    return normalize


@functools.cache
def coefficients(norm: GroupNorm) -> tirx.PrimFunc:
    """(partial, gamma, mean_and_scale): the factors for a kernel that normalizes x [N, C, ...] as it reads it.

    mean_and_scale is float32 [N, C, 2]: (x - mean) * scale + beta is the norm; gamma is part of the scale.
    """
    slices = choose_slices(norm)

    @T.prim_func(s_tir=True, private=True)
    def coefficients(
        partial: T.Buffer(slices.partial_shape, "float32"),
        gamma: T.Buffer((norm.channels,), norm.dtype),
        mean_and_scale: T.Buffer((norm.batch, norm.channels, 2), "float32"),
    ):
        for group in T.thread_binding(slices.groups, thread="blockIdx.x"):
            for thread in T.thread_binding(THREADS, thread="threadIdx.x"):
                with T.sblock("coefficients"):
                    T.reads()
                    T.writes()
                    gathered = in_workgroup(1, THREADS)
                    folded = in_workgroup(1, FOLD)
                    total = in_registers(1)
                    mean = in_registers(1)
                    scale = in_registers(1)

                    combine_slices(slices, partial, group, thread, total, mean, scale, gathered, folded)
                    for n in T.serial(ceil_div(norm.group_channels, THREADS)):
                        channel: T.let[T.int32] = n * THREADS + thread
                        if channel < norm.group_channels:
                            batch: T.let[T.int32] = group // norm.groups
                            c: T.let[T.int32] = group % norm.groups * norm.group_channels + channel
                            mean_and_scale[batch, c, 0] = mean[0]
                            mean_and_scale[batch, c, 1] = scale[0] * T.cast(gamma[c], "float32")

    return coefficients


@functools.cache
def whole(norm: GroupNorm, threads: int = THREADS) -> tirx.PrimFunc:
    """(x, gamma, beta, y): everything in one kernel, for groups that `is_whole` takes."""
    lanes, vector = norm.lanes, vector_of("float32", norm.lanes)
    rounds = ceil_div(norm.group_size, threads * lanes)

    @T.prim_func(s_tir=True, private=True)
    def whole(
        x: T.Buffer(norm.shape, norm.dtype),
        gamma: T.Buffer((norm.channels,), norm.dtype),
        beta: T.Buffer((norm.channels,), norm.dtype),
        y: T.Buffer(norm.shape, norm.dtype),
    ):
        for group in T.thread_binding(norm.batch * norm.groups, thread="blockIdx.x"):
            for thread in T.thread_binding(threads, thread="threadIdx.x"):
                with T.sblock("group_norm"):
                    T.reads()
                    T.writes()
                    gathered = in_workgroup(1, threads)
                    folded = in_workgroup(1, FOLD)
                    total = in_registers(1)
                    mean = in_registers(1)
                    value = in_registers(1, vector)

                    total[0] = T.float32(0)
                    for n in T.serial(rounds):
                        if (n * threads + thread) * lanes < norm.group_size:
                            total[0] = total[0] + sum_of(_load(norm, x, group, (n * threads + thread) * lanes), lanes)
                    combine_over_row(total, thread, 0, threads, FOLD, gathered, folded, add, 0.0)
                    mean[0] = total[0] / T.float32(norm.group_size)

                    total[0] = T.float32(0)
                    for n in T.serial(rounds):
                        if (n * threads + thread) * lanes < norm.group_size:
                            value[0] = _load(norm, x, group, (n * threads + thread) * lanes) - spread(
                                mean[0], norm.lanes
                            )
                            total[0] = total[0] + sum_of(value[0] * value[0], lanes)
                    combine_over_row(total, thread, 0, threads, FOLD, gathered, folded, add, 0.0)
                    total[0] = T.rsqrt(total[0] / T.float32(norm.group_size) + T.float32(norm.epsilon))

                    write_normalized(norm, x, gamma, beta, y, group, thread * lanes, threads, rounds, mean, total)

    return whole
