"""The weights of a component: which rows of the checkpoint's tensors each param consists of, and in which layout."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from mlc_controlnet.checkpoint import give_back

# The attribute of a captured function with the names of the tensors that its params are, in their order.
TENSORS = "tensors"


@dataclass(frozen=True)
class Rows:
    """Rows `start` to before `stop` along axis 0 of one tensor of the checkpoint; to its end if `stop` is None."""

    tensor: str
    start: int = 0
    stop: int | None = None

    @property
    def are_all(self) -> bool:
        """Return whether these are all rows of the tensor."""
        return self.start == 0 and self.stop is None

    def count(self, tensors: Mapping[str, torch.Tensor]) -> int:
        """Return how many rows these are."""
        return (tensors[self.tensor].shape[0] if self.stop is None else self.stop) - self.start

    def __str__(self) -> str:
        return self.tensor if self.are_all else f"{self.tensor}[{self.start}:{'' if self.stop is None else self.stop}]"


@dataclass(frozen=True)
class Param:
    """One argument of a component's function: runs of rows, at least one, joined along axis 0 and then permuted.

    Attributes:
        axes: the argument of `torch.permute`; () leaves the joined rows unpermuted.
    """

    rows: tuple[Rows, ...]
    axes: tuple[int, ...] = ()

    @property
    def dtype(self) -> str:
        """The dtype of what a bundle stores."""
        return "float16"

    @classmethod
    def whole(cls, tensor: str) -> "Param":
        """Return the param that is this tensor of the checkpoint."""
        return cls((Rows(tensor),))

    @classmethod
    def joined(cls, tensors: Sequence[str]) -> "Param":
        """Return the param that these tensors of the checkpoint make, one under another."""
        return cls(tuple(map(Rows, tensors)))

    def permuted(self, axes: Sequence[int]) -> "Param":
        """Return the same rows, permuted once."""
        assert not self.axes
        return replace(self, axes=tuple(axes))

    def part(self, rows: range | None) -> "Param":
        """Return a param with only `rows` of this param, which must be one tensor; this param if `rows` is None."""
        if rows is None:
            return self
        (whole,) = self.rows
        return Param((Rows(whole.tensor, whole.start + rows.start, whole.start + rows.stop),))

    @property
    def name(self) -> str:
        """Unique within a bundle: every row of a checkpoint is read once.

        `unet.conv_in.weight`, or `unet.mid_block.attn1.to_q.weight + 2 more`.
        """
        first, *more = self.rows
        return f"{first} + {len(more)} more" if more else str(first)

    def read(self, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Make the param from the checkpoint's `tensors`, in their dtype. It is a view if it needs only one tensor."""
        parts = [tensors[rows.tensor][rows.start : rows.stop] for rows in self.rows]
        joined = parts[0] if len(parts) == 1 else torch.cat(parts)
        return joined.permute(self.axes) if self.axes else joined

    def give_back(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Let go of the memory of the mapped tensors that `read` has read, once nothing needs its result."""
        for rows in self.rows:
            give_back(tensors[rows.tensor])

    def parts(self, values: torch.Tensor, tensors: Mapping[str, torch.Tensor]) -> Iterator[tuple[Rows, torch.Tensor]]:
        """Take apart what `read` puts together: yield the rows that numbers in the place of the param's belong to."""
        joined = values.permute(tuple(torch.tensor(self.axes).argsort().tolist())) if self.axes else values
        counts = [rows.count(tensors) for rows in self.rows]
        yield from zip(self.rows, joined.split(counts), strict=True)

    def shape(self, tensors: Mapping[str, torch.Tensor]) -> tuple[int, ...]:
        """Return the param's shape, without making it."""
        count = sum(rows.count(tensors) for rows in self.rows)
        shape = (count, *tensors[self.rows[0].tensor].shape[1:])
        return tuple(shape[axis] for axis in self.axes) if self.axes else shape

    def bytes(self, tensors: Mapping[str, torch.Tensor]) -> int:
        """Return how many bytes a bundle stores of it, in float16."""
        return 2 * math.prod(self.shape(tensors))
