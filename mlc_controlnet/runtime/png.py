"""Write a picture as a PNG file with metadata.

Twin: web/src/engine/png.ts.
"""

import io
import os
from collections.abc import Mapping
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from mlc_controlnet.errors import UserError
from mlc_controlnet.files import whole_file


def check_output_path(path: Path) -> None:
    """Raise UserError if no PNG file can be written at `path`. Call it before any work is done."""
    if path.suffix.lower() != ".png":
        raise UserError(f"output {path}", f"the suffix {path.suffix!r}", ".png", "name a PNG file: it keeps the seed")
    if path.is_dir():
        raise UserError(f"output {path}", "a folder", "a file name", "add a file name")
    if not path.parent.is_dir():
        raise UserError(f"output {path}", f"no folder {path.parent}", "an existing folder", "create it first")
    if not os.access(path.parent, os.W_OK):
        raise UserError(f"output {path}", f"no right to write in {path.parent}", "a writable folder", "choose another")


def write_png(path: Path, picture: Image.Image, metadata: Mapping[str, str]) -> None:
    """Write the file whole or not at all. Each entry of `metadata` becomes one iTXt chunk in UTF-8."""
    with whole_file(path) as partial:
        partial.write_bytes(png_bytes(picture, metadata))


def png_bytes(picture: Image.Image, metadata: Mapping[str, str]) -> bytes:
    """Return the content of the file that `write_png` writes."""
    info = PngInfo()
    for key, text in metadata.items():
        info.add_itxt(key, text)
    content = io.BytesIO()
    picture.save(content, format="PNG", pnginfo=info)
    return content.getvalue()
