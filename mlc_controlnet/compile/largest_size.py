"""The largest picture whose kernels every WebGPU device accepts, for a size that is too large."""

import dataclasses
from collections.abc import Callable, Sequence

import tvm

from mlc_controlnet.capture import capture
from mlc_controlnet.checkpoint import Checkpoint
from mlc_controlnet.compile.library import OverLimits, schedule_library, tvm_target
from mlc_controlnet.config import BuildConfig
from mlc_controlnet.passes import pipeline
from mlc_controlnet.passes.check.check_webgpu_limits import LIMITS, measure_requirements

STEP = 64  # pixels; every Stable Diffusion can halve a multiple of it as often as it does

Size = tuple[int, int]  # height, width in pixels


def find_largest_sizes(checkpoint: Checkpoint, dtype: str, config: BuildConfig, over: OverLimits) -> list[Size]:
    """The largest multiples of STEP in the shape that was asked for, and square where that is another.

    Only the components that `over` names are captured, and no weight is read. The search looks at the tensors of the
    lowered kernels, which grow with the size; scheduling, which takes ten times as long, confirms what it finds. Empty
    where a kernel is over the limits at every size.
    """

    def captured(size: Size) -> tvm.IRModule:
        shape = dataclasses.replace(checkpoint.shape, height=size[0], width=size[1])
        smaller = dataclasses.replace(checkpoint, shape=shape, components=over.components)
        return pipeline.clean(capture(smaller, dtype)).module

    def tensors_fit(size: Size) -> bool:
        lowered = pipeline.run(captured(size), tvm_target(config.preset), until="lower")
        return measure_requirements(lowered).largest_binding_bytes <= LIMITS["maxStorageBufferBindingSize"]

    def fits(size: Size) -> bool:
        try:
            schedule_library(captured(size), dtype, config)
        except OverLimits:
            return False
        return True

    height, width = checkpoint.shape.height, checkpoint.shape.width
    ways = [_smaller_sizes(height, width)]
    if height != width:
        ways.append(_smaller_sizes(max(height, width), max(height, width)))
    found = []
    for sizes in ways:
        count = _count_that_fit(sizes, tensors_fit)
        if count and not fits(sizes[count - 1]):
            count = _count_that_fit(sizes[: count - 1], fits)
        found += sizes[count - 1 : count] if count else []
    return list(dict.fromkeys(found))


def _smaller_sizes(height: int, width: int) -> list[Size]:
    """Multiples of STEP in about this shape, the smallest first, all below it."""
    longer = max(height, width)

    def scaled(pixels: int, steps: int) -> int:
        return max(STEP, round(pixels * steps / longer) * STEP)

    return [(scaled(height, steps), scaled(width, steps)) for steps in range(1, -(-longer // STEP))]


def _count_that_fit(sizes: Sequence[Size], fits: Callable[[Size], bool]) -> int:
    """How many, from the smallest on. By bisection: where a size fits, all smaller ones do."""
    low, high = 0, len(sizes) + 1  # so many fit, so many do not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(sizes[middle - 1]) else (low, middle)
    return low
