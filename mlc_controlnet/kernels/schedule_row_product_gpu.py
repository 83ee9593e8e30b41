"""Products of a few rows with a packed weight [N, K] for GPUs: a workgroup for each output, threads along K.

    y[m, n] = sum_k x[m, k] w[n, k]

A thread decodes vectors of four along K, each a word or two, neighbouring threads neighbouring words; the sums of all
threads are added in workgroup memory. Nothing is reused: such a product waits for the weight, of which there are 6 bits
a number to read in place of 16. dlight's rule takes products whose weight is not packed; it does not know a weight that
is looked up in a table.
"""

from tvm import tirx
from tvm.s_tir import Schedule
from tvm.s_tir.dlight.gpu.base import GPUScheduleRule
from tvm.target import Target

from mlc_controlnet.kernels.anchored import Anchored, anchor, extents, inline_weights
from mlc_controlnet.kernels.matmul_tile import LEAST_ROWS
from mlc_controlnet.kernels.vectors import LANES

MOST_THREADS = 64


class RowProduct(GPUScheduleRule):
    """Schedules a fused PrimFunc around a product of fewer than LEAST_ROWS rows whose weight is packed."""

    def apply(self, func: tirx.PrimFunc, target: Target, _tunable: bool) -> Schedule | None:
        if not isinstance(func, tirx.PrimFunc) or not self.is_target_available(target):
            return None
        rank = len(func.params[-1].ty.shape)
        schedule = Schedule(func)
        found = anchor(schedule, "S" * rank + "R") if rank >= 2 else None
        if found is None or found.pads or not found.weights or len(schedule.get(found.reduction).reads) != 2:
            return None
        *outputs, depth = extents(schedule, schedule.get_loops(found.reduction))
        if outputs[-2] >= LEAST_ROWS or depth % LANES:
            return None
        _schedule(schedule, found, depth)
        return schedule


def _schedule(schedule: Schedule, found: Anchored, depth: int) -> None:
    vectors = depth // LANES
    threads = min(vectors & -vectors, MOST_THREADS)  # a power of two, which divides K
    registers = [schedule.cache_read(found.reduction, index, "local", [found.reduction]) for index in (0, 1)]
    inline_weights(schedule, found)
    _, thread, _ = schedule.split(schedule.get_loops(found.reduction)[-1], [None, threads, LANES])
    partial = schedule.rfactor(thread, 0)
    schedule.set_scope(partial, 0, "local")

    output = schedule.fuse(*schedule.get_loops(found.epilogue))
    schedule.bind(output, "blockIdx.x")
    schedule.compute_at(found.reduction, output, preserve_unit_loops=True)
    _, thread, *place = schedule.get_loops(found.reduction)
    schedule.reorder(*place, thread)
    schedule.bind(thread, "threadIdx.x")
    schedule.compute_at(partial, output, preserve_unit_loops=True)
    _, thread, *_, step, lane = schedule.get_loops(partial)
    schedule.bind(thread, "threadIdx.x")
    schedule.unroll(lane)
    for block in registers:
        schedule.compute_at(block, step, preserve_unit_loops=True)
        schedule.vectorize(schedule.get_loops(block)[-1])
    schedule.decompose_reduction(partial, step)
