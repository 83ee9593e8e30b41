import numpy as np
import pytest
from PIL import Image, ImageDraw

from mlc_controlnet.images.lines import invert, looks_inverted
from mlc_controlnet.images.prepare import to_array
from tests.images import image_files


def drawing(background: str, line: str, mode: str = "RGB") -> Image.Image:
    image = Image.new(mode, (64, 48), background)
    ImageDraw.Draw(image).ellipse((16, 8, 48, 40), outline=line, width=2)
    return image


def test_dark_lines_on_white_look_inverted():
    assert looks_inverted(to_array(drawing("white", "black")))
    assert looks_inverted(to_array(drawing("white", "black").resize((128, 96)).resize((64, 48))))


@pytest.mark.parametrize(
    "image",
    [
        drawing("black", "white"),
        drawing("white", "red"),
        Image.new("RGB", (64, 48), "white"),
        image_files.random_rgb(48, 64),
        image_files.ramp_16_bits(48, 64).point(lambda grey: grey / 257).convert("RGB"),
    ],
    ids=["white on black", "colored line", "nothing but white", "colors", "a depth map's ramp"],
)
def test_other_pictures_do_not_look_inverted(image):
    assert not looks_inverted(to_array(image))


def test_inverting_exchanges_black_and_white():
    assert np.array_equal(invert(drawing("white", "black")), drawing("black", "white"))


def test_dark_lines_on_a_transparent_background_become_white_on_black():
    transparent = drawing((0, 0, 0, 0), (0, 0, 0, 255), "RGBA")
    assert np.array_equal(invert(transparent), drawing("black", "white"))


def test_inverting_keeps_the_picture_upright():
    turned = image_files.decode(image_files.with_orientation(drawing("white", "black"), "PNG", 6))
    assert invert(turned).size == (48, 64)
