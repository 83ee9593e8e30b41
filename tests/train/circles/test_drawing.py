import numpy as np
import pytest

from mlc_controlnet.train.circles.colors import COLORS, nearest_color
from mlc_controlnet.train.circles.drawing import Circle, disc_mask, draw_source, draw_target, random_circle

CIRCLE = Circle(40.0, 70.0, 20.0, 1.5, "gold", "navy")


def test_the_prompt_names_both_colours() -> None:
    assert CIRCLE.prompt == "gold circle with navy background"


def test_the_target_is_gold_inside_and_navy_outside() -> None:
    picture = draw_target(CIRCLE)
    assert tuple(picture[70, 40]) == COLORS["gold"]  # [y, x]: a circle off the diagonal catches swapped axes
    assert tuple(picture[40, 70]) == COLORS["navy"]


def test_the_source_is_a_thin_white_line_on_black_where_the_disc_ends() -> None:
    source = draw_source(CIRCLE)
    assert source[70, 40].max() == 0
    assert source[70, 60].max() > 128
    ring_pixels = (source[..., 0] > 64).sum()
    assert ring_pixels < 2 * np.pi * CIRCLE.radius * 2.5


def test_random_circles_stay_inside_the_picture_and_use_two_colours() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        circle = random_circle(rng)
        mask = disc_mask(circle)
        assert not mask[0].any() and not mask[-1].any() and not mask[:, 0].any() and not mask[:, -1].any()
        assert circle.fill != circle.background
        assert 1.0 <= circle.outline_width <= 2.0


def test_there_are_at_least_24_colours_and_the_asked_for_ones() -> None:
    assert len(COLORS) >= 24
    assert {"gold", "navy", "red", "white", "green", "purple", "orange", "black"} <= set(COLORS)


@pytest.mark.parametrize("name", sorted(COLORS))
def test_a_colour_is_nearest_to_itself_even_a_little_off(name: str) -> None:
    assert nearest_color(np.clip(np.array(COLORS[name]) + [8, -8, 8], 0, 255)) == name
