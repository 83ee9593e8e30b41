import dataclasses

import numpy as np
import pytest

from mlc_controlnet.train.circles.drawing import Circle, draw_target
from mlc_controlnet.train.circles.quality import disc_iou, measure

CIRCLE = Circle(50.0, 64.0, 24.0, 1.5, "gold", "navy")


def test_the_right_picture_is_perfect() -> None:
    quality = measure([draw_target(CIRCLE)], [CIRCLE])
    assert (quality.fill_accuracy, quality.background_accuracy) == (1.0, 1.0)
    assert quality.mean_iou > 0.99


def test_a_disc_elsewhere_has_a_low_iou() -> None:
    moved = draw_target(dataclasses.replace(CIRCLE, center_x=100.0))
    assert disc_iou(moved, CIRCLE) < 0.05


@pytest.mark.parametrize(("fill", "background", "accuracies"), [("red", "navy", (0, 1)), ("gold", "red", (1, 0))])
def test_a_wrong_colour_counts_where_it_is(fill: str, background: str, accuracies: tuple[int, int]) -> None:
    picture = draw_target(dataclasses.replace(CIRCLE, fill=fill, background=background))
    quality = measure([picture], [CIRCLE])
    assert (quality.fill_accuracy, quality.background_accuracy) == accuracies


def test_a_black_picture_is_bad() -> None:
    quality = measure([np.zeros((128, 128, 3), np.uint8)], [CIRCLE])
    assert quality.fill_accuracy == 0
    assert quality.mean_iou == 0
