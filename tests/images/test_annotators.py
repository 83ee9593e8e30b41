import base64
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mlc_controlnet.images.annotators import (
    ANNOTATORS,
    blur,
    canny,
    color,
    line_art,
    normal,
    scribble,
    soft_edge,
    tile,
)


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
    flat = {"tile": grey, "blur": grey, "color": grey, "threshold": grey, "normal": [128, 128, 255]}
    assert (found == flat.get(name, 0)).all()


@pytest.mark.parametrize("name", ANNOTATORS)
def test_an_annotator_keeps_the_size(step_edge, name):
    assert ANNOTATORS[name](step_edge).size == step_edge.size


def test_canny_finds_the_edges_of_the_committed_picture():
    """Whatever version of OpenCV is installed, a model sees the edges that it was trained with."""
    golden = json.loads((Path(__file__).parents[1] / "fixtures" / "canny.json").read_text())
    rgb = np.frombuffer(bytes.fromhex(golden["rgb"]), np.uint8).reshape(golden["height"], golden["width"], 3)
    edges = ["".join("#" if edge else "." for edge in row) for row in np.asarray(canny(Image.fromarray(rgb)))]
    assert edges == golden["edges"]


def test_the_committed_results_which_the_browser_is_compared_with_are_these():
    golden = json.loads((Path(__file__).parents[1] / "fixtures" / "annotators.json").read_text())
    size = (golden["height"], golden["width"])
    picture = Image.fromarray(np.frombuffer(base64.b64decode(golden["rgb"]), np.uint8).reshape(*size, 3))
    assert {case["name"] for case in golden["cases"]} == set(ANNOTATORS)
    for case in golden["cases"]:
        found = np.asarray(ANNOTATORS[case["name"]](picture, **case["parameters"])).astype(int)
        wanted = np.frombuffer(base64.b64decode(case["pixels"]), np.uint8).reshape(found.shape)
        assert np.abs(found - wanted).max() <= 1, case["name"]  # versions of OpenCV may round differently


def test_normals_lean_where_the_depth_slopes_and_face_the_viewer_elsewhere():
    depth = np.full((24, 32), 120, np.uint8)
    depth[:, 16:] = 200
    normals = np.asarray(normal(Image.fromarray(depth).convert("RGB"), depth=1)).astype(int)
    assert (normals[:, 4] == [128, 128, 255]).all()
    assert (normals[2:-2, 15:17, 0] > 200).all() and (normals[2:-2, 15:17, 1] == 128).all()
    assert (np.asarray(normal(Image.new("RGB", (16, 16), (60, 60, 60)))) == [128, 128, 255]).all()


def test_a_colour_grid_has_one_colour_a_cell():
    noise = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    grid = np.asarray(color(Image.fromarray(noise), factor=16))
    for y, x in ((0, 0), (16, 32)):
        assert (grid[y : y + 16, x : x + 16] == grid[y, x]).all()
        assert grid[y, x] == pytest.approx(noise[y : y + 16, x : x + 16].mean(axis=(0, 1)), abs=1)
