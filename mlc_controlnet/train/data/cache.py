"""Latents and text states of a whole set, computed once.

The cache keeps the mean and the log-variance of the VAE's posterior, not a sample of it. So training sees fresh latents
in every epoch, the same ones as without the cache. A cache belongs to one set, one VAE, one text encoder, one size and
one precision, which its fingerprint identifies. The cache is computed again if the fingerprint does not match, or if a
sample that was bad can be read now.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

from mlc_controlnet.files import check_replaceable, locked
from mlc_controlnet.train import checkpoints
from mlc_controlnet.train.data.fill50k import Row
from mlc_controlnet.train.data.rows import RowSet
from mlc_controlnet.train.data.samples import collate

_BATCH = 16
_PREPARATION = 2  # raise it if the preparation of pictures gives other pixels than before
_STORED = {torch.float32: torch.float32, torch.bfloat16: torch.int16, torch.float16: torch.int16}  # numpy has no bf16


@dataclass(frozen=True)
class ConditionCache:
    """Moments by row and text states by prompt, read from the disk when they are needed.

    Attributes:
        moments: [N, 2c, h, w], the mean and the log-variance of every row.
        states: [P, T, D], one of them for the empty prompt.
        dtype: the type of both; numpy has no bfloat16, so the arrays may hold its bits as int16.
        prompts: the row in `states` of each prompt.
        problems: `key: reason` for every row that could not be read.
    """

    moments: np.ndarray
    states: np.ndarray
    dtype: torch.dtype
    prompts: dict[str, int]
    problems: dict[int, str]

    def lookup(self, indices: Sequence[int], prompts: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the moments [B, 2c, h, w] of these rows and text states [B, T, D] of these prompts."""
        rows = [self.prompts[prompt] for prompt in prompts]
        return self._tensor(self.moments, indices), self._tensor(self.states, rows)

    def _tensor(self, bank: np.ndarray, rows: Sequence[int]) -> torch.Tensor:
        return torch.from_numpy(bank[list(rows)]).view(self.dtype)


def open_cache(
    folder: Path,
    rows: RowSet,
    parts: Sequence[nn.Module],
    encode_pictures: Callable[[torch.Tensor], torch.Tensor],
    encode_prompts: Callable[[list[str]], torch.Tensor],
    workers: int,
    log: Callable[[str], None],
) -> None:
    """Compute the cache in `folder`, unless it is there already. Runs that need the same one wait for the first.

    parts: the modules on whose weights the result depends: VAE and text encoder.
    encode_pictures: [B, 3, H, W] in -1..1 -> moments [B, 2c, h, w].
    encode_prompts: B prompts -> text states [B, T, D].

    Raises UserError if `folder` holds something that is not a cache.
    """
    check_replaceable(folder, (folder / "cache.json").is_file(), "a cache", f"data.cache {folder.absolute()}")
    fingerprint = _fingerprint(rows, parts)

    def write(partial: Path) -> None:
        prompts = sorted({"", *(row.prompt for row in rows.rows if isinstance(row, Row))})
        dtype, states = _write(partial / "states", len(prompts), _chunks(prompts, encode_prompts))
        problems: dict[int, str] = {}
        _, moments = _write(partial / "moments", len(rows), _pictures(rows, encode_pictures, workers, problems))
        about = {
            "fingerprint": fingerprint,
            "dtype": str(dtype).removeprefix("torch."),
            "states": states,
            "moments": moments,
            "prompts": prompts,
            "problems": problems,
        }
        (partial / "cache.json").write_text(json.dumps(about), encoding="utf-8")

    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder.parent / f".lock-{folder.name}", wait=True):
        if not _is_current(folder / "cache.json", fingerprint, rows):
            log(f"cache: latents and text states of {len(rows)} samples to {folder}")
            checkpoints.write_folder(folder, write)


def read_cache(folder: Path) -> ConditionCache:
    """Open the cache that `open_cache` wrote to `folder`."""
    about = json.loads((folder / "cache.json").read_text(encoding="utf-8"))
    dtype = getattr(torch, about["dtype"])
    stored = np.float32 if dtype == torch.float32 else np.int16
    return ConditionCache(
        moments=np.memmap(folder / "moments", stored, "r", shape=tuple(about["moments"])),
        states=np.memmap(folder / "states", stored, "r", shape=tuple(about["states"])),
        dtype=dtype,
        prompts={prompt: row for row, prompt in enumerate(about["prompts"])},
        problems={int(row): problem for row, problem in about["problems"].items()},
    )


def _is_current(description: Path, fingerprint: str, rows: RowSet) -> bool:
    if not description.is_file():
        return False
    about = json.loads(description.read_text(encoding="utf-8"))
    if about["fingerprint"] != fingerprint:
        return False
    return all(rows[0, int(row)].problem is not None for row in about["problems"])  # none of them was repaired


def _fingerprint(rows: RowSet, parts: Sequence[nn.Module]) -> str:
    # Control images too: their aspect ratios are compared with the pictures' when the latents are computed.
    read = [name for row in rows.rows if isinstance(row, Row) for name in (row.target, row.source) if name]
    sizes = [_size(rows.directory / name) for name in read]
    digest = hashlib.sha256(repr((_PREPARATION, rows.options, rows.rows, sizes)).encode())
    for part in parts:
        for name, tensor in part.state_dict().items():
            digest.update(name.encode())
            digest.update(_bytes(tensor))
    return digest.hexdigest()


def _size(path: Path) -> int:
    """Return the size of a file in bytes, as a sign of its content that costs little; -1 if there is no such file."""
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _chunks(prompts: list[str], encode: Callable[[list[str]], torch.Tensor]) -> Iterator[torch.Tensor]:
    for start in range(0, len(prompts), _BATCH):
        yield encode(prompts[start : start + _BATCH])


def _pictures(
    rows: RowSet, encode: Callable[[torch.Tensor], torch.Tensor], workers: int, problems: dict[int, str]
) -> Iterator[torch.Tensor]:
    places = [(0, index) for index in range(len(rows))]
    for batch in DataLoader(rows, batch_size=_BATCH, sampler=places, collate_fn=collate, num_workers=workers):
        bad = [index for index, weight in zip(batch.indices, batch.weight, strict=True) if weight == 0]
        problems.update(zip(bad, batch.problems, strict=True))
        yield encode(batch.pixels)


def _write(path: Path, count: int, chunks: Iterable[torch.Tensor]) -> tuple[torch.dtype, list[int]]:
    with path.open("wb") as file:
        for chunk in chunks:
            file.write(_bytes(chunk))
    return chunk.dtype, [count, *chunk.shape[1:]]


def _bytes(tensor: torch.Tensor) -> bytes:
    """Return the elements in logical order, which may differ from their order in memory."""
    tensor = tensor.detach().cpu()
    return tensor.view(_STORED.get(tensor.dtype, tensor.dtype)).numpy().tobytes()
