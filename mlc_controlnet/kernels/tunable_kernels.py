"""The kernels that a search can decide about."""

from collections.abc import Callable

from tvm import tirx
from tvm.target import Target

from mlc_controlnet.kernels import (
    flash_attention_cpu,
    flash_attention_gpu,
    group_norm_cpu,
    group_norm_gpu,
    layer_norm_cpu,
    layer_norm_gpu,
    schedule_convolution_cpu,
    schedule_convolution_gpu,
    schedule_matmul_cpu,
    schedule_matmul_gpu,
    schedule_winograd_cpu,
)
from mlc_controlnet.kernels.marks import computed_by, is_scheduled
from mlc_controlnet.kernels.tunable import Tunable

Describe = Callable[[tirx.PrimFunc, Target], Tunable | None]

ON_GPU: tuple[Describe, ...] = (schedule_convolution_gpu.tunable_convolution, schedule_matmul_gpu.tunable_matmul)
ON_PROCESSOR: tuple[Describe, ...] = (
    schedule_convolution_cpu.tunable_convolution,
    schedule_winograd_cpu.tunable_winograd,
    schedule_matmul_cpu.tunable_matmul,
)
FINISHED_ON_GPU: tuple[Describe, ...] = (
    flash_attention_gpu.tunable_attention,
    group_norm_gpu.tunable_group_norm,
    layer_norm_gpu.tunable_layer_norm,
)
FINISHED_ON_PROCESSOR: tuple[Describe, ...] = (
    flash_attention_cpu.tunable_attention,
    group_norm_cpu.tunable_group_norm,
    layer_norm_cpu.tunable_layer_norm,
)
VERSIONS = {
    "attention_cpu": flash_attention_cpu.VERSION,
    "attention_gpu": flash_attention_gpu.VERSION,
    "convolution_cpu": schedule_convolution_cpu.VERSION,
    "convolution_gpu": schedule_convolution_gpu.VERSION,
    "group_norm_cpu": group_norm_cpu.VERSION,
    "group_norm_gpu": group_norm_gpu.VERSION,
    "layer_norm_cpu": layer_norm_cpu.VERSION,
    "layer_norm_gpu": layer_norm_gpu.VERSION,
    "matmul_cpu": schedule_matmul_cpu.VERSION,
    "matmul_gpu": schedule_matmul_gpu.VERSION,
    "winograd_cpu": schedule_winograd_cpu.VERSION,
}


def tunable_of(function: tirx.PrimFunc, target: Target) -> Tunable | None:
    """Return what there is to decide about a function on `target`; None: nothing.

    It is fused and waits for a schedule, or its author finished it and can make it again.
    """
    on_gpu = "gpu" in target.keys
    if computed_by(function) is not None:
        kinds = FINISHED_ON_GPU if on_gpu else FINISHED_ON_PROCESSOR
    elif is_scheduled(function):
        return None
    else:
        kinds = ON_GPU if on_gpu else ON_PROCESSOR
    for describe in kinds:
        found = describe(function, target)
        if found is not None:
            return found
    return None
