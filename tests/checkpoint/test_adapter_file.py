"""Names of tensors as published files have them; those of diffusers' T2IAdapter are asked of diffusers itself."""

from pathlib import Path

import pytest
import torch
from diffusers import MultiAdapter, T2IAdapter
from safetensors.torch import save_file

from mlc_controlnet.checkpoint.adapter_file import check_is_not_an_adapter
from mlc_controlnet.checkpoint.controlnet import read_controlnet
from mlc_controlnet.checkpoint.lora import read_loras
from mlc_controlnet.config import LoraOption
from mlc_controlnet.errors import UserError

PUBLISHED = {
    # t2iadapter_canny_sd14v1.pth, t2iadapter_color_sd14v1.pth, t2iadapter_style_sd14v1.pth
    "full": ("T2I-Adapter", ["conv_in.weight", "body.0.block1.weight", "body.0.block2.weight"]),
    "light": ("T2I-Adapter", ["body.0.in_conv.weight", "body.0.body.0.block1.weight", "body.0.out_conv.weight"]),
    "style": ("T2I-Adapter", ["style_embedding", "proj", "transformer_layes.0.attn.in_proj_weight"]),
    # controllllite_v01032064e_sdxl_canny.safetensors
    "lllite": (
        "ControlNet-LLLite",
        [
            f"lllite_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q.{part}.weight"
            for part in ("conditioning1.0", "down.0", "mid.0", "up.0")
        ],
    ),
    # ip-adapter_sd15.safetensors, ip-adapter-faceid_sdxl.bin
    "ip": ("IP-Adapter", ["image_proj.proj.weight", "image_proj.norm.bias", "ip_adapter.1.to_k_ip.weight"]),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_an_adapter_given_as_a_controlnet_is_refused_by_its_name(tmp_path: Path, name: str) -> None:
    kind, names = PUBLISHED[name]
    path = tmp_path / f"{name}.safetensors"
    save_file({key: torch.zeros(1) for key in names}, path)
    with pytest.raises(
        UserError, match=rf"{name}.safetensors: got an? {kind} \(.*\), wanted a ControlNet, .*; take a "
    ):
        read_controlnet(path)


def test_an_ip_adapter_given_as_a_lora_is_refused_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "ip-adapter.bin"
    torch.save(
        {"image_proj": {"proj.weight": torch.zeros(1)}, "ip_adapter": {"1.to_k_ip.weight": torch.zeros(1)}}, path
    )
    with pytest.raises(UserError, match=r"ip-adapter.bin: got an IP-Adapter \(image_proj\), wanted .* or a LoRA: "):
        read_loras([LoraOption(path.as_posix())], {})


@pytest.mark.parametrize("kind", ["full_adapter", "full_adapter_xl", "light_adapter"])
def test_diffusers_adapters_are_refused_by_their_name(tmp_path: Path, kind: str) -> None:
    adapter = T2IAdapter(channels=[32, 32, 32, 32], num_res_blocks=1, adapter_type=kind)
    for one in (adapter, MultiAdapter([adapter, adapter])):
        with pytest.raises(UserError, match="got a T2I-Adapter"):
            check_is_not_an_adapter(Path("x"), one.state_dict())
    adapter.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="T2IAdapter"):
        read_controlnet(tmp_path)


def test_other_names_pass() -> None:
    check_is_not_an_adapter(
        Path("x"), ["conv_in.weight", "proj", "lora_unet_x.lora_down.weight", "input_blocks.0.0.weight"]
    )
