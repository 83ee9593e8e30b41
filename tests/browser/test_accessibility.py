"""The page for everyone: axe finds nothing to complain of, in any state of the page."""

from mlc_controlnet.bundle.reader import Bundle
from tests.browser.conftest import Visit
from tests.browser.test_pictures_in import CAMERA


def test_axe_finds_no_violation_in_any_state_of_the_page(visit: Visit, linear_webgpu_bundle: Bundle):
    facts = visit("auditThePage", linear_webgpu_bundle, flags=CAMERA)
    assert len(facts["violations"]) == 14  # states, in light and dark
    assert {state: found for state, found in facts["violations"].items() if found} == {}


def test_axe_finds_no_violation_on_a_german_phone_with_a_model_of_classes(visit: Visit, linear_webgpu_bundle: Bundle):
    facts = visit("auditClassesOnAPhone", linear_webgpu_bundle)
    assert facts["violations"] == []
    assert facts["width"] <= 360  # nothing to scroll sideways for
    assert facts["narrowest"] <= 320
    one_column, two_columns = facts["orders"]
    assert [part["name"] for part in one_column] == ["inputs", "form", "picture"]
    assert [part["name"] for part in two_columns] == ["inputs", "picture", "form"]
    assert one_column == sorted(one_column, key=lambda part: part["top"])  # keys go on from above to below
    assert two_columns[1:] == sorted(two_columns[1:], key=lambda part: part["top"])
    assert facts["brushSize"] == "0,12"
    assert facts["lyingBoard"] < 390 - 64  # a finger, which draws on the board, can scroll beside it
    german, english = facts["statuses"]
    assert english.startswith("Ready")
    assert german.startswith("Bereit")
    on_4k = facts["on4k"]
    assert on_4k["share"] > 0.85  # no narrow column
    assert on_4k["isBeside"]  # the request, and all of the picture is in sight with it
    assert on_4k["bottom"] <= 2160


def test_the_progress_is_read_at_a_glance_at_any_width(visit: Visit, linear_webgpu_bundle: Bundle):
    bars = visit("readTheProgress", linear_webgpu_bundle)["bars"]
    assert len(bars) == 5
    for width, bar in bars.items():
        assert bar["share"] > 0.5, width
        assert set(bar["lines"]) == {1}, width


def test_who_uses_keys_goes_on_where_they_were(visit: Visit, linear_webgpu_bundle: Bundle):
    facts = visit("goOnByKeys", linear_webgpu_bundle)
    assert facts["undone"] == "Redo"  # "Undo", which was pressed, is off
    assert facts["presetRemoved"] == "Save as preset…"
    assert facts["presets"] == ["theirs", "my way"]  # of two tabs
    assert facts["removed"] == ["a picture", "Generate"]
    assert "nowhere/manifest.json" in facts["told"]  # in the dialog, where the address was written
    assert facts["added"] == 0
    assert facts["status"].startswith("Done")  # the model that was open still is
    assert "late/manifest.json" in facts["toldLate"]  # the dialog was closed meanwhile
    assert facts["modelsRemoved"] == ["Open", "Close"]  # of the same model, and of the list
