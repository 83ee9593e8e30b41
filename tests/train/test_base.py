import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file

from mlc_controlnet.errors import UserError
from mlc_controlnet.train.add_control import add_control, changes_nothing
from mlc_controlnet.train.base import (
    load_base,
    load_base_of,
    load_controlnet,
    load_unet,
    new_controlnet,
    start_controlnet,
)
from mlc_controlnet.train.config import ModelOptions
from mlc_controlnet.train.objective import encode_prompts
from tests.checkpoint.conftest import Tiny, build_tiny, write_vocabulary


@pytest.fixture(scope="module", params=["1.x", "2.x"])
def tiny(request: pytest.FixtureRequest) -> Tiny:
    return build_tiny(is_second=request.param == "2.x")


@pytest.fixture
def file(tiny: Tiny, tmp_path: Path) -> Path:
    """Stable Diffusion at tiny widths, as one original file."""
    save_file({key: tensor.contiguous() for key, tensor in tiny.original().items()}, tmp_path / "model.safetensors")
    write_vocabulary(tmp_path / "tokenizer")
    return tmp_path / "model.safetensors"


def same(ours: Mapping[str, torch.Tensor], theirs: Mapping[str, torch.Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name].float()) for name in theirs)


def test_a_file_gives_the_modules_it_was_made_of(tiny: Tiny, file: Path) -> None:
    base = load_base(file, "epsilon", file.parent / "tokenizer")
    for part in ("unet", "vae", "text_encoder"):
        module = getattr(base, part)
        assert same(module.state_dict(), getattr(tiny, part).state_dict())
        assert not any(p.requires_grad for p in module.parameters())


def test_a_file_is_read_with_the_tokenizer_that_the_config_names(file: Path) -> None:
    options = ModelOptions(base=str(file), tokenizer=str(file.parent / "tokenizer"), prediction_type="epsilon")
    tokenizer = load_base_of(options).tokenizer
    assert len(tokenizer) == len(json.loads((file.parent / "tokenizer" / "vocab.json").read_text()))
    assert tokenizer("red").input_ids != tokenizer("blue").input_ids


def test_prompts_are_encoded_as_the_modules_themselves_do(tiny: Tiny, file: Path) -> None:
    """Positions are in no file: a text encoder that forgot them would give each token the first one's."""
    base = load_base(file, "epsilon", file.parent / "tokenizer")
    ids = torch.tensor([base.tokenizer("red", padding="max_length", max_length=77).input_ids])
    with torch.no_grad():
        context = encode_prompts(base, ["red"], torch.device("cpu"))
        torch.testing.assert_close(context, tiny.text_encoder.float()(ids).last_hidden_state)
    assert context.shape[1] == 77


def test_a_folder_with_half_precision_weights_alone_is_read(tiny: Tiny, tmp_path: Path) -> None:
    """What a hub id gives: the smallest form of every part. It is trained on in whole precision."""
    folder = tiny.save_folder(tmp_path / "model")
    for weights in folder.glob("*/*.safetensors"):
        weights.rename(weights.with_suffix(".fp16.safetensors"))
    base = load_base(folder)
    for part in ("unet", "vae", "text_encoder"):
        module = getattr(base, part)
        assert same(module.state_dict(), getattr(tiny, part).state_dict())
        assert {p.dtype for p in module.parameters()} == {torch.float32}
    assert same(load_unet(str(folder / "unet")).state_dict(), tiny.unet.state_dict())


def test_a_tiny_autoencoder_is_refused_because_it_has_no_posterior(tiny_base: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_base, tmp_path / "base")
    edit_json(folder / "vae" / "config.json", _class_name="AutoencoderTiny", num_encoder_blocks=[1], latent_channels=4)
    edit_json(folder / "vae" / "config.json", num_decoder_blocks=[1])
    with pytest.raises(UserError, match="vae: got a tiny autoencoder, which has no posterior"):
        load_base(folder)


def test_a_unet_without_a_middle_block_has_none_to_copy() -> None:
    unet = UNet2DConditionModel(
        block_out_channels=(8, 8),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        mid_block_type=None,
        norm_num_groups=4,
        attention_head_dim=2,
        cross_attention_dim=8,
    )
    with pytest.raises(UserError, match=r"unet: got no middle block \(mid_block_type null\)"):
        new_controlnet(unet, 3, (4, 8))


def test_a_controlnet_to_go_on_from_may_be_an_original_file(tiny: Tiny, tmp_path: Path) -> None:
    tensors = {key: tensor.contiguous() for key, tensor in tiny.original_controlnet("").items()}
    save_file(tensors, tmp_path / "control_v11p.safetensors")
    assert same(load_controlnet(str(tmp_path / "control_v11p.safetensors")).state_dict(), tiny.controlnet.state_dict())


def test_the_encoder_of_an_original_file_can_be_copied(tiny: Tiny, file: Path, tmp_path: Path) -> None:
    """`from_pretrained_unet`, for a base in diffusers' layout whose own encoder is another one."""
    folder = tiny.save_folder(tmp_path / "model")
    base = load_base(folder)
    torch.nn.init.zeros_(base.unet.conv_in.weight)
    start = start_controlnet(base, ModelOptions(from_pretrained_unet=str(file), hint_widths=(8, 16, 24, 32)))
    assert torch.equal(start.conv_in.weight, tiny.unet.conv_in.weight.float())


def test_a_new_controlnet_for_a_file_changes_nothing(tiny: Tiny, file: Path, tmp_path: Path) -> None:
    folder = add_control(str(file), tmp_path / "new", 3, (8, 16, 24, 32), 0)
    controlnet, unet = load_controlnet(str(folder)), load_unet(str(file))
    assert changes_nothing(controlnet, unet)
    assert torch.equal(controlnet.conv_in.weight, tiny.unet.conv_in.weight.float())


def edit_json(path: Path, **changes: object) -> None:
    """Set keys of a JSON file; None removes the key."""
    content = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


@pytest.mark.parametrize(
    ("stated", "length"), [(None, 77), (512, 77), (40, 40)], ids=["no length", "too long", "shorter"]
)
def test_a_prompt_has_at_most_as_many_tokens_as_the_text_encoder_has_positions(
    tiny_base: Path, tmp_path: Path, stated: int | None, length: int
) -> None:
    """transformers gives a tokenizer that states no length one of 1e30, which no tensor can have."""
    folder = shutil.copytree(tiny_base, tmp_path / "base")
    edit_json(folder / "tokenizer" / "tokenizer_config.json", model_max_length=stated)
    context = encode_prompts(load_base(folder), ["red left " * 100], torch.device("cpu"))
    assert context.shape[1] == length


def test_an_inpainting_model_is_refused_before_its_weights_are_read(tiny_base: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_base, tmp_path / "base")
    edit_json(folder / "unet" / "config.json", in_channels=9)
    for weights in (folder / "unet").glob("*.safetensors"):
        weights.unlink()
    message = r"got 9 input channels, as inpainting models have, wanted 4, the channels of a latent; train on"
    with pytest.raises(UserError, match=message):
        load_base(folder)
    with pytest.raises(UserError, match=message):
        load_unet(str(folder))


def test_a_model_that_is_no_diffusion_of_noise_is_refused_as_in_a_build(tiny_base: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_base, tmp_path / "base")
    edit_json(folder / "scheduler" / "scheduler_config.json", _class_name="FlowMatchEulerDiscreteScheduler")
    with pytest.raises(UserError, match="FlowMatchEulerDiscreteScheduler"):
        load_base(folder)


def test_an_option_that_a_build_refuses_is_refused_in_training_too(tiny_base: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_base, tmp_path / "base")
    edit_json(folder / "unet" / "config.json", time_cond_proj_dim=256)
    with pytest.raises(UserError, match="time_cond_proj_dim"):
        load_base(folder)
    with pytest.raises(UserError, match="time_cond_proj_dim"):  # what `from_pretrained_unet` names
        load_unet(str(folder))


def test_a_controlnet_to_go_on_from_may_not_need_an_input_that_training_lacks(tiny: Tiny, tmp_path: Path) -> None:
    tiny.controlnet.save_pretrained(tmp_path)
    edit_json(tmp_path / "config.json", class_embed_type="timestep")
    with pytest.raises(UserError, match="class_embed_type: got 'timestep'"):
        load_controlnet(str(tmp_path))


def test_a_prediction_type_is_taken_in_the_place_of_the_models_own(tiny_base: Path) -> None:
    assert load_base(tiny_base).scheduler.config.prediction_type == "epsilon"
    assert load_base(tiny_base, "v_prediction").scheduler.config.prediction_type == "v_prediction"


def test_a_model_with_a_part_missing_is_named(tmp_path: Path, tiny_base: Path) -> None:
    folder = shutil.copytree(tiny_base, tmp_path / "base")
    shutil.rmtree(folder / "vae")
    with pytest.raises(UserError, match="vae"):
        load_base(folder)


def test_a_base_whose_weights_are_no_numbers_is_refused_before_the_first_step(tiny_base: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_base, tmp_path / "base")
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    weights["conv_in.bias"][0] = torch.nan
    save_file(weights, file)
    with pytest.raises(UserError, match=r"unet .*: got NaN or infinity in 1 tensor\(s\) \(conv_in\.bias\)"):
        load_base(folder)
