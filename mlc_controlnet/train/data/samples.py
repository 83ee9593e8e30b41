"""A sample on its way from a file to a batch.

A sample that cannot be read keeps its place in the batch, with weight zero. So all batches have one size, every process
takes the same number of steps, and the place of a sample in the run does not depend on the bad samples before it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from mlc_controlnet.errors import UserError
from mlc_controlnet.images.annotators import ANNOTATORS
from mlc_controlnet.images.prepare import MODES, prepare_image, to_array, to_mode, upright
from mlc_controlnet.images.read import decode_image
from mlc_controlnet.train.config import TrainConfig

PICTURE, CONTROL_IMAGE = "picture", "control image"  # in error messages
# Files whose sides were rounded, to pixels or to multiples of 8, still fit to each other.
MAX_ASPECT_DIFFERENCE = 0.02


@dataclass(frozen=True)
class ReadOptions:
    """The options that turn a sample's files into tensors.

    Attributes:
        hint_channels: channels of the control image.
        annotator: makes the control image from the picture; None: the sample has a control image.
    """

    height: int
    width: int
    hint_channels: int
    annotator: str | None

    @staticmethod
    def of(config: TrainConfig) -> "ReadOptions":
        """Return the options of a whole run's config."""
        return ReadOptions(config.data.height, config.data.width, config.model.hint_channels, config.data.annotator)


@dataclass(frozen=True)
class Sample:
    """One picture, its control image and its prompt.

    Attributes:
        key: its name in messages; with `epoch`, the seed of all random numbers that belong to it.
        pixels: [3, H, W] float32 in -1..1.
        control: [C, H, W] float32 in 0..1.
        problem: why it cannot be read; then its tensors are zeros.
        index: its row, if the set has rows; the cache finds latents by it.
    """

    key: str
    epoch: int
    pixels: torch.Tensor
    control: torch.Tensor
    prompt: str
    problem: str | None = None
    index: int = -1


@dataclass(frozen=True)
class Batch:
    """Samples, stacked.

    Attributes:
        pixels: [B, 3, H, W] float32 in -1..1.
        control: [B, C, H, W] float32 in 0..1.
        weight: [B] float32, 0 for a sample that cannot be read, else 1.
        problems: `key: reason` of each of those.
        place: the place at which its reader continues after it: worker, epoch and offset; see `ShardStream`.
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
    """Stack samples to a batch."""
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
    """Decode both files and fit them to the size of the run; a bad sample if that is not possible.

    `control` is None if an annotator makes the control image.
    """
    try:
        if options.annotator is not None:
            picture = prepare_image(decode_image(image, PICTURE), options.height, options.width, PICTURE)
            edges = ANNOTATORS[options.annotator](picture.picture)
            hint = to_array(to_mode(edges, MODES[options.hint_channels])[0])
        elif control is None:
            return bad_sample(key, epoch, "no control image", options, index)
        else:
            pair = open_pair(image, control)
            picture = prepare_image(pair[0], options.height, options.width, PICTURE)
            hint = _to_hint(pair[1], options)
    except UserError as error:
        return bad_sample(key, epoch, describe_problem(error), options, index)
    pixels = torch.from_numpy(2 * picture.array[0] - 1)  # [3, H, W] in -1..1
    return Sample(key, epoch, pixels, torch.from_numpy(hint[0]), prompt, None, index)


def make_control(key: str, epoch: int, control: bytes, prompt: str, options: ReadOptions, index: int) -> Sample:
    """Make a sample as `make_sample` does, without the picture: its latents are in a cache."""
    try:
        hint = _to_hint(decode_image(control, CONTROL_IMAGE), options)
    except UserError as error:
        return bad_sample(key, epoch, describe_problem(error), options, index)
    return Sample(key, epoch, torch.empty(0), torch.from_numpy(hint[0]), prompt, None, index)


def bad_sample(key: str, epoch: int, problem: str, options: ReadOptions, index: int = -1) -> Sample:
    """Return a sample of zeros in the place of one that cannot be read."""
    pixels = torch.zeros(3, options.height, options.width)
    control = torch.zeros(options.hint_channels, options.height, options.width)
    return Sample(key, epoch, pixels, control, "", problem, index)


def open_pair(image: bytes, control: bytes) -> tuple[Image.Image, Image.Image]:
    """Decode a picture and its control image, both upright.

    Raises UserError if one of them cannot be decoded, or if their aspect ratios differ: each would be cropped for
    itself, and the model would learn from a control image that is displaced.
    """
    picture = upright(decode_image(image, PICTURE))
    hint = upright(decode_image(control, CONTROL_IMAGE))
    wide, high = picture.width * hint.height, picture.height * hint.width
    if abs(wide - high) > MAX_ASPECT_DIFFERENCE * min(wide, high):
        got = f"{hint.width}x{hint.height} for a picture of {picture.width}x{picture.height}"
        raise UserError(CONTROL_IMAGE, got, "the same aspect ratio", "crop them alike")
    return picture, hint


def describe_problem(error: UserError) -> str:
    """Say on one line why a sample is bad, without a remedy."""
    return f"{error.subject}: {error.got}, wanted {error.wanted}"


def _to_hint(control: Image.Image, options: ReadOptions) -> np.ndarray:
    """float32 [1, C, H, W] in 0..1."""
    return prepare_image(control, options.height, options.width, CONTROL_IMAGE, options.hint_channels).array


class BadSamples:
    """The samples that could not be read. Each counts once, in however many epochs it is met."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.names: dict[str, str] = {}  # problems by sample, in the order they were met

    def add(self, batch: Batch) -> list[str]:
        """Count the bad samples of a batch, and return the problems of the new ones.

        Their keys distinguish them, because the same shard may fail with another message each time.
        """
        bad = [key for key, weight in zip(batch.keys, batch.weight.tolist(), strict=True) if weight == 0]
        problems = dict(zip(bad, batch.problems, strict=True))
        new = {key: problem for key, problem in problems.items() if key not in self.names}
        self.names |= new
        return list(new.values())

    @property
    def too_many(self) -> bool:
        """Whether the run has to end."""
        return len(self.names) > self.limit

    def error(self, kept: Path | None) -> UserError:
        """Return the error that ends the run. `kept` is the last checkpoint."""
        names = "; ".join(list(self.names.values())[-3:])
        checkpoint = f"the last checkpoint is {kept}" if kept else "there is no checkpoint yet"
        return UserError(
            "data",
            f"{len(self.names)} samples that cannot be read, the last ones {names}",
            f"at most {self.limit}",
            f"repair them or raise data.max_bad_samples ({checkpoint})",
        )
