"""The real models' complete lists of tensors, without their values: names, shapes and counts."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from mlc_controlnet.checkpoint.controlnet import controlnet_of
from mlc_controlnet.checkpoint.modules import build_empty
from mlc_controlnet.checkpoint.single_file import model_of
from mlc_controlnet.checkpoint.source import PartSource
from mlc_controlnet.checkpoint.weight_file import WeightFile
from tests.checkpoint.original_layout import original_model, original_unet

# The models' own config.json files, without what is diffusers' default.
UNET = {
    1: {"cross_attention_dim": 768, "attention_head_dim": 8},
    2: {"cross_attention_dim": 1024, "attention_head_dim": [5, 10, 20, 20], "use_linear_projection": True},
}
TEXT: dict[int, dict[str, Any]] = {
    1: {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "projection_dim": 768,
        "hidden_act": "quick_gelu",
        "vocab_size": 49408,
    },
    2: {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 23,
        "num_attention_heads": 16,
        "projection_dim": 512,
        "hidden_act": "gelu",
        "vocab_size": 49408,
    },
}
# As published for the base models; of the ControlNets what diffusers' own classes count.
PARAMETERS = {
    1: {"unet": 859_520_964, "text_encoder": 123_060_480, "vae": 83_653_863, "controlnet": 361_279_120},
    2: {"unet": 865_910_724, "text_encoder": 340_387_840, "vae": 83_653_863, "controlnet": 364_228_240},
}


def real_modules(family: int) -> dict[str, nn.Module]:
    with torch.device("meta"):
        unet = UNet2DConditionModel(sample_size=64, **UNET[family])
        return {
            "unet": unet,
            "text_encoder": CLIPTextModel(CLIPTextConfig(**TEXT[family])),
            "vae": AutoencoderKL(
                block_out_channels=(128, 256, 512, 512),
                down_block_types=("DownEncoderBlock2D",) * 4,
                up_block_types=("UpDecoderBlock2D",) * 4,
                layers_per_block=2,
                latent_channels=4,
            ),
            "controlnet": ControlNetModel.from_unet(unet, load_weights_from_unet=False),
        }


@pytest.mark.parametrize("family", [1, 2])
def test_every_tensor_of_the_real_model_finds_its_place(family: int) -> None:
    modules = real_modules(family)
    unet, vae, text = (modules[part].state_dict() for part in ("unet", "vae", "text_encoder"))
    base = original_model(unet, vae, text, is_second=family == 2)
    control = {
        f"control_model.{key}": value for key, value in original_unet(modules["controlnet"].state_dict()).items()
    }
    parts = {
        **model_of(WeightFile(Path("sd.safetensors"), base, {}), None, "epsilon").parts,
        "controlnet": controlnet_of(WeightFile(Path("control.pth"), control, {})),
    }
    for part, source in parts.items():
        shapes = {key: tensor.shape for key, tensor in source.read().items()}
        wanted = {key: tensor.shape for key, tensor in modules[part].named_parameters()}
        assert shapes == wanted, part
        built = dict(build_empty(source, part).named_parameters())
        assert {key: tensor.shape for key, tensor in built.items()} == wanted, part
        assert sum(tensor.numel() for tensor in built.values()) == PARAMETERS[family][part], part
        assert_same_computation(source, modules[part], part)


def assert_same_computation(source: PartSource, module: nn.Module, part: str) -> None:
    """What shapes do not show: heads, activations, groups, factors."""
    built = build_empty(source, part)
    layers = [[repr(m) for m in whole.modules() if not list(m.children())] for whole in (built, module)]
    assert layers[0] == layers[1]
    heads = [[m.heads for m in whole.modules() if hasattr(m, "heads")] for whole in (built, module)]
    assert heads[0] == heads[1]
    for key in ("scaling_factor", "num_attention_heads", "hidden_act", "layer_norm_eps", "norm_eps", "freq_shift"):
        assert getattr(built.config, key, None) == getattr(module.config, key, None), key


def test_names_of_the_real_files_are_those_that_the_tables_give() -> None:
    """Spot checks against names that are known from the published files."""
    modules = real_modules(1)
    unet, vae, text = (modules[part].state_dict() for part in ("unet", "vae", "text_encoder"))
    shapes = {key: tuple(tensor.shape) for key, tensor in original_model(unet, vae, text, is_second=False).items()}
    for key, shape in {
        "model.diffusion_model.input_blocks.0.0.weight": (320, 4, 3, 3),
        "model.diffusion_model.input_blocks.3.0.op.weight": (320, 320, 3, 3),
        "model.diffusion_model.input_blocks.4.0.skip_connection.weight": (640, 320, 1, 1),
        "model.diffusion_model.input_blocks.11.0.out_layers.3.weight": (1280, 1280, 3, 3),
        "model.diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_k.weight": (1280, 768),
        "model.diffusion_model.output_blocks.2.1.conv.weight": (1280, 1280, 3, 3),
        "model.diffusion_model.output_blocks.5.2.conv.weight": (1280, 1280, 3, 3),
        "model.diffusion_model.output_blocks.8.2.conv.weight": (640, 640, 3, 3),
        "model.diffusion_model.output_blocks.11.1.proj_out.weight": (320, 320, 1, 1),
        "model.diffusion_model.output_blocks.11.0.skip_connection.weight": (320, 640, 1, 1),
        "model.diffusion_model.out.2.weight": (4, 320, 3, 3),
        "first_stage_model.encoder.down.1.block.0.nin_shortcut.weight": (256, 128, 1, 1),
        "first_stage_model.encoder.mid.attn_1.q.weight": (512, 512, 1, 1),
        "first_stage_model.encoder.conv_out.weight": (8, 512, 3, 3),
        "first_stage_model.decoder.up.1.upsample.conv.weight": (256, 256, 3, 3),
        "first_stage_model.decoder.up.0.block.0.nin_shortcut.weight": (128, 256, 1, 1),
        "first_stage_model.quant_conv.weight": (8, 8, 1, 1),
        "cond_stage_model.transformer.text_model.encoder.layers.11.mlp.fc1.weight": (3072, 768),
    }.items():
        assert shapes[key] == shape, key
