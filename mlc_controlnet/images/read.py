"""Read an image file: any format that Pillow knows, and one kind of error for everything that can go wrong."""

import contextlib
import io
import struct
import warnings
from collections.abc import Iterator
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from mlc_controlnet.errors import UserError

_HEIC_BRANDS = (b"heic", b"heix")  # the format of many phones, which Pillow does not read
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_HEADER = struct.Struct(">I4s")  # of a chunk: the length of its data, its type; the data and 4 bytes of CRC follow
_PNG_DROPPED = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")  # texts and the color profile
_PNG_ORIENTATION_TEXTS = (b"XML:com.adobe.xmp\0", b"Raw profile type exif\0")  # these can hold the camera's rotation


def read_image(path: Path, subject: str = "image") -> Image.Image:
    """Read an image file completely.

    `subject` is the word for this picture in error messages. Raises UserError if the path is a folder, if there is no
    such file, and for every reason that `decode_image` has.
    """
    where = f"{subject} {path}"
    if path.is_dir():
        raise UserError(where, "a folder", "an image file", "pass one of its files")
    if not path.is_file():
        raise UserError(where, "no such file", "an image file", "check the path")
    return decode_image(path.read_bytes(), where)


def decode_image(data: bytes, subject: str = "image") -> Image.Image:
    """Decode the content of an image file completely; the picture keeps its mode, size and EXIF orientation.

    Raises UserError if `data` is not an image, is damaged or cut off, or if the picture has so many pixels that it
    could exhaust the memory (Pillow's limit).
    """
    if data[4:8] == b"ftyp" and data[8:12] in _HEIC_BRANDS:
        raise _unreadable(subject, "a HEIC photo")
    with _decoding(subject):
        return load_pixels(Image.open(io.BytesIO(_without_texts(data))), subject)


def load_pixels(image: Image.Image, subject: str = "image") -> Image.Image:
    """Read the pixels of a picture that `PIL.Image.open` has only opened; returns the same picture.

    Raises UserError as `decode_image` does.
    """
    with _decoding(subject):
        image.load()
    return image


@contextlib.contextmanager
def _decoding(subject: str) -> Iterator[None]:
    """Turn every error of Pillow's decoders into a UserError, and keep their warnings away from the user."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # large pictures, for which `prepare_image` has a notice, and odd metadata
            yield
    except (UserError, MemoryError):
        raise
    except UnidentifiedImageError:
        raise _unreadable(subject, "a file that is not an image") from None
    except Image.DecompressionBombError:
        limit = f"{2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6:,.0f} megapixels"
        raise UserError(subject, f"a picture of more than {limit}", "a smaller one", "scale it down first") from None
    except Exception as error:  # a decoder may raise anything for damaged data: OSError, SyntaxError, struct.error, ...
        raise _unreadable(subject, f"a damaged image ({error})") from None


def _without_texts(data: bytes) -> bytes:
    """Drop the texts and the color profile from a PNG file; return any other file unchanged.

    No pixel depends on them, but Pillow refuses a file in which one of them is larger than 1 MiB. Programs that draw
    with diffusion models store their whole workflow there.
    """
    if not data.startswith(_PNG_SIGNATURE):
        return data
    kept, position = [_PNG_SIGNATURE], len(_PNG_SIGNATURE)
    while position + _PNG_HEADER.size <= len(data):
        length, kind = _PNG_HEADER.unpack_from(data, position)
        following = position + _PNG_HEADER.size + length + 4
        holds_orientation = data.startswith(_PNG_ORIENTATION_TEXTS, position + _PNG_HEADER.size, following)
        if holds_orientation or kind not in _PNG_DROPPED:
            kept.append(data[position:following])
        position = following
    kept.append(data[position:])  # of a file that is cut off: Pillow names the damage
    return b"".join(kept)


def _unreadable(subject: str, got: str) -> UserError:
    return UserError(subject, got, "a PNG, JPEG, WebP, GIF, BMP or TIFF file", "save it again as PNG")
