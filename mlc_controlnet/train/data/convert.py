"""fill50k -> WebDataset shards, as NeMo reads them: `000000.jpg`, `000000.png`, `000000.txt`."""

import contextlib
import io
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

from PIL import Image
from webdataset import TarWriter

from mlc_controlnet.errors import UserError
from mlc_controlnet.files import whole_file
from mlc_controlnet.train.data.fill50k import Row, read_rows

JPEG_QUALITY = 95


def fill50k_to_shards(
    folder: Path,
    output: Path,
    shard_samples: int = 1000,
    image_extension: str = "jpg",
    log: Callable[[str], None] = print,
) -> tuple[int, int, int]:
    """Write every sample of the set: the picture under `image_extension`, the control image as png, the prompt as txt.

    With jpg, pictures that are no JPEG are encoded at quality 95 without chroma subsampling; with another extension
    that ends in png, for example image.png, nothing is lost, and data.image_key must say so. Files that already are
    what they shall be are copied byte for byte. Samples that can not be read are skipped and named.
    Returns how many samples, shards and skipped samples there are. Raises UserError where there is no set, or where
    nothing of it can be read.
    """
    if shard_samples < 1:
        raise UserError("--shard-samples", str(shard_samples), "1 or more", "choose another number")
    if image_extension != "jpg" and not (image_extension.endswith(".png") and image_extension != ".png"):
        raise UserError("--image-extension", repr(image_extension), "jpg, or one like image.png", "choose one of these")
    rows = read_rows(folder)
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
    if written == 0:
        raise UserError(str(folder), f"{len(skipped)} samples that can not be read", "one or more", "check its files")
    return written, shards, len(skipped)


def _samples(
    folder: Path, rows: list[Row | str], extension: str, skipped: list[str], log: Callable[[str], None]
) -> Iterator[dict[str, bytes]]:
    for row in rows:
        try:
            if isinstance(row, str) or not row.source:
                raise ValueError("names no sample" if isinstance(row, str) else "no control image")
            yield {
                extension: _encoded(folder / row.target, "JPEG" if extension == "jpg" else "PNG"),
                "png": _encoded(folder / row.source, "PNG"),
                "txt": row.prompt.encode(),
            }
        except (OSError, ValueError, SyntaxError) as error:
            name = row if isinstance(row, str) else row.target
            skipped.append(name)
            log(f"skipped: {name}: {error}")


def _encoded(path: Path, kind: str) -> bytes:
    data = path.read_bytes()
    with Image.open(io.BytesIO(data)) as picture:
        picture.load()
        if picture.format == kind:
            return data
        buffer = io.BytesIO()
        if kind == "JPEG":
            picture.convert("RGB").save(buffer, kind, quality=JPEG_QUALITY, subsampling=0)
        else:
            picture.save(buffer, kind)
        return buffer.getvalue()
