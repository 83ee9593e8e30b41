"""Load ControlNets alone, for a base model that is compiled already."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from mlc_controlnet.checkpoint.compatibility import check_controlnets
from mlc_controlnet.checkpoint.controlnet import kinds_of, read_controlnets
from mlc_controlnet.checkpoint.load import load_part
from mlc_controlnet.checkpoint.loaded import Checkpoint
from mlc_controlnet.checkpoint.options import check_options
from mlc_controlnet.components import CONTROLNET, PER_CONTROLNET, ModelShape, numbered
from mlc_controlnet.config import Defaults


def load_added_controlnets(
    controlnets: Mapping[str, Path], others: Sequence[str], shapes: Sequence[ModelShape], defaults: Defaults, name: str
) -> Checkpoint:
    """Read ControlNets for a base model of which only the shapes are known.

    Args:
        controlnets: name -> a folder or a file.
        others: the names of the ControlNets that the base model has: the parts of the new ones are numbered after them.
        shapes: of the base model, the default picture size first.
        defaults, name: of the base model.

    Returns:
        A checkpoint of these ControlNets alone.

    Raises:
        UserError: a ControlNet does not fit, its options cannot be honoured, or its file is damaged.
    """
    named = read_controlnets(controlnets, taken=others)
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
    del named  # a file stays mapped while a source may still read from it
    numbers = range(len(others) + 1, len(kinds) + 1)
    return Checkpoint(
        name=name,
        components=tuple(numbered(kind, number) for number in numbers for kind in PER_CONTROLNET),
        parts={part: load_part(sources.pop(part), part, {}) for part in tuple(sources)},
        scheduler_config={},
        tokenizer_json=b"",
        special_tokens={},
        shape=shape,
        other_shapes=tuple(other_shapes),
        defaults=defaults,
        controlnets=kinds,
    )
