"""Read a VAE on its own: a folder in diffusers' layout, or files in diffusers' or in the original layout.

Two classes take the place of a model's VAE: AutoencoderKL (arXiv 2112.10752), and AutoencoderTiny, which is known as
TAESD and published as two files (github.com/madebyollin/taesd).
"""

import dataclasses
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from mlc_controlnet.checkpoint import ldm_config
from mlc_controlnet.checkpoint.diffusers_folder import modern_names, read_part_folder
from mlc_controlnet.checkpoint.ldm_config import Shapes
from mlc_controlnet.checkpoint.ldm_names import UNET_PREFIX, VAE_PREFIX, convert_vae
from mlc_controlnet.checkpoint.modules import with_defaults
from mlc_controlnet.checkpoint.options import TINY_VAE, is_tiny
from mlc_controlnet.checkpoint.source import PartSource
from mlc_controlnet.checkpoint.weight_file import WeightFile, read_weights
from mlc_controlnet.errors import UserError

Tensors = dict[str, torch.Tensor]

_ORIGINAL = "encoder.down.0.block.0.conv2.weight"
_DIFFUSERS = "encoder.down_blocks.0.resnets.0.conv2.weight"
_TINY = "encoder.layers.0.weight"
_LEFTOVERS = ("loss.", "model_ema.")  # of training, in the original files
# A block of TAESD's three 3x3 convolutions, and a plain convolution: layer number, then the number inside the block.
_TINY_BLOCK = re.compile(r"(\d+)\.conv\.0\.weight")
_HALVES = ("encoder", "decoder")
_DECODER = ("decoder.", "post_quant_conv.")
_REMEDY = "pass a VAE of Stable Diffusion 1.x, 2.x or XL, or taesd_decoder.safetensors with its encoder beside it"


def vae_scale_factor(config: Mapping[str, Any]) -> int:
    """Return the pixels on a side of a latent cell."""
    stages = config["num_decoder_blocks"] if is_tiny(config) else config["block_out_channels"]
    return int(2 ** (len(stages) - 1))


def other_half(path: Path) -> Path | None:
    """Return the file that belongs to half of a tiny autoencoder by its name; None if the name tells no half."""
    for half, other in (_HALVES, reversed(_HALVES)):
        if half in path.name:
            return path.with_name(path.name.replace(half, other))
    return None


def read_vae(path: Path, xl: bool = False) -> PartSource:
    """Read the configuration of the VAE at `path`, or infer it from the shapes of the file's tensors.

    Args:
        path: a folder of a VAE or of a whole model; a file of a VAE or of a whole model in the original layout; or
            either file of a tiny autoencoder, with the other one in the same folder.
        xl: whether it is for Stable Diffusion XL: the scale of the latents is in no file of weights.

    Raises:
        UserError: there is no VAE at `path`, or it is damaged.
    """
    if path.is_dir():
        inside = path / "vae"
        return read_part_folder(inside if (inside / "config.json").is_file() else path, "vae")
    file = read_weights(path)
    if _is_half_of_tiny(file.tensors):
        return _read_tiny(_both_halves(file), str(path))
    return _vae_of(file, xl)


def read_decoder(path: Path, xl: bool = False) -> PartSource:
    """Do the same as `read_vae`, for the decoder alone. Its half of a tiny autoencoder is then enough.

    Raises:
        UserError: there is no decoder at `path`, or it is damaged.
    """
    file = None if path.is_dir() else read_weights(path)
    if file is not None and _is_half_of_tiny(file.tensors) and "encoder" not in path.name:
        return _read_tiny(_tiny_decoder(file.tensors), str(path))
    whole = read_vae(path, xl)
    return dataclasses.replace(
        whole, read=lambda: {key: tensor for key, tensor in whole.read().items() if key.startswith(_DECODER)}
    )


def _vae_of(file: WeightFile, xl: bool) -> PartSource:
    where = str(file.path)
    is_part = any(key.startswith(VAE_PREFIX) for key in file.tensors)
    tensors = {
        key.removeprefix(VAE_PREFIX): tensor
        for key, tensor in file.tensors.items()
        if key.startswith(VAE_PREFIX) or not is_part
    }
    tensors = {key: tensor for key, tensor in tensors.items() if not key.startswith(_LEFTOVERS)}
    base = ldm_config.base_model(is_second=False, xl=xl)  # of 1.x: its VAE is Stable Diffusion 2's too
    if _TINY in tensors:
        return _read_tiny(tensors, where)
    if _ORIGINAL in tensors:
        config = ldm_config.vae_config(base, Shapes(tensors, "", where))
        prefixed = {VAE_PREFIX + key: tensor for key, tensor in tensors.items()}
        return _source(where, config, partial(_read_original, prefixed, config, where))
    if _DIFFUSERS in tensors:
        config = ldm_config.vae_config(base, Shapes(tensors, "", where), in_diffusers_names=True)
        return _source(where, config, partial(modern_names, tensors, "vae"))
    kind = "a model without a VAE" if any(key.startswith(UNET_PREFIX) for key in file.tensors) else "no VAE"
    got = f"{kind}: {len(file.tensors)} tensors, none of them {_ORIGINAL}, {_DIFFUSERS} or {_TINY}"
    raise UserError(f"vae {where}", got, "an AutoencoderKL or an AutoencoderTiny", _REMEDY)


def _read_original(source: Tensors, config: Mapping[str, Any], where: str) -> Tensors:
    return modern_names(convert_vae(source, config, where), "vae")


def _source(where: str, config: Mapping[str, Any], read: Callable[[], Tensors]) -> PartSource:
    return PartSource(where, with_defaults("vae", config, where), read)


def _is_half_of_tiny(tensors: Mapping[str, torch.Tensor]) -> bool:
    return all(re.match(r"\d+\.", key) for key in tensors) and any(map(_TINY_BLOCK.fullmatch, tensors))


def _both_halves(file: WeightFile) -> Tensors:
    """Read the other half too, and give both diffusers' names.

    Raises:
        UserError: the other half is missing.
    """
    beside = other_half(file.path)
    if beside is None:
        wanted = "taesd_encoder or taesd_decoder in its name, because the two look alike"
        raise UserError(f"vae {file.path}", "half of a tiny autoencoder", wanted, "rename the file")
    if not beside.is_file():
        raise UserError(f"vae {file.path}", f"no {beside.name} beside it", "both halves", f"put {beside.name} there")
    pair = file.tensors, read_weights(beside).tensors
    encoder, decoder = pair if "encoder" in file.path.name else reversed(pair)
    return {**{f"encoder.layers.{key}": tensor for key, tensor in encoder.items()}, **_tiny_decoder(decoder)}


def _tiny_decoder(tensors: Tensors) -> Tensors:
    """Give the decoder's half diffusers' names. Its first layer has no weights, and diffusers does not count it."""
    renamed = {}
    for key, tensor in tensors.items():
        layer, _, rest = key.partition(".")
        renamed[f"decoder.layers.{int(layer) - 1}.{rest}" if layer.isdecimal() else key] = tensor
    return renamed


def _read_tiny(tensors: Tensors, where: str) -> PartSource:
    """Infer a tiny autoencoder's configuration: in the encoder a convolution begins each stage, in the decoder it ends
    each stage. What the file does not show is the same for all that are published. A decoder alone gets an encoder
    that mirrors it.
    """
    shapes = Shapes(tensors, "", where)
    encoder, decoder = (_stages(tensors, f"{half}.layers.") for half in _HALVES)
    decoder = decoder[:-1]
    encoder = encoder[:-1] or decoder[::-1]
    config = {
        "_class_name": TINY_VAE,
        "latent_channels": shapes.size("decoder.layers.0.weight", 1),
        "num_encoder_blocks": [blocks for _, blocks in encoder],
        "encoder_block_out_channels": [width for width, _ in encoder],
        "num_decoder_blocks": [blocks for _, blocks in decoder],
        "decoder_block_out_channels": [width for width, _ in decoder],
    }
    return _source(where, config, lambda: tensors)


def _stages(tensors: Tensors, prefix: str) -> list[tuple[int, int]]:
    """Return for each plain convolution its output channels, and the number of blocks up to the next one."""
    stages: list[tuple[int, int]] = []
    layers = sorted({int(key[len(prefix) :].split(".")[0]) for key in tensors if key.startswith(prefix)})
    for layer in layers:
        convolution = tensors.get(f"{prefix}{layer}.weight")
        if convolution is not None:
            stages.append((int(convolution.shape[0]), 0))
        elif stages:
            width, blocks = stages[-1]
            stages[-1] = (width, blocks + 1)
    return stages
