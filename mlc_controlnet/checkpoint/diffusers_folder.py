"""A folder in diffusers' layout: `model_index.json` and a subfolder per part with its `config.json` and weights."""

import itertools
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from mlc_controlnet.checkpoint.defaults import read_recommended
from mlc_controlnet.checkpoint.json_file import read_json
from mlc_controlnet.checkpoint.modules import with_defaults
from mlc_controlnet.checkpoint.options import check_class
from mlc_controlnet.checkpoint.sharded import is_index, missing_shards, read_shards
from mlc_controlnet.checkpoint.source import ModelSource, PartSource
from mlc_controlnet.checkpoint.text_encoders import REFINER, is_xl, without_last_layer
from mlc_controlnet.checkpoint.tokenizer import read_tokenizer_folder
from mlc_controlnet.checkpoint.weight_file import read_weights
from mlc_controlnet.components import TEXT_ENCODER, TEXT_ENCODER_2, TEXT_ENCODERS, numbered
from mlc_controlnet.errors import UserError, print_notice

_STEMS = dict.fromkeys(TEXT_ENCODERS, ("model", "pytorch_model"))
_STEM = ("diffusion_pytorch_model",)
_ENDINGS = (
    ".safetensors",
    ".safetensors.index.json",
    ".fp16.safetensors",
    ".safetensors.index.fp16.json",
    ".bin",
    ".bin.index.json",
    ".fp16.bin",
    ".bin.index.fp16.json",
)
# The names of the VAE's attention in diffusers before version 0.18. Stable Diffusion 1.5's own files still have them.
_OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def weight_files(part: str) -> tuple[str, ...]:
    """Return the names that a part's weights may have in its folder, the preferred ones first.

    An index stands for its shards.
    """
    return tuple(stem + ending for ending in _ENDINGS for stem in _STEMS.get(part, _STEM))


def read_model_folder(folder: Path, tokenizer: Path | None = None) -> ModelSource:
    """Read every configuration of the model in `folder`. Its weights are read later, on demand.

    Args:
        tokenizer: a folder with the tokenizer; None: the model's own.

    Raises:
        UserError: a configuration is missing, is not JSON, or is of a class that a build does not accept, or a
            recommended setting is not a number.
    """
    index = read_json(folder / "model_index.json") if (folder / "model_index.json").is_file() else {}
    unet = read_part_folder(folder / "unet", "unet")
    two = is_xl(unet.config)
    if two and not (folder / TEXT_ENCODER / "config.json").is_file():
        wanted = "Stable Diffusion XL's base model, which has two text encoders"
        raise UserError(f"model {folder}", f"one without {TEXT_ENCODER}: {REFINER}", wanted, "pass the base model")
    first = read_part_folder(folder / TEXT_ENCODER, TEXT_ENCODER)
    parts = {TEXT_ENCODER: without_last_layer(first) if two else first}
    if two:
        parts[TEXT_ENCODER_2] = read_part_folder(folder / TEXT_ENCODER_2, TEXT_ENCODER_2)
    parts |= {"unet": unet, "vae": read_part_folder(folder / "vae", "vae")}
    for i, own in enumerate(controlnet_folders(folder)):
        parts[numbered("controlnet", i + 1)] = read_part_folder(own, "controlnet")
    second = folder / "tokenizer_2"
    return ModelSource(
        name=folder.name,
        parts=parts,
        scheduler_config=read_json(folder / "scheduler" / "scheduler_config.json"),
        read_tokenizer=partial(read_tokenizer_folder, folder / "tokenizer" if tokenizer is None else tokenizer),
        recommended=read_recommended(folder),
        read_tokenizer_2=partial(read_tokenizer_folder, second if tokenizer is None else tokenizer) if two else None,
        zeros_for_empty_prompt=two and bool(index.get("force_zeros_for_empty_prompt", True)),
    )


def controlnet_folders(folder: Path) -> list[Path]:
    """List the folders of a model's own ControlNets: controlnet, controlnet_1, ..., as diffusers saves several."""
    names = itertools.chain(["controlnet"], (f"controlnet_{i}" for i in itertools.count(1)))
    return list(itertools.takewhile(lambda own: (own / "config.json").is_file(), (folder / name for name in names)))


def read_part_folder(folder: Path, part: str, weights: Path | None = None) -> PartSource:
    """Read one part's configuration. `folder` holds its config.json and its weights.

    Args:
        weights: the file of the weights; None: the preferred one in `folder`.

    Raises:
        UserError: the configuration is missing, is not JSON, or is of a class that a build does not accept.
    """
    stated = read_json(folder / "config.json")
    check_class(part, stated, str(folder))
    config = with_defaults(part, stated, str(folder))
    return PartSource(str(folder), config, partial(_read_part, folder, part, config, weights))


def _read_part(
    folder: Path, part: str, config: Mapping[str, Any], weights: Path | None = None
) -> dict[str, torch.Tensor]:
    names = weight_files(part)
    found = _first_whole([folder / name for name in names if (folder / name).is_file()]) if weights is None else weights
    if found is None:
        single = ", ".join(name for name in names if not is_index(name))
        raise UserError(str(folder), "no weights", f"one of {single}", "save or download the model again")
    stored = read_shards(found) if is_index(found.name) else read_weights(found).tensors
    named = modern_names(stored, part)
    return _layers_read(named, config["num_hidden_layers"], folder) if part in TEXT_ENCODERS else named


def _first_whole(files: Sequence[Path]) -> Path | None:
    """Return the first file of weights, but no index without its shards if there is another file.

    Whoever downloads the configurations and one form of the weights gets the indices of all forms.
    """
    for file in files:
        if not is_index(file.name) or not missing_shards(file):
            if file != files[0]:
                print_notice(f"{files[0]}: not all of its shards are there, so {file.name} is read")
            return file
    return files[0] if files else None


def _layers_read(weights: dict[str, torch.Tensor], read: int, folder: Path) -> dict[str, torch.Tensor]:
    """Drop the layers after `num_hidden_layers`: to lower that number is how a folder asks for CLIP skip."""
    layers = {key: int(match[1]) for key in weights if (match := re.match(r"encoder\.layers\.(\d+)\.", key))}
    stored = 1 + max(layers.values(), default=-1)
    if stored > read:
        print_notice(
            f"{folder}: num_hidden_layers is {read}, so the last {stored - read} of {stored} layers are left out"
        )
    return {key: tensor for key, tensor in weights.items() if layers.get(key, -1) < read}


def modern_names(weights: dict[str, torch.Tensor], part: str) -> dict[str, torch.Tensor]:
    """Give tensors of older diffusers and transformers today's names, and drop tensors that are not weights."""
    if part in TEXT_ENCODERS:
        # transformers before version 5 had one more module around the encoder, and stored the positions 0, 1, 2, ...
        renamed = {key.removeprefix("text_model."): tensor for key, tensor in weights.items()}
        renamed.pop("embeddings.position_ids", None)
        return renamed
    if part == "vae":
        return {_modern_vae_name(key): tensor for key, tensor in weights.items()}
    return weights


def _modern_vae_name(key: str) -> str:
    module, _, leaf = key.rpartition(".")
    owner, _, last = module.rpartition(".")
    if ".attentions." in module and last in _OLD_ATTENTION:
        return f"{owner}.{_OLD_ATTENTION[last]}.{leaf}"
    return key
