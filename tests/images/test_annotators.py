import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mlc_controlnet.images.annotators import ANNOTATORS, blur, canny, line_art, scribble, soft_edge, tile


@pytest.fixture
def step_edge():
    """Black, and white from column 8 on."""
    pixels = np.zeros((24, 16, 3), np.uint8)
    pixels[:, 8:] = 255
    return Image.fromarray(pixels)


def test_canny_draws_white_lines_where_the_picture_has_edges(step_edge):
    lines = np.asarray(canny(step_edge))
    assert lines.shape == (24, 16) and set(np.unique(lines)) == {0, 255}
    assert lines[:, 6:10].max(axis=1).all() and not lines[:, :6].any() and not lines[:, 10:].any()


@pytest.fixture
def stroke():
    """White paper with a dark stroke of three pixels."""
    pixels = np.full((48, 64, 3), 255, np.uint8)
    pixels[:, 30:33] = 40
    return Image.fromarray(pixels)


@pytest.mark.parametrize("annotator", [scribble, line_art])
def test_dark_strokes_become_white_lines_on_black(stroke, annotator):
    lines = np.asarray(annotator(stroke))
    assert lines.shape == (48, 64)
    assert (lines[:, 30:33] > 100).all()
    assert not lines[:, :20].any() and not lines[:, 44:].any()


def test_soft_edges_fall_off_beside_an_edge(step_edge):
    edges = np.asarray(soft_edge(step_edge)).astype(int)
    row = edges[12]
    assert row.max() == 255 == row[7:9].max()
    assert (np.diff(row[:8]) >= 0).all() and (np.diff(row[8:]) <= 0).all()
    assert 0 < row[4] < 255


@pytest.mark.parametrize("annotator", [tile, blur])
def test_tile_and_blur_take_away_details_and_keep_the_colours(annotator):
    noise = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    smooth = np.asarray(annotator(Image.fromarray(noise))).astype(float)
    assert smooth.std() < noise.std() / 5
    assert smooth.mean(axis=(0, 1)) == pytest.approx(noise.mean(axis=(0, 1)), abs=3)


@pytest.mark.parametrize("name", ANNOTATORS)
@pytest.mark.parametrize("grey", [0, 255])
def test_a_picture_of_one_colour_has_no_lines(name, grey):
    found = np.asarray(ANNOTATORS[name](Image.new("RGB", (40, 24), (grey, grey, grey))))
    assert (found == (grey if name in ("tile", "blur") else 0)).all()


@pytest.mark.parametrize("name", ANNOTATORS)
def test_an_annotator_keeps_the_size(step_edge, name):
    assert ANNOTATORS[name](step_edge).size == step_edge.size


def test_canny_finds_the_edges_of_the_committed_picture():
    """Whatever version of OpenCV is installed, a model sees the edges that it was trained with."""
    golden = json.loads((Path(__file__).parents[1] / "fixtures" / "canny.json").read_text())
    rgb = np.frombuffer(bytes.fromhex(golden["rgb"]), np.uint8).reshape(golden["height"], golden["width"], 3)
    edges = ["".join("#" if edge else "." for edge in row) for row in np.asarray(canny(Image.fromarray(rgb)))]
    assert edges == golden["edges"]
