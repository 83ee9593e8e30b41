import numpy as np
import pytest
from PIL import Image

from mlc_controlnet.errors import UserError
from mlc_controlnet.images.lines import invert
from mlc_controlnet.runtime.control_image import prepare_control_image
from mlc_controlnet.runtime.crop import Crop, cut_out

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


def test_the_part_that_is_drawn_is_cut_out_of_the_control_image_too():
    whole = Image.fromarray(np.random.default_rng(1).integers(0, 256, (60, 80, 3), np.uint8))
    crop = Crop(20, 10, 56, 34, picture_height=60, picture_width=80)
    prepared = prepare_control_image(whole, HEIGHT, WIDTH, crop)
    np.testing.assert_array_equal(prepared.picture, cut_out(whole, crop, HEIGHT, WIDTH))
    assert prepared.notices == ()


def test_a_control_image_of_another_size_is_first_fitted_to_the_picture():
    whole = Image.fromarray(np.kron(np.eye(6, 8, dtype=np.uint8) * 255, np.ones((20, 20), np.uint8)))  # 160 x 120
    crop = Crop(20, 10, 56, 34, picture_height=60, picture_width=80)
    prepared = prepare_control_image(whole, HEIGHT, WIDTH, crop)
    assert prepared.notices == ("control image: 160x120 was scaled to cover 80x60",)
    half = whole.resize((80, 60), Image.Resampling.LANCZOS).convert("RGB")
    np.testing.assert_array_equal(prepared.picture, cut_out(half, crop, HEIGHT, WIDTH))
