"""The set that a config names: batches to train on, samples for the held-out loss, samples for the image log."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from mlc_controlnet.errors import UserError
from mlc_controlnet.train.config import TrainConfig
from mlc_controlnet.train.data import fill50k
from mlc_controlnet.train.data.rows import RowSet, RowStream
from mlc_controlnet.train.data.samples import ReadOptions, Sample
from mlc_controlnet.train.data.shards import ShardSource, ShardStream, expand, read_epoch


@dataclass(frozen=True)
class Data:
    """An opened set.

    Attributes:
        rows: the samples of a fill50k set; None for shards.
        source: the shards; None for a fill50k set.
        held_out: the samples for the held-out loss, without those that cannot be read.
        shown: the samples for the image log.
    """

    rows: RowSet | None
    source: ShardSource | None
    held_out: list[Sample]
    shown: list[Sample]

    def stream(self, config: TrainConfig, rank: int, world: int) -> RowStream | ShardStream:
        """Return the endless stream of batches for process number `rank` of `world`."""
        batch_size, seed, workers = config.trainer.batch_size, config.trainer.seed, config.data.workers
        if self.rows is not None:
            return RowStream(self.rows, batch_size, seed, rank, world, workers)
        assert self.source is not None
        return ShardStream(self.source, batch_size, rank, world, workers)


def open_data(config: TrainConfig) -> Data:
    """Open the set, and read the samples that are held out and shown.

    Raises UserError if there is no set, if no sample of it can be read, or if all samples are held out.
    """
    return _open_rows(config) if config.data.format == "fill50k" else _open_shards(config)


def _open_rows(config: TrainConfig) -> Data:
    options, data = ReadOptions.of(config), config.data
    folder = Path(data.path)
    rows = fill50k.read_rows(folder, data.keys)
    if data.held_out_path is not None:
        other = Path(data.held_out_path)
        held = RowSet(other, fill50k.read_rows(other, data.keys)[: data.held_out], options)
    else:
        if data.held_out >= len(rows):
            raise UserError("data.held_out", f"{data.held_out} of {len(rows)} samples", "fewer", "choose a smaller one")
        first = len(rows) - data.held_out
        rows, kept = rows[:first], rows[first:]
        held = RowSet(folder, kept, options)
    train = RowSet(folder, rows, options)
    held_out = _readable(held[0, index] for index in range(len(held)))
    seen = held if len(held) >= config.log.images else train
    return Data(train, None, held_out, _shown((seen[0, index] for index in range(len(seen))), config))


def _open_shards(config: TrainConfig) -> Data:
    data = config.data
    source = ShardSource(expand(data.path), data.keys, config.trainer.seed, data.shuffle_buffer, ReadOptions.of(config))
    shown_from, held_out = source, []
    if data.held_out_path is not None:
        shown_from = ShardSource(expand(data.held_out_path), data.keys, 0, 1, source.options)
        held_out = _readable(itertools.islice(read_epoch(shown_from, 0, 0, 1), data.held_out))
    shown = _shown(read_epoch(replace(shown_from, buffer=1), 0, 0, 1), config)
    return Data(None, source, held_out, shown)


def _shown(samples: Iterator[Sample], config: TrainConfig) -> list[Sample]:
    """Return the first samples that can be read. Raises UserError if there are none: such a run would learn nothing."""
    shown, problems = [], []
    for sample in samples:
        if sample.problem is None:
            shown.append(sample)
            if len(shown) == config.log.images:
                return shown
        else:
            problems.append(f"{sample.key}: {sample.problem}")
    if not shown:
        got = f"{config.data.path} with no sample that can be read; the first is {problems[0]}"
        names = "data.control_key, data.image_key and data.prompt_key"
        raise UserError("data.path", got, "one or more", f"check the path, the files, {names}")
    return shown


def _readable(samples: Iterator[Sample]) -> list[Sample]:
    return [sample for sample in samples if sample.problem is None]
