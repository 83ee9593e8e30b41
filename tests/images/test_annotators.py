import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mlc_controlnet.images.annotators import ANNOTATORS, canny


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


@pytest.mark.parametrize("name", ANNOTATORS)
def test_an_annotator_keeps_the_size(step_edge, name):
    assert ANNOTATORS[name](step_edge).size == step_edge.size


def test_canny_finds_the_edges_of_the_committed_picture():
    """Whatever version of OpenCV is installed, a model sees the edges that it was trained with."""
    golden = json.loads((Path(__file__).parents[1] / "fixtures" / "canny.json").read_text())
    rgb = np.frombuffer(bytes.fromhex(golden["rgb"]), np.uint8).reshape(golden["height"], golden["width"], 3)
    edges = ["".join("#" if edge else "." for edge in row) for row in np.asarray(canny(Image.fromarray(rgb)))]
    assert edges == golden["edges"]
