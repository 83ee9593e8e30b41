"""Control-LoRA files as ComfyUI reads them: weight = the UNet's weight + up @ down, and other tensors whole."""

from pathlib import Path

import pytest
import torch
from diffusers.utils.state_dict_utils import convert_sai_sd_control_lora_state_dict_to_peft
from safetensors.torch import save_file

from mlc_controlnet.checkpoint import load_checkpoint
from mlc_controlnet.checkpoint.controlnet import read_controlnet
from mlc_controlnet.checkpoint.diffusers_folder import read_part_folder
from mlc_controlnet.checkpoint.ldm_names import original_controlnet_module
from mlc_controlnet.config import LoraOption
from mlc_controlnet.errors import UserError
from tests.checkpoint.conftest import Tiny, build_tiny
from tests.checkpoint.original_layout import original_unet

RANK = 4
CONTROL = ("control_embedding", "controlnet")
OWN = ("controlnet_", "time_embedding.linear_1.weight")  # whole in the file, though the last is a matrix of the encoder
UNTOLD = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_v.weight"  # not in the file: the UNet's own

Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def folder(first: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return first.save_folder(tmp_path_factory.mktemp("base") / "first")


def make(tiny: Tiny) -> tuple[Tensors, Tensors]:
    """A file's tensors, under the original code's names, and the ControlNet that they make, float64."""
    torch.manual_seed(0)
    base = tiny.unet.state_dict()
    file, wanted = {"lora_controlnet": torch.tensor([])}, {}
    for key, tensor in tiny.controlnet.state_dict().items():
        (original,) = original_unet({key: tensor})
        if key == UNTOLD:
            wanted[key] = base[key].double()
        elif tensor.ndim == 1 or key.startswith(OWN):
            file[original] = (tensor + 0.1 * torch.randn(tensor.shape)).half()
            wanted[key] = file[original].double()
        else:
            up = (0.2 * torch.randn(tensor.shape[0], RANK, *(1 for _ in tensor.shape[2:]))).half()
            down = (0.2 * torch.randn(RANK, *tensor.shape[1:])).half()
            stem = original.removesuffix(".weight")
            file |= {f"{stem}.up": up, f"{stem}.down": down}
            difference = torch.einsum("or,ri->oi", up.flatten(1).double(), down.flatten(1).double())
            wanted[key] = base[key][:, : tensor.shape[1]].double() + difference.reshape(tensor.shape)
    return file, wanted


def write(tensors: Tensors, path: Path) -> Path:
    save_file(tensors, path)
    return path


def assert_loads(base: Path, path: Path, wanted: Tensors, *loras: LoraOption) -> None:
    checkpoint = load_checkpoint(base, 64, 128, controlnets={"canny": path}, components=CONTROL, loras=loras)
    got = dict(checkpoint.parts["controlnet"].named_parameters())
    assert got.keys() == wanted.keys()
    for key, tensor in wanted.items():
        # The sum is made in float32 and rounded to float16 once.
        assert torch.allclose(got[key].double(), tensor, rtol=2**-11 * 1.01, atol=2e-7), key


def test_every_weight_is_the_unets_and_the_files_product(first: Tiny, folder: Path, tmp_path: Path) -> None:
    file, wanted = make(first)
    names = {key.rpartition(".")[0] for key in file if key.endswith(".up")}
    assert {"input_blocks.0.0", "input_blocks.1.0.emb_layers.1", "input_blocks.3.0.op", "time_embed.2"} < names
    assert {"input_blocks.1.1.proj_in", "input_blocks.4.0.skip_connection", "middle_block.2.out_layers.3"} < names
    assert {"zero_convs.0.0.weight", "middle_block_out.0.weight", "input_hint_block.14.weight"} < file.keys()
    assert_loads(folder, write(file, tmp_path / "control_lora_rank128_v11p_sd15_canny.safetensors"), wanted)


def test_the_mark_may_be_missing(first: Tiny, folder: Path, tmp_path: Path) -> None:
    file, _ = make(first)
    del file["lora_controlnet"]
    source = read_controlnet(write(file, tmp_path / "canny.safetensors"), read_part_folder(folder / "unet", "unet"))
    assert len(source.updates) == sum(key.endswith(".up") for key in file)


def test_stable_diffusion_2_is_a_base_too(second: Tiny, tmp_path: Path) -> None:
    file, wanted = make(second)
    assert_loads(second.save_folder(tmp_path / "second"), write(file, tmp_path / "canny.safetensors"), wanted)


def test_the_base_may_be_a_single_file(first: Tiny, tmp_path: Path) -> None:
    file, wanted = make(first)
    base = write(
        {key: value.clone().contiguous() for key, value in first.original().items()}, tmp_path / "sd.safetensors"
    )
    assert_loads(base, write(file, tmp_path / "canny.safetensors"), wanted)


@pytest.mark.parametrize("is_trained", [True, False])
def test_of_an_inpainting_unet_the_latents_inputs_are_the_base(tmp_path: Path, is_trained: bool) -> None:
    tiny = build_tiny(is_second=False, sample_channels=9)
    file, wanted = make(tiny)
    if not is_trained:
        del file["input_blocks.0.0.up"], file["input_blocks.0.0.down"]
        wanted["conv_in.weight"] = tiny.unet.conv_in.weight[:, :4].double()
    assert tiny.unet.conv_in.weight.shape[1] == 9
    assert wanted["conv_in.weight"].shape[1] == 4
    assert_loads(tiny.save_folder(tmp_path / "inpaint"), write(file, tmp_path / "canny.safetensors"), wanted)


def test_loras_change_the_unet_and_not_the_controlnet_on_it(first: Tiny, folder: Path, tmp_path: Path) -> None:
    file, wanted = make(first)
    layer = "lora_unet_conv_in"
    lora = {f"{layer}.lora_up.weight": torch.ones(32, 1, 1, 1), f"{layer}.lora_down.weight": torch.ones(1, 4, 3, 3)}
    path = write(lora, tmp_path / "style.safetensors")
    assert_loads(folder, write(file, tmp_path / "canny.safetensors"), wanted, LoraOption(str(path)))


@pytest.mark.parametrize(("kind", "pools"), [("p_sd15_canny", False), ("e_sd15_shuffle", True)])
def test_the_kind_that_pools_its_residuals_is_told_by_its_name(
    first: Tiny, folder: Path, tmp_path: Path, kind: str, pools: bool
) -> None:
    path = write(make(first)[0], tmp_path / f"control_lora_rank128_v11{kind}_fp16.safetensors")
    checkpoint = load_checkpoint(folder, 64, 64, controlnets={"canny": path}, components=CONTROL)
    assert checkpoint.parts["controlnet"].config.global_pool_conditions is pools


def test_no_merged_weight_is_kept_before_its_turn(first: Tiny, folder: Path, tmp_path: Path) -> None:
    file, _ = make(first)
    unet = read_part_folder(folder / "unet", "unet")
    source = read_controlnet(write(file, tmp_path / "canny.safetensors"), unet)
    weights, base = source.read(), unet.read()
    for key, (update,) in source.updates.items():
        assert torch.equal(weights[key], base[key]), key  # the base: mapped from its file
        assert update.difference.rank == RANK
    assert len(source.updates) == sum(key.endswith(".up") for key in file)


def test_the_files_names_are_diffusers_reading_of_them(first: Tiny, folder: Path, tmp_path: Path) -> None:
    file, _ = make(first)
    source = read_controlnet(write(file, tmp_path / "canny.safetensors"), read_part_folder(folder / "unet", "unet"))
    theirs = convert_sai_sd_control_lora_state_dict_to_peft(file)
    for key, (update,) in source.updates.items():
        layer = key.removesuffix(".weight")
        assert torch.equal(update.difference.left, theirs.pop(f"{layer}.lora_B.weight")), key
        assert torch.equal(update.difference.right, theirs.pop(f"{layer}.lora_A.weight")), key
    weights = source.read()
    assert set(weights) - set(source.updates) - {UNTOLD} == set(theirs)
    assert all(torch.equal(weights[key], tensor) for key, tensor in theirs.items())


@pytest.mark.parametrize("levels", [3, 4])
def test_the_layers_of_the_control_image_have_even_numbers(levels: int) -> None:
    layers = ["conv_in", *(f"blocks.{number}" for number in range(2 * levels - 2)), "conv_out"]
    names = [original_controlnet_module(f"controlnet_cond_embedding.{layer}", 2, levels) for layer in layers]
    assert names == [f"input_hint_block.{2 * number}" for number in range(2 * levels)]


def refused(base: Path, path: Path) -> str:
    with pytest.raises(UserError) as error:
        load_checkpoint(base, 64, 64, controlnets={"canny": path}, components=CONTROL)
    return str(error.value)


def test_a_control_lora_of_another_family_is_refused_by_its_text_width(
    second: Tiny, folder: Path, tmp_path: Path
) -> None:
    said = refused(folder, write(make(second)[0], tmp_path / "sd21.safetensors"))
    assert "sd21.safetensors: got text width 192, wanted 128, as the base model has; take a Control-LoRA" in said


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (
            {"input_blocks.1.1.proj_in.up": torch.ones(48, RANK, 1, 1)},
            "input_blocks.1.1.proj_in: got up [48, 4, 1, 1] and down [4, 32, 1, 1], wanted factors of [32, 32, 1, 1]",
        ),
        (
            {"input_blocks.1.1.proj_in.up": torch.ones(32, 5, 1, 1)},
            "input_blocks.1.1.proj_in: got up [32, 5, 1, 1] and down [4, 32, 1, 1], wanted factors of [32, 32, 1, 1]",
        ),
        ({"input_blocks.1.1.proj_in.up": torch.tensor(1.0)}, "input_blocks.1.1.proj_in.up: got 0 axes"),
        ({"input_blocks.1.1.proj_in.up": None}, "got 1 tensor(s) (input_blocks.1.1.proj_in.down) that have no place"),
        ({"input_blocks.1.1.norm.bias": torch.ones(7)}, "input_blocks.1.1.norm.bias: got [7], wanted [32], as in"),
        ({"label_emb.0.0.up": torch.ones(2, 2)}, "got 1 tensor(s) (label_emb.0.0.up) that have no place"),
        ({"zero_convs.3.0.bias": None}, "lacks 1 tensor(s) (controlnet_down_blocks.3.bias)"),
        ({"input_blocks.1.1.proj_in.up": torch.full((32, RANK, 1, 1), torch.nan)}, "proj_in.weight: got 1024 value(s)"),
    ],
)
def test_a_damaged_file_is_refused_by_name(
    first: Tiny, folder: Path, tmp_path: Path, change: dict[str, torch.Tensor | None], complaint: str
) -> None:
    changed = {**make(first)[0], **change}
    left = {key: tensor for key, tensor in changed.items() if tensor is not None}
    assert complaint in refused(folder, write(left, tmp_path / "canny.safetensors"))


def test_without_a_base_a_control_lora_is_refused(first: Tiny, tmp_path: Path) -> None:
    path = write(make(first)[0], tmp_path / "canny.safetensors")
    with pytest.raises(UserError, match=r"got a Control-LoRA, which is a difference from a UNet, .*--model"):
        read_controlnet(path)
