"""The page's tools: every way to make an outline, and the swatches that write the prompt."""

from typing import Any

import numpy as np
import pytest
from PIL import Image

from mlc_controlnet.bundle.reader import Bundle
from tests.browser.conftest import Visit
from tests.browser.png_file import png_file
from tests.fixtures.linear_bundle import HEIGHT, WIDTH

DARK_ON_LIGHT = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
DARK_ON_LIGHT[4:8, 6:10] = 0


@pytest.fixture(scope="module")
def drawn(visit: Visit, linear_webgpu_bundle: Bundle) -> dict[str, Any]:
    return visit("outlineInEveryWay", linear_webgpu_bundle, picture=png_file(DARK_ON_LIGHT))


@pytest.fixture(scope="module")
def outlines(drawn: dict[str, Any]) -> dict[str, np.ndarray]:
    """Name of the way -> the control image that the page made, [H, W] of 0..255."""
    return {name: np.asarray(Image.open(path).convert("L")) for name, path in drawn["outlines"].items()}


@pytest.fixture(scope="module")
def colors(visit: Visit, linear_webgpu_bundle: Bundle) -> dict[str, Any]:
    return visit("chooseColors", linear_webgpu_bundle)


def ring(picture: np.ndarray) -> tuple[np.ndarray, float]:
    """Centre (x, y) and radius of the white ring in a picture, in pixels, as its mass has them."""
    y, x = np.mgrid[0 : picture.shape[0], 0 : picture.shape[1]] + 0.5
    weight = picture / picture.sum()
    center = np.array([(x * weight).sum(), (y * weight).sum()])
    return center, float((np.hypot(x - center[0], y - center[1]) * weight).sum())


def test_pencil_strokes_add_up_to_a_closed_line(outlines: dict[str, np.ndarray]):
    drawn = outlines["pencil"]
    assert drawn.shape == (HEIGHT, WIDTH)
    for x, y in ((0.5, 0.25), (0.75, 0.5), (0.5, 0.5)):  # on the three sides of the triangle
        assert drawn[int(y * HEIGHT), int(x * WIDTH)] > 100
    assert drawn[int(0.6 * HEIGHT), int(0.3 * WIDTH)] == 0


def test_the_eraser_takes_a_part_of_what_was_drawn_and_can_be_undone(outlines: dict[str, np.ndarray]):
    drawn, erased = outlines["pencil"], outlines["erased"]
    across = slice(WIDTH // 2 - 1, WIDTH // 2 + 1)  # where the eraser went, a sixteenth of the board wide
    assert drawn[: HEIGHT // 2, across].max() > 100
    assert erased[: HEIGHT // 2, across].max() <= 64  # its soft edge
    assert np.array_equal(erased[:, : WIDTH // 2 - 3], drawn[:, : WIDTH // 2 - 3])
    assert np.array_equal(outlines["not erased"], drawn)


def test_edges_of_a_picture_can_be_erased(outlines: dict[str, np.ndarray]):
    edges, erased = outlines["edges"], outlines["edges erased"]
    assert edges[:, WIDTH // 4].max() == 255
    assert erased[:, WIDTH // 4].max() <= 64
    assert np.array_equal(erased[:, WIDTH // 4 + 3 :], edges[:, WIDTH // 4 + 3 :])


def test_a_cleared_board_is_black(outlines: dict[str, np.ndarray]):
    assert not outlines["cleared"].any()


def test_keys_move_and_size_the_ring(outlines: dict[str, np.ndarray]):
    center, radius = ring(outlines["sample"])
    moved_center, moved_radius = ring(outlines["moved"])
    np.testing.assert_allclose(moved_center - center, [2, 1], atol=0.2)
    assert moved_radius - radius == pytest.approx(1, abs=0.2)


def test_a_dark_drawing_on_light_paper_can_be_inverted(outlines: dict[str, np.ndarray]):
    assert np.array_equal(outlines["inverted"], 255 - DARK_ON_LIGHT[:, :, 0])


def test_of_a_picture_the_edges_can_be_taken(outlines: dict[str, np.ndarray]):
    edges = outlines["edges"]
    assert edges.shape == (HEIGHT, WIDTH)
    assert set(np.unique(edges)) == {0, 255}
    rows, columns = np.nonzero(edges)
    assert rows.min() in (3, 4) and rows.max() in (7, 8)  # around the dark square
    assert columns.min() in (5, 6) and columns.max() in (9, 10)
    assert edges[5:7, 7:9].max() == 0


def test_what_was_drawn_comes_back_change_by_change(drawn: dict[str, Any], outlines: dict[str, np.ndarray]):
    assert np.array_equal(outlines["undone"], outlines["moved"])
    assert not drawn["toolsAfterUndo"]  # a ring has no edges to find
    assert np.array_equal(outlines["keys undone"], outlines["sample"])
    center, _ = ring(outlines["first"])
    np.testing.assert_allclose(center, [WIDTH / 2, HEIGHT / 2], atol=0.2)  # what the page begins with


def test_a_small_model_leaves_no_choice_of_memory(colors: dict[str, Any]):
    assert not colors["memory"]


def test_swatches_write_the_prompt(colors: dict[str, Any]):
    assert colors["afterCircle"] == "red circle with navy background"
    assert colors["afterBackground"] == "red circle with white background"


def test_swatches_follow_a_prompt_that_is_typed(colors: dict[str, Any]):
    assert colors["checkedByPrompt"]
    assert colors["checkedByOtherText"] == 0


def test_on_a_phone_progress_picture_and_message_come_into_sight(visit: Visit, linear_webgpu_bundle: Bundle):
    facts = visit("drawOnAPhone", linear_webgpu_bundle)
    assert facts["opening"]  # how far the model is, while the outline is drawn
    assert facts["pressed"]
    assert facts["cancelling"] and facts["cancelled"]
    assert facts["picture"]
    assert facts["message"]
    assert facts["width"] <= 390  # nothing to scroll sideways for


def test_gpu_memory_is_saved_where_the_visitor_says_so(visit: Visit, linear_webgpu_bundle: Bundle):
    facts = visit("saveMemory", linear_webgpu_bundle)
    (plan,) = linear_webgpu_bundle.manifest.memory.values()
    assert plan.reduced.peak_bytes < plan.resident.peak_bytes
    assert facts["reduced"]["end"].startswith("Done")
    assert facts["resident"]["end"].startswith("Done")
    assert facts["reduced"]["image"] == facts["resident"]["image"]
    assert facts["prices"][0] == "Automatic"
    assert facts["complaints"] == []


def test_another_model_is_not_promised_discs(visit: Visit, linear_webgpu_bundle: Bundle):
    facts = visit("openAnotherModel", linear_webgpu_bundle)
    assert facts["title"] == "Draw an outline, describe the picture"
    assert facts["prompt"] == ""
    assert facts["end"].startswith("Done")
    assert facts["label"]  # for those who do not see the picture, although no prompt says what it shows
    assert not facts["colors"]
    assert facts["memory"]  # gigabytes


def test_of_a_bundle_with_two_controlnets_the_board_draws_for_the_first(
    visit: Visit, linear_webgpu_bundle_of_two: Bundle
):
    facts = visit("writeAPrompt", linear_webgpu_bundle_of_two, prompt="gold")
    assert facts["end"].startswith("Done in")
    assert facts["messages"] == []
