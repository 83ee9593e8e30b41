from pathlib import Path

import pytest
import torch
from diffusers import ControlNetModel

from mlc_controlnet.cli.main import main
from mlc_controlnet.train.add_control import changes_nothing
from mlc_controlnet.train.base import load_unet


def test_the_new_controlnet_is_a_copy_with_zero_convolutions_that_changes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "new"
    assert (
        main(["train", "add-control", "--base", "circles", "--output", str(output), "--hint-widths", "8,16,24,32"]) == 0
    )
    assert "bit for bit" in capsys.readouterr().out
    controlnet, unet = ControlNetModel.from_pretrained(output), load_unet("circles")
    assert torch.equal(controlnet.mid_block.resnets[0].conv1.weight, unet.mid_block.resnets[0].conv1.weight)
    assert not any(p.any() for p in controlnet.controlnet_mid_block.parameters())
    assert changes_nothing(controlnet, unet)


def test_a_controlnet_that_changes_something_is_noticed(tiny_base: Path) -> None:
    unet = load_unet(str(tiny_base))
    controlnet = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(8, 8))
    assert changes_nothing(controlnet, unet)
    torch.nn.init.constant_(controlnet.controlnet_mid_block.bias, 1e-3)
    assert not changes_nothing(controlnet, unet)


@pytest.mark.parametrize("base", ["nowhere", "{tmp}"])
def test_a_base_that_is_none_is_named(tmp_path: Path, base: str, capsys: pytest.CaptureFixture[str]) -> None:
    base = base.format(tmp=tmp_path)
    assert main(["train", "add-control", "--base", base, "--output", str(tmp_path / "new")]) == 2
    assert base in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("config", [None, '{"_class_name": "UNet2DConditionModel"}'])
def test_a_folder_that_holds_something_else_is_not_replaced(
    tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], config: str | None
) -> None:
    kept = tmp_path / "models" / ("notes.txt" if config is None else "config.json")
    kept.parent.mkdir()
    kept.write_text(config or "mine")
    arguments = ["--base", str(tiny_base), "--output", str(kept.parent), "--hint-widths", "8,8"]
    assert main(["train", "add-control", *arguments]) == 2
    assert "got something that is not a ControlNet" in capsys.readouterr().err
    assert kept.read_text() == (config or "mine")
