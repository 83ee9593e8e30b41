"""Merge LoRA files into the weights when a model is loaded (arXiv 2106.09685, eq. 3):

    W' = W + weight * alpha / r * up @ down        up [out, r], down [r, in]

A convolution's factors are down [r, in, 3, 3] and up [out, r, 1, 1]: the same product on the flattened kernel.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from mlc_controlnet.checkpoint.ldm_names import original_unet_module
from mlc_controlnet.checkpoint.loaded import some
from mlc_controlnet.checkpoint.locate import find_weights
from mlc_controlnet.checkpoint.weight_file import WeightFile, read_weights
from mlc_controlnet.config import LoraOption
from mlc_controlnet.errors import UserError

TRAINED_PARTS = ("text_encoder", "unet")
# The name of a factor -> its role: kohya's names, peft's, and those of older versions of diffusers.
_ROLES = {
    "lora_down": "down",
    "lora_up": "up",
    "lora_A": "down",
    "lora_B": "up",
    "lora.down": "down",
    "lora.up": "up",
    "lora_linear_layer.down": "down",
    "lora_linear_layer.up": "up",
}
# Old attention processors join the projection's name and the factor's: `to_q_lora.down`. peft may put the adapter's
# name after the factor's: `lora_A.default`.
_ENDING = re.compile(
    rf"(?P<layer>.+?)[._](?P<factor>{'|'.join(map(re.escape, _ROLES))})(\.(?!weight)\w+)?\.weight|(?P<alpha>.+)\.alpha"
)
# The names that older versions of diffusers gave the projections of CLIP's attention.
_OLD_PROJECTIONS = {"q_proj": "to_q", "k_proj": "to_k", "v_proj": "to_v", "out_proj": "to_out"}
_ADAPTER_METADATA = "lora_adapter_metadata"  # diffusers' copy of peft's configuration


@dataclass(frozen=True)
class LowRank:
    """One layer's update: `scale` * up @ down, where scale is weight * alpha / r."""

    down: torch.Tensor
    up: torch.Tensor
    scale: float

    def added_to(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the merged weight in float32, of the shape of `weight`."""
        update = self.up.float().flatten(1) @ self.down.float().flatten(1)  # [out, in * kernel]
        return torch.add(weight.float(), update.reshape(weight.shape), alpha=self.scale)


Updates = Mapping[str, Sequence[LowRank]]


def read_loras(loras: Sequence[LoraOption], modules: Mapping[str, nn.Module]) -> dict[str, list[LowRank]]:
    """Read the updates of all files, by the checkpoint's tensor names `unet.<...>.weight`.

    Args:
        modules: the parts of TRAINED_PARTS, on any device: only their names and shapes are read.

    Raises:
        UserError: a file is damaged, is not a LoRA, or was trained for another base model.
    """
    layers = {alias: layer for layer in _layers(modules) for alias in layer.aliases}
    updates: dict[str, list[LowRank]] = {}
    for lora in loras:
        file = read_weights(find_weights(lora.file, "--lora"))
        for layer, update in _read(file, lora.weight, layers):
            updates.setdefault(layer.tensor_name, []).append(update)
    return updates


@dataclass(frozen=True)
class _Layer:
    part: str
    name: str  # of the module in its part
    original: str  # its name in the original code, the same as `name` in the text encoder
    shape: tuple[int, ...]  # of its weight

    @property
    def tensor_name(self) -> str:
        return f"{self.part}.{self.name}.weight"

    @property
    def aliases(self) -> tuple[str, ...]:
        """List the names of this layer in LoRA files, without the ending that names the factor.

        The names without a part's prefix are those of files that change only the UNet.
        """
        flat = self.name.replace(".", "_")
        if self.part == "text_encoder":
            names = [self.name]
            attention, _, projection = self.name.rpartition(".")
            if projection in _OLD_PROJECTIONS:
                names.append(f"{attention}.{_OLD_PROJECTIONS[projection]}")
            prefixes = ("text_encoder.text_model.", "text_encoder.", "base_model.model.text_model.")
            return (f"lora_te_text_model_{flat}", *(prefix + name for name in names for prefix in prefixes))
        names = [self.name]
        attention, _, projection = self.name.removesuffix(".0").rpartition(".")
        if attention.endswith(("attn1", "attn2")):
            names.append(f"{attention}.processor.{projection}")
        prefixes = ("unet.", "base_model.model.", "")
        flat_original = self.original.replace(".", "_")
        return (
            *(f"lora_unet_{name}" for name in dict.fromkeys((flat, flat_original))),
            *(prefix + name for name in names for prefix in prefixes),
        )


def _layers(modules: Mapping[str, nn.Module]) -> Iterator[_Layer]:
    for part in TRAINED_PARTS:
        module = modules[part]
        names = [name for name, _ in module.named_modules()]
        with_attention = {name.removesuffix(".attentions") for name in names if name.endswith(".attentions")}
        for name, layer in module.named_modules():
            if not isinstance(layer, nn.Linear | nn.Conv2d):
                continue
            original = name
            if part == "unet":
                block = ".".join(name.split(".")[:2])
                original = original_unet_module(name, module.config.layers_per_block, block in with_attention)
            yield _Layer(part, name, original, tuple(layer.weight.shape))


def _read(file: WeightFile, weight: float, layers: Mapping[str, _Layer]) -> Iterator[tuple[_Layer, LowRank]]:
    factors: dict[str, dict[str, torch.Tensor]] = {}
    unknown: list[str] = []
    for key, tensor in file.tensors.items():
        match = _ENDING.fullmatch(key)
        alias = "" if match is None else match["layer"] or match["alpha"]
        if match is not None and alias in layers:
            factors.setdefault(alias, {})["alpha" if match["alpha"] else _ROLES[match["factor"]]] = tensor
        else:
            unknown.append(key)
    if unknown or not factors:
        raise UserError(
            f"--lora {file.path}",
            f"{some(unknown)} for which this model has no layer{_trained_for(file)}",
            "a LoRA of this base model, with up and down factors",
            "take a LoRA that was trained for this base model; LoHa, LoKr and DoRA are not supported",
        )
    for alias, tensors in factors.items():
        yield layers[alias], _low_rank(file, weight, layers[alias], tensors)


def _low_rank(file: WeightFile, weight: float, layer: _Layer, factors: Mapping[str, torch.Tensor]) -> LowRank:
    subject = f"--lora {file.path}: {layer.tensor_name}"
    if not {"down", "up"} <= factors.keys():
        raise UserError(subject, f"{', '.join(sorted(factors))} only", "up and down", "copy or download it again")
    down, up = factors["down"], factors["up"]
    rows = layer.shape[0]
    columns = math.prod(layer.shape[1:])
    rank = down.shape[0] if down.ndim else 0
    if up.ndim < 2 or down.ndim < 2 or (_flat(up), _flat(down)) != ((rows, rank), (rank, columns)):
        raise UserError(
            subject,
            f"up {list(up.shape)} and down {list(down.shape)}{_trained_for(file)}",
            f"[{rows}, r] and [r, {columns}] for a weight of {list(layer.shape)}",
            "take a LoRA that was trained for this base model",
        )
    for name, tensor in factors.items():
        if not torch.isfinite(tensor.float()).all():
            raise UserError(f"{subject}: {name}", "NaN or infinity", "finite numbers", "copy or download it again")
    alpha = float(factors["alpha"]) if "alpha" in factors else _alpha_in_header(file, layer, rank)
    return LowRank(down, up, weight * alpha / rank)


def _flat(tensor: torch.Tensor) -> tuple[int, int]:
    return tensor.shape[0], tensor[0].numel()


def _alpha_in_header(file: WeightFile, layer: _Layer, rank: int) -> float:
    """Read the alpha that peft keeps in the header. A file without it means alpha = r, so only the weight scales."""
    if _ADAPTER_METADATA not in file.metadata:
        return float(rank)
    try:
        stated = json.loads(file.metadata[_ADAPTER_METADATA])
    except ValueError as error:
        raise UserError(f"--lora {file.path}", f"no JSON in its header ({error})", "JSON", "save it again") from error
    if stated.get(f"{layer.part}.use_rslora") or stated.get(f"{layer.part}.use_dora"):
        raise UserError(f"--lora {file.path}", "rank-stabilised LoRA or DoRA", "plain LoRA", "merge it with peft first")
    pattern = stated.get(f"{layer.part}.alpha_pattern") or {}
    return float(pattern.get(layer.name, stated.get(f"{layer.part}.lora_alpha", rank)))


def _trained_for(file: WeightFile) -> str:
    base = file.metadata.get("ss_base_model_version") or file.metadata.get("modelspec.architecture")
    return f" (its header says: trained for {base})" if base else ""
