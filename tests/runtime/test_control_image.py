import numpy as np
import pytest
from PIL import Image

from mlc_controlnet.errors import UserError
from mlc_controlnet.runtime.control_image import open_control_image, prepare_control_image

HEIGHT, WIDTH = 16, 24


@pytest.fixture
def picture():
    """Random RGB of the model's own size."""
    return Image.fromarray(np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8))


def test_a_picture_of_the_models_size_is_taken_as_it_is(picture):
    control = prepare_control_image(picture, HEIGHT, WIDTH)
    assert (control.array.shape, control.array.dtype) == ((1, 3, HEIGHT, WIDTH), "float32")
    assert np.array_equal(control.array[0].transpose(1, 2, 0), np.asarray(picture) / np.float32(255))
    assert control.notices == ()


def test_another_size_of_the_same_shape_is_scaled_with_a_notice(picture):
    control = prepare_control_image(picture.resize((3 * WIDTH, 3 * HEIGHT)), HEIGHT, WIDTH)
    assert control.array.shape == (1, 3, HEIGHT, WIDTH)
    assert control.notices == ("control image: 72x48 was scaled to cover 24x16",)


def test_another_shape_is_cropped_and_never_stretched():
    """A circle stays a circle: its width and height in the result are equal."""
    y, x = np.mgrid[0:160, 0:160]
    disc = (np.hypot(x - 80, y - 80) < 40).astype(np.uint8) * 255
    control = prepare_control_image(Image.fromarray(disc), 64, 96)
    drawn = control.array[0, 0] > 0.5
    assert drawn.any(axis=0).sum() == pytest.approx(drawn.any(axis=1).sum(), abs=1) == pytest.approx(48, abs=1)
    assert control.notices == ("control image: 160x160 was scaled to cover 96x64 and cropped around its centre",)


def test_a_portrait_control_image_keeps_height_first():
    """What is white at the top of a tall picture's middle is white at the top."""
    tall = Image.new("RGB", (24, 48), "black")
    tall.paste("white", (0, 16, 24, 24))
    control = prepare_control_image(tall, HEIGHT, WIDTH)  # the middle 16 rows: 16..31
    assert control.array[0, :, 2:6].min() > 0.9
    assert control.array[0, :, 10:].max() < 0.1


def test_transparency_is_composited_on_black_with_a_notice():
    clear = Image.new("RGBA", (WIDTH, HEIGHT), (200, 100, 50, 0))
    clear.paste((200, 100, 50, 128), (0, 0, WIDTH, 8))
    control = prepare_control_image(clear, HEIGHT, WIDTH)
    assert np.rint(255 * control.array[0, :, 0, 0]).tolist() == [100, 50, 25]
    assert control.array[0, :, 8:].max() == 0
    assert control.notices == ("control image: its transparency was composited on black",)


def test_a_palette_with_transparency_is_composited_too():
    indexed = Image.new("P", (WIDTH, HEIGHT), 0)
    indexed.putpalette([255, 255, 255])
    indexed.info["transparency"] = 0
    control = prepare_control_image(indexed, HEIGHT, WIDTH)
    assert control.array.max() == 0
    assert control.notices


def test_grey_of_16_bits_is_scaled_with_a_notice(tmp_path):
    grey = np.full((HEIGHT, WIDTH), 65535, np.uint16)
    grey[:8] = 32896  # 128 * 257
    Image.fromarray(grey).save(tmp_path / "grey.png")
    control = prepare_control_image(open_control_image(tmp_path / "grey.png"), HEIGHT, WIDTH)
    assert np.rint(255 * control.array[0, 0, :, 0]).tolist() == [128] * 8 + [255] * 8
    assert control.notices == ("control image: 16-bit grey was scaled to 8 bits",)


@pytest.mark.parametrize("mode", ["1", "L", "CMYK"])
def test_other_modes_become_rgb(picture, mode):
    control = prepare_control_image(picture.convert(mode), HEIGHT, WIDTH)
    assert np.array_equal(np.asarray(control.picture), np.asarray(picture.convert(mode).convert("RGB")))


def test_the_cameras_rotation_is_applied(tmp_path, picture):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned a quarter clockwise to be seen
    picture.rotate(90, expand=True).save(tmp_path / "turned.png", exif=exif)
    control = prepare_control_image(open_control_image(tmp_path / "turned.png"), HEIGHT, WIDTH)
    assert np.array_equal(np.asarray(control.picture), np.asarray(picture))


@pytest.mark.parametrize("size", [(1, 1), (7, 100), (100, 7)])
def test_a_speck_is_refused(size):
    with pytest.raises(UserError, match=rf"control image: got {size[0]}x{size[1]} pixels, wanted 8x8 at least"):
        prepare_control_image(Image.new("RGB", size), HEIGHT, WIDTH)


@pytest.mark.parametrize("thing", [None, "ring.png", np.zeros((HEIGHT, WIDTH, 3))])
def test_what_is_no_picture_is_refused(thing):
    with pytest.raises(UserError, match=r"control image: got .*, wanted a PIL.Image.Image"):
        prepare_control_image(thing, HEIGHT, WIDTH)


def test_a_folder_is_told_from_a_missing_file(tmp_path):
    with pytest.raises(UserError, match=r"got a folder, wanted an image file"):
        open_control_image(tmp_path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"none.png: got no such file"):
        open_control_image(tmp_path / "none.png")


@pytest.mark.parametrize("data", [b"", b"hello", b"<svg xmlns='http://www.w3.org/2000/svg'/>"])
def test_a_file_that_is_no_image_is_refused(tmp_path, data):
    (tmp_path / "ring.png").write_bytes(data)
    with pytest.raises(UserError, match=r"ring.png: got a file that is no image"):
        open_control_image(tmp_path / "ring.png")


def test_an_image_that_breaks_off_is_refused(tmp_path, picture):
    picture.save(tmp_path / "ring.png")
    whole = (tmp_path / "ring.png").read_bytes()
    (tmp_path / "ring.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"ring.png: got a broken image"):
        open_control_image(tmp_path / "ring.png")


def test_a_decompression_bomb_is_refused(tmp_path, monkeypatch, picture):
    picture.save(tmp_path / "ring.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(UserError, match=r"ring.png: got .*decompression bomb"):
        open_control_image(tmp_path / "ring.png")
