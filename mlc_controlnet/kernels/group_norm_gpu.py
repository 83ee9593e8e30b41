# mypy: disable-error-code="no-untyped-def, valid-type"
"""Group norm for GPUs: a workgroup a slice, in both kernels.

Loads are scalar and neighbouring threads read neighbouring values: WebGPU buffers hold scalars, so a vec4 load would be
four strided ones. Statistics keeps its values in registers between the mean and the deviations.
"""

from typing import Any

from tvm import tirx
from tvm.script import tirx as T

from mlc_controlnet.kernels.normalization import Normalization

THREADS = 256
FOLD = 16  # a sum over the workgroup: FOLD threads add THREADS / FOLD numbers each, then everybody adds FOLD
MAX_VALUES = 16  # registers a thread
ENOUGH_WORKGROUPS = 128


def choose_values(norm: Normalization) -> int:
    """Values a thread: as many as leave enough workgroups to fill a GPU."""
    values = MAX_VALUES
    while values > 1 and norm.batch * norm.groups * -(-norm.group_size // (THREADS * values)) < ENOUGH_WORKGROUPS:
        values //= 2
    return values


def build(norm: Normalization) -> tuple[tirx.PrimFunc, tirx.PrimFunc, int]:
    """(statistics, normalize, slices a group). See `GroupNormKernels` for their parameters."""
    shape, dtype = norm.shape, norm.dtype
    values = choose_values(norm)
    size = norm.group_size
    slice_size = THREADS * values
    slices = -(-size // slice_size)
    groups = norm.batch * norm.groups
    rounds = -(-slices // THREADS)

    def element(group: Any, offset: Any) -> tuple[Any, ...]:
        """The index into x of a group's value `offset`; past the end of the group, of its last."""
        flat = group * size + T.min(offset, size - 1)
        index = []
        for extent in reversed(shape[1:]):
            index.append(flat % extent)
            flat = flat // extent
        return (flat, *reversed(index))

    def channel(group: Any, offset: Any) -> Any:
        return group % norm.groups * norm.group_channels + offset // norm.positions

    def count(piece: Any) -> Any:
        """Values in a slice: all but the last are full."""
        return T.cast(T.min(slice_size, size - piece * slice_size), "float32")

    def finish(y: Any) -> Any:
        if norm.silu:
            y = y / (T.float32(1) + T.exp(-y))
        return T.cast(y, dtype)

    @T.macro
    def add_over_workgroup(total, thread, gathered, folded):
        """total[0] of all threads -> their sum, in every thread's total[0]."""
        gathered[thread] = total[0]
        T.tvm_storage_sync("shared")
        if thread < FOLD:
            total[0] = T.float32(0)
            for n in T.serial(THREADS // FOLD):
                total[0] = total[0] + gathered[n * FOLD + thread]
            folded[thread] = total[0]
        T.tvm_storage_sync("shared")
        total[0] = T.float32(0)
        for n in T.serial(FOLD):
            total[0] = total[0] + folded[n]

    @T.prim_func(s_tir=True, private=True)
    def statistics(x: T.Buffer(shape, dtype), partial: T.Buffer((groups, slices, 2), "float32")):
        for bx in T.thread_binding(groups * slices, thread="blockIdx.x"):
            for thread in T.thread_binding(THREADS, thread="threadIdx.x"):
                with T.sblock("statistics"):
                    T.reads()
                    T.writes()
                    gathered = T.sblock_alloc_buffer((THREADS,), "float32", scope="shared")
                    folded = T.sblock_alloc_buffer((FOLD,), "float32", scope="shared")
                    held = T.sblock_alloc_buffer((values,), "float32", scope="local")
                    total = T.sblock_alloc_buffer((1,), "float32", scope="local")
                    mean = T.sblock_alloc_buffer((1,), "float32", scope="local")
                    group: T.let[T.int32] = bx // slices
                    piece: T.let[T.int32] = bx % slices
                    first: T.let[T.int32] = piece * slice_size + thread

                    total[0] = T.float32(0)
                    for n in T.unroll(values):
                        held[n] = T.cast(x[element(group, first + n * THREADS)], "float32")
                        if first + n * THREADS < size:
                            total[0] = total[0] + held[n]
                    add_over_workgroup(total, thread, gathered, folded)
                    mean[0] = total[0] / count(piece)

                    total[0] = T.float32(0)
                    for n in T.unroll(values):
                        if first + n * THREADS < size:
                            total[0] = total[0] + (held[n] - mean[0]) * (held[n] - mean[0])
                    add_over_workgroup(total, thread, gathered, folded)
                    if thread == 0:
                        partial[group, piece, 0] = mean[0]
                        partial[group, piece, 1] = total[0]

    @T.prim_func(s_tir=True, private=True)
    def normalize(
        x: T.Buffer(shape, dtype),
        partial: T.Buffer((groups, slices, 2), "float32"),
        gamma: T.Buffer((norm.channels,), dtype),
        beta: T.Buffer((norm.channels,), dtype),
        y: T.Buffer(shape, dtype),
    ):
        for bx in T.thread_binding(groups * slices, thread="blockIdx.x"):
            for thread in T.thread_binding(THREADS, thread="threadIdx.x"):
                with T.sblock("normalize"):
                    T.reads()
                    T.writes()
                    gathered = T.sblock_alloc_buffer((THREADS,), "float32", scope="shared")
                    folded = T.sblock_alloc_buffer((FOLD,), "float32", scope="shared")
                    total = T.sblock_alloc_buffer((1,), "float32", scope="local")
                    mean = T.sblock_alloc_buffer((1,), "float32", scope="local")
                    scale = T.sblock_alloc_buffer((1,), "float32", scope="local")
                    group: T.let[T.int32] = bx // slices
                    first: T.let[T.int32] = bx % slices * slice_size + thread

                    total[0] = T.float32(0)
                    for n in T.serial(rounds):
                        if n * THREADS + thread < slices:
                            total[0] = total[0] + partial[group, n * THREADS + thread, 0] * count(n * THREADS + thread)
                    add_over_workgroup(total, thread, gathered, folded)
                    mean[0] = total[0] / T.float32(size)

                    total[0] = T.float32(0)
                    for n in T.serial(rounds):
                        if n * THREADS + thread < slices:
                            scale[0] = partial[group, n * THREADS + thread, 0] - mean[0]
                            total[0] = total[0] + partial[group, n * THREADS + thread, 1]
                            total[0] = total[0] + scale[0] * scale[0] * count(n * THREADS + thread)
                    add_over_workgroup(total, thread, gathered, folded)
                    scale[0] = T.rsqrt(total[0] / T.float32(size) + T.float32(norm.epsilon))

                    for n in T.serial(values):
                        offset: T.let[T.int32] = first + n * THREADS
                        if offset < size:
                            y[element(group, offset)] = finish(
                                (T.cast(x[element(group, offset)], "float32") - mean[0])
                                * (scale[0] * T.cast(gamma[channel(group, offset)], "float32"))
                                + T.cast(beta[channel(group, offset)], "float32")
                            )

    return statistics, normalize, slices
