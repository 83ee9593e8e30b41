"""Finds the largest picture whose kernels every WebGPU device accepts, if the size asked for is too large."""

import dataclasses
from collections.abc import Callable, Sequence

import tvm

from mlc_controlnet.capture import capture
from mlc_controlnet.checkpoint import Checkpoint
from mlc_controlnet.compile.library import OverLimits, pipeline_of
from mlc_controlnet.components import component_specs, kind_of
from mlc_controlnet.config import BuildConfig
from mlc_controlnet.passes.check.check_webgpu_limits import LIMITS, measure_kernels, measure_requirements
from mlc_controlnet.passes.pipeline import clean

STEP = 64  # pixels; a UNet and its VAE halve a picture six times at most

Size = tuple[int, int]  # height, width in pixels


def find_largest_sizes(checkpoint: Checkpoint, dtype: str, config: BuildConfig, over: OverLimits) -> list[Size]:
    """Find the largest multiples of STEP that fit: in the aspect ratio of the first size that does not, and square.

    Only the components whose functions `over` names are captured, and no weight is read. The search looks at the
    tensors of the lowered kernels, which grow with the size. Scheduling takes ten times as long and confirms the
    result.

    Returns:
        One or two sizes; none if a kernel is over the limits at every size.
    """

    functions = checkpoint.function_specs
    refused = {
        dataclasses.replace(spec, name=kind_of(spec.name)) for spec in map(functions.__getitem__, over.components)
    }
    too_large = next(shape for shape in checkpoint.shapes if refused & set(component_specs(shape).values()))
    components = tuple(dict.fromkeys(functions[name].name for name in over.components))

    def captured(size: Size) -> tvm.IRModule:
        shape = dataclasses.replace(too_large, height=size[0], width=size[1])
        smaller = dataclasses.replace(checkpoint, shape=shape, other_shapes=(), components=components)
        return clean(capture(smaller, dtype)).module

    pipeline = pipeline_of(dataclasses.replace(config, dump_ir=None))

    def tensors_fit(size: Size) -> bool:
        lowered = pipeline.run(captured(size), until="lower")
        return measure_requirements(lowered).largest_binding_bytes <= LIMITS["maxStorageBufferBindingSize"]

    def fits(size: Size) -> bool:
        scheduled = pipeline.run(captured(size), until="schedule")
        return not any(any(kernel.violations()) for kernel in measure_kernels(scheduled, pipeline.target))

    height, width = too_large.height, too_large.width
    ladders = [_smaller_sizes(height, width)]
    if height != width:
        ladders.append(_smaller_sizes(max(height, width), max(height, width)))
    found = []
    for sizes in ladders:
        count = _count_that_fit(sizes, tensors_fit)
        if count and not fits(sizes[count - 1]):
            count = _count_that_fit(sizes[: count - 1], fits)
        found += sizes[count - 1 : count] if count else []
    return list(dict.fromkeys(found))


def _smaller_sizes(height: int, width: int) -> list[Size]:
    """List multiples of STEP of about this aspect ratio, the smallest first, all below it."""
    longer = max(height, width)

    def scaled(pixels: int, steps: int) -> int:
        return max(STEP, round(pixels * steps / longer) * STEP)

    return [(scaled(height, steps), scaled(width, steps)) for steps in range(1, -(-longer // STEP))]


def _count_that_fit(sizes: Sequence[Size], fits: Callable[[Size], bool]) -> int:
    """Count the sizes that fit, by bisection: if a size fits, all smaller ones fit."""
    low, high = 0, len(sizes) + 1  # the first `low` sizes fit; the first `high` do not all fit
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(sizes[middle - 1]) else (low, middle)
    return low
