"""Group norm, with the silu that usually follows it: two kernels, or one kernel if a group is small.

A default schedule has one workgroup for a whole tensor and takes the variance as E[x^2] - E[x]^2, which cancels.
Here each group is cut into slices: `statistics` writes mean and sum of squared deviations of every slice (two passes
over values held in registers or cache), `normalize` combines the slices of its group (Chan, Golub, LeVeque 1979,
equation 2.1) and reads x once more. On a GPU a group of a few kilobytes is one workgroup's, and one launch.
"""

from dataclasses import dataclass, replace

from tvm import tirx
from tvm.target import Target

from mlc_controlnet.kernels import group_norm_cpu, group_norm_gpu
from mlc_controlnet.kernels.marks import mark_finished
from mlc_controlnet.kernels.normalization import GroupNorm
from mlc_controlnet.kernels.registers_cpu import Registers, registers_of


@dataclass(frozen=True)
class GroupNormKernels:
    """`statistics` (x, partial) and `normalize` (x, partial, gamma, beta, y), both scheduled.

    x and y have `GroupNorm.shape`, gamma and beta [C]; partial is float32 of `partial_shape` = [N * G, slices, 2].
    Where `normalize` does everything, its parameters are (x, gamma, beta, y), and there is nothing else.
    """

    normalize: tirx.PrimFunc
    statistics: tirx.PrimFunc | None = None
    partial_shape: tuple[int, int, int] | None = None


def group_norm(norm: GroupNorm, target: Target) -> GroupNormKernels:
    """Return the kernels for `target`; sums are float32."""
    _check(norm)
    if "gpu" not in target.keys:
        return _for_processor(norm, registers_of(target))
    if group_norm_gpu.is_whole(norm):
        return GroupNormKernels(mark_finished(group_norm_gpu.whole(norm), norm))
    return GroupNormKernels(
        mark_finished(group_norm_gpu.normalize(norm), f"normalize of {norm}"),
        _statistics(norm),
        group_norm_gpu.choose_slices(norm).partial_shape,
    )


def _for_processor(norm: GroupNorm, registers: Registers) -> GroupNormKernels:
    if group_norm_cpu.is_whole(norm):
        return GroupNormKernels(mark_finished(group_norm_cpu.whole(norm, registers), norm))
    return GroupNormKernels(
        mark_finished(group_norm_cpu.normalize(norm, registers), f"normalize of {norm}"),
        mark_finished(group_norm_cpu.statistics(norm, registers), f"statistics of {_any_reader(norm)}"),
        group_norm_cpu.partial_shape(norm),
    )


@dataclass(frozen=True)
class CoefficientKernels:
    """`statistics` (x, partial) and `coefficients` (partial, gamma, mean_and_scale), both scheduled, for GPUs.

    For a reader of x [N, C, ...] that normalizes what it reads: (x - mean) * scale + beta, with mean_and_scale float32
    [N, C, 2].
    """

    statistics: tirx.PrimFunc
    coefficients: tirx.PrimFunc
    partial_shape: tuple[int, int, int]


def group_norm_coefficients(norm: GroupNorm) -> CoefficientKernels:
    """Return the kernels that compute a group norm's scale and shift per channel."""
    _check(norm)
    before_silu = replace(norm, silu=False)
    return CoefficientKernels(
        _statistics(norm),
        mark_finished(group_norm_gpu.coefficients(before_silu), f"coefficients of {before_silu}"),
        group_norm_gpu.choose_slices(norm).partial_shape,
    )


def _statistics(norm: GroupNorm) -> tirx.PrimFunc:
    shared = _any_reader(norm)
    return mark_finished(group_norm_gpu.statistics(shared), f"statistics of {shared}")


def _any_reader(norm: GroupNorm) -> GroupNorm:
    """Return the norm of which the statistics are: norms with and without silu and of any epsilon share them."""
    return replace(norm, silu=False, epsilon=0.0)


def _check(norm: GroupNorm) -> None:
    if not norm.is_supported():
        raise ValueError(f"no group norm kernel for {norm}")
