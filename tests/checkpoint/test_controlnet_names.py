"""ControlNets are named after what they are shown as: by their files, folders or hub ids."""

from pathlib import Path

import pytest

from mlc_controlnet.checkpoint.controlnet_names import kind_of_control, kind_of_word, name_controlnets, short_name
from mlc_controlnet.config import ControlNetOption
from mlc_controlnet.errors import UserError

NAMES = [
    ("control_v11p_sd15_canny.pth", "canny", "canny"),
    ("lllyasviel/sd-controlnet-depth", "depth", "depth"),
    ("lllyasviel/ControlNet-v1-1/control_v11f1e_sd15_tile.pth@main", "tile", "tile"),
    ("models/control_v11p_sd15s2_lineart_anime.safetensors", "lineart_anime", "lineart_anime"),
    ("thibaud/controlnet-sd21-openposev2-diffusers", "openpose", "openpose"),
    ("control_lora_rank128_v11p_sd15_canny_fp16.safetensors", "canny", "canny"),
    ("control_sd15_hed.pth", "hed", "softedge"),
    ("monster-labs/control_v1p_sd15_qrcode_monster", "qrcode_monster", ""),
    ("runs/circles-controlnet/controlnet", "circles", ""),
    (r"C:\models\depth\diffusion_pytorch_model.fp16.safetensors", "depth", "depth"),
    ("controlnet", "controlnet", ""),
]


@pytest.mark.parametrize(("path", "name", "kind"), NAMES)
def test_a_name_says_what_the_control_image_shows(path: str, name: str, kind: str) -> None:
    assert short_name(path) == name
    assert kind_of_control(name) == kind


def test_equal_names_get_numbers_and_names_of_ones_own_come_first() -> None:
    paths = ["a/canny.pth", "depth=x.pth", "b/canny.pth", "sd-controlnet-depth"]
    assert name_controlnets([ControlNetOption.parse(path) for path in paths]) == [
        "canny",
        "depth",
        "canny_2",
        "depth_2",
    ]


def test_a_control_type_is_a_name_and_the_words_of_controlnet_plus_plus_are_known() -> None:
    paths = ["union.safetensors:canny", "edges=org/union@main:lineart", "union.safetensors:canny", "union:repaint"]
    options = [ControlNetOption.parse(path) for path in paths]
    assert options[0] == ControlNetOption("union.safetensors", None, "canny")
    assert options[1] == ControlNetOption("org/union@main", "edges", "lineart")
    assert name_controlnets(options) == ["canny", "edges", "canny_2", "repaint"]
    words = ("hed", "pidi", "ted", "anime_lineart", "normal", "segment", "repaint", "dog")
    kinds = ["softedge", "softedge", "softedge", "lineart_anime", "normalbae", "seg", "inpaint", ""]
    assert [kind_of_word(word) for word in words] == kinds


def test_two_equal_names_of_ones_own_are_refused() -> None:
    with pytest.raises(UserError, match=r"--controlnet: got 2 named canny, wanted a name of its own for each"):
        name_controlnets([ControlNetOption("a.pth", "canny"), ControlNetOption("b.pth", "canny")])


def test_a_file_with_an_equals_sign_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert ControlNetOption.parse("step=9.pth") == ControlNetOption("9.pth", "step")
    Path("step=9.pth").touch()
    assert ControlNetOption.parse("step=9.pth") == ControlNetOption("step=9.pth")
    assert ControlNetOption.parse("C:/a=b/c.pth") == ControlNetOption("C:/a=b/c.pth")


def test_a_file_with_a_colon_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert ControlNetOption.parse("union:canny") == ControlNetOption("union", None, "canny")
    Path("union:canny").touch()
    assert ControlNetOption.parse("union:canny") == ControlNetOption("union:canny")
    assert ControlNetOption.parse("edges=union:canny") == ControlNetOption("union:canny", "edges")
    assert ControlNetOption.parse("C:canny") == ControlNetOption("C:canny")
