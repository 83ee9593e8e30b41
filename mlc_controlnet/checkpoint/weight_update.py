"""How an adapter changes a weight: a difference ΔW that small factors make, and for DoRA a magnitude.

    LoRA  ΔW = up @ down                            arXiv 2106.09685, eq. 3
    LoHa  ΔW = (w1_a @ w1_b) ⊙ (w2_a @ w2_b)        arXiv 2108.06098, prop. 1
    LoKr  ΔW = w1 ⊗ w2, each whole or a product     arXiv 2309.14859, section 3.2
    DoRA  W' = m (W + s ΔW) / ‖W + s ΔW‖            arXiv 2402.09353, eq. 5

A convolution's kernel is flattened: its weight [out, in, 3, 3] is a matrix [out, in * 9].
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch


class Difference(Protocol):
    """A matrix [rows, columns] that is made on demand from its factors."""

    @property
    def shape(self) -> tuple[int, int] | None:
        """Its rows and columns; None if the factors do not fit one another."""

    def dense(self) -> torch.Tensor:
        """Return it in float32."""


@dataclass(frozen=True)
class Whole:
    """A matrix without factors, or a kernel [rows, in, 3, 3]."""

    tensor: torch.Tensor

    @property
    def shape(self) -> tuple[int, int]:
        """Its rows, and its columns with the kernel's."""
        return self.tensor.shape[0], math.prod(self.tensor.shape[1:])

    def dense(self) -> torch.Tensor:
        """Return it in float32, a kernel flattened."""
        return self.tensor.float().flatten(1)


@dataclass(frozen=True)
class Product:
    """`left` [rows, r, ...] @ `right` [r, ...], flattened.

    With a `core` [r, r, 3, 3], which Tucker's decomposition has: sum over i and j of left[p, i] core[i, j] right[j, q].
    """

    left: torch.Tensor
    right: torch.Tensor
    core: torch.Tensor | None = None

    @property
    def rank(self) -> int:
        """The r that alpha is divided by."""
        return self.right.shape[0]

    @property
    def shape(self) -> tuple[int, int] | None:
        """Its rows and columns; None if the ranks differ."""
        (rows, left), (right, columns) = Whole(self.left).shape, Whole(self.right).shape
        if self.core is None:
            return (rows, columns) if left == right else None
        if tuple(self.core.shape[:2]) != (left, right):
            return None
        return rows, columns * math.prod(self.core.shape[2:])

    def dense(self) -> torch.Tensor:
        """Multiply the factors in float32."""
        left, right = Whole(self.left).dense(), Whole(self.right).dense()
        if self.core is None:
            return left @ right
        return torch.einsum("pi,ij...,jq->pq...", left, self.core.float(), right).flatten(1)


@dataclass(frozen=True)
class Hadamard:
    """The product of two matrices, element by element."""

    first: Product
    second: Product

    @property
    def shape(self) -> tuple[int, int] | None:
        """That of both; None if they differ."""
        return self.first.shape if self.first.shape == self.second.shape else None

    def dense(self) -> torch.Tensor:
        """Multiply both in float32, element by element."""
        return self.first.dense() * self.second.dense()


@dataclass(frozen=True)
class Kronecker:
    """Every element of the first matrix times the second matrix."""

    first: Whole | Product
    second: Whole | Product

    @property
    def shape(self) -> tuple[int, int] | None:
        """The products of both matrices' rows and columns; None if one has no shape."""
        first, second = self.first.shape, self.second.shape
        return None if first is None or second is None else (first[0] * second[0], first[1] * second[1])

    def dense(self) -> torch.Tensor:
        """Return the Kronecker product in float32."""
        return torch.kron(self.first.dense(), self.second.dense())


@dataclass(frozen=True)
class Magnitude:
    """DoRA's m: the norms of a weight's slices along one axis: 0, the outputs, or 1, the inputs."""

    norms: torch.Tensor  # [out] or [in]
    axis: int

    def imposed_on(self, weight: torch.Tensor) -> torch.Tensor:
        """Give each slice of `weight` (float32) its norm. A slice of zeros stays so."""
        others = [axis for axis in range(weight.ndim) if axis != self.axis]
        norms = torch.linalg.vector_norm(weight, dim=others, keepdim=True)
        directions = weight / norms.clamp_min(torch.finfo(torch.float32).tiny)
        return directions * self.norms.float().reshape(norms.shape)


@dataclass(frozen=True)
class WeightUpdate:
    """One adapter's change of one weight.

    Attributes:
        scale: the file's own factor of ΔW, alpha / r.
        weight: the user's; 0 changes nothing. With a magnitude, it goes from W (0) to the W' of DoRA (1) in a straight
            line, as in ComfyUI.
    """

    difference: Difference
    scale: float = 1.0
    weight: float = 1.0
    magnitude: Magnitude | None = None

    def applied_to(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the changed weight in float32, of the shape of `weight`."""
        difference = self.difference.dense().reshape(weight.shape)
        if self.magnitude is None:
            return torch.add(weight.float(), difference, alpha=self.weight * self.scale)
        changed = torch.add(weight.float(), difference, alpha=self.scale)
        return torch.lerp(weight.float(), self.magnitude.imposed_on(changed), self.weight)


# A tensor's name -> its updates, in the order in which they are applied. The order matters to DoRA alone.
Updates = Mapping[str, Sequence[WeightUpdate]]
