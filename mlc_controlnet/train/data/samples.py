"""A sample on its way from a file to a batch.

A sample that can not be read keeps its place in the batch with weight zero: batches have one size, every process takes
the same number of steps, and the place of a sample in the run does not depend on how many before it were bad.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from mlc_controlnet.errors import UserError
from mlc_controlnet.train.config import TrainConfig
from mlc_controlnet.train.data.canny import canny

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)  # what Pillow raises


@dataclass(frozen=True)
class ReadOptions:
    """What turns a sample's files into tensors."""

    height: int
    width: int
    hint_channels: int
    annotator: str | None

    @staticmethod
    def of(config: TrainConfig) -> "ReadOptions":
        return ReadOptions(config.data.height, config.data.width, config.model.hint_channels, config.data.annotator)


@dataclass(frozen=True)
class Sample:
    """One picture, its control image and its prompt.

    Attributes:
        key: names it in messages and, with `epoch`, seeds all that is random about it.
        pixels: [3, H, W] float32 in -1..1.
        control: [C, H, W] float32 in 0..1.
        problem: why it can not be read; its tensors are zeros then.
    """

    key: str
    epoch: int
    pixels: torch.Tensor
    control: torch.Tensor
    prompt: str
    problem: str | None = None
    index: int = -1  # row in a set that has rows; cached latents are found by it


@dataclass(frozen=True)
class Batch:
    """Samples side by side.

    Attributes:
        pixels: [B, 3, H, W] float32 in -1..1.
        control: [B, C, H, W] float32 in 0..1.
        weight: [B] float32, 0 for a sample that could not be read.
        problems: `key: reason` of each of those.
        place: where the reader that made it stands behind it; see `ShardStream`.
    """

    keys: list[str]
    epochs: list[int]
    indices: list[int]
    prompts: list[str]
    pixels: torch.Tensor
    control: torch.Tensor
    weight: torch.Tensor
    problems: list[str] = field(default_factory=list)
    place: tuple[int, int, int] = (0, 0, 0)


def collate(samples: Sequence[Sample]) -> Batch:
    return Batch(
        keys=[s.key for s in samples],
        epochs=[s.epoch for s in samples],
        indices=[s.index for s in samples],
        prompts=[s.prompt for s in samples],
        pixels=torch.stack([s.pixels for s in samples]),
        control=torch.stack([s.control for s in samples]),
        weight=torch.tensor([0.0 if s.problem else 1.0 for s in samples]),
        problems=[f"{s.key}: {s.problem}" for s in samples if s.problem],
    )


def make_sample(
    key: str, epoch: int, image: bytes, control: bytes | None, prompt: str, options: ReadOptions, index: int = -1
) -> Sample:
    """Decode both pictures (`control` is None where an annotator makes it); one that can not be is a bad sample."""
    try:
        picture = open_picture(image, 3, options)
        if options.annotator == "canny":
            hint = to_control(np.repeat(canny(picture), options.hint_channels, axis=-1))
        elif control is None:
            return bad_sample(key, epoch, "no control image", options, index)
        else:
            hint = to_control(open_picture(control, options.hint_channels, options))
    except _UNREADABLE as error:
        return bad_sample(key, epoch, _reason(error), options, index)
    return Sample(key, epoch, to_pixels(picture), hint, prompt, None, index)


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "a picture that can not be decoded"  # Pillow's own words hold an address, another one each time
    return f"a picture that can not be decoded ({error})"


def bad_sample(key: str, epoch: int, problem: str, options: ReadOptions, index: int = -1) -> Sample:
    pixels = torch.zeros(3, options.height, options.width)
    control = torch.zeros(options.hint_channels, options.height, options.width)
    return Sample(key, epoch, pixels, control, "", problem, index)


def open_picture(data: bytes, channels: int, options: ReadOptions) -> np.ndarray:
    """Decode, scale to cover height x width, crop at the middle.  # [H, W, C] uint8"""
    with Image.open(io.BytesIO(data)) as file:
        picture = file.convert(_MODES[channels])
    return fit(picture, options.height, options.width)


def fit(picture: Image.Image, height: int, width: int) -> np.ndarray:
    """Scale to cover height x width, crop at the middle; a picture of that size stays as it is.  # [H, W, C] uint8"""
    if picture.size != (width, height):
        scale = max(width / picture.width, height / picture.height)
        size = (max(width, round(picture.width * scale)), max(height, round(picture.height * scale)))
        picture = picture.resize(size, Image.Resampling.LANCZOS)
        left, top = (size[0] - width) // 2, (size[1] - height) // 2
        picture = picture.crop((left, top, left + width, top + height))
    array = np.asarray(picture)
    return array if array.ndim == 3 else array[..., None]


def to_pixels(image: np.ndarray) -> torch.Tensor:
    """[H, W, 3] uint8 -> [3, H, W] float32 in -1..1."""
    return torch.tensor(image.transpose(2, 0, 1), dtype=torch.float32).div_(127.5).sub_(1)


def to_control(image: np.ndarray) -> torch.Tensor:
    """[H, W, C] uint8 -> [C, H, W] float32 in 0..1."""
    return torch.tensor(image.transpose(2, 0, 1), dtype=torch.float32).div_(255)


def make_control(key: str, epoch: int, control: bytes, prompt: str, options: ReadOptions, index: int) -> Sample:
    """As `make_sample`, without the picture: its latents are in a cache."""
    try:
        hint = to_control(open_picture(control, options.hint_channels, options))
    except _UNREADABLE as error:
        return bad_sample(key, epoch, _reason(error), options, index)
    return Sample(key, epoch, torch.empty(0), hint, prompt, None, index)


class BadSamples:
    """Counts what could not be read, each sample once however many epochs, and ends the run when it is too much."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.names: dict[str, str] = {}  # problems by sample, in the order they were met

    def add(self, batch: Batch) -> list[str]:
        """Returns the problems of those that are new; a shard may fail in another way each time."""
        bad = [key for key, weight in zip(batch.keys, batch.weight.tolist(), strict=True) if weight == 0]
        problems = dict(zip(bad, batch.problems, strict=True))
        new = {key: problem for key, problem in problems.items() if key not in self.names}
        self.names |= new
        return list(new.values())

    @property
    def too_many(self) -> bool:
        return len(self.names) > self.limit

    def error(self, kept: Path | None) -> UserError:
        names = "; ".join(list(self.names.values())[-3:])
        checkpoint = f"the last checkpoint is {kept}" if kept else "there is no checkpoint yet"
        return UserError(
            "data",
            f"{len(self.names)} samples that can not be read, the last ones {names}",
            f"at most {self.limit}",
            f"repair them or raise data.max_bad_samples ({checkpoint})",
        )
