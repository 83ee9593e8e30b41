"""Write a picture as a PNG file with texts, and read the texts of any PNG file.

Twin: web/src/engine/png.ts.
"""

import io
import struct
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from mlc_controlnet.errors import UserError
from mlc_controlnet.files import check_writable_file, whole_file

PARAMETERS = "parameters"  # Stable Diffusion web UI's text, which it writes as Pillow chooses: Latin-1 if that will do
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_LARGEST_TEXT = 2**24  # bytes: a workflow takes some 100 KB, a compressed bomb any number


def check_output_path(path: Path) -> None:
    """Raise UserError if no PNG file can be written at `path`. Call it before any work is done."""
    if path.suffix.lower() != ".png":
        raise UserError(f"output {path}", f"the suffix {path.suffix!r}", ".png", "name a PNG file: it keeps the seed")
    check_writable_file(path, f"output {path}")


def write_png(path: Path, picture: Image.Image, metadata: Mapping[str, str]) -> None:
    """Write the file whole or not at all, with `metadata` as `png_bytes` has it."""
    with whole_file(path) as partial:
        partial.write_bytes(png_bytes(picture, metadata))


def png_bytes(picture: Image.Image, metadata: Mapping[str, str]) -> bytes:
    """Return the content of the file that `write_png` writes.

    Each entry of `metadata` becomes one iTXt chunk in UTF-8. `parameters` becomes a tEXt chunk if Latin-1 can hold it:
    some of its readers know no other kind.
    """
    info = PngInfo()
    for key, text in metadata.items():
        if key == PARAMETERS:
            info.add_text(key, text)
        else:
            info.add_itxt(key, text)
    content = io.BytesIO()
    picture.save(content, format="PNG", pnginfo=info)
    return content.getvalue()


def read_texts(data: bytes, subject: str = "picture") -> dict[str, str]:
    """Return the texts of a PNG file by keyword, from all its chunks tEXt, zTXt and iTXt. Damaged texts are left out.

    Raises UserError if `data` is no PNG file.
    """
    if not data.startswith(_SIGNATURE):
        raise UserError(subject, "a file that is not PNG", "a PNG file", "pass the file as it was written")
    texts: dict[str, str] = {}
    for kind, content in _chunks(data):
        keyword, end, rest = content.partition(b"\0")
        if not end:
            continue
        try:
            if kind == b"tEXt":
                texts[keyword.decode("latin-1")] = rest.decode("latin-1")
            elif kind == b"zTXt" and rest[:1] == b"\0":
                texts[keyword.decode("latin-1")] = _inflate(rest[1:]).decode("latin-1")
            elif kind == b"iTXt":
                text = rest[2:].split(b"\0", 2)[2]  # after the language and the translated keyword
                texts[keyword.decode("latin-1")] = (_inflate(text) if rest[0] else text).decode()
        except (zlib.error, UnicodeDecodeError, IndexError):
            continue
    return texts


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the type and the content of each chunk that is whole."""
    position = len(_SIGNATURE)
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        content = data[position + 8 : position + 8 + length]
        if len(content) == length:
            yield kind, content
        position += 12 + length


def _inflate(content: bytes) -> bytes:
    decoder = zlib.decompressobj()
    text = decoder.decompress(content, _LARGEST_TEXT)
    if not decoder.eof:
        raise zlib.error("cut off, or too large")
    return text
