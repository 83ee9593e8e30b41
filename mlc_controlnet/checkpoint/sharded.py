"""Weights in shards: an index, `NAME.safetensors.index.json` or `NAME.bin.index.json`, and the files that it names."""

from pathlib import Path, PurePosixPath

import torch

from mlc_controlnet.checkpoint.json_file import read_json
from mlc_controlnet.checkpoint.weight_file import read_weights, without_wrappers
from mlc_controlnet.errors import UserError


def is_index(name: str) -> bool:
    """Return whether a file is an index of sharded weights, by its name."""
    return ".index." in name


def read_shard_names(index: Path) -> list[str]:
    """Return the file names of the shards, each once, in the index's order.

    Raises:
        UserError: the index has no weight_map, or names a file outside its folder.
    """
    return list(dict.fromkeys(_weight_map(index).values()))


def missing_shards(index: Path) -> list[str]:
    """Return the names of the shards that are not beside their index."""
    return [name for name in read_shard_names(index) if not (index.parent / name).is_file()]


def read_shards(index: Path) -> dict[str, torch.Tensor]:
    """Read all tensors that the index lists.

    Raises:
        UserError: a shard is missing or damaged, or does not hold a tensor that the index expects in it.
    """
    names = read_shard_names(index)
    if missing := missing_shards(index):
        got = f"{len(names) - len(missing)} of {len(names)} shards, without {', '.join(missing)}"
        raise UserError(str(index), got, "every shard that it lists", "copy or download the missing files")
    shards = {name: read_weights(index.parent / name).tensors for name in names}
    tensors: dict[str, torch.Tensor] = {}
    for key, name in without_wrappers(_weight_map(index)).items():  # the shards are read without them too
        if key not in shards[name]:
            raise UserError(str(index.parent / name), f"no tensor {key}", "what the index lists", "download it again")
        tensors[key] = shards[name][key]
    return tensors


def _weight_map(index: Path) -> dict[str, str]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise UserError(str(index), "no weight_map", "an index of shards", "copy or download it again")
    for name in weight_map.values():
        if not isinstance(name, str) or PurePosixPath(name).name != name or "\\" in name:
            raise UserError(
                str(index), f"a shard {name!r}", "the name of a file in the same folder", "download it again"
            )
    return weight_map
