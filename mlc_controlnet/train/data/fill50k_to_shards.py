"""fill50k -> WebDataset shards, as NeMo reads them: `000000.jpg`, `000000.png`, `000000.txt`."""

import contextlib
import io
import itertools
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from PIL import Image
from webdataset import TarWriter

from mlc_controlnet.errors import UserError
from mlc_controlnet.files import whole_file
from mlc_controlnet.images.prepare import to_mode
from mlc_controlnet.train.data.fill50k import Row, read_rows
from mlc_controlnet.train.data.samples import CONTROL_IMAGE, PICTURE, describe_problem, open_pair

JPEG_QUALITY = 95
SIGNATURES = {"JPEG": b"\xff\xd8\xff", "PNG": b"\x89PNG\r\n\x1a\n"}
PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")
_SHARD = re.compile("[0-9]{5,}")


def fill50k_to_shards(
    folder: Path,
    output: Path,
    shard_samples: int = 1000,
    image_extension: str = "jpg",
    log: Callable[[str], None] = print,
) -> tuple[int, int, int]:
    """Write every sample of the set: the picture under `image_extension`, the control image as png, the prompt as txt.

    With the extension jpg, pictures in other formats become JPEG files of quality 95 without chroma subsampling. With
    an extension that ends in png, such as image.png, they become PNG files, which lose nothing; then data.image_key
    must name that extension. A file that already has its format is copied byte for byte, any other is turned upright
    first. Samples that cannot be read are skipped, and `log` names each of them.

    Shards of an earlier conversion are replaced.

    Returns the numbers of samples, of shards and of skipped samples. Raises UserError if there is no set, if none of
    its samples can be read, or if `output` holds more shards than the set has.
    """
    if shard_samples < 1:
        raise UserError("--shard-samples", str(shard_samples), "1 or more", "choose another number")
    if image_extension != "jpg" and not (image_extension.endswith(".png") and image_extension != ".png"):
        raise UserError("--image-extension", repr(image_extension), "jpg, or one like image.png", "choose one of these")
    rows = read_rows(folder)
    most = math.ceil(len(rows) / shard_samples)
    if others := _shards_from(output, most):
        got, wanted = f"{len(others)} shards of another set ({others[0].name}, ...)", f"at most {most}, as this set has"
        remedy = "delete them, or choose another folder: a run would read them too"
        raise UserError(f"--output {output}", got, wanted, remedy)
    skipped: list[str] = []
    samples = _samples(folder, rows, image_extension, skipped, log)
    output.mkdir(parents=True, exist_ok=True)
    written = shards = 0
    for first in samples:
        with (
            whole_file(output / f"{shards:05d}.tar") as partial,
            contextlib.closing(TarWriter(str(partial), encoder=False)) as writer,
        ):
            for sample in itertools.chain([first], itertools.islice(samples, shard_samples - 1)):
                writer.write({"__key__": f"{written:06d}", **sample})
                written += 1
        shards += 1
    for older in _shards_from(output, shards):  # more samples could be read then
        older.unlink()
    if written == 0:
        raise UserError(str(folder), f"{len(skipped)} samples that cannot be read", "one or more", "check its files")
    return written, shards, len(skipped)


def _shards_from(output: Path, number: int) -> list[Path]:
    """List the shards in a folder from this number on."""
    return sorted(path for path in output.glob("*.tar") if _SHARD.fullmatch(path.stem) and int(path.stem) >= number)


def _samples(
    folder: Path, rows: list[Row | str], extension: str, skipped: list[str], log: Callable[[str], None]
) -> Iterator[dict[str, bytes]]:
    for row in rows:
        if isinstance(row, str):
            place, _, problem = row.partition(": ")
            name = f"prompt.json {place}"
        else:
            name, problem = row.target, "no control image"
        try:
            if isinstance(row, Row) and row.source:
                yield _files(folder, row, extension)
                continue
        except UserError as error:
            problem = describe_problem(error)
        except OSError as error:
            problem = str(error)
        skipped.append(name)
        log(f"skipped: {name}: {problem}")


def _files(folder: Path, row: Row, extension: str) -> dict[str, bytes]:
    """Return the files of one sample, by extension. Raises UserError or OSError if a run could not read them."""
    image, control = (folder / row.target).read_bytes(), (folder / row.source).read_bytes()
    picture, hint = open_pair(image, control)
    return {
        extension: _encoded(image, picture, PICTURE, "JPEG" if extension == "jpg" else "PNG"),
        "png": _encoded(control, hint, CONTROL_IMAGE, "PNG"),
        "txt": row.prompt.encode(),
    }


def _encoded(data: bytes, picture: Image.Image, subject: str, kind: str) -> bytes:
    """Return the file `data` in the format `kind`; `picture` is what it shows, upright."""
    rgb, _ = to_mode(picture, "RGB", subject)  # also of a file that is copied: a run has to be able to read it
    if data.startswith(SIGNATURES[kind]):
        return data
    buffer = io.BytesIO()
    if kind == "JPEG":
        rgb.save(buffer, kind, quality=JPEG_QUALITY, subsampling=0)
    else:
        (picture if picture.mode in PNG_MODES else rgb).save(buffer, kind)
    return buffer.getvalue()
