"""Faults in the real Chromium: after each, the next try works and nothing has to be cleared by hand."""

from pathlib import Path
from typing import Any

import pytest

from mlc_controlnet.bundle.reader import Bundle
from tests.browser.conftest import Visit


def drawn(picture: list[int]) -> bool:
    """Whether it is a picture and not one colour."""
    return len(set(picture)) > 2


def test_two_tabs_share_one_download(visit: Visit, engine_site: Path, linear_webgpu_bundle: Bundle):
    facts = visit("loadInTwoTabs", linear_webgpu_bundle, site=engine_site)
    one, other = facts["pictures"]
    assert drawn(one) and one == other
    assert len(facts["requests"]) == len(set(facts["requests"])) > 2


def test_a_tab_that_is_closed_while_it_loads_holds_up_no_other(
    visit: Visit, engine_site: Path, linear_webgpu_bundle: Bundle
):
    facts = visit("closeATabThatLoads", linear_webgpu_bundle, site=engine_site)
    assert drawn(facts["picture"]) and facts["again"] == facts["picture"]
    assert facts["requestsAgain"] == []


def test_without_room_the_model_is_drawn_with_and_kept_once_there_is_room(
    visit: Visit, engine_site: Path, linear_webgpu_bundle: Bundle
):
    facts = visit("loadWithoutRoom", linear_webgpu_bundle, site=engine_site)
    first, *others = facts["pictures"]
    assert drawn(first) and all(picture == first for picture in others)
    with_room, again = facts["requests"]
    assert "bundle/params/00.bin" in with_room
    assert again == []


def test_an_engine_outlives_the_publication_of_another_version(
    visit: Visit, engine_site: Path, linear_webgpu_bundle: Bundle
):
    facts = visit("publishWhileItRuns", linear_webgpu_bundle, site=engine_site)
    assert facts["names"] == ["linear", "second"]
    old, new = facts["pictures"]
    assert drawn(old) and old == new  # the weights are those of before


@pytest.fixture(scope="module")
def cancelled(visit: Visit, engine_site: Path, linear_webgpu_bundle: Bundle) -> dict[str, Any]:
    return visit("cancelAtEveryStage", linear_webgpu_bundle, site=engine_site)


@pytest.mark.parametrize("stage", ["onManifest", "onProgress", "kernels", "encode", "step 0", "step 1", "step 2"])
def test_a_cancel_at_any_stage_ends_the_call_and_spoils_no_later_picture(cancelled: dict[str, Any], stage: str):
    """After the last step the picture is decoded."""
    assert cancelled["cancelled"][stage]["error"] == "AbortError"
    assert drawn(cancelled["undisturbed"])
    assert cancelled["cancelled"][stage]["image"] == cancelled["undisturbed"]


def test_a_full_gpu_is_tried_with_less_and_then_told_with_need_and_have(
    visit: Visit, engine_site: Path, linear_webgpu_bundle: Bundle
):
    facts = visit("fillTheGpu", linear_webgpu_bundle, site=engine_site)
    once, always, never = facts["once"], facts["always"], facts["never"]
    assert drawn(never["image"]) and never["mode"] == "resident"
    assert once["mode"] == "reduced" and once["image"] == never["image"]
    assert any(notice.startswith("GPU memory was full") for notice in once["notices"])
    assert always["code"] == "gpu-memory-full"
    assert always["error"].startswith("GPU memory: got less than ")
