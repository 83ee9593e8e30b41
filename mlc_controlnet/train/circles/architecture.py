"""The modules of `circles`: Stable Diffusion's five parts, small enough for a CPU and for software WebGPU."""

import torch
from diffusers import AutoencoderKL, ControlNetModel, DDIMScheduler, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

TOKENS = 77
TEXT_WIDTH = 64


def build_vae() -> AutoencoderKL:
    """Build an autoencoder that shrinks each side by 8 and has 4 latent channels.

    A group norm removes the mean of its group, and a flat picture consists of its mean. Only the ratios between the
    channels of a group keep the colour, so the groups are large (two per layer). Residual branches start at zero, and
    the resamplers start as averaging or copying, so the untrained network already passes colours through. The
    log-variance starts at -6. Early in training, large groups and this start together cut the error to about a quarter
    of what diffusers' initialization reaches with eight groups.
    """
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(16, 32, 48, 64),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=2,
        sample_size=128,
    )
    start_as_copy(vae)
    return vae


def start_as_copy(vae: AutoencoderKL) -> None:
    """Let an untrained autoencoder pass colours through, see `build_vae`."""
    for name, module in vae.named_modules():
        if name.endswith(("conv2", "to_out.0")):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)
        elif name.endswith("downsamplers.0.conv"):
            _start_as_stencil(module, torch.full((2, 2), 0.25))  # averages 2x2 pixels
        elif name.endswith("upsamplers.0.conv"):
            _start_as_stencil(module, torch.tensor([[0.0, 0.0], [0.0, 1.0]]))  # the middle of 3x3: copies a pixel
    nn.init.constant_(vae.quant_conv.bias[vae.config.latent_channels :], -6.0)


@torch.no_grad()
def _start_as_stencil(conv: nn.Conv2d, stencil: torch.Tensor) -> None:
    """Shrink the random weights to a tenth, and add `stencil` at the kernel's upper left from each channel to itself.

    The bias becomes zero.

    Args:
        conv: a convolution with as many input as output channels.
        stencil: [rows, columns], not larger than the kernel.
    """
    rows, columns = stencil.shape
    conv.weight.mul_(0.1)
    for channel in range(conv.out_channels):
        conv.weight[channel, channel, :rows, :columns] += stencil
    conv.bias.zero_()


def build_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """Build two pre-norm transformer layers with CLIP's quick GELU and causal mask."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=TEXT_WIDTH,
            intermediate_size=4 * TEXT_WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=TOKENS,
            hidden_act="quick_gelu",
            projection_dim=TEXT_WIDTH,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def build_unet() -> UNet2DConditionModel:
    """Build a UNet without attention at 16x16, where attention would take as long as all the convolutions."""
    return UNet2DConditionModel(
        sample_size=16,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(32, 64, 96),
        layers_per_block=1,
        norm_num_groups=4,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=4,  # diffusers' name for the number of heads: head size 16 and 24
    )


def build_controlnet(unet: UNet2DConditionModel) -> ControlNetModel:
    """Copy the UNet's encoder and add zero convolutions (arXiv 2302.05543, section 3.1)."""
    return ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(8, 16, 24, 32))


def build_scheduler() -> DDIMScheduler:
    """Build a schedule with zero terminal signal-to-noise ratio, v-prediction and trailing steps (arXiv 2305.08891).

    With Stable Diffusion's usual schedule the mean of a flat picture survives at the last timestep. The model would
    then read the colours from the noise instead of the prompt.
    """
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        rescale_betas_zero_snr=True,
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
        steps_offset=0,
    )
