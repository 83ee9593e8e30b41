"""The kernels that a search can decide about."""

from tvm import tirx
from tvm.target import Target

from mlc_controlnet.kernels import (
    schedule_convolution_cpu,
    schedule_convolution_gpu,
    schedule_matmul_cpu,
    schedule_matmul_gpu,
)
from mlc_controlnet.kernels.tunable import Tunable

ON_GPU = (schedule_convolution_gpu.tunable_convolution, schedule_matmul_gpu.tunable_matmul)
ON_PROCESSOR = (schedule_convolution_cpu.tunable_convolution, schedule_matmul_cpu.tunable_matmul)
VERSIONS = {
    "convolution_cpu": schedule_convolution_cpu.VERSION,
    "convolution_gpu": schedule_convolution_gpu.VERSION,
    "matmul_cpu": schedule_matmul_cpu.VERSION,
    "matmul_gpu": schedule_matmul_gpu.VERSION,
}


def tunable_of(function: tirx.PrimFunc, target: Target) -> Tunable | None:
    """Return what there is to decide about a fused but unscheduled function on `target`; None: nothing."""
    for describe in ON_GPU if "gpu" in target.keys else ON_PROCESSOR:
        found = describe(function, target)
        if found is not None:
            return found
    return None
