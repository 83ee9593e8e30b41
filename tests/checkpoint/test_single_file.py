"""A whole model in one file, in the original layout: what was written is what is loaded, under diffusers' names."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mlc_controlnet.checkpoint import Checkpoint, load_checkpoint
from mlc_controlnet.checkpoint.ldm_config import Shapes, base_model, open_clip_config
from mlc_controlnet.errors import UserError
from tests.checkpoint.conftest import Tiny, build_tiny

BASE = ("text_encoder", "unet", "vae_decoder", "vae_encoder")


def assert_holds(checkpoint: Checkpoint, tiny: Tiny) -> None:
    for part in ("unet", "vae", "text_encoder"):
        wanted = dict(getattr(tiny, part).named_parameters())
        got = dict(checkpoint.parts[part].named_parameters())
        assert got.keys() == wanted.keys()
        for key, tensor in wanted.items():
            assert torch.equal(got[key], tensor.half()), f"{part}.{key}"


@pytest.fixture(scope="module")
def first_file(first: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("first") / "v1-5-pruned.safetensors"
    save_file({key: tensor.clone().contiguous() for key, tensor in first.original().items()}, path)
    return path


def rewrite(tiny: Tiny, path: Path, **changes: torch.Tensor | None) -> Path:
    """The model's file with some tensors replaced, added or (None) left out."""
    tensors = {**tiny.original(), **changes}
    save_file({key: tensor.clone().contiguous() for key, tensor in tensors.items() if tensor is not None}, path)
    return path


def test_a_safetensors_file_of_stable_diffusion_1_is_loaded(first_file: Path, first: Tiny) -> None:
    checkpoint = load_checkpoint(first_file, components=BASE)
    assert_holds(checkpoint, first)
    assert checkpoint.name == "v1-5-pruned"
    assert (checkpoint.shape.height, checkpoint.shape.width) == (512, 512)
    assert checkpoint.scheduler_config["prediction_type"] == "epsilon"
    assert checkpoint.special_tokens["pad_token"] == "<|endoftext|>"


def test_the_configuration_found_out_from_the_shapes_is_the_models_own(first_file: Path, first: Tiny) -> None:
    got, wanted = load_checkpoint(first_file, components=BASE).parts["unet"].config, first.unet.config
    assert {key: got[key] for key in wanted if key in got and not key.startswith("_")} == {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in wanted.items()
        if key in got and not key.startswith("_")
    }


def test_a_latent_consistency_model_keeps_its_projection_of_the_guidance_scale(first: Tiny, tmp_path: Path) -> None:
    """Under diffusers' name, as LCM_Dreamshaper_v7's file has it: the original code has no such layer."""
    torch.manual_seed(1)
    projection = torch.randn(first.unet.config.block_out_channels[0], 24).half()
    added = {"model.diffusion_model.time_embedding.cond_proj.weight": projection}
    checkpoint = load_checkpoint(rewrite(first, tmp_path / "lcm.safetensors", **added), components=BASE)
    unet = checkpoint.parts["unet"]
    assert unet.config["time_cond_proj_dim"] == 24
    got = dict(unet.named_parameters())
    assert torch.equal(got.pop("time_embedding.cond_proj.weight"), projection)
    assert got.keys() == dict(first.unet.named_parameters()).keys()
    assert [tensor.name for tensor in checkpoint.specs["unet"].inputs].count("guidance_scale") == 1
    assert checkpoint.scheduler_config["_class_name"] == "LCMScheduler"
    assert (checkpoint.defaults.steps, checkpoint.defaults.guidance_scale) == (4, 8.5)


def test_a_lightning_ckpt_is_loaded_without_lightning(first: Tiny, tmp_path: Path) -> None:
    """Stable Diffusion's own .ckpt files name a class of PyTorch Lightning beside the weights."""
    module = "pytorch_lightning.callbacks.model_checkpoint"
    callback = type("ModelCheckpoint", (), {"__module__": module})
    content = {"state_dict": first.original(), "callbacks": {callback: {"best_k_models": {}}}, "global_step": 470000}
    path = tmp_path / "sd-v1-4.ckpt"
    save_with_class(content, path, callback)
    assert_holds(load_checkpoint(path, components=BASE), first)


def save_with_class(content: object, path: Path, cls: type) -> None:
    """torch.save of something that names a class that this machine does not have."""
    import sys
    import types

    names = cls.__module__.split(".")
    modules = [".".join(names[: end + 1]) for end in range(len(names))]
    try:
        for name in modules:
            sys.modules[name] = types.ModuleType(name)
        setattr(sys.modules[cls.__module__], cls.__name__, cls)
        torch.save(content, path)
    finally:
        for name in modules:
            del sys.modules[name]


def test_stable_diffusion_2_reads_the_penultimate_layer(second: Tiny, tmp_path: Path) -> None:
    path = rewrite(second, tmp_path / "v2-1_768.safetensors")
    checkpoint = load_checkpoint(path, components=BASE, prediction_type="v_prediction")
    assert_holds(checkpoint, second)
    assert (checkpoint.shape.height, checkpoint.shape.width) == (768, 768)
    assert checkpoint.scheduler_config["prediction_type"] == "v_prediction"
    assert checkpoint.special_tokens["pad_token"] == "!"
    assert checkpoint.parts["text_encoder"].config.hidden_act == "gelu"


OPEN_CLIP = "cond_stage_model.model."


def test_a_text_encoder_without_the_layer_that_is_not_read_keeps_the_others(second: Tiny, tmp_path: Path) -> None:
    """Converters leave out the last layer and the projection after it."""
    names = [key for key in second.original() if ".resblocks.2." in key]
    names += [f"{OPEN_CLIP}text_projection", f"{OPEN_CLIP}logit_scale"]
    path = rewrite(second, tmp_path / "v2.safetensors", **dict.fromkeys(names))
    assert_holds(load_checkpoint(path, components=BASE, prediction_type="epsilon"), second)


@pytest.mark.parametrize(("layers", "projection"), [(24, True), (24, False), (23, True), (23, False)])
def test_openclips_real_number_of_layers_decides_whatever_else_the_file_lacks(layers: int, projection: bool) -> None:
    names = [f"transformer.resblocks.{layer}.mlp.c_fc.weight" for layer in range(layers)]
    names += ["token_embedding.weight", "positional_embedding", *["text_projection"] * projection]
    shapes = Shapes({name: torch.empty(1024, 1024, device="meta") for name in names}, "", "v2.safetensors")
    assert open_clip_config(base_model(is_second=True), shapes)["num_hidden_layers"] == 23


def test_sd_turbo_is_a_stable_diffusion_2(second: Tiny, tmp_path: Path) -> None:
    """Its text encoder's names are those of Stable Diffusion XL's files."""
    renamed = {key.replace(OPEN_CLIP, "conditioner.embedders.0.model."): t for key, t in second.original().items()}
    save_file({key: tensor.clone().contiguous() for key, tensor in renamed.items()}, tmp_path / "sd_turbo.safetensors")
    checkpoint = load_checkpoint(tmp_path / "sd_turbo.safetensors", components=BASE, prediction_type="epsilon")
    assert_holds(checkpoint, second)


def test_stable_diffusion_2_base_has_512_pixels(second: Tiny, tmp_path: Path) -> None:
    path = rewrite(second, tmp_path / "v2-1_512.safetensors")
    assert load_checkpoint(path, components=BASE, prediction_type="epsilon").shape.height == 512


def test_a_stable_diffusion_2_file_does_not_say_what_it_predicts(second: Tiny, tmp_path: Path) -> None:
    path = rewrite(second, tmp_path / "v2-1.safetensors")
    with pytest.raises(UserError, match=r"v2-1\.safetensors: .*epsilon .* or v_prediction .*--prediction-type"):
        load_checkpoint(path, components=BASE)


def test_a_model_spec_header_says_what_it_predicts(second: Tiny, tmp_path: Path) -> None:
    tensors = {key: tensor.clone().contiguous() for key, tensor in second.original().items()}
    save_file(tensors, tmp_path / "v2.safetensors", metadata={"modelspec.prediction_type": "v"})
    config = load_checkpoint(tmp_path / "v2.safetensors", components=BASE).scheduler_config
    assert config["prediction_type"] == "v_prediction"


def test_an_inpainting_unet_takes_nine_channels_and_its_controlnet_four(tmp_path: Path) -> None:
    tiny = build_tiny(is_second=False, sample_channels=9)
    save_file({k: t.clone().contiguous() for k, t in tiny.original_controlnet().items()}, tmp_path / "c.safetensors")
    path = rewrite(tiny, tmp_path / "sd-v1-5-inpainting.safetensors")
    checkpoint = load_checkpoint(path, height=128, width=192, controlnets={"canny": tmp_path / "c.safetensors"})
    assert_holds(checkpoint, tiny)
    specs = checkpoint.specs
    assert specs["unet"].inputs[0].shape == (1, 9, 16, 24)
    assert specs["unet"].outputs[0].shape == specs["controlnet"].inputs[0].shape == (1, 4, 16, 24)


def test_a_missing_tensor_is_named(first: Tiny, tmp_path: Path) -> None:
    key = "model.diffusion_model.output_blocks.5.1.proj_in.bias"
    path = rewrite(first, tmp_path / "m.safetensors", **{key: None})
    with pytest.raises(UserError, match=r"unet .*m\.safetensors: .*lacks 1 tensor\(s\) \(up_blocks\.1\.attentions\.2"):
        load_checkpoint(path, components=BASE)


def test_a_tensor_without_a_place_in_the_unet_is_named(first: Tiny, tmp_path: Path) -> None:
    key = "model.diffusion_model.input_blocks.4.3.weight"
    path = rewrite(first, tmp_path / "m.safetensors", **{key: torch.zeros(1)})
    with pytest.raises(UserError, match=r"1 tensor\(s\) \(model\.diffusion_model\.input_blocks\.4\.3\.weight\)"):
        load_checkpoint(path, components=BASE)


def test_a_tensor_of_no_part_is_named(first: Tiny, tmp_path: Path) -> None:
    path = rewrite(first, tmp_path / "m.safetensors", **{"safety.weight": torch.zeros(1)})
    with pytest.raises(UserError, match=r"1 tensor\(s\) \(safety\.weight\)"):
        load_checkpoint(path, components=BASE)


def test_a_tensor_of_another_shape_is_named_with_both_shapes(first: Tiny, tmp_path: Path) -> None:
    key = "first_stage_model.decoder.up.0.block.1.conv1.weight"
    path = rewrite(first, tmp_path / "m.safetensors", **{key: torch.zeros(32, 16, 3, 3)})
    wanted = r"vae\.decoder\.up_blocks\.3\.resnets\.1\.conv1\.weight: got \[32, 16, 3, 3\], wanted \[32, 32, 3, 3\]"
    with pytest.raises(UserError, match=wanted):
        load_checkpoint(path, components=BASE)


def test_a_weight_that_is_not_a_number_is_named(first: Tiny, tmp_path: Path) -> None:
    key = "cond_stage_model.transformer.text_model.final_layer_norm.bias"
    path = rewrite(first, tmp_path / "m.safetensors", **{key: torch.full((128,), torch.nan)})
    with pytest.raises(UserError, match=r"text_encoder\.final_layer_norm\.bias: got 128 value\(s\) that are no"):
        load_checkpoint(path, components=BASE)


def test_a_file_without_its_autoencoder_says_so(first: Tiny, tmp_path: Path) -> None:
    vae = {key: None for key in first.original() if key.startswith("first_stage_model.")}
    path = rewrite(first, tmp_path / "m.safetensors", **vae)
    with pytest.raises(UserError, match=r"without first_stage_model\.\*"):
        load_checkpoint(path, components=BASE)


@pytest.mark.parametrize("prefix", ["control_model.", ""])
def test_a_controlnet_given_as_the_model_is_sent_to_its_own_option(first: Tiny, tmp_path: Path, prefix: str) -> None:
    path = tmp_path / "c.safetensors"
    save_file({k: t.clone().contiguous() for k, t in first.original_controlnet(prefix).items()}, path)
    with pytest.raises(UserError, match=r"a ControlNet goes to --controlnet"):
        load_checkpoint(path, components=BASE)
