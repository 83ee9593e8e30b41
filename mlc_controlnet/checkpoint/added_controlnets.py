"""Load ControlNets for a base model that is compiled already: alone, or a Control-LoRA with the model's UNet."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from mlc_controlnet.checkpoint.compatibility import check_controlnets
from mlc_controlnet.checkpoint.control_lora import control_lora_products
from mlc_controlnet.checkpoint.controlnet import kinds_of, read_controlnets
from mlc_controlnet.checkpoint.load import read_source
from mlc_controlnet.checkpoint.load_part import load_parts
from mlc_controlnet.checkpoint.loaded import Checkpoint
from mlc_controlnet.checkpoint.options import check_options
from mlc_controlnet.components import CONTROLNET, PER_CONTROLNET, UNET, ModelShape, numbered
from mlc_controlnet.config import Defaults


def load_added_controlnets(
    controlnets: Mapping[str, Path],
    others: Sequence[str],
    shapes: Sequence[ModelShape],
    defaults: Defaults,
    name: str,
    base: Path | None = None,
    control_types: Mapping[str, str] = MappingProxyType({}),
) -> Checkpoint:
    """Read ControlNets for a base model of which only the shapes are known, unless one is a Control-LoRA.

    Args:
        controlnets: name -> a folder or a file.
        others: the names of the ControlNets that the base model has: the parts of the new ones are numbered after them.
        shapes: of the base model, the default picture size first.
        defaults, name: of the base model.
        base: the base model, which a Control-LoRA needs.
        control_types: of union ControlNets, by name.

    Returns:
        A checkpoint of these ControlNets alone, and of the UNet if one of them is a Control-LoRA.

    Raises:
        UserError: a ControlNet does not fit, its options cannot be honoured, or its file is damaged.
    """
    unet_source = None if base is None else read_source(base).parts[UNET]
    named = read_controlnets(controlnets, unet_source, others, control_types)
    for source in named.values():
        check_options(CONTROLNET, source.config, source.where)
    shape, *other_shapes = shapes
    unet = {
        "cross_attention_dim": shape.text_width,
        "block_out_channels": shape.unet_channels,
        "layers_per_block": shape.layers_per_block,
    }
    check_controlnets(list(named.values()), unet, shape.latent_channels, shape.vae_scale_factor)
    kinds = dict.fromkeys(others, "") | kinds_of(named)
    sources = {numbered(CONTROLNET, len(others) + i + 1): source for i, source in enumerate(named.values())}
    control_loras = control_lora_products(sources, {})
    if unet_source is not None and control_loras:
        sources[UNET] = unet_source
    del named, unet_source  # a file stays mapped while a source may still read from it
    numbers = range(len(others) + 1, len(kinds) + 1)
    components = tuple(numbered(kind, number) for number in numbers for kind in PER_CONTROLNET)
    return Checkpoint(
        name=name,
        components=(*components, UNET) if UNET in sources else components,
        parts=load_parts(sources, {}),
        scheduler_config={},
        tokenizer_json=b"",
        special_tokens={},
        shape=shape,
        other_shapes=tuple(other_shapes),
        defaults=defaults,
        controlnets=kinds,
        control_loras=control_loras,
    )
