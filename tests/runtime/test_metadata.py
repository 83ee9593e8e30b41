"""The texts of a PNG file: written once by a rule that the browser has too, and read back."""

import base64
import io
import json
from pathlib import Path

import pytest
from PIL import Image

from mlc_controlnet.errors import UserError
from mlc_controlnet.runtime.infotext import read_infotext
from mlc_controlnet.runtime.metadata import read_settings, to_metadata
from mlc_controlnet.runtime.png import png_bytes, read_texts
from mlc_controlnet.runtime.request import OPTIONS, Settings

FIXTURE = json.loads((Path(__file__).parents[1] / "fixtures" / "metadata.json").read_text(encoding="utf-8"))
SHA256 = "0123456789abcdef"  # of write_metadata.py


def settings_of(values: dict) -> Settings:
    tuples = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    return Settings(**tuples)


def picture(case: dict) -> bytes:
    return png_bytes(
        Image.new("RGB", (8, 8), "gold"), to_metadata(settings_of(case["settings"]), case["model"], SHA256)
    )


@pytest.mark.parametrize("case", FIXTURE["written"])
def test_the_texts_are_those_of_the_fixture(case):
    """The browser's tests read the same file."""
    assert to_metadata(settings_of(case["settings"]), case["model"], SHA256) == case["texts"]


@pytest.mark.parametrize("case", FIXTURE["written"])
def test_the_settings_come_back_from_the_file(case):
    restored = read_settings(picture(case))
    assert restored.options == {
        name: value for name, value in vars(settings_of(case["settings"])).items() if value is not None
    }
    assert (restored.model, restored.bundle_sha256, restored.notices) == (case["model"], SHA256, ())


@pytest.mark.parametrize("case", FIXTURE["written"])
def test_web_uis_text_alone_brings_back_what_it_can_hold(case):
    settings = settings_of(case["settings"])
    options, notices = read_infotext(to_metadata(settings, case["model"], SHA256)["parameters"])
    held = ["negative_prompt", "seed", "num_inference_steps", "guidance_scale", "height", "width", "hires_scale"]
    assert {name: options.get(name) for name in held} == {name: getattr(settings, name) for name in held}
    if settings.prompt_syntax == "webui":
        assert options["prompt"] == settings.prompt
    assert options.get("controlnets", []) == list(settings.controlnets)
    assert bool(notices) == (settings.sampler not in {"ddim", "dpmpp_2m", "euler", "unipc"})


@pytest.mark.parametrize("case", FIXTURE["texts"])
def test_web_uis_text_is_read(case):
    options, notices = read_infotext(case["text"])
    assert json.loads(json.dumps(options)) == case["options"]
    assert notices == case["notices"]


@pytest.mark.parametrize("case", FIXTURE["files"])
def test_every_kind_of_text_chunk_is_read(case):
    data = base64.b64decode(case["png"])
    if case["texts"] is None:
        with pytest.raises(UserError, match=r"^photo: got a file that is not PNG, wanted a PNG file"):
            read_texts(data, "photo")
    else:
        assert read_texts(data) == case["texts"]


@pytest.mark.parametrize(("prompt", "kind"), [("café", b"tEXt"), ("金", b"iTXt")])
def test_web_uis_text_has_the_kind_of_chunk_that_its_readers_know(prompt, kind):
    case = FIXTURE["written"][0]
    data = picture({**case, "settings": {**case["settings"], "prompt": prompt}})
    assert kind + b"parameters\0" in data
    with Image.open(io.BytesIO(data)) as image:  # as Forge and the web UI read it
        assert image.info["parameters"].startswith(prompt)
        assert "prompt" not in image.info  # which ComfyUI would take for a workflow


def test_a_picture_without_settings_is_refused():
    plain = png_bytes(Image.new("RGB", (8, 8)), {"Software": "another program", "parameters": "no settings"})
    with pytest.raises(
        UserError, match="photo: got a PNG file without settings, wanted a picture that this program or"
    ):
        read_settings(plain, "photo")
    damaged = png_bytes(Image.new("RGB", (8, 8)), {"mlc-controlnet": "[]"})
    with pytest.raises(UserError, match="photo: got a text mlc-controlnet that is no record"):
        read_settings(damaged, "photo")


def test_what_cannot_be_used_is_left_out_with_a_notice():
    record = json.dumps({"prompt": "7", "seed": "-1", "sharpness": "1", "strength": "0.5", "model": "x"})
    restored = read_settings(png_bytes(Image.new("RGB", (8, 8)), {"mlc-controlnet": record}))
    assert restored.options == {"prompt": "7", "strength": 0.5}
    assert restored.notices == (
        "sharpness is not known here and was left out",
        "seed -1 cannot be used and was left out",
    )


def test_a_prompt_that_is_a_number_comes_back_as_a_text():
    values = dict(zip(("prompt", "negative_prompt", "prompt_2", "negative_prompt_2"), "1234", strict=True))
    restored = read_settings(picture({"settings": {**FIXTURE["written"][0]["settings"], **values}, "model": "x"}))
    assert {name: restored.options.get(name) for name in values} == values
    assert restored.notices == ()


def test_every_option_is_in_the_record():
    values = {**FIXTURE["written"][0]["settings"], "hires_scale": 2.0, "timesteps": (1.0,), "sigmas": (1.0,)}
    values |= {"hires_strength": 0.5, "hires_steps": 2, "hires_upscaler": "bicubic", "padding_mask_crop": 1}
    values["schedule_type"] = "karras"
    values |= dict.fromkeys(("prompt_2", "negative_prompt_2"), "red")
    sizes = ("original_size", "crops_coords_top_left", "target_size")
    values |= dict.fromkeys((*sizes, *(f"negative_{name}" for name in sizes)), (512, 768))
    assert set(read_settings(picture({"settings": values, "model": "x"})).options) == set(OPTIONS)
