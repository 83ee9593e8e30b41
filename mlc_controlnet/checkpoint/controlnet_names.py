"""Name ControlNets after their files, folders or hub ids: control_v11p_sd15_canny.pth is canny."""

import re
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from mlc_controlnet.checkpoint.weight_file import SUFFIXES
from mlc_controlnet.config import ControlNetOption
from mlc_controlnet.errors import UserError

# What a control image shows, in the words of ControlNet 1.1 (github.com/lllyasviel/ControlNet-v1-1-nightly), and
# `color`, a grid of colours, in those of T2I-Adapter (arXiv 2302.08453).
KINDS = (
    "canny",
    "color",
    "depth",
    "inpaint",
    "ip2p",
    "lineart",
    "lineart_anime",
    "mlsd",
    "normalbae",
    "openpose",
    "scribble",
    "seg",
    "shuffle",
    "softedge",
    "tile",
)
# Other words for them, of the first release, of diffusers' files and of ControlNet++.
_SYNONYMS = {
    "anime_lineart": "lineart_anime",
    "fake_scribble": "scribble",
    "hed": "softedge",
    "normal": "normalbae",
    "pidi": "softedge",
    "pose": "openpose",
    "repaint": "inpaint",
    "segment": "seg",
    "segmentation": "seg",
    "sketch": "scribble",
    "ted": "softedge",
}
# Words of a name that say what the file is, and not what its control images show.
_COMMON = re.compile(
    r"control|controlnet|control-?lora|lora|rank\d+|sd|sd-?\d+s?\d*|v?\d+|v\d+\w{0,3}|xl|stable|diffusion|diffusers|"
    r"fp16|fp32|bf16|ema|pruned|diff|model|pytorch|safetensors|checkpoints?|step|main"
)
_NO_NAME = "controlnet"


def name_controlnets(options: Sequence[ControlNetOption], taken: Sequence[str] = ()) -> list[str]:
    """Return a name for each: its own, or its control type, or one made from its path. Names made are made unique by
    numbers.

    Args:
        taken: the names of other ControlNets of the bundle.

    Raises:
        UserError: two have the same name of their own.
    """
    own = [option.name for option in options if option.name is not None]
    for name in own:
        if (count := [*own, *taken].count(name)) > 1:
            wanted = "a name of its own for each"
            raise UserError("--controlnet", f"{count} named {name}", wanted, "choose another NAME=PATH")
    names: list[str] = []
    for option in options:
        made = unique(option.control_type or short_name(option.path), [*own, *names, *taken])
        names.append(made if option.name is None else option.name)
    return names


def short_name(path: str) -> str:
    """Return what a path or a hub id says of the kind of ControlNet: depth for lllyasviel/sd-controlnet-depth.

    A name that says nothing, such as diffusion_pytorch_model.safetensors, leaves the word to its folder.
    """
    parts = PurePosixPath(path.replace("\\", "/").split("@")[0]).parts
    for part in reversed(parts[-3:]):
        stem = re.sub(rf"({'|'.join(map(re.escape, SUFFIXES))})$", "", part)
        words = (re.sub(r"v\d+$", "", word) for word in re.split(r"[^a-z0-9]+", stem.lower()))
        if told := [word for word in words if word and not _COMMON.fullmatch(word)]:
            return "_".join(told)
    return _NO_NAME


def kind_of_control(name: str) -> str:
    """Return the one of KINDS that a ControlNet's name tells; empty if it tells none."""
    words = re.split(r"[_-]", name.lower())
    phrases = ("_".join(words[i:j]) for i in range(len(words)) for j in range(len(words), i, -1))
    return next(filter(None, map(kind_of_word, phrases)), "")


def kind_of_word(word: str) -> str:
    """Return the one of KINDS that a word means; empty if it means none."""
    kind = _SYNONYMS.get(word, word)
    return kind if kind in KINDS else ""


def unique(name: str, taken: Iterable[str]) -> str:
    """Return `name`, with a number after it if it is taken: canny_2."""
    others, number, free = set(taken), 1, name
    while free in others:
        number += 1
        free = f"{name}_{number}"
    return free
