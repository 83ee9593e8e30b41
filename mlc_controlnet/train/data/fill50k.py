"""The fill50k format: `prompt.json` with one JSON object a line, and the pictures it names.

    prompt.json   {"source": "source/0.png", "target": "target/0.png", "prompt": "gold circle with navy background"}
    source/0.png  the control image
    target/0.png  the picture to learn

This is the layout of the data set in lllyasviel/ControlNet, `docs/train.md`.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from mlc_controlnet.errors import UserError
from mlc_controlnet.files import write_text


@dataclass(frozen=True)
class Example:
    source: np.ndarray  # [H, W, 3] uint8
    target: np.ndarray  # [H, W, 3] uint8
    prompt: str


def write(directory: Path, examples: Iterable[Example]) -> int:
    """Write `examples` below `directory`, `prompt.json` last; returns how many there were."""
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
    """A line of `prompt.json`: two files below the set's folder, and a prompt."""

    source: str
    target: str
    prompt: str


def read_rows(directory: Path, keys: tuple[str, str, str] = ("source", "target", "prompt")) -> list[Row | str]:
    """Parse `prompt.json`: a row, or why the line is none.

    keys: the fields that name control image, picture and prompt. A set whose control images an annotator makes has no
    first field: its rows' `source` is empty.
    Raises UserError where there is no `prompt.json` or nothing in it.
    """
    index = directory / "prompt.json"
    if not index.is_file():
        raise UserError(
            str(index), "no such file", "a fill50k data set: prompt.json, source/ and target/", "pass its folder"
        )
    rows: list[Row | str] = []
    for number, line in enumerate(index.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
        except ValueError:
            fields = None
        if not isinstance(fields, dict):
            rows.append(f"line {number}: no JSON object")
            continue
        missing = [key for key in keys[1:] if not isinstance(fields.get(key), str)]
        if missing:
            rows.append(f"line {number}: no {' and no '.join(missing)}")
        else:
            rows.append(Row(fields.get(keys[0], ""), fields[keys[1]], fields[keys[2]]))
    if not rows:
        raise UserError(str(index), "an empty file", "a JSON object a line", "write the set again")
    return rows


def read(directory: Path) -> list[Example]:
    """Read every example below `directory` at once.

    Raises:
        UserError: there is no `prompt.json`, or a line of it lacks one of the three keys.
    """
    examples = []
    for row in read_rows(directory):
        if isinstance(row, str) or not row.source:
            got = row if isinstance(row, str) else f"{row.target} without a source"
            wanted = "source, target and prompt in every line"
            raise UserError(str(directory / "prompt.json"), got, wanted, "add what is missing")
        examples.append(
            Example(
                source=np.asarray(Image.open(directory / row.source).convert("RGB")),
                target=np.asarray(Image.open(directory / row.target).convert("RGB")),
                prompt=row.prompt,
            )
        )
    return examples
