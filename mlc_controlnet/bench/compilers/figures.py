"""Keeps judgements in the repository: what the compilers said, with the versions and the command."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from mlc_controlnet.bench.compilers.intel import IntelJudgement
from mlc_controlnet.bench.compilers.judgement import Judgement
from mlc_controlnet.bundle.json_record import from_json, to_json
from mlc_controlnet.files import write_text

FOLDER = Path(__file__).parents[1] / "figures" / "compilers"
INTEL_FOLDER = FOLDER / "intel"
OURS, PEER, MATRICES = "ours", "onnxruntime-web", "matrix-instructions"
AND = "; "  # between the commands of a file
DIGITS = 6  # of a kept number


@dataclass(frozen=True)
class CompilerFigures:
    """The judgements of one contestant on one chip in one dtype: a file.

    Attributes:
        contestant: OURS, PEER or MATRICES.
        chip: a name of chips.CHIPS.
        command: what made the rows; two with "; " between them, if some were made later.
        versions: of this project, TVM, the peer, Mesa.
    """

    contestant: str
    chip: str
    dtype: str
    command: str
    date: str
    versions: Mapping[str, str]
    rows: tuple[Judgement, ...]

    @property
    def file_name(self) -> str:
        """`navi31-float16-ours.json`: no versions, so that a newer compiler replaces the file."""
        return f"{self.chip}-{self.dtype}-{self.contestant}.json"

    def row(self, name: str) -> Judgement | None:
        """Return the judgement of a computation, if it is among the rows."""
        return next((row for row in self.rows if row.name == name), None)


@dataclass(frozen=True)
class IntelFigures:
    """The judgements of our kernels on one of Intel's chips in one dtype: a file. No time is predicted from them.

    Attributes:
        device: a key of intel.DEVICES.
        command, versions: as in CompilerFigures.
    """

    device: str
    dtype: str
    command: str
    date: str
    versions: Mapping[str, str]
    rows: tuple[IntelJudgement, ...]

    @property
    def file_name(self) -> str:
        """`acm-g10-float16-ours.json`."""
        return f"{self.device}-{self.dtype}-{OURS}.json"


Kept = TypeVar("Kept", CompilerFigures, IntelFigures)


def write_figures(figures: Kept, order: Sequence[str], folder: Path) -> Path:
    """Write `figures` into `folder`, a row a line; rows of the same file that were not judged again stay.

    The command that made those stays with them.

    order: names of rows in the order to write them; others come first.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / figures.file_name
    before: Kept = _read(type(figures), path) if path.exists() else figures
    rows = {row.name: row for row in (*before.rows, *figures.rows)}
    if len(rows) > len(figures.rows):
        commands = dict.fromkeys([*before.command.split(AND), figures.command])
        figures = dataclasses.replace(figures, command=AND.join(commands))
    place = {name: number for number, name in enumerate(order)}
    ordered = sorted(rows.values(), key=lambda row: place.get(row.name, -1))
    record = to_json(dataclasses.replace(figures, rows=()))
    del record["rows"]
    head = json.dumps(record, indent=1).removesuffix("\n}")
    lines = ",\n".join(f"  {json.dumps(_rounded(to_json(row)))}" for row in ordered)
    write_text(path, f'{head},\n "rows": [\n{lines}\n ]\n}}\n')
    return path


def read_figures(folder: Path = FOLDER) -> list[CompilerFigures]:
    """Read every file of `folder`. Raises UserError if one is damaged."""
    return [_read(CompilerFigures, path) for path in sorted(folder.glob("*.json"))]


def read_intel_figures(folder: Path = INTEL_FOLDER) -> list[IntelFigures]:
    """Read every file of `folder`. Raises UserError if one is damaged."""
    return [_read(IntelFigures, path) for path in sorted(folder.glob("*.json"))]


def _read(kind: type[Kept], path: Path) -> Kept:
    return from_json(kind, json.loads(path.read_bytes()), path.name)


def find(kept: Sequence[CompilerFigures], contestant: str, chip: str, dtype: str) -> CompilerFigures | None:
    """Return the figures of one contestant, if they are kept."""
    wanted = (contestant, chip, dtype)
    return next((figures for figures in kept if (figures.contestant, figures.chip, figures.dtype) == wanted), None)


def _rounded(value: object) -> object:
    if isinstance(value, float):
        short = float(f"{value:.{DIGITS}g}")
        return int(short) if short.is_integer() else short
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list) else value
