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
    partial = directory / "prompt.json.partial"
    partial.write_text("\n".join(lines) + "\n", encoding="utf-8")
    partial.replace(directory / "prompt.json")
    return len(lines)


def read(directory: Path) -> list[Example]:
    """Read every example below `directory`.

    Raises:
        UserError: there is no `prompt.json`, or a line of it lacks one of the three keys.
    """
    index = directory / "prompt.json"
    if not index.is_file():
        raise UserError(
            str(index), "no such file", "a fill50k data set: prompt.json, source/ and target/", "pass its folder"
        )
    examples = []
    for number, line in enumerate(index.read_text(encoding="utf-8").splitlines(), start=1):
        row = json.loads(line)
        missing = {"source", "target", "prompt"} - row.keys()
        if missing:
            got = f"no {' and no '.join(sorted(missing))}"
            raise UserError(f"{index} line {number}", got, "source, target and prompt", "add what is missing")
        examples.append(
            Example(
                source=np.asarray(Image.open(directory / row["source"]).convert("RGB")),
                target=np.asarray(Image.open(directory / row["target"]).convert("RGB")),
                prompt=row["prompt"],
            )
        )
    return examples
