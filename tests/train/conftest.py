"""A base of a few thousand weights and a set of 24 x 32 pictures, so that a training step takes milliseconds."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from mlc_controlnet.train.circles.tokenizer import train_tokenizer
from mlc_controlnet.train.config import TrainConfig
from mlc_controlnet.train.config_file import from_tree
from mlc_controlnet.train.data import fill50k

HEIGHT, WIDTH = 24, 32
PROMPTS = ("red left", "green right", "blue above")


@pytest.fixture(scope="session", autouse=True)
def freed_memory_goes_back() -> Iterator[None]:
    """What a run sets for its process would stay set for every test that follows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mlc_controlnet.train.process.keep_freed_memory", lambda: None)
        yield


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    torch.manual_seed(0)
    tokenizer = train_tokenizer(list(PROMPTS), folder / "tokenizer")
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=77,
            projection_dim=16,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=32,
    )
    unet = UNet2DConditionModel(
        sample_size=16,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        cross_attention_dim=16,
        attention_head_dim=2,
    )
    for parameter in unet.parameters():  # diffusers zeroes none, but a weight of zero would hide a mistake
        if not parameter.any():
            nn.init.normal_(parameter, std=0.02)
    StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=DDIMScheduler(
            beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, clip_sample=False, steps_offset=1
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder / "base")
    return folder / "base"


def write_set(folder: Path, count: int) -> Path:
    """A fill50k set of `count` random pictures."""
    rng = np.random.default_rng(0)

    def picture() -> np.ndarray:
        return rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)

    fill50k.write(folder, (fill50k.Example(picture(), picture(), PROMPTS[i % len(PROMPTS)]) for i in range(count)))
    return folder


@pytest.fixture(scope="session")
def tiny_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten samples; to be read only."""
    return write_set(tmp_path_factory.mktemp("set") / "set", 10)


@pytest.fixture
def make_config(tiny_base: Path, tiny_set: Path, tmp_path: Path) -> Callable[..., TrainConfig]:
    """A config of four quick steps; name options as section__option to change them."""

    def make(**options: Any) -> TrainConfig:
        return from_tree(tiny_tree(tiny_base, tiny_set, **{"out": str(tmp_path / "out"), **options}))

    return make


def tiny_tree(base: Path, data: Path, **options: Any) -> dict[str, Any]:
    tree: dict[str, Any] = {
        "model": {"base": str(base), "hint_widths": [8, 8]},
        "data": {"path": str(data), "height": HEIGHT, "width": WIDTH},
        "optim": {"learning_rate": 1e-3},
        "trainer": {"max_steps": 4, "batch_size": 2, "checkpoint_every": 100},
        "log": {"image_every": 0, "tensorboard": False},
    }
    for name, value in options.items():
        section, _, option = name.partition("__")
        if option:
            tree[section][option] = value
        else:
            tree[section] = value
    return tree


def write_config(path: Path, tree: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return path


def weights_below(folder: Path) -> dict[str, torch.Tensor]:
    """The tensors of a ControlNet's folder."""
    from safetensors.torch import load_file

    return load_file(folder / "diffusion_pytorch_model.safetensors")


def same_weights(first: Path, second: Path) -> bool:
    """Whether two ControlNets are the same, bit for bit."""
    ours, theirs = weights_below(first), weights_below(second)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
