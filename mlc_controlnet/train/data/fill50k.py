"""The fill50k format: `prompt.json` with one JSON object per line, and the pictures that it names.

    prompt.json   {"source": "source/0.png", "target": "target/0.png", "prompt": "gold circle with navy background"}
    source/0.png  the control image
    target/0.png  the picture to learn

This is the layout of the data set in lllyasviel/ControlNet, `docs/train.md`. `prompt.json` may also be one JSON array
of such objects, and paths may have the backslashes of Windows.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from mlc_controlnet.errors import UserError
from mlc_controlnet.files import write_text
from mlc_controlnet.images.prepare import to_mode, upright
from mlc_controlnet.images.read import read_image
from mlc_controlnet.train.data.text import decode_text

KEYS = ("source", "target", "prompt")
WANTED = 'one object per line, such as {"source": "source/0.png", "target": "target/0.png", "prompt": "..."}'


@dataclass(frozen=True)
class Example:
    """A sample in memory."""

    source: np.ndarray  # [H, W, 3] uint8
    target: np.ndarray  # [H, W, 3] uint8
    prompt: str


def write(directory: Path, examples: Iterable[Example]) -> int:
    """Write `examples` below `directory`, `prompt.json` last. Returns their number."""
    (directory / "source").mkdir(parents=True, exist_ok=True)
    (directory / "target").mkdir(exist_ok=True)
    lines = []
    for index, example in enumerate(examples):
        row = {"source": f"source/{index}.png", "target": f"target/{index}.png", "prompt": example.prompt}
        Image.fromarray(example.source).save(directory / row["source"])
        Image.fromarray(example.target).save(directory / row["target"])
        lines.append(json.dumps(row))
    write_text(directory / "prompt.json", "\n".join(lines) + "\n")
    return len(lines)


@dataclass(frozen=True)
class Row:
    """An entry of `prompt.json`.

    Attributes:
        source: the file of the control image, below the set's folder; empty if the entry names none.
        target: the file of the picture to learn.
        prompt: the text that describes the picture.
    """

    source: str
    target: str
    prompt: str


def read_rows(directory: Path, keys: tuple[str, str, str] = KEYS) -> list[Row | str]:
    """Parse `prompt.json`. An entry that cannot be used is a text, which says where it is and what it lacks.

    keys: the fields that name control image, picture and prompt. If an annotator makes the control images, the first
    field may be missing.
    Raises UserError if there is no `prompt.json`, if it is not UTF-8, or if it holds no JSON object.
    """
    index = directory / "prompt.json"
    if not index.is_file():
        wanted = "a fill50k data set: prompt.json, source/ and target/"
        raise UserError(str(index), "no such file", wanted, "pass its folder")
    entries = list(_entries(decode_text(index.read_bytes(), str(index)), index))
    if not entries:
        raise UserError(str(index), "an empty file", WANTED, "write the set again")
    if all(isinstance(entry, str) for _, entry in entries):
        place, problem = entries[0]
        raise UserError(str(index), f"no JSON object at all ({place}: {problem})", WANTED, "write it so")
    return [f"{place}: {entry}" if isinstance(entry, str) else _row(place, entry, keys) for place, entry in entries]


def _entries(text: str, index: Path) -> Iterator[tuple[str, dict | str]]:
    """Yield the place of each entry, and its object or what is wrong with it."""
    if text.lstrip().startswith("["):
        try:
            values = json.loads(text)
        except ValueError as error:
            raise UserError(str(index), f"a damaged JSON array ({error})", "a whole one", "write it again") from None
        for number, value in enumerate(values, start=1):
            yield f"entry {number}", value if isinstance(value, dict) else "not a JSON object"
        return
    # Not splitlines(): a prompt may hold U+2028 or U+0085, which end no line of a JSON file.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except ValueError as error:
            yield f"line {number}", f"not a JSON object ({error})"
        else:
            yield f"line {number}", value if isinstance(value, dict) else "not a JSON object"


def _row(place: str, fields: dict, keys: tuple[str, str, str]) -> Row | str:
    source, target, prompt = (fields.get(key) for key in keys)
    if isinstance(target, str) and isinstance(prompt, str):
        return Row(_path(source) if isinstance(source, str) else "", _path(target), prompt)
    missing = [key for key in keys[1:] if not isinstance(fields.get(key), str)]
    return f"{place}: no {' and no '.join(missing)} (its fields are {', '.join(fields) or 'none'})"


def _path(name: str) -> str:
    return name.replace("\\", "/")


def read(directory: Path) -> list[Example]:
    """Read every example below `directory` at once, in its own size.

    Raises UserError if an entry of `prompt.json` lacks one of the three fields, or if a picture cannot be read.
    """
    examples = []
    for row in read_rows(directory):
        if isinstance(row, str) or not row.source:
            got = row if isinstance(row, str) else f"{row.target} without a source"
            wanted = "source, target and prompt in every entry"
            raise UserError(str(directory / "prompt.json"), got, wanted, "add what is missing")
        source, target = (_read_rgb(directory / name) for name in (row.source, row.target))
        examples.append(Example(source, target, row.prompt))
    return examples


def _read_rgb(path: Path) -> np.ndarray:
    return np.asarray(to_mode(upright(read_image(path)), "RGB", f"image {path}")[0])
