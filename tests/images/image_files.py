"""Image files as cameras, scanners and drawing programs write them, made in memory."""

import io
import struct
import zlib

import numpy as np
from PIL import Image, PngImagePlugin

ORIENTATION = 0x0112
RESOLUTION_UNIT = 0x0128  # a tag that should hold a number


def encode(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def decode(data: bytes) -> Image.Image:
    """What Pillow makes of a file, without our reader."""
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def random_rgb(height: int, width: int, seed: int = 0) -> Image.Image:
    """Smooth random colors, so that JPEG changes them little."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def ramp_16_bits(height: int, width: int) -> Image.Image:
    """Grey from 0 at the left to 65535 at the right, mode I;16."""
    return Image.fromarray(np.tile(np.linspace(0, 65535, width).astype(np.uint16), (height, 1)))


def ring_on_transparent_white(height: int, width: int) -> Image.Image:
    """RGBA: white everywhere, opaque on a ring only."""
    y, x = np.mgrid[0:height, 0:width]
    distance = np.hypot(y - height / 2, x - width / 2) / min(height, width)
    rgba = np.full((height, width, 4), 255, np.uint8)
    rgba[..., 3] = np.where(abs(distance - 0.3) < 0.08, 255, 0)
    return Image.fromarray(rgba)


def with_orientation(image: Image.Image, kind: str, orientation: int, **options) -> bytes:
    """A file that has to be turned to be seen as its camera meant it."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return encode(image, kind, exif=exif.tobytes(), **options)


def with_malformed_tag(image: Image.Image, orientation: int) -> bytes:
    """A JPEG whose EXIF holds the orientation and a text where a number belongs."""
    short, ascii_text = 3, 2
    entries = [
        struct.pack("<HHII", ORIENTATION, short, 1, orientation),
        struct.pack("<HHI4s", RESOLUTION_UNIT, ascii_text, 4, b"in.\0"),
    ]
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(entries)) + b"".join(entries) + struct.pack("<I", 0)
    return encode(image, "JPEG", quality=95, subsampling=0, exif=exif)


def with_long_text(image: Image.Image, length: int = 2 << 20) -> bytes:
    """A PNG with a compressed text of `length` letters, as programs store a workflow."""
    texts = PngImagePlugin.PngInfo()
    texts.add_text("workflow", "x" * length, zip=True)
    return encode(image, "PNG", pnginfo=texts)


def png_of_size(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds no pixels: the start of a decompression bomb."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
