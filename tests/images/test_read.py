import warnings

import numpy as np
import pytest
from PIL import Image

from mlc_controlnet.errors import UserError
from mlc_controlnet.images import prepare
from mlc_controlnet.images.read import decode_image, read_image
from tests.images import image_files

HEIGHT, WIDTH = 16, 24


@pytest.fixture
def picture():
    return image_files.random_rgb(HEIGHT, WIDTH)


def test_a_folder_is_distinguished_from_a_missing_file(tmp_path):
    with pytest.raises(UserError, match=r"got a folder, wanted an image file"):
        read_image(tmp_path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"^control image .*none.png: got no such file"):
        read_image(tmp_path / "none.png", "control image")


@pytest.mark.parametrize("data", [b"", b"hello", b"<svg xmlns='http://www.w3.org/2000/svg'/>"])
def test_a_file_that_is_not_an_image_is_refused(tmp_path, data):
    (tmp_path / "ring.png").write_bytes(data)
    with pytest.raises(UserError, match=r"ring.png: got a file that is not an image"):
        read_image(tmp_path / "ring.png")


def test_a_phones_heic_photo_is_refused_by_name():
    with pytest.raises(UserError, match=r"image: got a HEIC photo, wanted a PNG, JPEG, .*; save it again as PNG"):
        decode_image(b"\0\0\0\x18ftypheic" + bytes(16))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_an_image_that_is_cut_off_is_refused(picture, kind):
    whole = image_files.encode(picture.resize((96, 64)), kind)
    with pytest.raises(UserError, match=r"image: got a (damaged image|file that is not an image)"):
        decode_image(whole[: len(whole) // 2])


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_damaged_bytes_end_in_our_error_or_in_a_picture(picture, kind):
    """Decoders raise many kinds of errors, none of which reaches the user as a traceback."""
    whole = np.frombuffer(image_files.encode(picture, kind), np.uint8)
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(200):
        damaged = whole.copy()
        damaged[rng.integers(0, len(damaged), 8)] = rng.integers(0, 256, 8)
        try:
            image = decode_image(damaged.tobytes())
            if image.width * image.height < 1e6:
                prepare.prepare_image(image, HEIGHT, WIDTH)
        except UserError:
            refused += 1
    assert refused > 0


def test_a_decompression_bomb_is_refused_in_our_words():
    with pytest.raises(UserError, match=r"got a picture of more than 179 megapixels, wanted a smaller one; scale"):
        decode_image(image_files.png_of_size(20_000, 20_000))


def test_a_very_large_picture_is_read_with_our_notice_and_no_warning_of_pillow(monkeypatch):
    """The limits of 64 and 89 megapixels are lowered, so that the test takes little memory."""
    monkeypatch.setattr(prepare, "LARGE_PIXELS", 1_000_000)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1_500_000)
    data = image_files.encode(Image.new("1", (2_000, 1_000)), "PNG")
    with pytest.warns(Image.DecompressionBombWarning):
        image_files.decode(data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prepared = prepare.prepare_image(decode_image(data), HEIGHT, WIDTH, "control image")
    assert prepared.notices[0] == "control image: it has 2 megapixels; a smaller file is read faster"


def test_a_png_with_a_long_compressed_text_is_read(picture):
    data = image_files.with_long_text(picture)
    with pytest.raises(ValueError, match="too large"):
        image_files.decode(data)
    assert np.array_equal(decode_image(data), picture)


def test_a_png_with_a_large_color_profile_is_read(picture):
    data = image_files.encode(picture, "PNG", icc_profile=bytes(2 << 20))
    assert np.array_equal(decode_image(data), picture)
