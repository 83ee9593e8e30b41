"""Turn any picture into the array that a model expects: upright, of one mode and size."""

import warnings
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from PIL import Image, ImageOps

from mlc_controlnet.errors import UserError
from mlc_controlnet.images.read import load_pixels
from mlc_controlnet.notices import Notice

MIN_SIDE = 8  # pixels: the side of one latent cell
LARGE_PIXELS = 64_000_000  # reading a picture with more takes noticeable time and memory
MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # by number of channels

_ORIENTATION = 0x0112  # the EXIF tag
_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION_SOURCES = ("exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp")  # keys of Image.info


@dataclass(frozen=True)
class PreparedImage:
    """A picture that fits a model.

    Attributes:
        picture: W x H pixels, mode L, RGB or RGBA.
        notices: the changes that made it fit, one sentence each, for the user to read.
    """

    picture: Image.Image
    notices: tuple[str, ...] = ()

    @cached_property
    def array(self) -> np.ndarray:
        """float32 [1, C, H, W] in 0..1."""
        return to_array(self.picture)


def prepare_image(
    image: Image.Image | None, height: int, width: int, subject: str = "image", channels: int = 3
) -> PreparedImage:
    """Turn any picture into one of `height` x `width` pixels with 1 (grey), 3 (RGB) or 4 (RGBA) channels.

    The picture is turned upright by its EXIF orientation. 16-bit grey is scaled to 8 bits. Transparent pixels are
    composited on black, unless 4 channels are wanted. A picture of another size is scaled until it covers
    `height` x `width`, without a change of its aspect ratio, and cropped around its center.

    `subject` is the word for this picture in notices and error messages. Raises UserError if `image` is not a picture,
    has fewer than 8 pixels on a side, or has pixels that 8 bits per channel cannot represent.
    """
    return cover(read_picture(image, height, width, subject, channels), height, width, subject)


def read_picture(
    image: Image.Image | None, height: int, width: int, subject: str = "image", channels: int = 3
) -> PreparedImage:
    """`prepare_image` without the change of size. `height` and `width` are those that error messages recommend."""
    if not isinstance(image, Image.Image):
        raise UserError(subject, type(image).__name__, "a PIL.Image.Image", "open the file with PIL.Image.open")
    if min(image.size) < MIN_SIDE:
        size = f"{image.width}x{image.height} pixels"
        raise UserError(subject, size, f"{MIN_SIDE}x{MIN_SIDE} at least", f"draw one of {width}x{height}")
    notices: list[str] = []
    if image.width * image.height > LARGE_PIXELS:
        megapixels = round(image.width * image.height / 1e6)
        notices.append(f"{subject}: it has {megapixels} megapixels; a smaller file is read faster")
    picture, mode_notices = to_mode(upright(image, subject), MODES[channels], subject)
    return PreparedImage(picture, (*notices, *mode_notices))


def cover(prepared: PreparedImage, height: int, width: int, subject: str = "image") -> PreparedImage:
    """Scale a picture until it covers `height` x `width`, and crop it around its center, with a notice of both."""
    picture = prepared.picture
    if picture.size == (width, height):
        return prepared
    is_cropped = picture.width * height != picture.height * width
    cropped = " and cropped around its centre" if is_cropped else ""
    size, wanted = f"{picture.width}x{picture.height}", f"{width}x{height}"
    values = {"subject": subject, "from": size, "to": wanted, "how": "cropped" if is_cropped else "covers"}
    notice = Notice(f"{subject}: {size} was scaled to cover {wanted}{cropped}", "scaled", values)
    covering = ImageOps.fit(picture, (width, height), Image.Resampling.LANCZOS)
    return PreparedImage(covering, (*prepared.notices, notice))


def upright(image: Image.Image, subject: str = "image") -> Image.Image:
    """Turn a picture as its EXIF orientation says. The result has no such tag, so a second call changes nothing.

    `PIL.ImageOps.exif_transpose` would write all other EXIF tags again, and raises struct.error if a camera wrote one
    of them with a wrong type. Only the orientation is read here; an orientation that cannot be read counts as upright.

    Raises UserError if the pixels cannot be read.
    """
    load_pixels(image, subject)  # first, because Pillow turns a TIFF file when it reads the pixels
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            orientation = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # Pillow raises many kinds of errors for damaged metadata, and the pixels are still good
        orientation = 1
    transposition = _TRANSPOSITIONS.get(orientation)
    if transposition is None:
        return image
    turned = image.transpose(transposition)
    for key in _ORIENTATION_SOURCES:
        turned.info.pop(key, None)
    return turned


def to_mode(
    image: Image.Image, mode: str, subject: str = "image", background: str = "black"
) -> tuple[Image.Image, list[str]]:
    """Convert a picture of any mode to `mode` (L, RGB or RGBA), and say what was lost.

    Transparent pixels are composited on `background`, unless `mode` is RGBA. On black a control image has no outline
    where it is transparent.

    Raises UserError for floating-point pixels, for integers outside 0..65535, and for modes that Pillow cannot convert.
    """
    notices = []
    if image.mode == "F":
        raise UserError(subject, "floating-point pixels", "8 or 16 bits per channel", "save it as PNG")
    if image.mode.startswith("I"):  # I;16, I;16B, ... and I
        image = _to_8_bits(image, subject)
        notices.append(f"{subject}: 16-bit grey was scaled to 8 bits")
    try:
        if mode != "RGBA" and image.has_transparency_data:
            rgba = image.convert("RGBA")
            if np.asarray(rgba.getchannel("A")).min() < 255:
                text = f"{subject}: its transparency was composited on {background}"
                is_black = background == "black"
                notices.append(Notice(text, "transparency", {"subject": subject}) if is_black else text)
            image = Image.alpha_composite(Image.new("RGBA", rgba.size, background), rgba).convert("RGB")
        return image.convert(mode), notices
    except ValueError:
        raise UserError(subject, f"the color mode {image.mode}", "grey, RGB or CMYK", "save it as PNG") from None


def to_array(picture: Image.Image) -> np.ndarray:
    """Turn W x H pixels of mode L, RGB or RGBA into float32 [1, C, H, W] in 0..1."""
    pixels = np.asarray(picture).reshape(picture.height, picture.width, -1)  # [H, W, C]
    planes = np.ascontiguousarray(pixels.transpose(2, 0, 1)[None])  # while a pixel is small: 1 byte per channel
    return planes / np.float32(255)


def _to_8_bits(image: Image.Image, subject: str) -> Image.Image:
    """Turn 16-bit grey into mode L, or LA if the file names one grey as transparent."""
    values = np.asarray(image)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise UserError(subject, f"grey from {low} to {high}", "0 to 65535 (16 bits)", "save it as PNG")
    grey = Image.fromarray(np.rint(values / 257).astype(np.uint8))
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
    return grey
