"""Stable Diffusion XL: folders and single files, both text encoders, adapters, and what does not belong to it."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import ControlNetModel
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import CLIPTextModelWithProjection

from mlc_controlnet.checkpoint import Checkpoint, load_checkpoint
from mlc_controlnet.checkpoint.controlnet import read_controlnet
from mlc_controlnet.checkpoint.defaults import scheduler_of_xl, usual_defaults
from mlc_controlnet.checkpoint.ldm_config import base_model
from mlc_controlnet.checkpoint.load import read_source
from mlc_controlnet.checkpoint.lora_layers import layers_of
from mlc_controlnet.checkpoint.modules import build_empty
from mlc_controlnet.checkpoint.vae_range import narrow_activations
from mlc_controlnet.config import EmbeddingOption, LoraOption
from mlc_controlnet.errors import UserError
from tests.checkpoint.conftest import Tiny
from tests.checkpoint.original_layout import original_xl, original_xl_unet
from tests.fixtures.xl_model import LAYERS, POOLED, TEXT_WIDTHS, TIME_WIDTH, build_published_modules, encoder_config


@pytest.fixture(scope="session")
def xl(xl_folder: Path) -> Checkpoint:
    return load_checkpoint(xl_folder)


@pytest.fixture
def copied(xl_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(xl_folder, tmp_path / "model"))


def edit(file: Path, **options: object) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **options}))


def test_its_shape_counts_what_each_text_encoder_leads_to(xl: Checkpoint) -> None:
    shape = xl.shape
    assert (shape.text_width, shape.text_width_2, shape.pooled_width) == (sum(TEXT_WIDTHS), TEXT_WIDTHS[1], POOLED)
    assert (shape.text_layers, shape.text_layers_2) == (LAYERS - 1, LAYERS - 1)
    assert xl.components[:2] == ("text_encoder", "text_encoder_2")
    assert xl.zeros_for_empty_prompt


def test_the_first_encoders_last_layer_and_norm_are_left_out_and_all_else_is_there(
    xl: Checkpoint, xl_folder: Path
) -> None:
    stored = load_file(xl_folder / "text_encoder" / "model.safetensors")
    last = f"encoder.layers.{LAYERS - 1}."
    names = {key.removeprefix("text_model.") for key in stored}
    unread = {name for name in names if name.startswith((last, "final_layer_norm."))}
    assert {key for key, _ in xl.parts["text_encoder"].named_parameters()} == names - unread
    second = CLIPTextModelWithProjection.from_pretrained(xl_folder / "text_encoder_2").state_dict()
    got = dict(xl.parts["text_encoder_2"].named_parameters())
    assert got.keys() == {key.removeprefix("text_model.") for key in second}
    for key, tensor in second.items():
        assert torch.equal(got[key.removeprefix("text_model.")], tensor.half())


def test_each_text_encoder_has_its_own_padding(xl: Checkpoint) -> None:
    assert xl.tokenizer_2 is not None
    assert xl.tokenizer_2.special_tokens["pad_token"] != xl.special_tokens["pad_token"]


def test_a_refiner_is_refused_by_name(copied: Path) -> None:
    shutil.rmtree(copied / "text_encoder")
    with pytest.raises(UserError, match="refiner of Stable Diffusion XL"):
        load_checkpoint(copied)


def test_a_unet_with_five_time_ids_is_the_refiners(copied: Path) -> None:
    edit(copied / "unet" / "config.json", projection_class_embeddings_input_dim=POOLED + 5 * TIME_WIDTH)
    with pytest.raises(UserError, match="refiner of Stable Diffusion XL"):
        load_checkpoint(copied)


def test_a_controlnet_of_another_family_is_refused_with_both_widths(copied: Path, first: Tiny) -> None:
    first.controlnet.save_pretrained(copied / "other")
    with pytest.raises(UserError, match=rf"text width 128.*{sum(TEXT_WIDTHS)}"):
        load_checkpoint(copied, controlnets={"other": copied / "other"})


def test_an_inpainting_unet_reads_nine_channels_and_its_controlnet_four(copied: Path) -> None:
    file = copied / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    latents = tensors["conv_in.weight"]
    save_file({**tensors, "conv_in.weight": torch.cat([latents, latents, latents[:, :1]], dim=1)}, file)
    edit(copied / "unet" / "config.json", in_channels=9)
    specs = load_checkpoint(copied).specs
    (sample, *_), (own, *_) = specs["unet"].inputs, specs["controlnet"].inputs
    assert (sample.shape[1], own.shape[1]) == (9, 4)


def test_a_single_file_has_the_modules_it_was_written_from(tmp_path: Path) -> None:
    parts = build_published_modules()
    file = tmp_path / "sd_xl_tiny.safetensors"
    save_file({key: tensor.contiguous() for key, tensor in original_xl(**parts.states()).items()}, file)
    controlnet = tmp_path / "control.safetensors"
    save_file(original_xl_unet(parts.controlnet.state_dict()), controlnet)
    diffusers_controlnet = tmp_path / "canny.safetensors"
    save_file(parts.controlnet.state_dict(), diffusers_controlnet)
    named = {"original": controlnet, "canny": diffusers_controlnet}
    loaded = load_checkpoint(file, 64, 64, controlnets=named)
    assert loaded.scheduler_config["_class_name"] == "EulerDiscreteScheduler"
    assert loaded.parts["vae"].config.scaling_factor == 0.13025
    assert loaded.parts["unet"].config.transformer_layers_per_block == [1, 2, 3]
    narrow_activations(parts.vae)  # which computes the same: see test_vae_range
    for part, module in (("unet", parts.unet), ("vae", parts.vae), ("controlnet", parts.controlnet)):
        same(loaded.parts[part], module)
    same(loaded.parts["controlnet_2"], parts.controlnet)
    got = dict(loaded.parts["text_encoder_2"].named_parameters())
    for key, tensor in parts.text_encoder_2.state_dict().items():
        assert torch.equal(got[key.removeprefix("text_model.")], tensor)


def test_a_single_file_says_by_empty_tensors_that_it_predicts_v_and_ends_in_noise(tmp_path: Path) -> None:
    """As web UI and ComfyUI read them."""
    parts, marks = build_published_modules(), {"v_pred": torch.empty(0), "ztsnr": torch.empty(0)}
    tensors = {key: tensor.contiguous() for key, tensor in original_xl(**parts.states()).items()}
    file = tmp_path / "anime_vpred.safetensors"
    save_file(tensors | marks, file)
    config = read_source(file).scheduler_config
    assert (config["prediction_type"], config["rescale_betas_zero_snr"]) == ("v_prediction", True)
    assert config["timestep_spacing"] == "trailing"
    assert read_source(file, prediction_type="epsilon").scheduler_config["prediction_type"] == "epsilon"
    save_file(tensors | {"v_pred": torch.empty(0)}, file)
    config = read_source(file).scheduler_config
    assert (config["prediction_type"], config.get("rescale_betas_zero_snr", False)) == ("v_prediction", False)


@pytest.mark.parametrize("levels_with_attention", [(), (2,)])
def test_the_smaller_controlnets_of_diffusers_are_loaded_from_a_file(
    xl_folder: Path, tmp_path: Path, levels_with_attention: tuple[int, ...]
) -> None:
    """controlnet-canny-sdxl-1.0-small has no transformers, -mid those of the last level and of the middle."""
    kinds = ["CrossAttnDownBlock2D" if level in levels_with_attention else "DownBlock2D" for level in range(3)]
    middle = "UNetMidBlock2DCrossAttn" if levels_with_attention else "UNetMidBlock2D"
    config = {key: value for key, value in encoder_config().items() if key not in ("sample_size", "up_block_types")}
    config |= {"down_block_types": kinds, "mid_block_type": middle, "attention_head_dim": (1, 1, 1)}
    config |= {"conditioning_embedding_out_channels": (8, 16, 24, 32), "block_out_channels": (64, 64, 64)}
    config |= {"layers_per_block": 2, "norm_num_groups": 32, "addition_time_embed_dim": 256}
    small = ControlNetModel(**{**config, "projection_class_embeddings_input_dim": POOLED + 6 * 256}).half()
    file = tmp_path / "diffusers_xl_canny_small.safetensors"
    save_file(small.state_dict(), file)
    source = read_controlnet(file)
    module = build_empty(source, "controlnet")
    assert {key: tensor.shape for key, tensor in module.named_parameters()} == {
        key: tensor.shape for key, tensor in small.named_parameters()
    }
    assert source.config["cross_attention_dim"] == (sum(TEXT_WIDTHS) if levels_with_attention else None)


@pytest.mark.parametrize(
    ("name", "scheduler", "spacing", "steps"),
    [
        ("sd_xl_base_1.0", "EulerDiscreteScheduler", "leading", 20),
        ("sdxl_lightning_4step", "EulerDiscreteScheduler", "trailing", 4),
        ("sd_xl_turbo_1.0_fp16", "EulerAncestralDiscreteScheduler", "trailing", 4),
        ("sdxl_lcm", "LCMScheduler", "leading", 4),
    ],
)
def test_a_distilled_models_name_says_how_it_is_sampled(name: str, scheduler: str, spacing: str, steps: int) -> None:
    base = base_model(is_second=False, xl=True)
    config = scheduler_of_xl(name, base["scheduler"])
    assert (config["_class_name"], config["timestep_spacing"]) == (scheduler, spacing)
    usual = usual_defaults(name, (), base["unet"], config)
    assert (usual.steps, usual.guidance_scale) == (steps, 1.0 if steps < 20 else 5.0)


def same(got: nn.Module, wanted: nn.Module) -> None:
    tensors = dict(got.named_parameters())
    assert tensors.keys() == dict(wanted.named_parameters()).keys()
    for key, tensor in wanted.named_parameters():
        assert torch.equal(tensors[key], tensor), key


@pytest.mark.parametrize(
    ("name", "part", "key"),
    [
        ("lora_te1_text_model_encoder_layers_0_self_attn_q_proj", "text_encoder", "encoder.layers.0.self_attn.q_proj"),
        ("lora_te2_text_model_encoder_layers_2_mlp_fc1", "text_encoder_2", "encoder.layers.2.mlp.fc1"),
        ("text_encoder_2.text_model.encoder.layers.0.mlp.fc2", "text_encoder_2", "encoder.layers.0.mlp.fc2"),
        ("lora_te2_text_projection", "text_encoder_2", "text_projection"),
        ("lora_unet_label_emb_0_2", "unet", "add_embedding.linear_2"),
        (
            "lora_unet_input_blocks_3_1_transformer_blocks_1_attn2_to_k",
            "unet",
            "down_blocks.1.attentions.0.transformer_blocks.1.attn2.to_k",
        ),
    ],
)
def test_a_lora_changes_the_layer_that_its_names_say(
    name: str, part: str, key: str, xl: Checkpoint, xl_folder: Path, tmp_path: Path
) -> None:
    weight = xl.parts[part].get_parameter(f"{key}.weight")
    up, down = 0.1 * torch.randn(weight.shape[0], 2), 0.1 * torch.randn(2, weight.shape[1])
    file = tmp_path / "lora.safetensors"
    ends = ("lora_up", "lora_down") if name.startswith("lora_") else ("lora_B", "lora_A")
    save_file({f"{name}.{ends[0]}.weight": up, f"{name}.{ends[1]}.weight": down}, file)
    merged = load_checkpoint(xl_folder, loras=[LoraOption(str(file))]).parts[part].get_parameter(f"{key}.weight")
    assert torch.equal(merged, torch.add(weight.float(), up @ down).half())


@pytest.mark.parametrize(
    ("start", "ends"),
    [
        ("lora_te1_text_model_encoder_layers_{}_mlp_fc1", ("lora_up", "lora_down")),
        ("text_encoder.text_model.encoder.layers.{}.mlp.fc1", ("lora_B", "lora_A")),
    ],
)
def test_a_lora_has_factors_of_the_last_layer_too_which_the_model_does_not_read(
    start: str, ends: tuple[str, str], xl: Checkpoint, xl_folder: Path, tmp_path: Path
) -> None:
    """Trainers write them for every layer."""
    weight = xl.parts["text_encoder"].get_parameter("encoder.layers.0.mlp.fc1.weight")
    up, down = 0.1 * torch.randn(weight.shape[0], 2), 0.1 * torch.randn(2, weight.shape[1])
    of_layers = {}
    for layer in range(LAYERS):
        name = start.format(layer)
        of_layers |= {f"{name}.{ends[0]}.weight": up.clone(), f"{name}.{ends[1]}.weight": down.clone()}
    save_file(of_layers, tmp_path / "lora.safetensors")
    merged = load_checkpoint(xl_folder, loras=[LoraOption(str(tmp_path / "lora.safetensors"))]).parts["text_encoder"]
    for layer in range(LAYERS - 1):
        key = f"encoder.layers.{layer}.mlp.fc1.weight"
        base = xl.parts["text_encoder"].get_parameter(key)
        assert torch.equal(merged.get_parameter(key), torch.add(base.float(), up @ down).half())


def test_a_lora_for_a_layer_that_no_text_encoder_has_is_refused(xl_folder: Path, tmp_path: Path) -> None:
    factors = {"lora_up": torch.zeros(4, 1), "lora_down": torch.zeros(1, 4)}
    for name in ("lora_te1_text_model_encoder_layers_2_mlp_fc9", "lora_te3_text_model_encoder_layers_2_mlp_fc1"):
        save_file({f"{name}.{end}.weight": t for end, t in factors.items()}, tmp_path / "lora.safetensors")
        with pytest.raises(UserError, match="for which this model has no layer"):
            load_checkpoint(xl_folder, loras=[LoraOption(str(tmp_path / "lora.safetensors"))])


def test_layers_have_the_original_codes_names(xl: Checkpoint) -> None:
    unet = {layer.name: layer.original for layer in layers_of({"unet": xl.parts["unet"]})}
    assert unet["add_embedding.linear_1"] == "label_emb.0.0"
    assert unet["up_blocks.0.upsamplers.0.conv"] == "output_blocks.1.2.conv"


def test_an_embedding_teaches_both_text_encoders_its_word(xl_folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "cat.safetensors"
    vectors = {key: torch.randn(2, width) for key, width in zip(("clip_l", "clip_g"), TEXT_WIDTHS, strict=True)}
    save_file(vectors, file)
    loaded = load_checkpoint(xl_folder, embeddings=[EmbeddingOption(str(file))])
    assert loaded.tokenizer_2 is not None
    for part, data, key in (
        ("text_encoder", loaded.tokenizer_json, "clip_l"),
        ("text_encoder_2", loaded.tokenizer_2.json, "clip_g"),
    ):
        ids = {token["content"]: token["id"] for token in json.loads(data)["added_tokens"]}
        table = loaded.parts[part].get_parameter("embeddings.token_embedding.weight")
        assert torch.equal(table[[ids["cat"], ids["cat_1"]]], vectors[key].half())


def test_an_embedding_for_one_text_encoder_is_refused(xl_folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "cat.safetensors"
    save_file({"emb_params": torch.randn(1, TEXT_WIDTHS[0])}, file)
    with pytest.raises(UserError, match="both text encoders"):
        load_checkpoint(xl_folder, embeddings=[EmbeddingOption(str(file))])


def test_a_vae_file_beside_it_has_its_scale(xl_folder: Path, first: Tiny, tmp_path: Path) -> None:
    file = tmp_path / "vae.safetensors"
    save_file(first.vae.state_dict(), file)
    assert load_checkpoint(xl_folder, vae=file).parts["vae"].config.scaling_factor == 0.13025
