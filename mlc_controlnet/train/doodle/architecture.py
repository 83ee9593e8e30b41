"""The modules of `doodle`, sized for a training of some hours on two cores.

Latents have 8 channels at 16x16: with 4, the autoencoder loses the eyes of faces. The UNet has no attention at 16x16,
where it costs a quarter more time per step. A picture of 20 steps with guidance takes 50 GFLOP.
"""

from dataclasses import dataclass

import torch
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from mlc_controlnet.train.circles.architecture import start_as_copy
from mlc_controlnet.train.doodle.artworks import SIZE

TOKENS = 32  # of a caption, with begin and end; the longest of 1,500 captions had 20


@dataclass(frozen=True)
class Sizes:
    """The sizes of the five parts.

    Attributes:
        vae: channels of the autoencoder's levels; each of them but the last halves the sides.
        latent_channels: channels of the latents.
        unet: channels of the UNet's levels.
        text: width of the text encoder.
        text_layers: its layers.
        vocabulary: tokens at most.
        hint: channels of the layers that embed a control image; n of them shrink it 2^(n-1) times.
    """

    vae: tuple[int, ...] = (24, 40, 64, 96)
    latent_channels: int = 8
    unet: tuple[int, int, int] = (64, 128, 192)
    text: int = 128
    text_layers: int = 3
    vocabulary: int = 4096
    hint: tuple[int, ...] = (8, 16, 32, 48)

    @property
    def cells(self) -> int:
        """Return the side of the latents."""
        return int(SIZE // 2 ** (len(self.vae) - 1))


def build_vae(sizes: Sizes) -> AutoencoderKL:
    """Build an autoencoder that passes colours through from the start, as `circles` has it."""
    levels = len(sizes.vae)
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=sizes.vae,
        layers_per_block=1,
        latent_channels=sizes.latent_channels,
        norm_num_groups=2,
        sample_size=SIZE,
    )
    start_as_copy(vae)
    return vae


def build_text_encoder(sizes: Sizes, tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """Build a pre-norm transformer with CLIP's quick GELU and causal mask."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=sizes.text,
            intermediate_size=4 * sizes.text,
            num_hidden_layers=sizes.text_layers,
            num_attention_heads=4,
            max_position_embeddings=TOKENS,
            hidden_act="quick_gelu",
            projection_dim=sizes.text,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def build_unet(sizes: Sizes) -> UNet2DConditionModel:
    """Build a UNet of three levels, with attention on the lower two."""
    return UNet2DConditionModel(
        sample_size=sizes.cells,
        in_channels=sizes.latent_channels,
        out_channels=sizes.latent_channels,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=sizes.unet,
        layers_per_block=1,
        norm_num_groups=8,
        cross_attention_dim=sizes.text,
        attention_head_dim=4,  # diffusers' name for the number of heads
    )


def build_controlnet(sizes: Sizes, unet: UNet2DConditionModel) -> ControlNetModel:
    """Copy the UNet's encoder and add zero convolutions (arXiv 2302.05543, section 3.1)."""
    return ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=sizes.hint)


def scale_residuals(controlnet: ControlNetModel, scale: float) -> None:
    """Make a ControlNet's outputs `scale` times as large, by its zero convolutions."""
    with torch.no_grad():
        for layer in (*controlnet.controlnet_down_blocks, controlnet.controlnet_mid_block):
            layer.weight *= scale
            layer.bias *= scale


def count(part: nn.Module) -> int:
    """Return the number of weights."""
    return sum(weight.numel() for weight in part.parameters())
