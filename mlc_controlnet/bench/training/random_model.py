"""Stable Diffusion 1.5 with random weights: time does not depend on what a weight is."""

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from mlc_controlnet.checkpoint.ldm_config import base_model
from mlc_controlnet.train.base import Base, find_base

# What a checkpoint's own tensors say, beside what all models of the family share.
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
    """The real model's shapes, in float32; the tokenizer is that of circles, whose ids are in the vocabulary too."""
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
