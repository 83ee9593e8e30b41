"""WebDataset shards as a stream of batches that never ends: `000001.jpg`, `000001.txt`, `000001.png` in tar files.

In every epoch the shards are shuffled and distributed to the readers (the workers of all processes). If there are fewer
shards than readers, every reader reads all shards and keeps every n-th sample. Either way each sample is read once per
epoch. A reader at the end of its share starts the next epoch at once and waits for no other reader, so shards of
different lengths cannot block a run.
"""

import glob
import hashlib
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from webdataset.filters import _shuffle as shuffle_stream
from webdataset.shardlists import expand_urls
from webdataset.tariterators import tarfile_samples

from mlc_controlnet.errors import UserError
from mlc_controlnet.train.data.samples import (
    Batch,
    ReadOptions,
    Sample,
    bad_sample,
    collate,
    describe_problem,
    make_sample,
)
from mlc_controlnet.train.data.text import decode_text
from mlc_controlnet.train.randomness import seed_of

_PROTOCOL = re.compile("(pipe|file):|[a-z0-9+.-]+://")
EMPTY_EPOCHS = 2  # a reader that finds no sample in so many successive epochs gives up


@dataclass(frozen=True)
class ShardSource:
    """The shards of a set, and the names in them.

    Attributes:
        urls: files, http://... or pipe:..., with all braces expanded.
        keys: the extensions of control image, picture and prompt, in small or capital letters.
        seed: the seed of the order.
        buffer: the next sample is drawn from so many; 1 keeps the order.
    """

    urls: tuple[str, ...]
    keys: tuple[str, str, str]
    seed: int
    buffer: int
    options: ReadOptions


def expand(path: str) -> tuple[str, ...]:
    """`data/{000..002}.tar` -> three names; `data/*.tar` -> the files that exist now; `a.tar::b.tar` -> both.

    Raises UserError if the result is empty.
    """
    urls = tuple(name for url in expand_urls(path) for name in _matches(url))
    if not urls:
        raise UserError("data.path", repr(path), "one shard or more", "check the braces, or the files")
    return urls


def _matches(url: str) -> list[str]:
    if _PROTOCOL.match(url):
        return [url]
    files = sorted(glob.glob(url)) if "*" in url else [url]  # noqa: PTH207 - absolute ones too
    # webdataset takes what stands before a colon for a protocol, unless a slash comes first.
    return [str(Path(file).absolute()) if ":" in file else file for file in files]


def _fingerprint(urls: tuple[str, ...]) -> str:
    """Return a hash of the shards' names in their order. Their folder and the query of a signed address may change."""
    names = "\n".join(PurePosixPath(url.partition("?")[0]).name for url in urls)
    return hashlib.sha256(names.encode()).hexdigest()


def _size(url: str) -> int | None:
    """Return the size of a local shard in bytes, as a sign of its content that costs little; None of any other."""
    try:
        return Path(url.removeprefix("file:")).stat().st_size
    except OSError:
        return None


def _of_other_sizes(urls: tuple[str, ...], before: list[int | None]) -> list[str]:
    """List the names of the shards that have another size than before, where both sizes are known."""
    sizes = zip(urls, map(_size, urls), before, strict=True)
    return [PurePosixPath(url).name for url, now, old in sizes if now != old and now is not None and old is not None]


def read_epoch(source: ShardSource, epoch: int, reader: int, readers: int) -> Iterator[Sample]:
    """Yield the samples of one reader in one epoch, in their order. A sample that cannot be read is a bad sample."""
    for raw in _raw_epoch(source, epoch, reader, readers):
        yield _decode(source, raw, epoch)


def _raw_epoch(source: ShardSource, epoch: int, reader: int, readers: int) -> Iterator[dict[str, Any]]:
    """Yield the samples of `read_epoch` without decoding them."""
    rng = random.Random(seed_of(source.seed, "shards", epoch))  # noqa: S311 - an order, not a secret
    urls = list(source.urls)
    rng.shuffle(urls)
    whole_shards = len(urls) >= readers
    samples = _read(urls[reader::readers] if whole_shards else urls)
    if not whole_shards:
        samples = (raw for number, raw in enumerate(samples) if number % readers == reader)
    own = random.Random(seed_of(source.seed, "samples", epoch, reader))  # noqa: S311
    yield from shuffle_stream(samples, bufsize=source.buffer, initial=source.buffer, rng=own)


def _read(urls: list[str]) -> Iterator[dict[str, Any]]:
    """Yield every sample of every shard. A shard that fails or is empty gives one sample that names the problem."""
    for url in urls:
        failures: list[str] = []
        count = 0
        for raw in tarfile_samples(iter([{"url": url}]), handler=_remember(failures)):
            count += 1
            yield raw
        if failures:
            yield {"__key__": "", "__url__": url, "problem": f"a shard that cannot be read ({failures[0]})"}
        elif count == 0:
            yield {"__key__": "", "__url__": url, "problem": "an empty shard"}


def _remember(failures: list[str]) -> Callable[[Exception], bool]:
    def handler(error: Exception) -> bool:
        # webdataset adds the shard's name to the arguments, and str() would show them all.
        reason = getattr(error, "strerror", None) or (error.args[0] if error.args else "")
        failures.append(f"{type(error).__name__}: {reason}")
        return True

    return handler


def _decode(source: ShardSource, raw: dict[str, Any], epoch: int) -> Sample:
    shard = raw["__url__"]
    key = f"{shard}/{raw['__key__']}" if raw["__key__"] else shard
    if "problem" in raw:
        return bad_sample(key, epoch, raw["problem"], source.options)
    control_key, image_key, prompt_key = keys = [name.lower() for name in source.keys]  # as webdataset has raw's
    missing = [name for name in (keys[1:] if source.options.annotator else keys) if name not in raw]
    if missing:
        found = ", ".join(name for name in raw if not name.startswith("__"))
        problem = f"no .{' and no .'.join(missing)} (its extensions are {found})"
        return bad_sample(key, epoch, problem, source.options)
    try:
        prompt = decode_text(raw[prompt_key], f"its .{prompt_key}").strip()
    except UserError as error:
        return bad_sample(key, epoch, describe_problem(error), source.options)
    return make_sample(key, epoch, raw[image_key], raw.get(control_key), prompt, source.options)


class _Readers(IterableDataset):
    """The part of a stream that runs in a worker of torch's loader.

    places: for each worker of this process, the epoch and the offset in it where that worker goes on.
    turn: the worker whose batch is next. The loader asks its own worker 0 first, so workers are counted from here.
    """

    def __init__(
        self, source: ShardSource, batch_size: int, rank: int, world: int, places: list[tuple[int, int]], turn: int
    ) -> None:
        self.source, self.batch_size, self.rank, self.world = source, batch_size, rank, world
        self.places, self.turn = places, turn

    def __iter__(self) -> Iterator[Batch]:
        info = get_worker_info()
        asked = 0 if info is None else info.id
        worker = (asked + self.turn) % len(self.places)
        reader, readers = self.rank * len(self.places) + worker, self.world * len(self.places)
        epoch, offset = self.places[worker]
        samples: list[Sample] = []
        empty_epochs = 0
        while True:
            skip, start = offset, offset
            for raw in _raw_epoch(self.source, epoch, reader, readers):
                if skip:
                    skip -= 1
                    continue
                samples.append(_decode(self.source, raw, epoch))
                offset += 1
                if len(samples) == self.batch_size:
                    yield replace(collate(samples), place=(worker, epoch, offset))
                    samples = []
            empty_epochs = empty_epochs + 1 if offset == start else 0
            if empty_epochs == EMPTY_EPOCHS:
                names = ", ".join(self.source.urls[:3])
                raise UserError(
                    "data.path",
                    f"no sample for reader {reader} of {readers} in {names}",
                    "samples",
                    "use fewer workers or processes, or more samples",
                )
            epoch, offset = epoch + 1, 0


class ShardStream:
    """The batches of one process, without end. `restore` goes on in the middle of an epoch, with the next sample."""

    def __init__(self, source: ShardSource, batch_size: int, rank: int, world: int, workers: int) -> None:
        self.source, self.batch_size, self.rank, self.world, self.workers = source, batch_size, rank, world, workers
        self.places = [(0, 0)] * max(workers, 1)
        self.taken = 0

    def __iter__(self) -> Iterator[Batch]:
        readers = _Readers(
            self.source, self.batch_size, self.rank, self.world, list(self.places), self.taken % len(self.places)
        )
        for batch in DataLoader(readers, batch_size=None, num_workers=self.workers):
            worker, epoch, offset = batch.place
            self.places[worker] = (epoch, offset)
            self.taken += 1
            yield batch

    def state(self) -> dict[str, object]:
        """Return the state that a checkpoint keeps for `restore`."""
        return {
            "taken": self.taken,
            "places": [list(place) for place in self.places],
            "shards": _fingerprint(self.source.urls),
            "bytes": [_size(url) for url in self.source.urls],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on after the batches of an earlier run.

        Raises UserError if it had other shards or another number of workers.
        """
        if len(state["places"]) != len(self.places):
            raise UserError(
                "data.workers",
                f"{self.workers}, but the checkpoint's run had {len(state['places'])}",
                "the same number, because shards are distributed to workers",
                f"set data.workers to {len(state['places'])}",
            )
        urls = self.source.urls
        other = ""
        if state.get("shards", _fingerprint(urls)) != _fingerprint(urls):
            other = f"{len(urls)} shards, not those of the checkpoint's run"
        elif changed := _of_other_sizes(urls, state.get("bytes", [None] * len(urls))):
            other = f"shards of other sizes: {', '.join(changed[:3])}, not those of the checkpoint's run"
        if other:
            wanted = "the same ones, because the place in the epoch is counted in them"
            raise UserError("data.path", other, wanted, "restore them, or start again with trainer.resume: false")
        self.taken = state["taken"]
        self.places = [(epoch, offset) for epoch, offset in state["places"]]
