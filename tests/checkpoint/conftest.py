"""Stable Diffusion 1.x and 2.x at tiny widths: every block and every name of the real ones, random weights."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, ControlNetModel, DDIMScheduler, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from mlc_controlnet.checkpoint.ldm_config import base_model
from tests.checkpoint.original_layout import original_model, original_unet
from tests.fixtures.shared_build import BuildOnce
from tests.fixtures.xl_model import save_xl_model

VAE_WIDTHS = (32, 32, 64, 64)
HINT_WIDTHS = (8, 16, 24, 32)


@dataclass(frozen=True)
class Tiny:
    """The modules of one model, float16."""

    unet: UNet2DConditionModel
    vae: AutoencoderKL
    text_encoder: CLIPTextModel
    controlnet: ControlNetModel
    is_second: bool

    def original(self) -> dict[str, torch.Tensor]:
        """The base model as one file holds it."""
        states = [module.state_dict() for module in (self.unet, self.vae, self.text_encoder)]
        return original_model(*states, is_second=self.is_second)

    def original_controlnet(self, prefix: str = "control_model.") -> dict[str, torch.Tensor]:
        return {f"{prefix}{key}": tensor for key, tensor in original_unet(self.controlnet.state_dict()).items()}

    def save_folder(self, folder: Path) -> Path:
        """The base model in diffusers' layout, without a tokenizer.json, as the first releases were."""
        self.unet.save_pretrained(folder / "unet")
        self.vae.save_pretrained(folder / "vae")
        self.text_encoder.save_pretrained(folder / "text_encoder")
        DDIMScheduler(clip_sample=False, steps_offset=1).save_pretrained(folder / "scheduler")
        (folder / "model_index.json").write_text("{}")
        write_vocabulary(folder / "tokenizer")
        return folder


def build_tiny(is_second: bool, sample_channels: int = 4) -> Tiny:
    torch.manual_seed(0)
    base = base_model(is_second)
    widths, text_width = ((64, 128, 192, 192), 192) if is_second else ((32, 64, 96, 96), 128)
    heads = [width // 64 for width in widths] if is_second else 8
    config = {**base["unet"], "block_out_channels": widths, "cross_attention_dim": text_width}
    unet = UNet2DConditionModel.from_config({**config, "attention_head_dim": heads, "in_channels": sample_channels})
    plain = unet if sample_channels == 4 else UNet2DConditionModel.from_config({**unet.config, "in_channels": 4})
    modules = (
        unet,
        AutoencoderKL.from_config({**base["vae"], "block_out_channels": VAE_WIDTHS, "latent_channels": 4}),
        CLIPTextModel(
            CLIPTextConfig(
                **base["text_encoder"],
                vocab_size=49408,
                hidden_size=text_width,
                intermediate_size=2 * text_width,
                num_hidden_layers=2,
                num_attention_heads=text_width // 64,
            )
        ),
        ControlNetModel.from_unet(plain, conditioning_embedding_out_channels=HINT_WIDTHS),
    )
    for module in modules:
        for parameter in module.parameters():
            if not parameter.any():
                nn.init.normal_(parameter, std=0.02)
    return Tiny(*(module.half().eval() for module in modules), is_second=is_second)


def write_vocabulary(folder: Path) -> None:
    """vocab.json and merges.txt with a few merges: what a CLIPTokenizer was saved as before tokenizer.json was."""
    folder.mkdir(parents=True)
    letters = [chr(code) for code in range(ord("!"), ord("~") + 1)]
    merges = ["r e", "re d</w>"]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "re", "red</w>", "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]))
    (folder / "tokenizer_config.json").write_text(json.dumps({"pad_token": "<|endoftext|>"}))
    (folder / "special_tokens_map.json").write_text(json.dumps({"pad_token": "!"}))


@pytest.fixture(scope="session")
def first() -> Tiny:
    """Stable Diffusion 1.x."""
    return build_tiny(is_second=False)


@pytest.fixture(scope="session")
def xl_folder(build_once: BuildOnce) -> Path:
    """Stable Diffusion XL, as a folder."""
    return build_once("xl-folder", lambda folder: save_xl_model(folder / "model")) / "model"


@pytest.fixture(scope="session")
def second() -> Tiny:
    """Stable Diffusion 2.x."""
    return build_tiny(is_second=True)
