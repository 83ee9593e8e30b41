"""The six components: what goes in, what comes out.

The axis alphabet, used in every comment that follows a shape:

    B batch (always 1)   T tokens (77)   D text width   C channels
    H W pixels           h w latent cells, h = H / 8, w = W / 8

Whatever the host reads or writes is float32 (token ids int32). What only passes from one component to the next, the
context, the control embedding and the residuals, is in the library's own compute dtype: `COMPUTE` stands for it.

What does not change from step to step is a component of its own, called once a picture: the text encoder, and the part
of the ControlNet that reads the control image.
"""

from dataclasses import dataclass

TEXT_ENCODER = "text_encoder"
CONTROL_EMBEDDING = "control_embedding"
CONTROLNET = "controlnet"
UNET = "unet"
VAE_DECODER = "vae_decoder"
VAE_ENCODER = "vae_encoder"
COMPONENTS = (TEXT_ENCODER, CONTROL_EMBEDDING, CONTROLNET, UNET, VAE_DECODER, VAE_ENCODER)
INPAINTING_CHANNELS = 9  # of an inpainting UNet's sample: latents, a mask, and the latents of the masked picture
DRAWING = (TEXT_ENCODER, CONTROL_EMBEDDING, CONTROLNET, UNET, VAE_DECODER)  # what a picture from a prompt takes

COMPUTE = "compute"


@dataclass(frozen=True)
class TensorSpec:
    name: str
    shape: tuple[int, ...]
    dtype: str  # "float32", "int32" or COMPUTE

    def resolved(self, compute_dtype: str) -> "TensorSpec":
        """The same tensor with COMPUTE replaced by the dtype of a library."""
        return TensorSpec(self.name, self.shape, compute_dtype if self.dtype == COMPUTE else self.dtype)


@dataclass(frozen=True)
class ComponentSpec:
    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


@dataclass(frozen=True)
class ModelShape:
    """The numbers that decide every component's shapes.

    Attributes:
        height, width: of the picture, in pixels; multiples of 8 and of the UNet's own downsampling on top of it.
        tokens: T.
        text_width: D.
        latent_channels: C of the latents.
        sample_channels: C of the UNet's sample: `latent_channels` or INPAINTING_CHANNELS. The ControlNet takes the
            latents alone.
        unet_channels: the UNet's `block_out_channels`, from the finest level to the coarsest.
        layers_per_block: the UNet's.
        global_pool_conditions: diffusers' name for a ControlNet that averages its residuals over the picture, as
            the kind shuffle does: each is one number a channel, which the UNet adds everywhere.
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
    global_pool_conditions: bool = False

    @property
    def latent(self) -> tuple[int, int, int, int]:
        return (1, self.latent_channels, self.height // self.vae_scale_factor, self.width // self.vae_scale_factor)

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
        if self.global_pool_conditions:
            shapes = [(1, channels, 1, 1) for _, channels, _, _ in shapes]
        names = (*(f"down_residual_{i}" for i in range(len(shapes) - 1)), "mid_residual")
        return tuple(TensorSpec(name, shape, COMPUTE) for name, shape in zip(names, shapes, strict=True))


def component_specs(shape: ModelShape) -> dict[str, ComponentSpec]:
    """Describe all components of a model of this shape."""
    context = TensorSpec("context", (1, shape.tokens, shape.text_width), COMPUTE)
    sample = TensorSpec("sample", shape.latent, "float32")
    timestep = TensorSpec("timestep", (1,), "float32")
    image = TensorSpec("image", (1, 3, shape.height, shape.width), "float32")
    control_image = TensorSpec("control_image", image.shape, "float32")
    scale = TensorSpec("conditioning_scale", (1,), "float32")
    latents = TensorSpec("latents", shape.latent, "float32")
    batch, _, rows, columns = shape.latent
    unet_sample = TensorSpec("sample", (batch, shape.sample_channels, rows, columns), "float32")
    moments = TensorSpec("moments", (1, 2 * shape.latent_channels, rows, columns), "float32")
    embedding = TensorSpec("control_embedding", (batch, shape.unet_channels[0], rows, columns), COMPUTE)
    specs = (
        ComponentSpec(TEXT_ENCODER, (TensorSpec("token_ids", (1, shape.tokens), "int32"),), (context,)),
        ComponentSpec(CONTROL_EMBEDDING, (control_image,), (embedding,)),
        ComponentSpec(CONTROLNET, (sample, timestep, context, embedding, scale), shape.residuals),
        ComponentSpec(
            UNET, (unet_sample, timestep, context, *shape.residuals), (TensorSpec("output", shape.latent, "float32"),)
        ),
        ComponentSpec(VAE_DECODER, (latents,), (image,)),
        ComponentSpec(VAE_ENCODER, (image,), (moments,)),
    )
    return {spec.name: spec for spec in specs}
