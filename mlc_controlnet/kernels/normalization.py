"""The group norm or layer norm that a kernel is asked for: every size known when the kernel is made.

Axes: N batch, C channels, P positions (height times width), G groups.
"""

import math
from dataclasses import dataclass

from mlc_controlnet.kernels.vectors import lanes_of


@dataclass(frozen=True)
class GroupNorm:
    """silu(gamma * (x - mean) / sqrt(variance + epsilon) + beta), mean and variance over each group of x [N, C, ...].

    In channels-first layout a group is `group_size` neighbours in memory, whatever the picture's shape.
    """

    shape: tuple[int, ...]
    groups: int
    epsilon: float
    dtype: str
    silu: bool

    @property
    def batch(self) -> int:
        """B."""
        return self.shape[0]

    @property
    def channels(self) -> int:
        """C."""
        return self.shape[1]

    @property
    def positions(self) -> int:
        """Positions per channel: h w."""
        count = 1
        for size in self.shape[2:]:
            count *= size
        return count

    @property
    def group_channels(self) -> int:
        """Channels per group."""
        return self.channels // self.groups

    @property
    def group_size(self) -> int:
        """Numbers per group."""
        return self.group_channels * self.positions

    @property
    def axes(self) -> tuple[int, ...]:
        """Loops over all numbers, for tuning records."""
        return (self.batch, self.groups, self.group_channels, self.positions)

    @property
    def lanes(self) -> int:
        """Values in a vector of neighbours in a picture's row."""
        return lanes_of(self.shape[-1])

    def is_supported(self) -> bool:
        """Return whether there is a kernel: [N, C, at least one axis], whole groups, float16 or float32."""
        return len(self.shape) > 2 and self.channels % self.groups == 0 and self.dtype in ("float16", "float32")


@dataclass(frozen=True)
class LayerNorm:
    """(x - mean) / sqrt(variance + epsilon) * gamma + beta, mean and variance over each row of x [.., rows, width]."""

    shape: tuple[int, ...]
    epsilon: float
    dtype: str

    @property
    def width(self) -> int:
        """Numbers per row."""
        return self.shape[-1]

    @property
    def axes(self) -> tuple[int, ...]:
        """Loops over all numbers, for tuning records."""
        return (self.rows, self.width)

    @property
    def rows(self) -> int:
        """Rows that are normalized independently."""
        return math.prod(self.shape[:-1])
