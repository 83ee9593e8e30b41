import numpy as np
import pytest
from PIL import Image

from mlc_controlnet.errors import UserError
from mlc_controlnet.images.lines import invert
from mlc_controlnet.runtime.control_image import prepare_control_image

HEIGHT, WIDTH = 16, 24


@pytest.fixture
def black_lines():
    """A frame, two pixels wide, black on white."""
    pixels = np.full((HEIGHT, WIDTH), 255, np.uint8)
    pixels[4:6, 4:20] = pixels[10:12, 4:20] = 0
    return Image.fromarray(pixels)


def test_a_notice_names_the_option_for_dark_lines_on_white(black_lines):
    (notice,) = prepare_control_image(black_lines, HEIGHT, WIDTH).notices
    assert notice.startswith("control image: it looks like dark lines on white; ") and "--invert" in notice
    assert prepare_control_image(invert(black_lines), HEIGHT, WIDTH).notices == ()


def test_a_notice_says_that_dark_lines_on_a_transparent_background_are_lost(black_lines):
    ink = black_lines.point(lambda grey: 255 - grey)
    transparent = Image.new("RGBA", ink.size, (0, 0, 0, 0))
    transparent.putalpha(ink)
    *_, notice = prepare_control_image(transparent, HEIGHT, WIDTH).notices
    assert notice.startswith("control image: only black is left of it without its transparency; ")
    assert np.array_equal(invert(transparent), invert(black_lines))


def test_what_is_not_a_picture_is_refused_under_the_name_of_a_control_image():
    with pytest.raises(UserError, match=r"^control image: got NoneType"):
        prepare_control_image(None, HEIGHT, WIDTH)
