"""ControlNets in the forms in which they are published."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mlc_controlnet.checkpoint import load_checkpoint
from mlc_controlnet.checkpoint.controlnet import read_controlnet
from mlc_controlnet.errors import UserError
from tests.checkpoint.conftest import Tiny


@pytest.fixture(scope="module")
def first_folder(first: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return first.save_folder(tmp_path_factory.mktemp("base") / "first")


def write(tensors: dict[str, torch.Tensor], path: Path) -> Path:
    if path.suffix == ".safetensors":
        save_file({key: tensor.clone().contiguous() for key, tensor in tensors.items()}, path)
    else:
        torch.save(tensors, path)
    return path


def assert_loads(base: Path, path: Path, tiny: Tiny) -> None:
    checkpoint = load_checkpoint(
        base, 64, 128, controlnets={"canny": path}, components=("control_embedding", "controlnet")
    )
    got = dict(checkpoint.parts["controlnet"].named_parameters())
    wanted = dict(tiny.controlnet.named_parameters())
    assert got.keys() == wanted.keys()
    for key, tensor in wanted.items():
        assert torch.equal(got[key], tensor.half()), key


@pytest.mark.parametrize("name", ["control_v11p_sd15_canny.pth", "control_v11p_sd15_canny_fp16.safetensors"])
@pytest.mark.parametrize("prefix", ["control_model.", ""])
def test_the_original_files_are_loaded(first: Tiny, first_folder: Path, tmp_path: Path, name: str, prefix: str) -> None:
    assert_loads(first_folder, write(first.original_controlnet(prefix), tmp_path / name), first)


def test_a_single_file_with_diffusers_names_is_loaded(first: Tiny, first_folder: Path, tmp_path: Path) -> None:
    assert_loads(first_folder, write(first.controlnet.state_dict(), tmp_path / "canny.safetensors"), first)


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "module._orig_mod."])
def test_the_prefixes_of_compiled_and_distributed_modules_are_dropped(
    first: Tiny, first_folder: Path, tmp_path: Path, prefix: str
) -> None:
    tensors = {prefix + key: tensor for key, tensor in first.controlnet.state_dict().items()}
    assert_loads(first_folder, write(tensors, tmp_path / "canny.safetensors"), first)


def test_a_diffusers_folder_is_loaded(first: Tiny, first_folder: Path, tmp_path: Path) -> None:
    first.controlnet.save_pretrained(tmp_path / "sd-controlnet-canny")
    assert_loads(first_folder, tmp_path / "sd-controlnet-canny", first)


def test_controlnet_1_0_brings_its_base_model_in_the_same_file(first: Tiny, tmp_path: Path) -> None:
    both = {**first.original(), **first.original_controlnet()}
    path = write(both, tmp_path / "control_sd15_canny.pth")
    assert_loads(path, path, first)
    assert "controlnet" in load_checkpoint(path, 64, 64).parts


def test_a_model_without_a_controlnet_asks_for_one(first_folder: Path) -> None:
    with pytest.raises(UserError, match=r"controlnet: got none in .*pass --controlnet"):
        load_checkpoint(first_folder)


def test_a_controlnet_for_another_text_encoder_is_refused_before_weights_are_read(
    second: Tiny, first_folder: Path, tmp_path: Path
) -> None:
    path = write(second.original_controlnet(), tmp_path / "control_v11p_sd21_canny.safetensors")
    wanted = r"controlnet .*sd21_canny\.safetensors: got text width 192, wanted 128, as the base model has"
    with pytest.raises(UserError, match=wanted):
        load_checkpoint(first_folder, controlnets={"canny": path})


def test_the_widths_of_the_real_families_are_told_by_name(second: Tiny, first_folder: Path, tmp_path: Path) -> None:
    second.controlnet.save_pretrained(tmp_path / "canny")
    config = tmp_path / "canny" / "config.json"
    config.write_text(config.read_text().replace('"cross_attention_dim": 192', '"cross_attention_dim": 1024'))
    with pytest.raises(UserError, match=r"text width 1024 \(Stable Diffusion 2\.x\)"):
        load_checkpoint(first_folder, controlnets={"canny": tmp_path / "canny"})


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"block_out_channels": [32, 64, 96, 128]}, r"channels \[32, 64, 96, 128\], wanted \[32, 64, 96, 96\]"),
        ({"layers_per_block": 1}, "layers per block 1, wanted 2"),
        ({"in_channels": 9}, "input channels 9, wanted 4"),
        (
            {"conditioning_channels": 6},
            "conditioning_channels: got 6, which needs a control image that is not RGB, wanted 3",
        ),
    ],
)
def test_a_controlnet_of_another_shape_is_refused_by_name(
    first: Tiny, first_folder: Path, tmp_path: Path, change: dict, complaint: str
) -> None:
    first.controlnet.save_pretrained(tmp_path / "canny")
    config = tmp_path / "canny" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **change}))
    with pytest.raises(UserError, match=complaint):
        load_checkpoint(first_folder, controlnets={"canny": tmp_path / "canny"})


@pytest.mark.parametrize(("kind", "pools"), [("p_sd15_canny", False), ("e_sd15_shuffle", True), ("e_Shuffle", True)])
def test_the_kind_that_pools_its_residuals_is_told_by_its_name(
    first: Tiny, first_folder: Path, tmp_path: Path, kind: str, pools: bool
) -> None:
    path = write(first.original_controlnet(), tmp_path / f"control_v11{kind}.pth")
    checkpoint = load_checkpoint(
        first_folder, 64, 64, controlnets={"canny": path}, components=("control_embedding", "controlnet")
    )
    assert checkpoint.parts["controlnet"].config.global_pool_conditions is pools


def test_a_folder_says_whether_it_pools_its_residuals(first: Tiny, first_folder: Path, tmp_path: Path) -> None:
    first.controlnet.save_pretrained(tmp_path / "shuffle")
    config = tmp_path / "shuffle" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "global_pool_conditions": True}))
    checkpoint = load_checkpoint(
        first_folder, 64, 64, controlnets={"canny": tmp_path / "shuffle"}, components=("controlnet",)
    )
    assert checkpoint.parts["controlnet"].config.global_pool_conditions


def test_a_whole_model_given_as_controlnet_is_refused(first: Tiny, tmp_path: Path) -> None:
    path = write(first.original(), tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"a whole model goes to --model"):
        read_controlnet(path)


@pytest.mark.parametrize(
    ("option", "value"), [("global_pool_conditions", True), ("controlnet_conditioning_channel_order", "bgr")]
)
def test_the_configuration_beside_a_file_of_diffusers_is_read(
    first: Tiny, tmp_path: Path, option: str, value: object
) -> None:
    """No tensor shows these options, and the pictures are others without them."""
    first.controlnet.save_pretrained(tmp_path / "own")
    config = tmp_path / "own" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), option: value}))
    read = read_controlnet(tmp_path / "own" / "diffusion_pytorch_model.safetensors")
    assert read.config[option] == value
    assert read.read().keys() == first.controlnet.state_dict().keys()
