"""The picture that conditions: from any image to what the ControlNet reads; and any other that is given."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from mlc_controlnet.errors import UserError

MIN_SIDE = 8  # pixels: less than one latent cell carries nothing
SUBJECT = "control image"  # what a picture is called in errors and notices


@dataclass(frozen=True)
class ControlImage:
    array: np.ndarray  # float32 [1, 3, H, W] in 0..1
    picture: Image.Image  # the same as a picture: RGB, W x H
    notices: tuple[str, ...]  # what was done to make it fit


def open_control_image(path: Path, subject: str = SUBJECT) -> Image.Image:
    """Read an image file whole. Raises UserError where it is missing, no image, broken off or absurdly large."""
    where = f"{subject} {path}"
    if path.is_dir():
        raise UserError(where, "a folder", "an image file", "pass one of its files")
    if not path.is_file():
        raise UserError(where, "no such file", "an image file", "check the path")
    try:
        image = Image.open(io.BytesIO(path.read_bytes()))
        image.load()
    except UnidentifiedImageError:
        raise _unreadable(where, "a file that is no image") from None
    except Image.DecompressionBombError as error:
        raise _unreadable(where, str(error)) from None
    except (OSError, SyntaxError, ValueError) as error:  # Pillow's readers raise all three for broken files
        raise _unreadable(where, f"a broken image ({error})") from None
    return image


def prepare_control_image(image: Image.Image | None, height: int, width: int, subject: str = SUBJECT) -> ControlImage:
    """Turn any picture into RGB of the model's size.

    The camera's rotation is applied, transparency is composited on black (no outline, no control), grey of 16 bits is
    scaled to 8. Another size is scaled until it covers H x W, its aspect kept, and cropped around its centre.

    Raises UserError for what is not a picture or has less than 8 pixels on a side.
    """
    if not isinstance(image, Image.Image):
        raise UserError(subject, type(image).__name__, "a PIL.Image.Image", "open the file with PIL.Image.open")
    if min(image.size) < MIN_SIDE:
        size = f"{image.width}x{image.height} pixels"
        raise UserError(subject, size, f"{MIN_SIDE}x{MIN_SIDE} at least", f"draw one of {width}x{height}")
    notices: list[str] = []
    picture = _to_rgb(ImageOps.exif_transpose(image), notices, subject)
    if picture.size != (width, height):
        notices.append(
            f"{subject}: {picture.width}x{picture.height} was scaled to cover {width}x{height}"
            + (" and cropped around its centre" if picture.width * height != picture.height * width else "")
        )
        picture = ImageOps.fit(picture, (width, height), Image.Resampling.LANCZOS)
    array = np.asarray(picture, np.float32).transpose(2, 0, 1)[None] / np.float32(255)  # [1, 3, H, W]
    return ControlImage(np.ascontiguousarray(array), picture, tuple(notices))


def _to_rgb(image: Image.Image, notices: list[str], subject: str) -> Image.Image:
    if image.mode.startswith("I"):  # I;16, I;16B and I: 16-bit grey
        notices.append(f"{subject}: 16-bit grey was scaled to 8 bits")
        grey = np.rint(np.clip(np.asarray(image, np.float64), 0, 65535) / 257).astype(np.uint8)
        return Image.fromarray(grey).convert("RGB")
    if image.mode == "F":
        raise UserError(subject, "floating-point pixels", "8 or 16 bits a channel", "save it as PNG")
    if image.has_transparency_data:
        notices.append(f"{subject}: its transparency was composited on black")
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "black"), rgba).convert("RGB")
    return image.convert("RGB")


def _unreadable(where: str, got: str) -> UserError:
    return UserError(where, got, "a PNG, JPEG, WebP, GIF, BMP or TIFF file", "save it again as PNG")
