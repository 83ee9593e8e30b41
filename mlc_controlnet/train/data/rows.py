"""A fill50k set as a stream of batches that never ends, in an order that depends on the seed only.

Sample number k of the run is row `order(epoch)[k mod n]` of epoch `k div n`. A batch may hold the end of one epoch and
the start of the next, so no sample is lost or seen twice, and every process always has a full batch.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from mlc_controlnet.train.data.fill50k import Row
from mlc_controlnet.train.data.samples import Batch, ReadOptions, Sample, bad_sample, collate, make_control, make_sample
from mlc_controlnet.train.randomness import seed_of


class RowSet(Dataset):
    """The samples of a set, by (epoch, index).

    Args:
        cached: the problems of the rows that were unreadable when the latents were cached; then pictures are not read.
            None if there is no cache.
    """

    def __init__(
        self,
        directory: Path,
        rows: Sequence[Row | str],
        options: ReadOptions,
        cached: Mapping[int, str] | None = None,
    ) -> None:
        self.directory, self.rows, self.options, self.cached = directory, rows, options, cached

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, where: tuple[int, int]) -> Sample:
        sample = self._read(*where)
        return sample if self.cached is None else replace(sample, pixels=torch.empty(0))

    def _read(self, epoch: int, index: int) -> Sample:
        row = self.rows[index]
        if isinstance(row, str):
            place, _, problem = row.partition(": ")
            return bad_sample(f"prompt.json {place}", epoch, problem, self.options, index)
        if self.cached is not None and index in self.cached:
            return bad_sample(row.target, epoch, self.cached[index].partition(": ")[2], self.options, index)
        drawn = self.options.annotator is not None
        try:
            control = None if drawn or not row.source else (self.directory / row.source).read_bytes()
            if self.cached is not None and control is not None:
                return make_control(row.target, epoch, control, row.prompt, self.options, index)
            image = (self.directory / row.target).read_bytes()
        except OSError as error:
            problem = f"{error.strerror}: {Path(str(error.filename)).name}"
            return bad_sample(row.target, epoch, problem, self.options, index)
        return make_sample(row.target, epoch, image, control, row.prompt, self.options, index)


class RowStream:
    """The batches of one process, without end.

    Args:
        batch_size: samples per batch of this process.
        rank, world: the number of this process and the number of all; each takes its own part of every global batch.
        workers: processes that read samples for this one.

    Attributes:
        taken: batches that were taken already; iteration starts after them.
    """

    def __init__(self, rows: RowSet, batch_size: int, seed: int, rank: int, world: int, workers: int) -> None:
        self.rows, self.batch_size, self.seed = rows, batch_size, seed
        self.rank, self.world, self.workers = rank, world, workers
        self.taken = 0

    def __iter__(self) -> Iterator[Batch]:
        loader = DataLoader(
            self.rows, batch_sampler=self._places(self.taken), collate_fn=collate, num_workers=self.workers
        )
        for batch in loader:
            self.taken += 1
            yield batch

    def state(self) -> dict[str, object]:
        """Return what a checkpoint keeps of this stream: its place, and the set that it is a place in."""
        return {"taken": self.taken, "samples": len(self.rows), "rows": self._fingerprint}

    def difference(self, state: Mapping[str, Any]) -> str:
        """Say how the set differs from that of an earlier run's state; return "" if it does not, or if none is known.

        The files of the set may have moved; what its index says counts.
        """
        before, now = state.get("samples"), len(self.rows)
        if state.get("rows", self._fingerprint) == self._fingerprint:
            return ""
        return f"{now} other samples than before" if before == now else f"{now} samples, where it had {before} before"

    @cached_property
    def _fingerprint(self) -> str:
        return hashlib.sha256(repr(self.rows.rows).encode()).hexdigest()

    def _places(self, taken: int) -> Iterator[list[tuple[int, int]]]:
        while True:
            first = (taken * self.world + self.rank) * self.batch_size
            yield [self._place(number) for number in range(first, first + self.batch_size)]
            taken += 1

    def _place(self, number: int) -> tuple[int, int]:
        epoch, position = divmod(number, len(self.rows))
        return epoch, int(_order(self.seed, epoch, len(self.rows))[position])


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, count: int) -> np.ndarray:
    """Return the permutation of the rows in this epoch: int64 [N]."""
    return np.random.default_rng(seed_of(seed, "order", epoch)).permutation(count)
