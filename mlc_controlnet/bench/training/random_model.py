"""Stable Diffusion 1.5 with random weights: the values of weights do not change the time of a step."""

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from mlc_controlnet.checkpoint.ldm_config import base_model
from mlc_controlnet.train.base import Base, find_base

# What a checkpoint states itself. The whole family shares the rest.
UNET = {"block_out_channels": (320, 640, 1280, 1280), "cross_attention_dim": 768}
VAE = {"block_out_channels": (128, 256, 512, 512), "latent_channels": 4}
TEXT_ENCODER = {
    "vocab_size": 49408,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
}


def random_stable_diffusion() -> Base:
    """Return a model of the real shapes in float32, with the tokenizer of circles, whose ids fit its vocabulary."""
    family = base_model(is_second=False)
    torch.manual_seed(0)
    base = Base(
        tokenizer=CLIPTokenizer.from_pretrained(find_base("circles") / "tokenizer", local_files_only=True),
        text_encoder=CLIPTextModel(CLIPTextConfig(**family["text_encoder"], **TEXT_ENCODER)),
        vae=AutoencoderKL.from_config({**family["vae"], **VAE}),
        unet=UNet2DConditionModel.from_config({**family["unet"], **UNET}),
        scheduler=DDIMScheduler.from_config(family["scheduler"], clip_sample=False),
    )
    for part in (base.text_encoder, base.vae, base.unet):
        part.requires_grad_(False).eval()
    return base
