"""Every option of a model's configuration is honoured, irrelevant or refused, and the components prove it."""

import inspect
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    ControlNetModel,
    ControlNetUnionModel,
    LatentConsistencyModelPipeline,
    UNet2DConditionModel,
)
from diffusers.utils import DummyObject
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from mlc_controlnet.capture.control_embedding import ControlEmbedding
from mlc_controlnet.capture.controlnet import ControlNet
from mlc_controlnet.capture.text_encoder import TextEncoder
from mlc_controlnet.capture.text_encoder_2 import TextEncoder2
from mlc_controlnet.capture.unet import UNet
from mlc_controlnet.capture.vae_decoder import VaeDecoder
from mlc_controlnet.capture.vae_encoder import VaeEncoder
from mlc_controlnet.checkpoint import load_checkpoint
from mlc_controlnet.checkpoint.modules import build_empty, with_defaults
from mlc_controlnet.checkpoint.options import CLASSES as ACCEPTED
from mlc_controlnet.checkpoint.options import OPTIONS, Limited
from mlc_controlnet.checkpoint.source import PartSource
from mlc_controlnet.checkpoint.union_controlnet import of_control_type
from mlc_controlnet.components import ModelShape
from mlc_controlnet.errors import UserError

CLASSES: dict[str, tuple[type, ...]] = {
    "unet": (UNet2DConditionModel,),
    "controlnet": (ControlNetModel,),
    "ControlNetUnionModel": (ControlNetUnionModel,),
    "vae": (AutoencoderKL,),
    "AutoencoderTiny": (AutoencoderTiny,),
    "text_encoder": (CLIPTextConfig,),
    "text_encoder_2": (CLIPTextConfig,),
    # Without an optional package diffusers has a dummy in a scheduler's place, whose options are unknown.
    "scheduler": tuple(
        cls for name in ACCEPTED["scheduler"][1] if not issubclass(type(cls := getattr(diffusers, name)), DummyObject)
    ),
}
SETTLED = [(part, option) for part, table in OPTIONS.items() for option in table if part != "scheduler"]

# Another value than the tiny models below have, of each option that is not refused.
ENCODER: dict[str, Any] = {
    "in_channels": 9,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "mid_block_type": "UNetMidBlock2D",
    "only_cross_attention": True,
    "block_out_channels": [16, 32],
    "layers_per_block": 2,
    "downsample_padding": 0,
    "mid_block_scale_factor": 2.0,
    "act_fn": "gelu",
    "norm_num_groups": 2,
    "norm_eps": 1e-2,
    "cross_attention_dim": 24,
    "transformer_layers_per_block": 2,
    "attention_head_dim": 2,
    "use_linear_projection": True,
    "addition_embed_type_num_heads": 8,
    "addition_time_embed_dim": 8,
    "upcast_attention": True,
    "resnet_time_scale_shift": "scale_shift",
    "projection_class_embeddings_input_dim": 40,
}
OTHER_VALUES: dict[str, dict[str, Any]] = {
    "unet": {
        **ENCODER,
        "sample_size": 64,
        "out_channels": 8,
        "center_input_sample": True,
        "up_block_types": ["UpBlock2D", "UpBlock2D"],
        "dropout": 0.5,
        "reverse_transformer_layers_per_block": [1, 1],
        "resnet_skip_time_act": True,
        "resnet_out_scale_factor": 2.0,
        "time_embedding_dim": 48,
        "time_embedding_act_fn": "gelu",
        "timestep_post_act": "gelu",
        "time_cond_proj_dim": 24,
        "conv_in_kernel": 5,
        "conv_out_kernel": 5,
        "mid_block_only_cross_attention": True,
        "cross_attention_norm": "layer_norm",
    },
    "controlnet": {
        **ENCODER,
        "num_attention_heads": 2,
        "controlnet_conditioning_channel_order": "bgr",
        "conditioning_embedding_out_channels": [8, 16, 24, 32],
        "global_pool_conditions": True,
    },
    "ControlNetUnionModel": {
        **{option: value for option, value in ENCODER.items() if option != "mid_block_type"},
        "num_attention_heads": 2,
        "conditioning_embedding_out_channels": [4, 8, 12, 16],
        "global_pool_conditions": True,
        "num_control_type": 8,
        "num_trans_channel": 64,
        "num_trans_head": 2,
        "num_trans_layer": 2,
        "num_proj_channel": 64,
    },
    "vae": {
        "down_block_types": ["DownEncoderBlock2D", "AttnDownEncoderBlock2D"],
        "up_block_types": ["AttnUpDecoderBlock2D", "UpDecoderBlock2D"],
        "block_out_channels": [16, 32],
        "layers_per_block": 2,
        "act_fn": "gelu",
        "latent_channels": 8,
        "norm_num_groups": 2,
        "sample_size": 16,
        "scaling_factor": 0.5,
        "force_upcast": False,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
        "mid_block_add_attention": False,
    },
    "AutoencoderTiny": {
        "encoder_block_out_channels": [16, 16],
        "decoder_block_out_channels": [16, 16],
        "act_fn": "gelu",
        "latent_channels": 8,
        "num_encoder_blocks": [2, 1],
        "num_decoder_blocks": [1, 2],
        "latent_magnitude": 6,
        "latent_shift": 0.25,
        "force_upcast": True,
        "scaling_factor": 0.5,
    },
    "text_encoder": {
        "vocab_size": 64,
        "hidden_size": 48,
        "intermediate_size": 24,
        "projection_dim": 8,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "max_position_embeddings": 12,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-2,
        "attention_dropout": 0.5,
        "initializer_range": 0.5,
        "initializer_factor": 2.0,
        "pad_token_id": 3,
        "bos_token_id": 4,
        "eos_token_id": 5,
        "transformers_version": "4.0.0",
        "architectures": ["CLIPTextModelWithProjection"],
        "output_hidden_states": True,
        "return_dict": False,
        "dtype": "float16",
        "chunk_size_feed_forward": 2,
        "is_encoder_decoder": True,
        "id2label": {0: "a"},
        "label2id": {"a": 0},
        "problem_type": "regression",
    },
}
OTHER_VALUES["text_encoder_2"] = OTHER_VALUES["text_encoder"]


@pytest.mark.parametrize("part", OPTIONS)
def test_every_option_of_diffusers_and_transformers_has_a_verdict(part: str) -> None:
    """If this fails after an update, decide what a build does with the new option and write it into OPTIONS."""
    options = {name for cls in CLASSES[part] for name in inspect.signature(cls.__init__).parameters}
    assert OPTIONS[part].keys() == options - {"self", "kwargs"}


@pytest.mark.parametrize(("part", "option"), SETTLED)
def test_a_component_computes_what_diffusers_computes_with_the_option(part: str, option: str) -> None:
    if option in OTHER_VALUES[part]:
        COMPARISONS[part](**{option: OTHER_VALUES[part][option]})
    else:
        assert isinstance(OPTIONS[part][option], Limited), "an option that is not refused needs another value above"


@torch.no_grad()
def compare_unet(**change: Any) -> None:
    config = {"block_out_channels": (32, 64), "attention_head_dim": 4, "cross_attention_dim": 16, "layers_per_block": 1}
    blocks = {"down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D")}
    blocks |= {"up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D")}
    options, added = added_conditions(change)
    model = randomized(UNet2DConditionModel(**{**config, **blocks, "norm_num_groups": 4, **options, **change}))
    sample, context = (
        torch.randn(1, model.config.in_channels, 8, 12),
        torch.randn(1, 5, model.config.cross_attention_dim),
    )
    timestep = torch.tensor([481.0])
    widths, layers = tuple(model.config.block_out_channels), model.config.layers_per_block
    shape = ModelShape(64, 96, 5, 16, 4, 4, unet_channels=widths, layers_per_block=layers)
    *down, mid = (torch.randn(residual.shape) for residual in shape.residuals)
    residuals = {"down_block_additional_residuals": tuple(down), "mid_block_additional_residual": mid}
    guidance, embedding = embed_guidance(model.config.time_cond_proj_dim)
    conditions = {"timestep_cond": embedding, "encoder_hidden_states": context, "added_cond_kwargs": added}
    wanted = model(sample, timestep, **conditions, **residuals).sample
    assert_equal(UNet(model)(sample, timestep, context, *guidance, *added.values(), *down, mid), wanted)


def added_conditions(change: dict[str, Any]) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """The options of Stable Diffusion XL that `change` belongs to, and its added conditions; or neither."""
    if not {"addition_time_embed_dim", "projection_class_embeddings_input_dim"} & change.keys():
        return {}, {}
    width = change.get("addition_time_embed_dim", 4)
    whole = change.get("projection_class_embeddings_input_dim", 8 + 6 * width)
    options = {"addition_time_embed_dim": width, "projection_class_embeddings_input_dim": whole}
    added = {"text_embeds": torch.randn(1, whole - 6 * width), "time_ids": 1024 * torch.rand(1, 6)}
    return {"addition_embed_type": "text_time", **options}, added


def embed_guidance(width: int | None) -> tuple[list[torch.Tensor], torch.Tensor | None]:
    """The guidance scale as the component reads it, and its embedding by diffusers."""
    if width is None:
        return [], None
    scale = torch.tensor([8.5])
    return [scale], LatentConsistencyModelPipeline.get_guidance_scale_embedding(None, scale - 1, width)


@torch.no_grad()
def compare_controlnet(**change: Any) -> None:
    config = {"block_out_channels": (32, 64), "attention_head_dim": 4, "cross_attention_dim": 16, "layers_per_block": 1}
    blocks = {"down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"), "norm_num_groups": 4}
    hints = {"conditioning_embedding_out_channels": (8, 16, 24, 32)}
    hints |= (
        {"conditioning_embedding_out_channels": (4, 8, 12, 16)}
        if "conditioning_embedding_out_channels" in change
        else {}
    )
    options, added = added_conditions(change)
    model = randomized(ControlNetModel(**{**config, **blocks, **hints, **options, **change}))
    sample, context = (
        torch.randn(1, model.config.in_channels, 8, 12),
        torch.randn(1, 5, model.config.cross_attention_dim),
    )
    timestep, image = torch.tensor([481.0]), torch.rand(1, 3, 64, 96)
    conditions = {"conditioning_scale": 0.5, "added_cond_kwargs": added}
    down, mid = model(sample, timestep, context, image, **conditions, return_dict=False)
    scales = torch.full((len(down) + 1,), 0.5)
    got = ControlNet(model)(sample, timestep, context, *added.values(), ControlEmbedding(model)(image), scales)
    for residual, wanted in zip(got, (*down, mid), strict=True):
        assert_equal(residual, wanted.expand_as(residual))  # a pooled one is a number a channel


@torch.no_grad()
def compare_union_controlnet(**change: Any) -> None:
    width = change.get("num_trans_channel", change.get("num_proj_channel", change.get("block_out_channels", [32])[0]))
    config = {"block_out_channels": (width, 64), "num_trans_channel": width, "num_proj_channel": width}
    config |= {"attention_head_dim": 4, "cross_attention_dim": 16, "layers_per_block": 1, "norm_num_groups": 4}
    config |= {"down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"), "addition_time_embed_dim": 4}
    config |= {"conditioning_embedding_out_channels": (8, 16, 24, 32), **change}
    options, added = added_conditions(change)
    whole = randomized(ControlNetUnionModel(**{**config, **options}))
    chosen = of_control_type(PartSource("here", whole.config, whole.state_dict), "depth")
    model = build_empty(chosen, "controlnet").to_empty(device="cpu").eval()
    model.load_state_dict(chosen.read())
    count = whole.config.num_control_type
    sample, context = (
        torch.randn(1, whole.config.in_channels, 8, 12),
        torch.randn(1, 5, whole.config.cross_attention_dim),
    )
    timestep, image, chosen_type = torch.tensor([481.0]), torch.rand(1, 3, 64, 96), torch.eye(count)[1:2]
    conditions = {"conditioning_scale": 0.5, "added_cond_kwargs": added}
    down, mid = whole(sample, timestep, context, [image], chosen_type, [1], **conditions, return_dict=False)
    scales = torch.full((len(down) + 1,), 0.5)
    got = ControlNet(model)(sample, timestep, context, *added.values(), ControlEmbedding(model)(image), scales)
    for residual, wanted in zip(got, (*down, mid), strict=True):
        assert_equal(residual, wanted.expand_as(residual))  # a pooled one is a number a channel


@torch.no_grad()
def compare_vae(**change: Any) -> None:
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    config = {**blocks, "block_out_channels": (16, 32), "norm_num_groups": 4, "latent_channels": 4}
    model = randomized(AutoencoderKL(**{**config, **change}))
    image = torch.rand(1, 3, 16, 24) * 2 - 1
    moments = model.encode(image).latent_dist.parameters
    assert_equal(VaeEncoder(model)(image), moments)
    latents = torch.randn(1, model.config.latent_channels, 8, 12)
    assert_equal(VaeDecoder(model)(latents), model.decode(latents / model.config.scaling_factor).sample)


@torch.no_grad()
def compare_tiny_vae(**change: Any) -> None:
    widths = {"encoder_block_out_channels": (8, 8), "decoder_block_out_channels": (8, 8)}
    config = {**widths, "num_encoder_blocks": (1, 2), "num_decoder_blocks": (2, 1), "latent_channels": 4, **change}
    model = randomized(AutoencoderTiny(**config))
    image = torch.rand(1, 3, 16, 24) * 2 - 1
    assert_equal(VaeEncoder(model)(image), model.encode(image).latents)
    latents = 3 * torch.randn(1, model.config.latent_channels, 8, 12)  # beyond 3, where the decoder clamps
    assert_equal(VaeDecoder(model)(latents), model.decode(latents / model.config.scaling_factor).sample)


@torch.no_grad()
def compare_text_encoder(**change: Any) -> None:
    sizes = {"vocab_size": 32, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    config = {**sizes, "num_attention_heads": 4, "max_position_embeddings": 9, **change}
    model = randomized(CLIPTextModel(CLIPTextConfig(**config)))
    token_ids = torch.randint(0, 32, (1, config["max_position_embeddings"]))
    gates = torch.ones(model.config.num_hidden_layers)
    got = TextEncoder(model)(token_ids.to(torch.int32), gates)
    assert_equal(got, model(token_ids, return_dict=True).last_hidden_state)


@torch.no_grad()
def compare_text_encoder_2(**change: Any) -> None:
    sizes = {"vocab_size": 32, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "projection_dim": 16}
    config = {**sizes, "num_attention_heads": 4, "max_position_embeddings": 9, **change}
    model = randomized(CLIPTextModelWithProjection(CLIPTextConfig(**config)))
    token_ids = torch.randint(0, 32, (1, config["max_position_embeddings"]))
    end = (token_ids[0] == model.config.eos_token_id).int().argmax()[None].int()
    text = model.text_model
    text.text_projection = model.text_projection
    first, gates = torch.randn(1, token_ids.shape[1], 8), torch.ones(model.config.num_hidden_layers - 1)
    context, pooled = TextEncoder2(text)(token_ids.int(), gates, end, first)
    text.config.return_dict = True  # transformers' own class does not run without
    wanted = model(token_ids, output_hidden_states=True, return_dict=True)
    assert_equal(context, torch.cat([first, wanted.hidden_states[-2]], dim=-1))
    assert_equal(pooled, wanted.text_embeds)


def test_a_unet_without_a_middle_block_computes_what_diffusers_computes() -> None:
    compare_unet(mid_block_type=None)


@torch.no_grad()
def test_a_controlnet_without_a_middle_block_returns_what_its_last_block_gives() -> None:
    """diffusers' class runs such a ControlNet, and only its constructor refuses it."""
    blocks = {"down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"), "block_out_channels": (32, 64)}
    sizes = {"cross_attention_dim": 16, "layers_per_block": 1, "norm_num_groups": 4, "attention_head_dim": 4}
    given = {**blocks, **sizes, "conditioning_embedding_out_channels": (4, 8, 12, 16), "mid_block_type": None}
    config = with_defaults("controlnet", given, "here")
    empty = build_empty(PartSource("here", config, dict), "controlnet")
    assert not any(name.startswith("mid_block") for name, _ in empty.named_parameters())
    whole = randomized(ControlNetModel(**{**config, "mid_block_type": "UNetMidBlock2D"}))
    model = empty.to_empty(device="cpu").eval()
    model.load_state_dict({name: whole.state_dict()[name] for name in model.state_dict()})
    inputs = torch.randn(1, 4, 8, 12), torch.tensor([481.0]), torch.randn(1, 5, 16)
    image, before = torch.rand(1, 3, 64, 96), []
    whole.mid_block.register_forward_pre_hook(lambda _, given: before.append(given[0]))
    down, _ = whole(*inputs, image, return_dict=False)
    got = ControlNet(model)(*inputs, ControlEmbedding(model)(image), torch.ones(len(down) + 1))
    for residual, wanted in zip(got, (*down, whole.controlnet_mid_block(before[0])), strict=True):
        assert_equal(residual, wanted)


COMPARISONS: dict[str, Callable[..., None]] = {
    "unet": compare_unet,
    "controlnet": compare_controlnet,
    "ControlNetUnionModel": compare_union_controlnet,
    "vae": compare_vae,
    "AutoencoderTiny": compare_tiny_vae,
    "text_encoder": compare_text_encoder,
    "text_encoder_2": compare_text_encoder_2,
}


def randomized(module: Any) -> Any:
    """In float32 and eval mode, with no weight that is zero: a zero convolution would hide a difference."""
    torch.manual_seed(0)
    module = module.float().eval()
    for parameter in module.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return module


def assert_equal(got: torch.Tensor, wanted: torch.Tensor) -> None:
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4 * wanted.abs().max().item())


@pytest.fixture
def folder(random_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(random_model, tmp_path / "model"))


def change_config(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


@pytest.mark.parametrize(
    ("file", "changes", "words"),
    [
        (
            "unet/config.json",
            {"mid_block_type": "UNetMidBlock2DSimpleCrossAttn"},
            "mid_block_type: got 'UNetMidBlock2DS",
        ),
        ("unet/config.json", {"in_channels": 8}, "in_channels 8 .an InstructPix2Pix model., wanted 4 or 9"),
        ("unet/config.json", {"in_channels": 5}, "in_channels 5 .a depth model., wanted 4 or 9"),
        ("unet/config.json", {"layers_per_block": [1, 1, 1]}, "layers_per_block .1, 1, 1., wanted one number"),
        ("unet/config.json", {"class_embed_type": "timestep"}, "class_embed_type: got 'timestep'"),
        ("unet/config.json", {"_class_name": "UNetMotionModel"}, "_class_name: got 'UNetMotionModel', wanted UNet2DC"),
        ("vae/config.json", {"shift_factor": 0.1}, "shift_factor: got 0.1"),
        (
            "vae/config.json",
            {"_class_name": "AutoencoderDC"},
            "_class_name: got 'AutoencoderDC', wanted one of AutoencoderKL, AutoencoderTiny",
        ),
        ("vae/config.json", {"_class_name": "AutoencoderTiny", "upsample_fn": "bilinear"}, "upsample_fn: got 'bilin"),
        ("text_encoder/config.json", {"model_type": "bert"}, "model_type: got 'bert', wanted clip_text_model"),
        ("text_encoder/config.json", {"hidden_size": "a"}, "a configuration that builds no text_encoder"),
        (
            "controlnet/config.json",
            {"controlnet_conditioning_channel_order": "gbr"},
            "channel_order: got 'gbr', which needs another order of channels, wanted 'rgb' or 'bgr'",
        ),
        (
            "controlnet/config.json",
            {"conditioning_embedding_out_channels": [8, 16, 32]},
            "a control image that shrinks by 4, wanted 8",
        ),
        (
            "scheduler/scheduler_config.json",
            {"_class_name": "FlowMatchEulerDiscreteScheduler"},
            "_class_name: got 'FlowMatchEulerDiscreteScheduler', wanted one of DDIMScheduler, ",
        ),
        ("scheduler/scheduler_config.json", {"use_flow_sigmas": True}, "use_flow_sigmas: got True"),
        (
            "scheduler/scheduler_config.json",
            {"prediction_type": "flow_prediction"},
            "got 'flow_prediction', which needs",
        ),
        ("scheduler/scheduler_config.json", {"timestep_type": "continuous"}, "timestep_type: got 'continuous'"),
    ],
)
def test_what_a_build_cannot_honour_is_refused_by_name(folder: Path, file: str, changes: Any, words: str) -> None:
    change_config(folder / file, **changes)
    with pytest.raises(UserError, match=words):
        load_checkpoint(folder)


def test_a_part_without_the_name_of_its_class_is_accepted(folder: Path) -> None:
    for part in ("unet", "vae", "controlnet"):
        file = folder / part / "config.json"
        config = json.loads(file.read_text())
        del config["_class_name"]
        file.write_text(json.dumps(config))
    assert load_checkpoint(folder).shape.height == 128
