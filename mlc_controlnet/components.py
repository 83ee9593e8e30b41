"""The components: their inputs and outputs.

The axis alphabet, used in every comment that follows a shape:

    B batch (always 1)   T tokens (77 per chunk of a prompt)   D text width   C channels   L layers   P pooled width
    H W pixels           h w latent cells, h = H / 8, w = W / 8

What the host reads or writes is float32, and token ids are int32. What only passes from one component to another, the
context, the control embedding and the residuals, is in the library's own compute dtype; `COMPUTE` stands for it.

Work that is the same at every denoising step is in components of its own, which run once per picture: the text encoder,
and the part of the ControlNet that reads the control image.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TypeAlias

TEXT_ENCODER = "text_encoder"
TEXT_ENCODER_2 = "text_encoder_2"
CONTROL_EMBEDDING = "control_embedding"
CONTROLNET = "controlnet"
RESIDUAL_SUM = "residual_sum"
UNET = "unet"
UNET_SHALLOW = "unet_shallow"
VAE_DECODER = "vae_decoder"
VAE_ENCODER = "vae_encoder"
PREVIEW_DECODER = "preview_decoder"
COMPONENTS = (TEXT_ENCODER, CONTROL_EMBEDDING, CONTROLNET, RESIDUAL_SUM, UNET, VAE_DECODER, VAE_ENCODER)
OPTIONAL_COMPONENTS = (UNET_SHALLOW, PREVIEW_DECODER)  # built only if a build asks for them
TEXT_ENCODERS = (TEXT_ENCODER, TEXT_ENCODER_2)  # the second one of Stable Diffusion XL alone, built with the first
# Stable Diffusion XL's time ids: the original size, the crop's top left corner and the target size, two numbers each.
TIME_IDS = 6
# Channels of an inpainting UNet's sample: the latents, a mask, and the latents of the masked picture.
INPAINTING_CHANNELS = 9
DRAWING = (TEXT_ENCODER, CONTROL_EMBEDDING, CONTROLNET, UNET, VAE_DECODER)  # needed to draw a picture from a prompt
# Components that read some of another's weights.
OF_WEIGHTS_OF = {UNET_SHALLOW: UNET}
# Several ControlNets share a base: the first has the components' own names, the others have a number after them.
PER_CONTROLNET = (CONTROL_EMBEDDING, CONTROLNET)
_NUMBER = re.compile(rf"(?<=^{CONTROLNET})_\d+$|(?<=^{CONTROL_EMBEDDING})_\d+$")

COMPUTE = "compute"


def is_matrix(shape: Sequence[object]) -> bool:
    """Return whether a weight is one of products, convolutions or embeddings: it has two axes or more, others one."""
    return len(shape) >= 2


def numbered(name: str, number: int) -> str:
    """Return the name of a component, or of a checkpoint's part, of ControlNet `number`, which counts from 1."""
    return name if number == 1 else f"{name}_{number}"


def kind_of(name: str) -> str:
    """Return the name without the number of a ControlNet: `controlnet` for `controlnet_2`."""
    return _NUMBER.sub("", name)


def components_of(kinds: Collection[str], controlnets: int) -> tuple[str, ...]:
    """List the components of these kinds, in the order of COMPONENTS; those of one ControlNet follow one another."""
    each = [numbered(kind, i + 1) for i in range(controlnets) for kind in PER_CONTROLNET if kind in kinds]
    text = [kind for kind in TEXT_ENCODERS if kind in kinds]
    others = [
        kind
        for kind in (*COMPONENTS, *OPTIONAL_COMPONENTS)
        if kind in kinds and kind not in (*TEXT_ENCODERS, *PER_CONTROLNET)
    ]
    return (*text, *each, *others)


@dataclass(frozen=True)
class TensorSpec:
    """The description of one tensor.

    Attributes:
        dtype: "float32", "int32" or COMPUTE.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str

    def resolved(self, compute_dtype: str) -> "TensorSpec":
        """Return the same tensor with COMPUTE replaced by the dtype of a library."""
        return TensorSpec(self.name, self.shape, compute_dtype if self.dtype == COMPUTE else self.dtype)


@dataclass(frozen=True)
class Normal:
    """Values with zero mean and unit variance."""


@dataclass(frozen=True)
class Uniform:
    """Values from `low` to below `high`; whole numbers if the tensor's dtype is int32."""

    low: float
    high: float


@dataclass(frozen=True)
class Constant:
    """One value."""

    value: float


Example: TypeAlias = Normal | Uniform | Constant


@dataclass(frozen=True)
class InputSpec(TensorSpec):
    """The description of a component's input.

    Attributes:
        example: values as a pipeline has them. A build captures each component with such values, and compares it with
            torch on them.
    """

    example: Example = Normal()


@dataclass(frozen=True)
class ComponentSpec:
    """The description of one component. Its function takes the inputs, then its params, and returns the outputs."""

    name: str
    inputs: tuple[InputSpec, ...]
    outputs: tuple[TensorSpec, ...]


@dataclass(frozen=True)
class ModelShape:
    """The numbers that decide every component's shapes.

    Attributes:
        height, width: of the picture in pixels. Both are multiples of 8 times the UNet's own downsampling.
        tokens: T of one chunk of a prompt: what the text encoder reads at once.
        text_width: D.
        latent_channels: C of the latents.
        sample_channels: C of the UNet's sample: `latent_channels` or INPAINTING_CHANNELS. The ControlNet's sample is
            the latents in both cases.
        unet_channels: the UNet's `block_out_channels`, from the finest level to the coarsest.
        layers_per_block: the UNet's.
        text_layers: L, the number of the text encoder's layers; of a model with two, those that lead to its context.
        vae_tile: height and width in pixels of the largest picture that the VAE decodes and encodes at once; larger
            pictures go through it in tiles. None: there is no such limit.
        text_width_2: the share of D that the second text encoder makes; 0: there is one text encoder.
        text_layers_2: the number of the second one's layers that lead to its context.
        pooled_width: P, of the second one's pooled output, which UNet and ControlNet read beside the time ids;
            0: they read neither.
        encodes_to_moments: whether the VAE encoder returns the mean and the log-variance of a posterior. A tiny
            autoencoder returns the latents.
        guidance_embedding: whether the UNet reads the guidance scale (arXiv 2210.03142), as latent consistency
            models do. Guidance then needs one call of the UNet, for the prompt's context.
        cached_branch: the skip connection below which DeepCache (arXiv 2312.00858) keeps the UNet's features: 0 is that
            of the first convolution. None: the UNet does not return them.
        chunks: the number of chunks, whose contexts follow one another along T in the UNet's and ControlNet's context.
    """

    height: int
    width: int
    tokens: int
    text_width: int
    latent_channels: int
    sample_channels: int
    unet_channels: tuple[int, ...]
    layers_per_block: int
    vae_scale_factor: int = 8
    text_layers: int = 12
    encodes_to_moments: bool = True
    guidance_embedding: bool = False
    chunks: int = 1
    cached_branch: int | None = None
    vae_tile: tuple[int, int] | None = None
    text_width_2: int = 0
    text_layers_2: int = 0
    pooled_width: int = 0

    @property
    def latent(self) -> tuple[int, int, int, int]:
        """The shape of the latents.  # [B, C, h, w]"""
        return (1, self.latent_channels, self.height // self.vae_scale_factor, self.width // self.vae_scale_factor)

    @property
    def vae_size(self) -> tuple[int, int]:
        """Height and width in pixels of what the VAE decodes and encodes at once: the picture, or a tile of it."""
        height, width = self.vae_tile or (self.height, self.width)
        return min(height, self.height), min(width, self.width)

    @property
    def residuals(self) -> tuple[TensorSpec, ...]:
        """The ControlNet's outputs: one per skip connection of the UNet's encoder, then the middle block's."""
        _, _, rows, columns = self.latent
        shapes = [(1, self.unet_channels[0], rows, columns)]
        for level, channels in enumerate(self.unet_channels):
            shapes += [(1, channels, rows, columns)] * self.layers_per_block
            if level < len(self.unet_channels) - 1:
                rows, columns = (rows + 1) // 2, (columns + 1) // 2
                shapes.append((1, channels, rows, columns))
        shapes.append((1, self.unet_channels[-1], rows, columns))
        names = (*(f"down_residual_{i}" for i in range(len(shapes) - 1)), "mid_residual")
        return tuple(TensorSpec(name, shape, COMPUTE) for name, shape in zip(names, shapes, strict=True))

    @property
    def deep_feature(self) -> TensorSpec:
        """What the decoder's layer that reads skip connection `cached_branch` gets from the layer before it."""
        assert self.cached_branch is not None
        skips = len(self.residuals) - 1
        block, layer = divmod(skips - 1 - self.cached_branch, self.layers_per_block + 1)
        channels = self.unet_channels[::-1][block if layer > 0 else max(block - 1, 0)]
        _, _, rows, columns = self.residuals[self.cached_branch].shape
        return TensorSpec("deep_feature", (1, channels, rows, columns), COMPUTE)


def component_specs(shape: ModelShape) -> dict[str, ComponentSpec]:
    """Describe all components of a model of this shape."""
    batch, _, rows, columns = shape.latent
    picture = (1, 3, shape.height, shape.width)
    token_ids = InputSpec("token_ids", (1, shape.tokens), "int32", Uniform(0, 500))
    layer_gates = InputSpec("layer_gates", (shape.text_layers,), "float32", Constant(1.0))
    encoded = TensorSpec("context", (1, shape.tokens, shape.text_width - shape.text_width_2), COMPUTE)
    context = InputSpec("context", (1, shape.chunks * shape.tokens, shape.text_width), COMPUTE)
    sample = InputSpec("sample", shape.latent, "float32")
    unet_sample = InputSpec("sample", (batch, shape.sample_channels, rows, columns), "float32")
    timestep = InputSpec("timestep", (1,), "float32", Constant(481.0))
    control_image = InputSpec("control_image", picture, "float32", Uniform(0, 1))
    embedding = InputSpec("control_embedding", (batch, shape.unet_channels[0], rows, columns), COMPUTE)
    scales = InputSpec("conditioning_scales", (len(shape.residuals),), "float32", Uniform(0.4, 1.2))
    residuals = tuple(InputSpec(tensor.name, tensor.shape, tensor.dtype) for tensor in shape.residuals)
    others = tuple(InputSpec(f"other_{tensor.name}", tensor.shape, tensor.dtype) for tensor in shape.residuals)
    latents = InputSpec("latents", shape.latent, "float32")
    image = InputSpec("image", picture, "float32", Uniform(-1, 1))
    output = TensorSpec("output", shape.latent, "float32")
    tile_height, tile_width = shape.vae_size
    tile_rows, tile_columns = tile_height // shape.vae_scale_factor, tile_width // shape.vae_scale_factor
    tile = InputSpec("image", (1, 3, tile_height, tile_width), "float32", Uniform(-1, 1))
    tile_latents = InputSpec("latents", (1, shape.latent_channels, tile_rows, tile_columns), "float32")
    guidance = (InputSpec("guidance_scale", (1,), "float32", Constant(8.5)),) if shape.guidance_embedding else ()
    moments = TensorSpec("moments", (1, 2 * shape.latent_channels, tile_rows, tile_columns), "float32")
    text_encoder_2, added = _second_text_encoder(shape)
    outputs, shallow = [output], []
    if shape.cached_branch is not None:
        outputs.append(shape.deep_feature)
        feature = InputSpec("deep_feature", shape.deep_feature.shape, COMPUTE)
        inputs = (unet_sample, timestep, context, *guidance, *added, feature, *residuals[: shape.cached_branch + 1])
        shallow.append(ComponentSpec(UNET_SHALLOW, inputs, (output,)))
    specs = (
        ComponentSpec(TEXT_ENCODER, (token_ids, layer_gates), (encoded,)),
        *text_encoder_2,
        ComponentSpec(CONTROL_EMBEDDING, (control_image,), (embedding,)),
        ComponentSpec(CONTROLNET, (sample, timestep, context, *added, embedding, scales), residuals),
        ComponentSpec(RESIDUAL_SUM, (*residuals, *others), residuals),
        ComponentSpec(UNET, (unet_sample, timestep, context, *guidance, *added, *residuals), tuple(outputs)),
        *shallow,
        ComponentSpec(VAE_DECODER, (tile_latents,), (tile,)),
        ComponentSpec(VAE_ENCODER, (tile,), (moments if shape.encodes_to_moments else tile_latents,)),
        ComponentSpec(PREVIEW_DECODER, (latents,), (image,)),
    )
    return {spec.name: spec for spec in specs}


def _second_text_encoder(shape: ModelShape) -> tuple[list[ComponentSpec], tuple[InputSpec, ...]]:
    """Describe the second text encoder, and what UNet and ControlNet then read besides the context; or nothing."""
    if not shape.pooled_width:
        return [], ()
    first = InputSpec("first_context", (1, shape.tokens, shape.text_width - shape.text_width_2), COMPUTE)
    inputs = (
        InputSpec("token_ids", (1, shape.tokens), "int32", Uniform(0, 500)),
        InputSpec("layer_gates", (shape.text_layers_2,), "float32", Constant(1.0)),
        InputSpec("end_position", (1,), "int32", Constant(5)),
        first,
    )
    text_embeds = InputSpec("text_embeds", (1, shape.pooled_width), COMPUTE)
    encoded = TensorSpec("context", (1, shape.tokens, shape.text_width), COMPUTE)
    pooled = TensorSpec(text_embeds.name, text_embeds.shape, COMPUTE)
    # Sizes of pictures in pixels, as a pipeline passes them.
    time_ids = InputSpec("time_ids", (1, TIME_IDS), "float32", Uniform(0, 2048))
    return [ComponentSpec(TEXT_ENCODER_2, inputs, (encoded, pooled))], (text_embeds, time_ids)


def function_specs(shapes: Sequence[ModelShape], tiles_vae: bool = False) -> dict[str, ComponentSpec]:
    """List the functions that serve all of a model's shapes, by name; a spec's name is the component's.

    The first shape is the default, and its functions have the components' names. Another shape adds a function only for
    a component whose inputs or outputs no earlier shape has: `unet_512x768_2_chunks`, with the width before the height.

    Args:
        tiles_vae: whether pictures that are no smaller than the first shape's, on both sides, go through the VAE in
            tiles of that shape. They then need no VAE of their own.
    """
    functions: dict[ComponentSpec, str] = {}
    for shape in shapes:
        chunks = "" if shape.chunks == 1 else f"_{shape.chunks}_chunks"
        suffix = "" if shape == shapes[0] else f"_{shape.width}x{shape.height}{chunks}"
        in_tiles = tiles_vae and shape.height >= shapes[0].height and shape.width >= shapes[0].width
        for spec in component_specs(shape).values():
            if shape == shapes[0] or not (in_tiles and spec.name in (VAE_DECODER, VAE_ENCODER)):
                functions.setdefault(spec, spec.name + suffix)
    return {name: spec for spec, name in functions.items()}
