"""Every control of the page is used at least once, in one visit: one that no step uses is named here."""

from typing import Any

import numpy as np
import pytest
from onnx import helper

from mlc_controlnet.bundle.reader import Bundle
from tests.browser.conftest import Visit
from tests.browser.onnx_file import model_file
from tests.browser.png_file import png_file
from tests.browser.test_pictures_in import CAMERA

OF_TWO_UNITS = {"checkbox On", "button Remove", "select-one ControlNet", "button + Add a control"}


@pytest.fixture(scope="module")
def facts(visit: Visit, linear_webgpu_bundle_of_two: Bundle) -> dict[str, Any]:
    picture = np.random.default_rng(0).integers(0, 255, (48, 64, 3)).astype(np.uint8)
    mean = helper.make_node("ReduceMean", ["picture"], ["result"], axes=[1], keepdims=1)
    model = model_file("mean", [mean], {"picture": ["b", 3, "h", "w"]}, ["b", 1, "h", "w"])
    return visit("useEveryControl", linear_webgpu_bundle_of_two, flags=CAMERA, picture=png_file(picture), model=model)


def test_every_control_of_the_page_is_used(facts: dict[str, Any]):
    assert facts["unused"] == []
    assert len(facts["seen"]) >= 100
    assert set(facts["seen"]) >= OF_TWO_UNITS
    assert facts["complaints"] == []


def test_what_the_controls_do_is_seen(facts: dict[str, Any]):
    assert facts["end"].startswith("Done")
    assert facts["emptied"] == 0  # the one picture was removed
    assert facts["german"] == "de"


def test_another_model_takes_the_place_of_the_one_before(facts: dict[str, Any]):
    """Its engine's worker, and with it its memory on the GPU, is gone; the annotators have two."""
    assert facts["workers"] == 3
