import numpy as np
import pytest

from mlc_controlnet.train.doodle.artworks import ArtworkSet
from mlc_controlnet.train.doodle.quality import color_of, edge_recall, ground_of
from mlc_controlnet.train.doodle.scribbles import color_grid, edges, plain_lines, plain_scribble, random_scribble
from mlc_controlnet.train.doodle.variants import Picture, Variant, draw


@pytest.fixture(scope="module")
def box(artwork_set: ArtworkSet) -> Picture:
    return draw(artwork_set.pixels[artwork_set.things()["blue box"][0]], Variant())


def test_edges_lie_on_the_outline(box: Picture) -> None:
    rows, columns = np.nonzero(edges(box.pixels))
    inside = 0.9 * 128 * 11 / 32  # half of the box's side
    distance = np.maximum(np.abs(rows - 63.5), np.abs(columns - 63.5))
    assert np.abs(distance - inside).max() < 2.5


def test_areas_of_equal_grey_have_an_edge_between_them() -> None:
    pixels = np.full((40, 40, 3), (200, 60, 60), np.uint8)
    pixels[:, 20:] = (60, 131, 60)  # the same luma
    assert edges(pixels)[:, 17:23].any()


def test_a_scribble_is_white_on_black_and_varies(box: Picture) -> None:
    scribbles = [random_scribble(box.pixels, box.alpha, np.random.default_rng(seed)) for seed in range(8)]
    assert all(s.shape == (128, 128, 3) and s.dtype == np.uint8 for s in scribbles)
    assert all(0 < s.mean() < 64 for s in scribbles)
    assert len({s.tobytes() for s in scribbles}) == 8


def test_a_random_scribble_stays_near_the_lines(box: Picture) -> None:
    """A pen of 5 pixels reaches 2 pixels beside its line, the unsteady hand 1.6 in each direction."""
    near = np.zeros((128, 128), bool)
    for row, column in np.argwhere(plain_lines(box.pixels)):
        near[max(row - 6, 0) : row + 7, max(column - 6, 0) : column + 7] = True
    for seed in range(8):
        assert not (random_scribble(box.pixels, box.alpha, np.random.default_rng(seed))[..., 0] > 128)[~near].any()


def test_the_colour_grid_has_eight_cells_a_side(box: Picture) -> None:
    grid = color_grid(box.pixels)
    np.testing.assert_array_equal(grid, np.kron(grid[::16, ::16], np.ones((16, 16, 1), np.uint8)))
    assert grid[0, 0].tolist() == [255, 255, 255]


def test_a_picture_recalls_its_own_lines_and_a_plain_one_recalls_none(box: Picture) -> None:
    lines = plain_lines(box.pixels)
    assert edge_recall(box.pixels, lines) == 1
    assert edge_recall(np.full_like(box.pixels, 255), lines) == 0
    assert edge_recall(np.roll(box.pixels, 2, axis=1), lines) > 0.95
    assert edge_recall(np.roll(box.pixels, 8, axis=1), lines) < 0.7


def test_the_colours_of_ground_and_thing_are_found(box: Picture) -> None:
    assert ground_of(box.pixels).tolist() == [255, 255, 255]
    assert color_of(box.pixels) == "blue"
    assert color_of(np.full_like(box.pixels, 255)) is None


def test_a_thing_in_the_colour_of_its_ground_has_a_colour_where_it_is(box: Picture) -> None:
    white = np.full_like(box.pixels, 255)
    assert color_of(white, box.alpha) == "white"


def test_the_plain_scribble_is_a_thin_pen_on_the_lines(box: Picture) -> None:
    scribble = plain_scribble(box.pixels)[..., 0] > 0
    assert scribble[plain_lines(box.pixels) > 0].all()
    assert scribble.sum() < 3 * (plain_lines(box.pixels) > 0).sum()
