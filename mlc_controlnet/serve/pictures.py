"""Pictures of a request: files as bytes or in base64, decoded within limits."""

import base64
import binascii
import io
import re

from PIL import Image

from mlc_controlnet.errors import UserError
from mlc_controlnet.images.read import decode_image
from mlc_controlnet.serve.limits import Limits

_DATA_URL = re.compile(r"data:image/[\w.+-]+;base64,")


def from_base64(text: object, subject: str, limits: Limits) -> Image.Image:
    """Decode a picture in base64, with or without `data:image/...;base64,` before it.

    Raises UserError for anything else, and as `from_bytes` does.
    """
    if not isinstance(text, str):
        raise UserError(subject, type(text).__name__, "an image file in base64", "encode the file's bytes")
    prefix = _DATA_URL.match(text)
    try:
        data = base64.b64decode(text[prefix.end() :] if prefix else text, validate=True)
    except (binascii.Error, ValueError):
        raise UserError(subject, "text that is not base64", "an image file in base64", "encode it again") from None
    return from_bytes(data, subject, limits)


def from_bytes(data: bytes, subject: str, limits: Limits) -> Image.Image:
    """Decode an image file. Raises UserError as `decode_image` does, and for a picture with too many pixels."""
    _check_pixels(data, subject, limits)
    return decode_image(data, subject)


def to_base64(data: bytes) -> str:
    """Return bytes in base64."""
    return base64.b64encode(data).decode()


def _check_pixels(data: bytes, subject: str, limits: Limits) -> None:
    """Read no more than the header: a small file can hold a picture that fills the memory."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            width, height = image.size
    except Image.DecompressionBombError:
        width = height = 2**16
    except Exception:  # decode_image says what is wrong
        return
    if width * height > limits.picture_pixels:
        wanted = f"{limits.picture_pixels / 1e6:.0f} megapixels at most"
        raise UserError(subject, f"{width}x{height} pixels", wanted, "scale it down first")
