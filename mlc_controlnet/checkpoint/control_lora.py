"""Read a Control-LoRA: a ControlNet as its difference from the encoder of a UNet, in a fifth of the bytes.

    weight = the UNet's weight + up @ down      the rank is that of the shapes, and there is no alpha

Stability AI's and comfyanonymous' files hold these two factors for most layers under the names of the original code,
other tensors whole, and an empty tensor `lora_controlnet`. What a file does not hold is the UNet's own.

The UNet is the base model's as its file has it, without the LoRAs of the build, as in diffusers. (ComfyUI takes the
UNet that it has in memory, which may have LoRAs in it.)
"""

import inspect
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from diffusers import ControlNetModel

from mlc_controlnet.checkpoint.ldm_config import Shapes
from mlc_controlnet.checkpoint.ldm_names import original_controlnet_module
from mlc_controlnet.checkpoint.loaded import some
from mlc_controlnet.checkpoint.modules import build_empty
from mlc_controlnet.checkpoint.source import PartSource
from mlc_controlnet.checkpoint.weight_file import WeightFile
from mlc_controlnet.checkpoint.weight_update import Product, Updates, WeightUpdate, Whole
from mlc_controlnet.errors import UserError

_MARK = "lora_controlnet"
_CONV_IN = "input_blocks.0.0"
_REMEDY = "take a Control-LoRA that was made for this base model"


def is_control_lora(file: WeightFile) -> bool:
    """Return whether the file is marked as a Control-LoRA, or holds a ControlNet's hint layers and factors."""
    has_factors = any(key.endswith(".down") for key in file.tensors)
    return _MARK in file.tensors or (has_factors and "input_hint_block.0.weight" in file.tensors)


def read_control_lora(file: WeightFile, unet: PartSource | None, pools: bool) -> PartSource:
    """Return the ControlNet that the file makes of `unet`. Its weights are merged one at a time, as they are loaded.

    Args:
        unet: the base model's; None if there is none.
        pools: its `global_pool_conditions`.

    Raises:
        UserError: there is no base, or the file was made for another one.
    """
    where = str(file.path)
    if unet is None:
        raise UserError(
            f"controlnet {where}",
            "a Control-LoRA, which is a difference from a UNet",
            "a whole ControlNet, or a base model",
            "pass its base in --model",
        )
    tensors = {key: tensor for key, tensor in file.tensors.items() if key != _MARK}
    _check_factors(tensors, unet, where)
    config = _config(tensors, unet, where, pools)
    module = build_empty(PartSource(where, config, dict), "controlnet")
    whole, updates = _sort(tensors, module, where)
    names = [name for name, _ in module.named_parameters()]
    return PartSource(where, config, partial(_read, whole, names, config["in_channels"], unet), updates)


def control_lora_products(parts: Mapping[str, PartSource], updates: Updates) -> dict[str, dict[str, Product]]:
    """Return the products of the ControlNets that are Control-LoRAs, by part and key, as a bundle can store them.

    A product that float16 does not hold is left out, and so is one whose weight of the UNet has an update: the bundle's
    UNet then has another weight than the Control-LoRA differs from.

    Args:
        updates: of the LoRAs of the build.
    """
    products: dict[str, dict[str, Product]] = {}
    for part, source in parts.items():
        for key, (*_, update) in source.updates.items():
            product = update.difference
            if isinstance(product, Product) and f"unet.{key}" not in updates and _fits_float16(product):
                products.setdefault(part, {})[key] = product
    return products


def _fits_float16(product: Product) -> bool:
    return all(bool(factor.half().isfinite().all()) for factor in (product.left, product.right))


def _check_factors(tensors: Mapping[str, torch.Tensor], unet: PartSource, where: str) -> None:
    """Check that factors are matrices, and name the most frequent mistake: a file for a base of another text width."""
    wanted = unet.config.get("cross_attention_dim")
    for key, tensor in tensors.items():
        if key.endswith((".up", ".down")) and tensor.ndim < 2:
            raise UserError(f"controlnet {where}: {key}", f"{tensor.ndim} axes", "at least 2", "download it again")
        if key.endswith("attn2.to_k.down") and tensor.shape[1] != wanted:
            got = f"text width {tensor.shape[1]}"
            raise UserError(f"controlnet {where}", got, f"{wanted}, as the base model has", _REMEDY)


def _config(tensors: Mapping[str, torch.Tensor], unet: PartSource, where: str, pools: bool) -> dict[str, Any]:
    """Return the UNet's configuration with what the file decides: its inputs and the layers of the control image."""
    shapes = Shapes(tensors, "", where)
    options = inspect.signature(ControlNetModel.__init__).parameters
    levels = shapes.count("input_hint_block.") // 2  # two layers each
    if f"{_CONV_IN}.down" in tensors:
        kernel = unet.config.get("conv_in_kernel", 3)
        channels = Whole(tensors[f"{_CONV_IN}.down"]).shape[1] // kernel**2
    elif shapes.has(f"{_CONV_IN}.weight"):
        channels = shapes.size(f"{_CONV_IN}.weight", 1)
    else:
        channels = unet.config.get("out_channels", 4)  # the latents'
    return {
        **{option: value for option, value in unet.config.items() if option in options},
        "in_channels": channels,
        "conditioning_channels": shapes.size("input_hint_block.0.weight", 1),
        "conditioning_embedding_out_channels": [
            shapes.size(f"input_hint_block.{4 * level}.weight", 0) for level in range(levels)
        ],
        "controlnet_conditioning_channel_order": "rgb",
        "global_pool_conditions": pools,
    }


def _sort(
    tensors: Mapping[str, torch.Tensor], module: ControlNetModel, where: str
) -> tuple[dict[str, torch.Tensor], dict[str, list[WeightUpdate]]]:
    """Return the tensors that the file holds whole, and the updates of others, by diffusers' names.

    Args:
        module: the ControlNet, on any device: only its names and shapes are read.

    Raises:
        UserError: a tensor has no place in the ControlNet, or another shape than there.
    """
    layers_per_block = module.config.layers_per_block
    levels = len(module.config.conditioning_embedding_out_channels)
    left = dict(tensors)
    whole: dict[str, torch.Tensor] = {}
    updates: dict[str, list[WeightUpdate]] = {}
    misfits: list[tuple[str, str, str]] = []
    for key, parameter in module.named_parameters():
        owner, _, leaf = key.rpartition(".")
        original = original_controlnet_module(owner, layers_per_block, levels)
        if f"{original}.{leaf}" in left:
            whole[key] = left.pop(f"{original}.{leaf}")
            if whole[key].shape != parameter.shape:
                misfits.append((f"{original}.{leaf}", f"{list(whole[key].shape)}", f"{list(parameter.shape)}"))
        elif leaf == "weight" and {f"{original}.up", f"{original}.down"} <= left.keys():
            product = Product(left.pop(f"{original}.up"), left.pop(f"{original}.down"))
            updates[key] = [WeightUpdate(product)]
            if product.shape != Whole(parameter).shape:
                got = f"up {list(product.left.shape)} and down {list(product.right.shape)}"
                misfits.append((original, got, f"factors of {list(parameter.shape)}"))
    if left:
        got = f"{some(list(left))} that have no place in a ControlNet of this base model"
        raise UserError(f"controlnet {where}", got, "the layers of the base model's UNet", _REMEDY)
    for name, got, wanted in misfits[:1]:
        raise UserError(f"controlnet {where}: {name}", got, f"{wanted}, as in the base model", _REMEDY)
    return whole, updates


def _read(
    whole: Mapping[str, torch.Tensor], names: Sequence[str], in_channels: int, unet: PartSource
) -> dict[str, torch.Tensor]:
    """Return the file's own tensors and, for all others of the ControlNet, the UNet's.

    Of an inpainting UNet's first layer, the inputs are the noisy latents, the mask and the latents of the picture. A
    ControlNet reads only the first.
    """
    base = unet.read()
    tensors = {name: whole[name] if name in whole else base[name] for name in names if name in whole or name in base}
    if "conv_in.weight" not in whole and "conv_in.weight" in tensors:
        tensors["conv_in.weight"] = tensors["conv_in.weight"][:, :in_channels]
    return tensors
