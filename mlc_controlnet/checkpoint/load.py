"""Load a model: find its parts, check from their configurations that they fit, then read the weights of each."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from diffusers import AutoencoderKL
from torch import nn

from mlc_controlnet.checkpoint.compatibility import check_belong_together, check_vocabulary
from mlc_controlnet.checkpoint.control_lora import control_lora_products
from mlc_controlnet.checkpoint.controlnet import kinds_of, own_controlnets, read_controlnets
from mlc_controlnet.checkpoint.defaults import scheduler_of_loras, usual_defaults
from mlc_controlnet.checkpoint.diffusers_folder import read_model_folder
from mlc_controlnet.checkpoint.embeddings import merge_embeddings
from mlc_controlnet.checkpoint.load_part import load_parts
from mlc_controlnet.checkpoint.loaded import PART_OF, Checkpoint
from mlc_controlnet.checkpoint.lora import read_loras
from mlc_controlnet.checkpoint.model_shapes import model_shapes
from mlc_controlnet.checkpoint.modules import build_empty
from mlc_controlnet.checkpoint.options import check_class, check_options
from mlc_controlnet.checkpoint.single_file import read_single_file
from mlc_controlnet.checkpoint.source import PARTS, PREVIEW_VAE, ModelSource, PartSource, TokenizerSource
from mlc_controlnet.checkpoint.text_encoders import is_xl
from mlc_controlnet.checkpoint.vae import read_decoder, read_vae
from mlc_controlnet.checkpoint.vae_range import narrow_activations
from mlc_controlnet.checkpoint.weight_update import Updates
from mlc_controlnet.components import (
    COMPONENTS,
    CONTROLNET,
    PREVIEW_DECODER,
    TEXT_ENCODER,
    TEXT_ENCODER_2,
    TEXT_ENCODERS,
    UNET,
    UNET_SHALLOW,
    components_of,
    kind_of,
    numbered,
)
from mlc_controlnet.config import LORA_PARTS, EmbeddingOption, LoraOption
from mlc_controlnet.errors import UserError

# The base model first: a ControlNet may be in another file.
_LOADING_ORDER = ("unet", *TEXT_ENCODERS, "vae", PREVIEW_VAE, "controlnet")

Value = TypeVar("Value")


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
    control_types: Mapping[str, str] = MappingProxyType({}),
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
        control_types: of those that are union ControlNets, by name.
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
    parts, kinds = _choose_parts(source, controlnets, control_types, vae, preview_vae)
    components = _with_further_components(components, parts, cached_branch)
    needed = _needed_parts(components)
    _check_complete(parts, needed, path)
    check_belong_together(parts)
    sizes = [(height, width), *other_sizes]
    shape, *other_shapes = model_shapes(parts, sizes, prompt_chunks, cached_branch, vae_tile)
    scheduler_config = _scheduler_config(source.scheduler_config, prediction_type, path)
    vocabularies, parts = _read_vocabularies(source, parts, embeddings)
    updates = _read_updates(loras, parts)
    scheduler_config = scheduler_of_loras(loras, scheduler_config)
    name = source.name if name is None else name
    usual = usual_defaults(name, loras, parts["unet"].config, scheduler_config)
    defaults = dataclasses.replace(usual, **source.recommended)
    zeros_for_empty_prompt = source.zeros_for_empty_prompt
    control_loras = control_lora_products(parts, updates)
    # A file stays mapped while a source may still read from it, so each source is released when its part is loaded.
    del source
    parts = _in_order(parts, [kind for kind in _LOADING_ORDER if kind in needed])
    modules = load_parts(parts, updates)
    if TEXT_ENCODER_2 in vocabularies:
        _narrow_vae(modules["vae"])
    return Checkpoint(
        name=name,
        components=components_of(components, len(kinds)),
        parts=_in_order(modules, (*PARTS, PREVIEW_VAE)),
        scheduler_config=scheduler_config,
        tokenizer_json=vocabularies[TEXT_ENCODER].json,
        special_tokens=vocabularies[TEXT_ENCODER].special_tokens,
        shape=shape,
        other_shapes=tuple(other_shapes),
        tiles_vae=tiles_vae,
        defaults=defaults,
        controlnets=kinds,
        tokenizer_2=vocabularies.get(TEXT_ENCODER_2),
        zeros_for_empty_prompt=zeros_for_empty_prompt,
        control_loras=control_loras if UNET in modules else {},
    )


def _choose_parts(
    source: ModelSource,
    controlnets: Mapping[str, Path],
    control_types: Mapping[str, str],
    vae: Path | None,
    preview_vae: Path | None,
) -> tuple[dict[str, PartSource], dict[str, str]]:
    """Return the model's parts with those of other files in their place, and the kinds of ControlNets by name."""
    parts = dict(source.parts)
    if vae is not None:
        parts["vae"] = read_vae(vae, is_xl(parts["unet"].config))
    if controlnets:
        named = read_controlnets(controlnets, parts["unet"], control_types=control_types)
    else:
        named = own_controlnets(parts)
    parts = {part: own for part, own in parts.items() if kind_of(part) != CONTROLNET}
    parts |= {numbered(CONTROLNET, i + 1): controlnet for i, controlnet in enumerate(named.values())}
    if preview_vae is not None:
        parts[PREVIEW_VAE] = read_decoder(preview_vae, is_xl(parts["unet"].config))
    return parts, kinds_of(named)


def _with_further_components(
    components: Sequence[str], parts: Mapping[str, PartSource], cached_branch: int | None
) -> tuple[str, ...]:
    """Return the components with those that a model or an option adds to them."""
    further = {
        PREVIEW_DECODER: PREVIEW_VAE in parts,
        TEXT_ENCODER_2: TEXT_ENCODER_2 in parts and TEXT_ENCODER in components,
        UNET_SHALLOW: cached_branch is not None and UNET in components,
    }
    return (*components, *(name for name, is_built in further.items() if is_built))


def _needed_parts(components: Sequence[str]) -> set[str]:
    """Return the parts that the components are made from, and the VAE always."""
    return {PART_OF[name] for name in components if name in PART_OF} | {"vae"}  # its encoder fits the latent preview


def _read_updates(loras: Sequence[LoraOption], parts: Mapping[str, PartSource]) -> Updates:
    if not loras:
        return {}
    return read_loras(loras, {part: build_empty(parts[part], part) for part in LORA_PARTS if part in parts})


def _narrow_vae(vae: nn.Module) -> None:
    """Keep the activations of Stable Diffusion XL's VAE within float16, if its configuration says that they are not."""
    if isinstance(vae, AutoencoderKL) and vae.config.force_upcast:
        narrow_activations(vae)


def _read_vocabularies(
    source: ModelSource, parts: Mapping[str, PartSource], embeddings: Sequence[EmbeddingOption]
) -> tuple[dict[str, TokenizerSource], dict[str, PartSource]]:
    """Return the tokenizer of each text encoder, and the parts, both with the textual inversions in them."""
    readers = {TEXT_ENCODER: source.read_tokenizer, TEXT_ENCODER_2: source.read_tokenizer_2}
    vocabularies = {part: read() for part, read in readers.items() if read is not None}
    for part, vocabulary in vocabularies.items():
        check_vocabulary(vocabulary, parts[part].config["vocab_size"], part)
    merged = merge_embeddings(embeddings, {part: (own, parts[part]) for part, own in vocabularies.items()})
    encoders = {part: encoder for part, (_, encoder) in merged.items()}
    return {part: vocabulary for part, (vocabulary, _) in merged.items()}, {**parts, **encoders}


def _in_order(of_parts: Mapping[str, Value], kinds: Sequence[str]) -> dict[str, Value]:
    """Return what belongs to parts of these kinds, in their order."""
    return {part: of_parts[part] for kind in kinds for part in of_parts if kind_of(part) == kind}


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
