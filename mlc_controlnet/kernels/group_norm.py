"""Group norm, with the silu that mostly follows, as two kernels.

A default schedule has one workgroup for a whole tensor and takes the variance as E[x^2] - E[x]^2, which cancels.
Here each group is cut into slices: `statistics` writes mean and sum of squared deviations of every slice (two passes
over values held in registers or cache), `normalize` combines the slices of its group (Chan, Golub, LeVeque 1979,
equation 2.1) and reads x once more.
"""

from dataclasses import dataclass

from tvm import tirx
from tvm.target import Target

from mlc_controlnet.kernels import group_norm_cpu, group_norm_gpu
from mlc_controlnet.kernels.finished import mark_finished
from mlc_controlnet.kernels.normalization import Normalization


@dataclass(frozen=True)
class GroupNormKernels:
    """`statistics` (x, partial) and `normalize` (x, partial, gamma, beta, y), both scheduled.

    x and y have `Normalization.shape`, gamma and beta [C]; partial is float32 of `partial_shape` = [N * G, slices, 2].
    """

    statistics: tirx.PrimFunc
    normalize: tirx.PrimFunc
    partial_shape: tuple[int, int, int]


def group_norm(norm: Normalization, target: Target) -> GroupNormKernels:
    """The two kernels for `target`; sums are float32."""
    if not norm.is_supported():
        raise ValueError(f"no group norm kernel for {norm}")
    variant = group_norm_gpu if "gpu" in target.keys else group_norm_cpu
    statistics, normalize, slices = variant.build(norm)
    partial_shape = (norm.batch * norm.groups, slices, 2)
    return GroupNormKernels(mark_finished(statistics), mark_finished(normalize), partial_shape)
