import struct

import numpy as np
import pytest
from PIL import Image, ImageOps, PngImagePlugin

from mlc_controlnet.errors import UserError
from mlc_controlnet.images.prepare import prepare_image, upright
from mlc_controlnet.images.read import decode_image
from tests.images import image_files

HEIGHT, WIDTH = 16, 24


@pytest.fixture
def picture():
    """Random RGB of the model's own size."""
    return Image.fromarray(np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8))


def test_a_picture_of_the_models_size_is_taken_as_it_is(picture):
    prepared = prepare_image(picture, HEIGHT, WIDTH)
    assert (prepared.array.shape, prepared.array.dtype) == ((1, 3, HEIGHT, WIDTH), "float32")
    assert np.array_equal(prepared.array[0].transpose(1, 2, 0), np.asarray(picture) / np.float32(255))
    assert prepared.notices == ()


def test_another_size_of_the_same_shape_is_scaled_with_a_notice(picture):
    prepared = prepare_image(picture.resize((3 * WIDTH, 3 * HEIGHT)), HEIGHT, WIDTH)
    assert prepared.array.shape == (1, 3, HEIGHT, WIDTH)
    assert prepared.notices == ("image: 72x48 was scaled to cover 24x16",)


def test_another_shape_is_cropped_and_never_stretched():
    """A circle stays a circle: its width and height in the result are equal."""
    y, x = np.mgrid[0:160, 0:160]
    disc = (np.hypot(x - 80, y - 80) < 40).astype(np.uint8) * 255
    prepared = prepare_image(Image.fromarray(disc), 64, 96)
    drawn = prepared.array[0, 0] > 0.5
    assert drawn.any(axis=0).sum() == pytest.approx(drawn.any(axis=1).sum(), abs=1) == pytest.approx(48, abs=1)
    assert prepared.notices == ("image: 160x160 was scaled to cover 96x64 and cropped around its centre",)


def test_a_portrait_control_image_keeps_height_first():
    """What is white at the top of a tall picture's middle is white at the top."""
    tall = Image.new("RGB", (24, 48), "black")
    tall.paste("white", (0, 16, 24, 24))
    prepared = prepare_image(tall, HEIGHT, WIDTH)  # the middle 16 rows: 16..31
    assert prepared.array[0, :, 2:6].min() > 0.9
    assert prepared.array[0, :, 10:].max() < 0.1


def test_transparency_is_composited_on_black_with_a_notice():
    clear = Image.new("RGBA", (WIDTH, HEIGHT), (200, 100, 50, 0))
    clear.paste((200, 100, 50, 128), (0, 0, WIDTH, 8))
    prepared = prepare_image(clear, HEIGHT, WIDTH)
    assert np.rint(255 * prepared.array[0, :, 0, 0]).tolist() == [100, 50, 25]
    assert prepared.array[0, :, 8:].max() == 0
    assert prepared.notices == ("image: its transparency was composited on black",)


def test_a_palette_with_transparency_is_composited_too():
    indexed = Image.new("P", (WIDTH, HEIGHT), 0)
    indexed.putpalette([255, 255, 255])
    indexed.info["transparency"] = 0
    prepared = prepare_image(indexed, HEIGHT, WIDTH)
    assert prepared.array.max() == 0
    assert prepared.notices


def test_an_alpha_channel_that_hides_nothing_is_no_notice(picture):
    prepared = prepare_image(picture.convert("RGBA"), HEIGHT, WIDTH)
    assert np.array_equal(prepared.picture, picture)
    assert prepared.notices == ()


def test_grey_of_16_bits_is_scaled_with_a_notice():
    grey = np.full((HEIGHT, WIDTH), 65535, np.uint16)
    grey[:8] = 32896  # 128 * 257
    prepared = prepare_image(Image.fromarray(grey), HEIGHT, WIDTH)
    assert np.rint(255 * prepared.array[0, 0, :, 0]).tolist() == [128] * 8 + [255] * 8
    assert prepared.notices == ("image: 16-bit grey was scaled to 8 bits",)


def test_a_transparent_grey_of_16_bits_becomes_black():
    data = image_files.encode(Image.fromarray(np.full((HEIGHT, WIDTH), 65535, np.uint16)), "PNG", transparency=65535)
    prepared = prepare_image(decode_image(data), HEIGHT, WIDTH)
    assert prepared.array.max() == 0
    assert prepared.notices[1] == "image: its transparency was composited on black"


@pytest.mark.parametrize(
    ("image", "got"),
    [
        (Image.new("F", (WIDTH, HEIGHT)), "floating-point pixels"),
        (Image.new("I", (WIDTH, HEIGHT), 70_000), "grey from 70000 to 70000"),
        (Image.new("I", (WIDTH, HEIGHT), -1), "grey from -1 to -1"),
        (Image.new("La", (WIDTH, HEIGHT)), "the color mode La"),
    ],
)
def test_pixels_that_8_bits_cannot_represent_are_refused(image, got):
    with pytest.raises(UserError, match=rf"^image: got {got}, wanted .*; save it as PNG"):
        prepare_image(image, HEIGHT, WIDTH)


@pytest.mark.parametrize("mode", ["1", "L", "CMYK"])
def test_other_modes_become_rgb(picture, mode):
    prepared = prepare_image(picture.convert(mode), HEIGHT, WIDTH)
    assert np.array_equal(np.asarray(prepared.picture), np.asarray(picture.convert(mode).convert("RGB")))


def corners(image):
    """Upper left, upper right, lower left, lower right."""
    return [image.convert("RGB").getpixel(place) for place in ((2, 2), (-3, 2), (2, -3), (-3, -3))]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_the_cameras_rotation_is_applied_once(orientation, kind):
    """The four corners of what is seen have the colors that EXIF's definition of the orientation gives them."""
    stored = Image.new("RGB", (32, 16))
    for place, color in (((0, 0), "red"), ((16, 0), "lime"), ((0, 8), "blue"), ((16, 8), "white")):
        stored.paste(color, (*place, place[0] + 16, place[1] + 8))
    options = {"lossless": True} if kind == "WEBP" else {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
    red, lime, blue, white = "rgbw"
    seen = {
        1: (red, lime, blue, white),
        2: (lime, red, white, blue),
        3: (white, blue, lime, red),
        4: (blue, white, red, lime),
        5: (red, blue, lime, white),
        6: (blue, red, white, lime),
        7: (white, lime, blue, red),
        8: (lime, white, red, blue),
    }[orientation]
    image = upright(decode_image(image_files.with_orientation(stored, kind, orientation, **options)))
    names = ["w" if min(color) > 128 else "rgb"[int(np.argmax(color))] for color in corners(image)]
    assert names == list(seen)
    assert image.size == ((32, 16) if orientation < 5 else (16, 32))
    assert np.array_equal(upright(image), image)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_a_picture_whose_pixels_are_not_read_yet_is_turned_once(tmp_path, kind):
    """Pillow turns a TIFF when it reads the pixels, and finds the orientation of some PNGs only then."""
    stored = image_files.random_rgb(16, 32)
    (tmp_path / "turned").write_bytes(image_files.with_orientation(stored, kind, 6))
    with Image.open(tmp_path / "turned") as image:
        assert np.array_equal(upright(image), stored.transpose(Image.Transpose.ROTATE_270))


def test_a_picture_whose_pixels_cannot_be_read_is_refused(tmp_path, picture):
    (tmp_path / "cut.png").write_bytes(image_files.encode(picture, "PNG")[:200])
    with (
        Image.open(tmp_path / "cut.png") as image,
        pytest.raises(UserError, match=r"^control image: got a damaged image \(.*; save it again as PNG"),
    ):
        prepare_image(image, HEIGHT, WIDTH, "control image")


def test_another_malformed_tag_does_not_hide_the_orientation(picture):
    """Pillow's own exif_transpose raises struct.error here."""
    data = image_files.with_malformed_tag(picture.rotate(90, expand=True), 6)
    with pytest.raises(struct.error):
        ImageOps.exif_transpose(image_files.decode(data))
    seen = np.asarray(prepare_image(decode_image(data), HEIGHT, WIDTH).picture, int)
    assert abs(seen - np.asarray(picture, int)).mean() < 8


@pytest.mark.parametrize("exif", [b"", b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"nonsense" * 9])
def test_exif_that_cannot_be_read_counts_as_upright(picture, exif):
    stored = decode_image(image_files.encode(picture, "PNG", exif=exif))
    assert np.array_equal(prepare_image(stored, HEIGHT, WIDTH).picture, picture)


@pytest.mark.parametrize("keyword", ["XML:com.adobe.xmp", "Raw profile type exif"])
def test_an_orientation_that_a_png_holds_as_text_is_applied(picture, keyword):
    exif = Image.Exif()
    exif[image_files.ORIENTATION] = 6
    data = exif.tobytes()
    texts = {
        "XML:com.adobe.xmp": '<rdf:Description tiff:Orientation="6"/>',
        "Raw profile type exif": f"\nexif\n{len(data):8}\n{data.hex()}\n",
    }
    info = PngImagePlugin.PngInfo()
    info.add_text(keyword, texts[keyword], zip=keyword != "XML:com.adobe.xmp")
    stored = decode_image(image_files.encode(picture.rotate(90, expand=True), "PNG", pnginfo=info))
    assert np.array_equal(prepare_image(stored, HEIGHT, WIDTH).picture, picture)


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB"), (4, "RGBA")])
def test_an_array_has_the_channels_asked_for(picture, channels, mode):
    prepared = prepare_image(picture, HEIGHT, WIDTH, channels=channels)
    assert prepared.picture.mode == mode and prepared.array.shape == (1, channels, HEIGHT, WIDTH)


def test_four_channels_keep_the_transparency():
    image = Image.new("RGBA", (WIDTH, HEIGHT), (200, 100, 50, 0))
    prepared = prepare_image(image, HEIGHT, WIDTH, channels=4)
    assert np.rint(255 * prepared.array[0, :, 0, 0]).tolist() == [200, 100, 50, 0]
    assert prepared.notices == ()


@pytest.mark.parametrize("size", [(1, 1), (7, 100), (100, 7)])
def test_a_speck_is_refused(size):
    with pytest.raises(UserError, match=rf"image: got {size[0]}x{size[1]} pixels, wanted 8x8 at least"):
        prepare_image(Image.new("RGB", size), HEIGHT, WIDTH)


@pytest.mark.parametrize("thing", [None, "ring.png", np.zeros((HEIGHT, WIDTH, 3))])
def test_what_is_no_picture_is_refused(thing):
    with pytest.raises(UserError, match=r"image: got .*, wanted a PIL.Image.Image"):
        prepare_image(thing, HEIGHT, WIDTH)
