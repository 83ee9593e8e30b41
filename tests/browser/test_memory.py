"""What a picture takes of the GPU's memory, as the real Chromium's buffers tell it."""

from typing import Any

import pytest

from mlc_controlnet.bundle.reader import Bundle
from tests.browser.conftest import Visit

MODES = ("resident", "reduced")


@pytest.fixture(scope="module")
def facts(visit: Visit, engine_site: Any, circles_webgpu_bundle: Bundle) -> dict[str, Any]:
    """Bytes of live buffers in each mode; a step with guidance, so that every component runs."""
    request = {"prompt": "gold circle with navy background", "seed": 7, "numInferenceSteps": 1}
    return visit("countGpuMemory", circles_webgpu_bundle, site=engine_site, modes=MODES, **request)


def test_the_picture_is_the_same_in_both_modes(facts: dict[str, Any]):
    assert len(set(facts["resident"]["image"])) > 2
    assert facts["reduced"]["image"] == facts["resident"]["image"]


@pytest.mark.parametrize("mode", MODES)
def test_the_peak_is_the_planned_one(facts: dict[str, Any], mode: str):
    assert facts[mode]["peak"] == pytest.approx(facts[mode]["planned"], rel=0.01)


def test_reduced_never_holds_as_much_as_the_weights_alone_take_resident(facts: dict[str, Any]):
    assert facts["reduced"]["peak"] < facts["resident"]["loaded"]


@pytest.mark.parametrize("mode", MODES)
def test_after_a_picture_its_workspace_is_free(facts: dict[str, Any], mode: str, circles_webgpu_bundle: Bundle):
    (library,) = [entry for entry in circles_webgpu_bundle.manifest.libraries if entry.dtype == "float32"]
    workspace = library.activation_bytes["vae_decoder"]
    assert facts[mode]["peak"] - facts[mode]["after"] > 0.8 * workspace


@pytest.mark.parametrize("mode", MODES)
def test_unloading_destroys_every_buffer(facts: dict[str, Any], mode: str):
    assert facts[mode]["unloaded"] == 0


def test_a_hundred_pictures_in_a_row_leave_nothing(visit: Visit, engine_site: Any, linear_webgpu_bundle: Bundle):
    """Machine code is on the heap too: V8 makes half a megabyte of what runs here again and again, which is no leak."""
    facts = visit("drawManyInARow", linear_webgpu_bundle, site=engine_site, heapAfter=[3, 100])
    assert len(facts["gpuBytes"]) == 100
    assert facts["gpuBytes"][99] == pytest.approx(facts["gpuBytes"][2], rel=0.02)
    third, last = facts["heaps"]
    assert third["code"] > 100_000  # the snapshot tells it
    assert last["data"] - third["data"] <= 0.02 * third["used"]
