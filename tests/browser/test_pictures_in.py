"""How pictures come into the page: from the camera, from files too large to decode, and painted by classes."""

import base64
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from onnx import helper
from PIL import Image

from mlc_controlnet.bundle.reader import Bundle
from tests.browser.conftest import Visit
from tests.browser.onnx_file import model_file
from tests.browser.png_file import png_file
from tests.fixtures.linear_bundle import HEIGHT, WIDTH

CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
SKY, GRASS, HOUSE = (6, 230, 230), (4, 250, 7), (255, 9, 224)  # of ADE20K, as ControlNet's models know them


def huge_png(width: int, height: int) -> dict[str, str]:
    """The beginning of a PNG file, which ends after its header."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return {"name": "huge.png", "mimeType": "image/png", "base64": base64.b64encode(content).decode()}


@pytest.fixture(scope="module")
def stills(visit: Visit, linear_webgpu_bundle: Bundle) -> dict[str, Any]:
    return visit("takeStills", linear_webgpu_bundle, flags=CAMERA)


@pytest.fixture(scope="module")
def painted(visit: Visit, linear_webgpu_bundle: Bundle) -> dict[str, Any]:
    return visit("paintClasses", linear_webgpu_bundle)


def test_a_still_of_the_camera_is_a_control_image_or_the_photo(stills: dict[str, Any]):
    assert "a picture of" in stills["control"]
    assert stills["photo"].startswith("Picture to start from: ")
    assert stills["photo"] != "Picture to start from: none"
    assert stills["end"].startswith("Done")
    assert stills["complaints"] == []


def test_a_pen_draws_as_hard_as_it_presses_and_a_finger_draws(visit: Visit, linear_webgpu_bundle: Bundle):
    light = visit("drawWithPenAndFinger", linear_webgpu_bundle)["light"]
    assert 0 < light["lightly"] < 0.7 * light["firmly"]
    assert light["finger"] == pytest.approx(light["firmly"], rel=0.01)  # half of the pressure is that of a normal hand


def test_how_much_of_a_picture_changes_is_shown_before_it_is_chosen(visit: Visit, linear_webgpu_bundle: Bundle):
    facts = visit("sayHowMuchChanges", linear_webgpu_bundle)
    assert facts["shown"] == {
        "first": "0.8",
        "stepped": "0.85",
        "emptied": "",  # while somebody types in it
        "left": "0.8",
        "repainted": "1",
        "chosen": "0.6",
    }
    assert facts["complaints"] == []


def test_the_camera_is_on_only_while_its_dialog_is_open(stills: dict[str, Any]):
    """The scenario waits for it to go out, after each still and after Escape."""
    assert stills["onMeanwhile"] == 1
    assert stills["focused"] == "Camera…"  # where it was before the dialog


@pytest.mark.parametrize(
    ("flags", "insecure", "got"),
    [
        (("--use-fake-device-for-media-stream", "--deny-permission-prompts"), False, "no permission"),
        (("--use-fake-ui-for-media-stream",), False, "no camera"),
        ((), True, "a page that may not ask for it"),
    ],
    ids=["refused", "missing", "insecure"],
)
def test_a_camera_that_gives_no_picture_is_told_at_the_unit_that_wanted_it(
    visit: Visit, linear_webgpu_bundle: Bundle, flags: tuple[str, ...], insecure: bool, got: str
):
    facts = visit("askForACameraInVain", linear_webgpu_bundle, flags=flags, insecure=insecure)
    (message,) = facts["messages"]
    assert message.startswith(f"Camera: got {got}, wanted ")
    assert facts["isAtTheUnit"]
    assert facts["dialogs"] == 0
    assert facts["end"].startswith("Done")


def test_a_picture_of_200_megapixels_is_refused_by_its_header(visit: Visit, linear_webgpu_bundle: Bundle):
    facts = visit("openAHugePicture", linear_webgpu_bundle, picture=huge_png(20_000, 10_000))
    for how, messages in facts["messages"].items():
        (message,) = messages
        assert message.startswith(f"Control image {how}.png: got 20000x10000 pixels (200 megapixels), wanted 100 ")
    assert facts["decodes"] == 0
    assert facts["after"] == facts["before"]
    assert facts["end"].startswith("Done")
    assert facts["complaints"] == []


def test_areas_and_lines_are_painted_in_the_colours_of_classes(painted: dict[str, Any]):
    drawn = np.asarray(Image.open(painted["drawn"]).convert("RGB"))
    assert drawn.shape == (HEIGHT, WIDTH, 3)
    assert set(map(tuple, drawn.reshape(-1, 3).tolist())) == {SKY, GRASS}  # no colour in between
    assert tuple(drawn[1, WIDTH // 2]) == SKY and tuple(drawn[HEIGHT - 2, WIDTH // 2]) == GRASS
    by_keys = np.asarray(Image.open(painted["byKeys"]).convert("RGB"))
    assert tuple(by_keys[HEIGHT // 2, WIDTH // 2 + 2]) == HOUSE
    assert painted["end"].startswith("Done")
    assert painted["complaints"] == []


def test_a_model_of_classes_begins_with_an_empty_board_and_tools_for_areas(painted: dict[str, Any]):
    assert painted["atFirst"] == "Drawing board: empty"
    assert painted["tools"] == ["Area", "Pencil", "Line", "Eraser"]
    assert painted["found"][0] == "grass"
    assert painted["none"] == "No class has this in its name."


def test_a_sample_of_a_model_of_classes_is_a_map_of_them(painted: dict[str, Any]):
    colors = set(map(tuple, np.asarray(Image.open(painted["sample"]).convert("RGB")).reshape(-1, 3).tolist()))
    assert SKY in colors and GRASS in colors and len(colors) > 2


@pytest.fixture(scope="module")
def annotated(visit: Visit, linear_webgpu_bundle: Bundle) -> dict[str, Any]:
    """The depth model returns the mean of the colours; the pose model 18 heat maps, each with a point."""
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    picture[:, WIDTH // 2 :] = (255, 128, 0)
    mean = helper.make_node("ReduceMean", ["picture"], ["result"], axes=[1], keepdims=1)
    size = ["batch", 3, "height", "width"]
    maps = np.zeros((1, 18, 4, 6), np.float32)
    maps[:, :, 0, 0] = 1
    maps[:, 1, :, :] = np.eye(1, 24, 23, dtype=np.float32).reshape(4, 6)  # the neck: the last corner
    zero = helper.make_node("ReduceMin", ["picture"], ["least"], keepdims=0)
    pose = helper.make_node("Sub", ["maps", "least"], ["result"])
    two = helper.make_node("Add", ["a", "b"], ["result"])
    return visit(
        "annotateByAModel",
        linear_webgpu_bundle,
        picture=png_file(picture),
        depth=model_file("depth", [mean], {"picture": size}, ["batch", 1, "height", "width"]),
        pose=model_file("pose", [zero, pose], {"picture": [1, 3, 32, 48]}, [1, 18, 4, 6], maps=maps),
        unfit=model_file("two pictures", [two], {"a": [1, 3, 8, 8], "b": [1, 3, 8, 8]}, [1, 3, 8, 8]),
    )


def test_a_model_of_the_visitors_makes_the_control_image(annotated: dict[str, Any]):
    assert annotated["messages"] == []
    for name in ("depth", "smaller"):
        depth = np.asarray(Image.open(annotated[name]).convert("RGB"))
        assert depth.shape == (HEIGHT, WIDTH, 3)
        assert (depth[:, : WIDTH // 2 - 3] <= 8).all() and (depth[:, WIDTH // 2 + 3 :] >= 235).all(), name
    assert annotated["end"].startswith("Done")
    assert annotated["complaints"] == []  # the page's policy allows it: nothing is evaluated


def test_heat_maps_of_a_model_become_a_pose(annotated: dict[str, Any]):
    pose = np.asarray(Image.open(annotated["pose"]).convert("RGB"))
    assert tuple(pose[2, 2]) == (255, 0, 85)  # the last point, over the others
    assert tuple(pose[HEIGHT - 2, WIDTH - 2]) == (255, 85, 0)  # the neck
    assert pose[HEIGHT // 2, WIDTH // 2].any()  # a limb between the corners
    assert not pose[2, WIDTH - 3].any()


def test_the_runtime_of_models_is_fetched_when_one_is_opened(annotated: dict[str, Any]):
    assert annotated["before"]["requests"] == []
    assert annotated["before"]["text"] == "No model is open: the picture stays as it is."


def test_a_file_that_is_no_model_and_one_that_reads_no_picture_are_told(annotated: dict[str, Any]):
    (message,) = annotated["noModel"]
    assert message.startswith("drawing.png: got a file that does not load") and "wanted an ONNX model" in message
    (message,) = annotated["unfit"]
    assert message.startswith(
        "two pictures.onnx: got a: float32 [1, 3, 8, 8]; b: float32 [1, 3, 8, 8], wanted one input"
    )
