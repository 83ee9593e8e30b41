"""Merge LoRA, LoHa, LoKr and DoRA files into the weights when a model is loaded (formulas in `weight_update`).

The files are merged in the order of the command line, each into the result of those before it.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from mlc_controlnet.checkpoint.json_file import read_json
from mlc_controlnet.checkpoint.loaded import some
from mlc_controlnet.checkpoint.locate import ADAPTER_CONFIG, ADAPTER_STEM, find_lora
from mlc_controlnet.checkpoint.lora_factors import (
    ALPHA,
    DORA_SCALE,
    DORA_VECTOR,
    LORA_KINDS,
    read_difference,
    split_key,
)
from mlc_controlnet.checkpoint.lora_layers import Layer, layers_of
from mlc_controlnet.checkpoint.weight_file import WeightFile, read_weights
from mlc_controlnet.checkpoint.weight_update import Magnitude, WeightUpdate
from mlc_controlnet.components import TEXT_ENCODERS
from mlc_controlnet.config import LoraOption
from mlc_controlnet.errors import UserError

_ADAPTER_METADATA = "lora_adapter_metadata"  # diffusers' copy of peft's configuration
_TEXT_LAYER = re.compile(r"(?P<before>.*encoder[._]layers[._])(?P<number>\d+)(?P<after>[._].+)")
_OTHER_MODEL = "take a LoRA that was trained for this base model"


def read_loras(loras: Sequence[LoraOption], modules: Mapping[str, nn.Module]) -> dict[str, list[WeightUpdate]]:
    """Read the updates of all files, by the checkpoint's tensor names `unet.<...>.weight`.

    Args:
        modules: the model's parts of LORA_PARTS, on any device: only their names and shapes are read.

    Raises:
        UserError: a file is damaged, is not a LoRA, or was trained for another base model.
    """
    layers = {alias: layer for layer in layers_of(modules) for alias in layer.aliases}
    read = {part: module.config.num_hidden_layers for part, module in modules.items() if part in TEXT_ENCODERS}
    updates: dict[str, list[WeightUpdate]] = {}
    for lora in loras:
        file = read_weights(find_lora(lora.file))
        for layer, update in _read(file, lora, layers, read):
            if update.weight != 0:
                updates.setdefault(layer.tensor_name, []).append(update)
    return updates


def _read(
    file: WeightFile, lora: LoraOption, layers: Mapping[str, Layer], read: Mapping[str, int]
) -> Iterator[tuple[Layer, WeightUpdate]]:
    """Yield the updates of a file.

    Args:
        layers: by the names that they have in files.
        read: text encoder -> how many of its layers the model reads.
    """
    tensors: dict[str, dict[str, torch.Tensor]] = {}
    unknown: list[str] = []
    for key, tensor in file.tensors.items():
        alias, role = split_key(key) or ("", "")
        if alias in layers:
            tensors.setdefault(alias, {})[role] = tensor
        elif not _is_of_unread_layer(alias, layers, read):
            unknown.append(key)
    if unknown or not tensors:
        raise UserError(
            f"--lora {file.path}",
            f"{some(unknown)} for which this model has no layer{_trained_for(file)}",
            f"the factors of a {LORA_KINDS} of this base model",
            f"{_OTHER_MODEL}; other kinds, such as OFT, (IA)^3 and full differences, are not supported",
        )
    stated = _stated(file)
    for alias, of_layer in tensors.items():
        yield layers[alias], _update(file, stated, lora.weight_of(layers[alias].part), layers[alias], of_layer)


def _is_of_unread_layer(alias: str, layers: Mapping[str, Layer], read: Mapping[str, int]) -> bool:
    """Return whether a name is of a text encoder's layer behind those that the model reads.

    Trainers give every layer its factors, also the last one of Stable Diffusion XL's first encoder.
    """
    match = _TEXT_LAYER.fullmatch(alias)
    first = None if match is None else layers.get(f"{match['before']}0{match['after']}")
    return match is not None and first is not None and int(match["number"]) >= read.get(first.part, math.inf)


def _update(
    file: WeightFile, stated: Mapping[str, Any], weight: float, layer: Layer, tensors: dict[str, torch.Tensor]
) -> WeightUpdate:
    subject = f"--lora {file.path}: {layer.tensor_name}"
    for role, tensor in tensors.items():
        if not torch.isfinite(tensor.float()).all():
            raise UserError(f"{subject}: {role}", "NaN or infinity", "finite numbers", "copy or download it again")
    factors = {role: tensor for role, tensor in tensors.items() if role not in (ALPHA, DORA_SCALE, DORA_VECTOR)}
    rows, columns = layer.shape[0], math.prod(layer.shape[1:])
    if any(tensor.ndim < 2 for tensor in factors.values()):
        raise _misfit(file, layer, factors, subject)
    difference, rank = read_difference(factors, subject)
    if difference.shape != (rows, columns) or rank == 0:
        raise _misfit(file, layer, factors, subject)
    alpha = tensors.get(ALPHA)
    if alpha is not None and alpha.numel() != 1:
        raise UserError(f"{subject}: alpha", f"{alpha.numel()} numbers", "one", "copy or download it again")
    scale = _stated_scale(stated, layer, rank) if alpha is None else 1.0 if rank is None else alpha.item() / rank
    return WeightUpdate(difference, scale, weight, _magnitude(tensors, layer, subject))


def _misfit(file: WeightFile, layer: Layer, factors: Mapping[str, torch.Tensor], subject: str) -> UserError:
    rows, columns = layer.shape[0], math.prod(layer.shape[1:])
    is_plain = factors.keys() == {"up", "down"}
    return UserError(
        subject,
        " and ".join(f"{role} {list(factors[role].shape)}" for role in sorted(factors, reverse=is_plain))
        + _trained_for(file),
        (f"[{rows}, r] and [r, {columns}]" if is_plain else "factors") + f" for a weight of {list(layer.shape)}",
        _OTHER_MODEL,
    )


def _stated_scale(stated: Mapping[str, Any], layer: Layer, rank: int | None) -> float:
    """Return alpha / r of peft's configuration. A file without it means alpha = r, so only the weight scales."""
    part = {key.removeprefix(f"{layer.part}."): value for key, value in stated.items()}
    alpha = _of_layer(part.get("alpha_pattern"), layer, part.get("lora_alpha", part.get("alpha")))
    if rank is None:  # peft scales a LoKr of two whole matrices too
        rank = _of_layer(part.get("rank_pattern"), layer, part.get("r"))
    if alpha is None or rank is None:
        return 1.0
    return float(alpha) / (math.sqrt(rank) if part.get("use_rslora") else rank)


def _of_layer(pattern: Mapping[str, Any] | None, layer: Layer, default: Any) -> Any:
    """Look a layer up in peft's table, whose keys are regular expressions of a name's end."""
    for key, value in (pattern or {}).items():
        if any(re.fullmatch(rf"(.*\.)?({key})", name) for name in (layer.name, f"text_model.{layer.name}")):
            return value
    return default


def _magnitude(tensors: Mapping[str, torch.Tensor], layer: Layer, subject: str) -> Magnitude | None:
    """Read DoRA's norms: of each output, or of each input as LyCORIS and kohya's trainer also write them.

    The shape says which: [out, 1, ...] or [1, in, ...]. peft has them of the outputs alone, a convolution's as
    [1, out, 1, 1], and diffusers writes these under kohya's name as well.
    """
    role = DORA_VECTOR if DORA_VECTOR in tensors else DORA_SCALE
    if role not in tensors:
        return None
    norms = tensors[role]
    outputs, inputs = layer.shape[:2]
    shape = [*norms.shape, 1, 1][: max(norms.ndim, 2)]
    of_inputs = [1, inputs, *([1] * (len(shape) - 2))]
    if role == DORA_SCALE and shape == of_inputs:
        return Magnitude(norms.flatten(), axis=1)
    if norms.numel() == outputs == max(shape):
        return Magnitude(norms.flatten(), axis=0)
    raise UserError(
        f"{subject}: {role}", str(list(norms.shape)), f"[{outputs}, 1] or [1, {inputs}], one norm each", _OTHER_MODEL
    )


def _stated(file: WeightFile) -> Mapping[str, Any]:
    """Read peft's configuration: in the header, where each option has its part's name before it, or beside the file."""
    if _ADAPTER_METADATA not in file.metadata:
        beside = file.path.with_name(ADAPTER_CONFIG)
        return read_json(beside) if file.path.stem == ADAPTER_STEM and beside.is_file() else {}
    try:
        stated = json.loads(file.metadata[_ADAPTER_METADATA])
    except ValueError as error:
        raise UserError(f"--lora {file.path}", f"no JSON in its header ({error})", "JSON", "save it again") from error
    if not isinstance(stated, dict):
        raise UserError(f"--lora {file.path}", "no options in its header", "peft's configuration", "save it again")
    return stated


def _trained_for(file: WeightFile) -> str:
    base = file.metadata.get("ss_base_model_version") or file.metadata.get("modelspec.architecture")
    return f" (its header says: trained for {base})" if base else ""
