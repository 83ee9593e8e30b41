"""Stable Diffusion 1.5 with random weights: time does not depend on what a weight is."""

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from mlc_controlnet.checkpoint.ldm_config import base_model
from mlc_controlnet.train.base import Base, find_base


def random_stable_diffusion() -> Base:
    """The real model's shapes, in float32; the tokenizer is that of circles, whose ids are in the vocabulary too."""
    configs = base_model(is_second=False)
    torch.manual_seed(0)
    text = CLIPTextConfig(
        vocab_size=49408, hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12
    )
    base = Base(
        tokenizer=CLIPTokenizer.from_pretrained(find_base("circles") / "tokenizer", local_files_only=True),
        text_encoder=CLIPTextModel(text),
        vae=AutoencoderKL.from_config(configs["vae"]),
        unet=UNet2DConditionModel.from_config(configs["unet"]),
        scheduler=DDIMScheduler.from_config(configs["scheduler"], clip_sample=False),
    )
    for part in (base.text_encoder, base.vae, base.unet):
        part.requires_grad_(False).eval()
    return base
