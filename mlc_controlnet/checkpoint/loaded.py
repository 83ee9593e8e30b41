"""A loaded model: its modules, their shapes, and which component reads which tensor."""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from mlc_controlnet.checkpoint.controlnet_graph import graph_options
from mlc_controlnet.checkpoint.source import PREVIEW_VAE, TokenizerSource
from mlc_controlnet.checkpoint.union_controlnet import FUSER
from mlc_controlnet.checkpoint.weight_update import Product
from mlc_controlnet.components import (
    CONTROL_EMBEDDING,
    CONTROLNET,
    OF_WEIGHTS_OF,
    PER_CONTROLNET,
    PREVIEW_DECODER,
    TEXT_ENCODER,
    TEXT_ENCODER_2,
    UNET,
    UNET_SHALLOW,
    VAE_DECODER,
    VAE_ENCODER,
    ComponentSpec,
    ModelShape,
    component_specs,
    function_specs,
    kind_of,
)
from mlc_controlnet.config import Defaults
from mlc_controlnet.errors import UserError

# Component -> the part of a checkpoint that it is made from. ControlNet 2's are all numbered: see `part_of`.
PART_OF: Mapping[str, str] = MappingProxyType(
    {
        TEXT_ENCODER: "text_encoder",
        TEXT_ENCODER_2: "text_encoder_2",
        CONTROL_EMBEDDING: "controlnet",
        CONTROLNET: "controlnet",
        UNET: "unet",
        UNET_SHALLOW: "unet",
        VAE_DECODER: "vae",
        VAE_ENCODER: "vae",
        PREVIEW_DECODER: PREVIEW_VAE,
    }
)
# Component -> the prefix of its tensors' names in its part. If two components match, the first one in PART_OF
# owns the tensor: all of a ControlNet but the control embedding is the component of that name.
_OWN_TENSORS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        TEXT_ENCODER: ("",),
        TEXT_ENCODER_2: ("",),
        CONTROL_EMBEDDING: ("controlnet_cond_embedding.", f"{FUSER}."),
        CONTROLNET: ("",),
        UNET: ("",),
        UNET_SHALLOW: (),
        VAE_DECODER: ("post_quant_conv.", "decoder."),
        VAE_ENCODER: ("encoder.", "quant_conv."),
        PREVIEW_DECODER: ("",),
    }
)


@dataclass(frozen=True)
class Checkpoint:
    """A loaded model. A tensor's name is its part's name, a dot and its key there: `unet.conv_in.weight`.

    Attributes:
        components: those to build, in the order of `components.components_of`.
        parts: part -> its module with float16 weights, as a bundle stores them. The VAE is always there, another part
            only if one of `components` is made from it.
        tokenizer_json: a file of the tokenizers library, UTF-8.
        special_tokens: bos_token, eos_token and pad_token -> the token's text.
        tokenizer_2: the second text encoder's; None without one.
        zeros_for_empty_prompt: whether zeros take the place of an encoded negative prompt that is empty.
        shape: for the default picture size and one chunk of a prompt.
        other_shapes: for other sizes and longer prompts.
        tiles_vae: whether larger pictures than the default go through the VAE in tiles of the default size.
        controlnets: name of each ControlNet -> what its control images show, "" if that is not known. Their parts are
            controlnet, controlnet_2, ... in this order.
        control_loras: part of each ControlNet that is a Control-LoRA -> key -> the product that was added to the
            tensor of that key of the UNet, as `parts` has it. Both factors are finite in float16.
        corrected_biases: tensor -> what a bundle stores in its place, float16: see `calibration/biases.py`.
    """

    name: str
    components: tuple[str, ...]
    parts: Mapping[str, nn.Module]
    scheduler_config: Mapping[str, Any]
    tokenizer_json: bytes
    special_tokens: Mapping[str, str]
    shape: ModelShape
    defaults: Defaults
    tokenizer_2: TokenizerSource | None = None
    zeros_for_empty_prompt: bool = False
    other_shapes: tuple[ModelShape, ...] = ()
    tiles_vae: bool = False
    controlnets: Mapping[str, str] = field(default_factory=dict)
    control_loras: Mapping[str, Mapping[str, Product]] = field(default_factory=dict)
    corrected_biases: Mapping[str, torch.Tensor] = field(default_factory=dict)

    @property
    def shapes(self) -> tuple[ModelShape, ...]:
        """Every picture size with every number of chunks, the default first."""
        return (self.shape, *self.other_shapes)

    @property
    def specs(self) -> dict[str, ComponentSpec]:
        """The descriptions of the components to build, for the default picture size."""
        specs = component_specs(self.shape)
        return {name: dataclasses.replace(specs[kind_of(name)], name=name) for name in self.components}

    @property
    def functions(self) -> dict[str, str]:
        """Component -> the component whose compiled function it is called with: its own, or that of a ControlNet before
        it of the same graph."""
        first: dict[str, str] = {}  # graph -> component
        return {name: first.setdefault(self._graph(name), name) for name in self.components}

    def tensor_of(self, tensor: str, component: str, other: str) -> str:
        """Return the tensor that `other` reads where `component`, of the same graph, reads `tensor`."""
        return part_of(other) + tensor.removeprefix(part_of(component))

    def _graph(self, component: str) -> str:
        kind = kind_of(component)
        if kind not in PER_CONTROLNET:
            return kind
        return f"{kind}: {graph_options(self.parts[part_of(component)].config, kind == CONTROL_EMBEDDING)}"

    @property
    def function_specs(self) -> dict[str, ComponentSpec]:
        """The descriptions of all functions of the components to build, by the functions' names."""
        return {
            component + function.removeprefix(spec.name): dataclasses.replace(spec, name=component)
            for component in dict.fromkeys(self.functions.values())
            for function, spec in function_specs(self.shapes, self.tiles_vae).items()
            if spec.name == kind_of(component)
        }

    @property
    def call_specs(self) -> dict[str, ComponentSpec]:
        """The descriptions of what a build compares with torch: each function, and each component that shares one."""
        functions = self.function_specs
        return functions | {name: spec for name, spec in self.specs.items() if name not in functions}

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return every tensor of the components to build, by name, float16."""
        wanted = set(self.components)
        return {
            f"{part}.{key}": tensor
            for part, module in self.parts.items()
            for key, tensor in module.named_parameters()
            if _owner(part, key) in wanted
        }

    def stored_tensors(self) -> dict[str, torch.Tensor]:
        """Return `tensors`, with corrected biases, and the factors of Control-LoRAs: `controlnet.conv_in.weight.up`
        [1, N, R] and `.down` [1, R, M], where N are the weight's outputs and M the columns of its matrix, float16.
        """
        factors = {}
        for part, products in self.control_loras.items():
            for key, product in products.items():
                factors[f"{part}.{key}.up"] = product.left.half().flatten(1)[None]
                factors[f"{part}.{key}.down"] = product.right.half().flatten(1)[None]
        return {**self.tensors(), **self.corrected_biases, **factors}

    def names_by_identity(self) -> dict[int, str]:
        """Map `id()` of every tensor to its name, for modules that are made of pieces of the parts.

        A tensor of several parts, which are union ControlNets of one file, has its name in the first of them.
        """
        return {id(tensor): name for name, tensor in reversed(self.tensors().items())}

    def check_every_tensor_is_read_once(self, params: Mapping[str, Sequence[str]]) -> None:
        """Compare what the components read (component -> names) with what the checkpoint holds.

        Components that read another's weights do not count.

        Raises:
            UserError: names the tensors that no component reads, or that more than one does.
        """
        own = (names for component, names in params.items() if component not in OF_WEIGHTS_OF)
        reads = Counter(name for names in own for name in names)
        unread = [name for name in self.tensors() if name not in reads]
        repeated = [name for name, count in reads.items() if count > 1]
        if unread or repeated:
            raise UserError(
                subject=f"checkpoint {self.name}",
                got=f"{some(unread)} read by no component, {some(repeated)} read more than once",
                wanted="every tensor read exactly once",
                remedy="check that the checkpoint's config.json files belong to its weights",
            )


def part_of(component: str) -> str:
    """Return the part that a component is made from: `controlnet_2` of `control_embedding_2`."""
    kind = kind_of(component)
    return PART_OF[kind] + component.removeprefix(kind)


def _owner(part: str, key: str) -> str:
    """Return the component that reads the tensor `key` of `part`."""
    kind = kind_of(part)
    owners = (component for component, own_part in PART_OF.items() if own_part == kind)
    for component in owners:
        if key.startswith(_OWN_TENSORS[component]):
            return component + part.removeprefix(kind)
    raise ValueError(f"{part}.{key} belongs to no component")


def some(names: Sequence[str]) -> str:
    """Return how many tensors a list names, and the first few names."""
    if not names:
        return "none"
    return f"{len(names)} tensor(s) ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
