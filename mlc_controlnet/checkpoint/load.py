"""Load a model: build its modules without values, then assign the file's values, rounded as a bundle stores them.

Float16 tensors of a file stay where they are, mapped into memory. They occupy memory when they are read, until they
are given back (mapped_tensors.py) or the operating system takes that memory.
"""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import nn

from mlc_controlnet.checkpoint.compatibility import check_belong_together, check_vocabulary
from mlc_controlnet.checkpoint.control_lora import control_lora_products
from mlc_controlnet.checkpoint.controlnet import kinds_of, own_controlnets, read_controlnets
from mlc_controlnet.checkpoint.defaults import scheduler_of_loras, usual_defaults
from mlc_controlnet.checkpoint.diffusers_folder import read_model_folder
from mlc_controlnet.checkpoint.embeddings import merge_embeddings
from mlc_controlnet.checkpoint.loaded import PART_OF, Checkpoint, some
from mlc_controlnet.checkpoint.lora import read_loras
from mlc_controlnet.checkpoint.mapped_tensors import give_back
from mlc_controlnet.checkpoint.modules import build_empty
from mlc_controlnet.checkpoint.options import check_class, check_options, is_tiny
from mlc_controlnet.checkpoint.single_file import read_single_file
from mlc_controlnet.checkpoint.source import PARTS, PREVIEW_VAE, ModelSource, PartSource
from mlc_controlnet.checkpoint.text_encoders import is_xl
from mlc_controlnet.checkpoint.vae import read_decoder, read_vae, vae_scale_factor
from mlc_controlnet.checkpoint.vae_range import narrow_activations
from mlc_controlnet.checkpoint.weight_update import Updates, WeightUpdate
from mlc_controlnet.components import (
    COMPONENTS,
    CONTROLNET,
    PREVIEW_DECODER,
    TEXT_ENCODER,
    TEXT_ENCODER_2,
    TEXT_ENCODERS,
    UNET,
    UNET_SHALLOW,
    ModelShape,
    components_of,
    kind_of,
    numbered,
)
from mlc_controlnet.config import LORA_PARTS, EmbeddingOption, LoraOption
from mlc_controlnet.errors import UserError

FLOAT16_MAX = 65504.0
FLOAT16_EXPONENT = 0x7C00
_LOADING_ORDER = (
    "unet",
    *TEXT_ENCODERS,
    "vae",
    PREVIEW_VAE,
    "controlnet",
)  # the base model first: a ControlNet may be in another file


def load_checkpoint(
    path: Path,
    height: int | None = None,
    width: int | None = None,
    *,
    other_sizes: Sequence[tuple[int, int]] = (),
    prompt_chunks: int = 1,
    cached_branch: int | None = None,
    tiles_vae: bool = False,
    vae_tile: tuple[int, int] | None = None,
    name: str | None = None,
    controlnets: Mapping[str, Path] = MappingProxyType({}),
    vae: Path | None = None,
    preview_vae: Path | None = None,
    loras: Sequence[LoraOption] = (),
    embeddings: Sequence[EmbeddingOption] = (),
    components: Sequence[str] = COMPONENTS,
    tokenizer: Path | None = None,
    prediction_type: str | None = None,
) -> Checkpoint:
    """Read the model at `path`, a folder in diffusers' layout or a single file.

    Args:
        height, width: the size of pictures in pixels; None: the size that the model was trained on.
        other_sizes: height and width of other pictures in pixels, which the same bundle serves.
        prompt_chunks: the largest number of chunks of a prompt.
        cached_branch: the skip connection of DeepCache; None: no shallow UNet is built.
        tiles_vae: whether pictures larger than the default size go through its VAE in tiles.
        vae_tile: with `tiles_vae`, height and width of a tile in pixels; None: the default size.
        name: the model's name; None: the name of its folder or file.
        controlnets: name -> a folder or a file; none: the model's own ControlNets.
        vae: a folder or a file; None: the model's own VAE.
        preview_vae: a folder or a file of a second VAE, whose decoder is built for previews; None: no such decoder.
        loras: the LoRAs to merge into the weights, in this order.
        embeddings: the textual inversions to merge into the tokenizer and the text encoder.
        components: those to build. Parts that none of them is made from are not read.
        tokenizer: a folder with the tokenizer; None: the model's own, or CLIP's for a single file.
        prediction_type: epsilon or v_prediction; None for the model's own.

    Raises:
        UserError: a part is missing or does not fit the others, an option cannot be honoured, a file is damaged, a
            tensor is missing, unknown, of another shape or not finite, or the UNet cannot halve the size as often as
            it needs to.
    """
    source = read_source(path, tokenizer, prediction_type)
    parts = dict(source.parts)
    if vae is not None:
        parts["vae"] = read_vae(vae, is_xl(parts["unet"].config))
    named = read_controlnets(controlnets, parts["unet"]) if controlnets else own_controlnets(parts)
    parts = {part: source for part, source in parts.items() if kind_of(part) != CONTROLNET}
    parts |= {numbered(CONTROLNET, i + 1): source for i, source in enumerate(named.values())}
    if preview_vae is not None:
        parts[PREVIEW_VAE] = read_decoder(preview_vae, is_xl(parts["unet"].config))
        components = (*components, PREVIEW_DECODER)
    if TEXT_ENCODER_2 in parts and TEXT_ENCODER in components:
        components = (*components, TEXT_ENCODER_2)
    if cached_branch is not None and UNET in components:
        components = (*components, UNET_SHALLOW)
    needed = {PART_OF[name] for name in components if name in PART_OF}
    needed |= {"vae"}  # the latent preview is fitted with its encoder
    _check_complete(parts, needed, path)
    check_belong_together(parts)
    shape, *other_shapes = (
        dataclasses.replace(shape, vae_tile=vae_tile)
        for shape in _model_shapes(parts, [(height, width), *other_sizes], prompt_chunks, cached_branch)
    )
    _check_tile(shape)
    scheduler_config = _scheduler_config(source.scheduler_config, prediction_type, path)
    readers = {"text_encoder": source.read_tokenizer, TEXT_ENCODER_2: source.read_tokenizer_2}
    vocabularies = {part: read() for part, read in readers.items() if read is not None}
    for part, vocabulary in vocabularies.items():
        check_vocabulary(vocabulary, parts[part].config["vocab_size"], part)
    merged = merge_embeddings(embeddings, {part: (own, parts[part]) for part, own in vocabularies.items()})
    for part, (vocabulary, encoder) in merged.items():
        vocabularies[part], parts[part] = vocabulary, encoder
    updates: Updates = {}
    if loras:
        updates = read_loras(loras, {part: build_empty(parts[part], part) for part in LORA_PARTS if part in parts})
    name = source.name if name is None else name
    scheduler_config = scheduler_of_loras(loras, scheduler_config)
    usual = usual_defaults(name, loras, parts["unet"].config, scheduler_config)
    defaults = dataclasses.replace(usual, **source.recommended)
    # A file stays mapped while a source may still read from it, so each source is released when its part is loaded.
    two, zeros_for_empty_prompt = TEXT_ENCODER_2 in vocabularies, source.zeros_for_empty_prompt
    names, products = kinds_of(named), control_lora_products(parts, updates)
    del source, named
    parts = {part: parts[part] for kind in _LOADING_ORDER if kind in needed for part in parts if kind_of(part) == kind}
    modules = {part: load_part(parts.pop(part), part, updates) for part in tuple(parts)}
    if two and isinstance(modules["vae"], AutoencoderKL) and modules["vae"].config.force_upcast:
        narrow_activations(modules["vae"])
    return Checkpoint(
        name=name,
        components=components_of(components, len(names)),
        parts={part: modules[part] for kind in (*PARTS, PREVIEW_VAE) for part in modules if kind_of(part) == kind},
        scheduler_config=scheduler_config,
        tokenizer_json=vocabularies["text_encoder"].json,
        special_tokens=vocabularies["text_encoder"].special_tokens,
        shape=shape,
        other_shapes=tuple(other_shapes),
        tiles_vae=tiles_vae,
        defaults=defaults,
        controlnets=names,
        tokenizer_2=vocabularies.get(TEXT_ENCODER_2),
        zeros_for_empty_prompt=zeros_for_empty_prompt,
        control_loras={part: own for part, own in products.items() if UNET in modules},
    )


def _check_complete(parts: Mapping[str, PartSource], needed: Collection[str], path: Path) -> None:
    if "controlnet" in needed and "controlnet" not in parts:
        raise UserError(
            "controlnet",
            f"none in {path}",
            "a ControlNet for this base model",
            "pass --controlnet with a file, a folder or a hub id, or choose others with --component",
        )


def _scheduler_config(config: Mapping[str, Any], prediction_type: str | None, path: Path) -> dict[str, Any]:
    """Return the model's own configuration, with `prediction_type` in it unless that is None."""
    resolved = dict(config) if prediction_type is None else {**config, "prediction_type": prediction_type}
    check_class("scheduler", resolved, str(path))
    check_options("scheduler", resolved, str(path))
    return resolved


def read_source(path: Path, tokenizer: Path | None = None, prediction_type: str | None = None) -> ModelSource:
    """Read the configuration of the model at `path`, a folder in diffusers' layout or a single file."""
    return read_model_folder(path, tokenizer) if path.is_dir() else read_single_file(path, tokenizer, prediction_type)


def _model_shapes(
    parts: Mapping[str, PartSource],
    sizes: Sequence[tuple[int | None, int | None]],
    prompt_chunks: int,
    cached_branch: int | None,
) -> list[ModelShape]:
    """List every size with every number of chunks; the first is the first size, with one chunk."""
    shapes = [dataclasses.replace(_model_shape(parts, *size), cached_branch=cached_branch) for size in sizes]
    skips = len(shapes[0].residuals) - 1
    if cached_branch is not None and not 0 <= cached_branch < skips:
        wanted = f"0 to {skips - 1}, one of the UNet's skip connections"
        raise UserError("--deepcache", str(cached_branch), wanted, "leave the number out for 0")
    counts = range(1, prompt_chunks + 1)
    # A size given twice is one size.
    return list(dict.fromkeys(dataclasses.replace(shape, chunks=count) for shape in shapes for count in counts))


def _check_tile(shape: ModelShape) -> None:
    multiple = shape.vae_scale_factor
    for pixels in shape.vae_tile or ():
        if pixels <= 0 or pixels % multiple:
            wanted = f"positive multiples of {multiple}"
            raise UserError("--vae-tiling", f"a side of {pixels} pixels", wanted, "512x512 is usual")


def _model_shape(parts: Mapping[str, PartSource], height: int | None, width: int | None) -> ModelShape:
    unet, vae, text = (parts[part].config for part in ("unet", "vae", "text_encoder"))
    factor = vae_scale_factor(vae)
    trained = unet.get("sample_size") or 64
    rows, columns = trained if isinstance(trained, list | tuple) else (trained, trained)
    second = parts[TEXT_ENCODER_2].config if TEXT_ENCODER_2 in parts else None
    shape = ModelShape(
        height=rows * factor if height is None else height,
        width=columns * factor if width is None else width,
        tokens=text["max_position_embeddings"],
        text_width=unet["cross_attention_dim"],
        latent_channels=vae["latent_channels"],
        sample_channels=unet["in_channels"],
        unet_channels=tuple(unet["block_out_channels"]),
        layers_per_block=unet["layers_per_block"],
        vae_scale_factor=factor,
        text_layers=text["num_hidden_layers"],
        encodes_to_moments=not is_tiny(vae),
        guidance_embedding=unet.get("time_cond_proj_dim") is not None,
        text_width_2=0 if second is None else second["hidden_size"],
        text_layers_2=0 if second is None else second["num_hidden_layers"] - 1,
        pooled_width=0 if second is None else second["projection_dim"],
    )
    multiple = factor * 2 ** (len(shape.unet_channels) - 1)
    for axis, pixels in (("height", shape.height), ("width", shape.width)):
        if pixels <= 0 or pixels % multiple:
            below = max(pixels // multiple, 1) * multiple
            remedy = f"pass --{axis} {below} or {below + multiple}"
            raise UserError(axis, f"{pixels} pixels", f"a positive multiple of {multiple}", remedy)
    return shape


def load_part(source: PartSource, part: str, updates: Updates) -> nn.Module:
    """Build a part's module and assign its weights, rounded to float16.

    Raises:
        UserError: a tensor is missing, unknown, of another shape or not finite.
    """
    module = build_empty(source, kind_of(part))
    weights = source.read()
    _check_against(module, weights, source, part)
    # Round, assign and release one tensor at a time.
    for key in list(weights):
        name = f"{part}.{key}"
        owner, _, leaf = key.rpartition(".")
        changes = (*source.updates.get(key, ()), *updates.get(name, ()))
        setattr(module.get_submodule(owner), leaf, _as_stored(weights.pop(key), name, changes))
    for name, buffer in module.named_buffers():
        # Buffers such as position ids are not in the file and not weights. A meta module has no values for them.
        owner, _, leaf = name.rpartition(".")
        module.get_submodule(owner).register_buffer(leaf, torch.zeros_like(buffer, device="cpu"), persistent=False)
    return module.eval().requires_grad_(False)


def _check_against(module: nn.Module, weights: Mapping[str, torch.Tensor], source: PartSource, part: str) -> None:
    wanted = dict(module.named_parameters())
    missing, unknown = [k for k in wanted if k not in weights], [k for k in weights if k not in wanted]
    if missing or unknown:
        raise UserError(
            subject=f"{part} {source.where}",
            got="a file that "
            + " and ".join(
                [f"lacks {some(missing)}"] * bool(missing) + [f"has {some(unknown)} too many"] * bool(unknown)
            ),
            wanted=f"the {len(wanted)} tensors of its configuration",
            remedy="check that configuration and weights belong together",
        )
    for key, tensor in weights.items():
        if tensor.shape != wanted[key].shape:
            raise UserError(
                subject=f"{part}.{key}",
                got=str(list(tensor.shape)),
                wanted=f"{list(wanted[key].shape)} by its configuration",
                remedy="check that configuration and weights belong together",
            )
        if not tensor.is_floating_point():
            raise UserError(f"{part}.{key}", str(tensor.dtype), "floating-point numbers", "save the model in float16")


def _as_stored(tensor: torch.Tensor, name: str, updates: Sequence[WeightUpdate]) -> nn.Parameter:
    """Merge the adapters and round to float16, the dtype of a bundle's weights.

    Raises:
        UserError: a value is not finite in float16.
    """
    read = tensor
    for update in updates:
        tensor = update.applied_to(tensor)
    stored = tensor.to(torch.float16)
    if not _is_finite(stored):
        if tensor.isnan().any():
            count = int(tensor.isnan().sum())
            raise UserError(
                name,
                f"{count} value(s) that are no numbers (NaN)",
                "numbers",
                "copy or download the model again, or take one from before its training diverged",
            )
        largest = tensor.abs().max().item()
        raise UserError(name, f"a value of {largest}", f"at most {FLOAT16_MAX} (float16)", "train with weight decay")
    give_back(read)
    return nn.Parameter(stored, requires_grad=False)


def _is_finite(half: torch.Tensor) -> bool:
    """Return whether no value is infinite or NaN: these set every bit of the exponent. Much faster than isfinite."""
    return half.numel() == 0 or bool(((half.view(torch.int16) & FLOAT16_EXPONENT) != FLOAT16_EXPONENT).all())
