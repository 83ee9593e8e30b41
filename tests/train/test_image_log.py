import numpy as np
import pytest
import torch
from PIL import ImageFont

from mlc_controlnet.train.data.samples import Sample
from mlc_controlnet.train.image_log import GAP, _lines, draw_grid

HEIGHT, WIDTH = 96, 128


def sample(prompt: str, channels: int = 3) -> Sample:
    """A white control image and a black picture."""
    return Sample("k", 0, torch.full((3, HEIGHT, WIDTH), -1.0), torch.ones(channels, HEIGHT, WIDTH), prompt)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_row_is_control_image_generation_target_and_prompt(channels: int) -> None:
    generated = np.full((2, HEIGHT, WIDTH, 3), 128, np.uint8)
    grid = np.asarray(draw_grid([sample("a"), sample("b", channels)], generated))
    row = grid[-HEIGHT - GAP : -GAP]
    cells = [row[:, column * (WIDTH + GAP) :][:, :WIDTH] for column in range(4)]
    assert (cells[0] == 255).all() and (cells[1] == 128).all() and (cells[2] == 0).all()
    assert (cells[3] == 255).any() and (cells[3] == 0).any()


def test_the_columns_have_names_above_the_pictures() -> None:
    grid = np.asarray(draw_grid([sample("a")], np.zeros((1, HEIGHT, WIDTH, 3), np.uint8)))
    above = grid[: -HEIGHT - GAP]
    assert len(above) > 8
    for column in range(4):
        assert (above[:, column * (WIDTH + GAP) :][:, :WIDTH] < 200).any()


@pytest.mark.parametrize("text", ["gold circle with navy background " * 9, "x" * 200, "", "gold"])
def test_a_prompt_stays_in_its_cell(text: str) -> None:
    font = ImageFont.load_default(12)
    assert isinstance(font, ImageFont.FreeTypeFont)
    lines = _lines(text, font, WIDTH, 5)
    assert 1 <= len(lines) <= 5 and all(font.getlength(line) <= WIDTH for line in lines)
    assert lines[-1].endswith("...") == (len(text) > 100)
    if len(text) < 100:
        assert " ".join(lines) == text
