"""An independent judge: a small classifier that says which thing a picture shows.

It never sees what the model draws. It is trained on the artworks, also on those of the things that the model does not
know, but not on the artworks that are judged.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

from mlc_controlnet.files import whole_folder
from mlc_controlnet.train.circles.loop import Checkpointing, LoopConfig, train
from mlc_controlnet.train.doodle.artworks import ArtworkSet
from mlc_controlnet.train.doodle.pictures import Pictures, to_tensor

SIDE = 64  # pixels: half of a picture's side
_WIDTHS = (32, 64, 128, 256)
_SMOOTHING = 0.1


@dataclass(frozen=True)
class Retrieval:
    """How often the right thing is the first, or one of the first five, among the things that are judged. 0..1."""

    top1: float
    top5: float

    def __str__(self) -> str:
        return f"top-1 {self.top1:.1%}, top-5 {self.top5:.1%}"


class Judge(nn.Module):
    """Convolutions that halve the sides, and the mean over the rest.

    Args:
        things: the names that it can tell apart.
    """

    def __init__(self, things: Sequence[str]) -> None:
        super().__init__()
        self.things = list(things)
        layers: list[nn.Module] = []
        for before, width in zip((3, *_WIDTHS), _WIDTHS, strict=False):
            layers += [nn.Conv2d(before, width, 3, stride=2, padding=1), nn.GroupNorm(8, width), nn.SiLU()]
            layers += [nn.Conv2d(width, width, 3, padding=1), nn.GroupNorm(8, width), nn.SiLU()]
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(_WIDTHS[-1], len(self.things))

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """[B, 3, H, W] in 0..1 -> logits [B, things]."""
        small = F.interpolate(pictures, size=(SIDE, SIDE), mode="area")
        logits: torch.Tensor = self.head(self.layers(2 * small - 1).mean((2, 3)))
        return logits

    @torch.no_grad()
    def retrieve(self, pictures: Sequence[np.ndarray], things: Sequence[str]) -> Retrieval:
        """Judge pictures ([H, W, 3] uint8) of `things`, one each, among these things."""
        places = [self.things.index(thing) for thing in things]
        logits = torch.cat([self(to_tensor(picture[None]))[:, places] for picture in pictures])  # [N, N]
        ranks = (logits > logits.diagonal()[:, None]).sum(1)
        return Retrieval((ranks < 1).double().mean().item(), (ranks < 5).double().mean().item())


def train_judge(
    folder: Path,
    artworks: ArtworkSet,
    judged: Sequence[int],
    loop: LoopConfig,
    batch: int,
    checkpointing: Checkpointing,
    log: Callable[[str], None] = print,
) -> Judge:
    """Return the judge in `folder`, trained first if it is not there yet.

    Args:
        judged: rows of artworks that it must not see.
        batch: pictures of a step.
    """
    things = list(artworks.things())
    torch.manual_seed(checkpointing.seed)
    judge = Judge(things)
    if (folder / "judge.safetensors").is_file():
        judge.load_state_dict(load_file(folder / "judge.safetensors"))
        return judge.eval()
    hidden = set(judged)
    rows = [row for row in range(len(artworks.artworks)) if row not in hidden]
    pictures = Pictures(artworks, rows, variants=64, seed=checkpointing.seed + 1)
    place_of = {thing: place for place, thing in enumerate(things)}

    def loss_of_step(step: int) -> torch.Tensor:
        numbers = torch.randint(len(pictures), (batch,)).tolist()
        drawn = to_tensor(np.stack([pictures.draw(number).pixels for number in numbers]))
        wanted = torch.tensor([place_of[pictures.describe(number)[1].thing] for number in numbers])
        return F.cross_entropy(judge(drawn), wanted, label_smoothing=_SMOOTHING)

    judge.train()
    train("judge", judge.parameters(), loss_of_step, loop, log, checkpointing)
    with whole_folder(folder) as partial:
        save_file(judge.state_dict(), partial / "judge.safetensors")
    return judge.eval()
