"""samplers.json: a scheduler as numbers.

One step of a deterministic sampler is linear, so six coefficients and a timestep describe it. With the model output m
at step i:

    m  = model(model_input_scale * x, timestep)
    x0 = x0_sample * x + x0_output * m
    x <- next_sample * x + next_x0 * x0 + next_previous_x0 * x0_of_the_step_before
"""

import json
import typing
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from typing import Any

from mlc_controlnet.bundle.json_record import REMEDY, from_json
from mlc_controlnet.errors import UserError


@dataclass(frozen=True)
class SamplerRow:
    """One step's timestep and coefficients."""

    timestep: float
    model_input_scale: float
    x0_sample: float
    x0_output: float
    next_sample: float
    next_x0: float
    next_previous_x0: float  # 0 in a first-order sampler and at the first step


@dataclass(frozen=True)
class SamplerTable:
    """All steps of one sampler for one number of steps."""

    init_noise_sigma: float  # x starts as standard normal noise times this
    rows: tuple[SamplerRow, ...]


# sampler name -> number of steps -> table
SamplerTables = Mapping[str, Mapping[int, SamplerTable]]


def tables_to_json(tables: SamplerTables) -> dict[str, Any]:
    """Return the content of samplers.json; numbers are rounded to 9 significant digits, more than float32 has."""
    return {
        name: {
            str(steps): {
                "init_noise_sigma": _short(table.init_noise_sigma),
                "rows": [[_short(number) for number in astuple(row)] for row in table.rows],
            }
            for steps, table in by_steps.items()
        }
        for name, by_steps in tables.items()
    }


def tables_from_json(data: bytes, where: str) -> SamplerTables:
    """Parse samplers.json; `where` names the file in errors. Raises UserError if it is not sound."""
    try:
        raw = json.loads(data.decode())
    except ValueError as error:
        raise UserError(where, f"text that is not JSON ({error})", "sampler tables", REMEDY) from None
    parsed = from_json(Mapping[str, Mapping[str, _RawTable]], raw, where)
    return {
        name: {_steps(steps, table, f"{where}: {name}"): _table(table) for steps, table in by_steps.items()}
        for name, by_steps in parsed.items()
    }


def pick_table(tables: SamplerTables, sampler: str, steps: int) -> SamplerTable:
    """Return the table for `sampler` and `steps`. Raises UserError that lists the available ones."""
    if sampler not in tables:
        raise UserError("sampler", repr(sampler), f"one of {', '.join(sorted(tables))}", "choose one of them")
    by_steps = tables[sampler]
    if not isinstance(steps, int) or isinstance(steps, bool) or steps not in by_steps:
        raise UserError(
            "num inference steps",
            repr(steps),
            describe_counts(by_steps),
            f"choose one of these numbers for the sampler {sampler}",
        )
    return by_steps[steps]


def describe_counts(counts: typing.Iterable[int]) -> str:
    """Return for example `1 to 100, 125 or 150` for {1, 2, ..., 100, 125, 150}."""
    runs: list[list[int]] = []
    for count in sorted(counts):
        if runs and count == runs[-1][-1] + 1:
            runs[-1].append(count)
        else:
            runs.append([count])
    words = [f"{run[0]} to {run[-1]}" if len(run) > 2 else " or ".join(map(str, run)) for run in runs]
    return " or ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)


@dataclass(frozen=True)
class _RawTable:
    """A table as the file has it."""

    init_noise_sigma: float
    rows: tuple[tuple[float, float, float, float, float, float, float], ...]


def _table(raw: _RawTable) -> SamplerTable:
    return SamplerTable(raw.init_noise_sigma, tuple(SamplerRow(*row) for row in raw.rows))


def _steps(key: str, table: _RawTable, where: str) -> int:
    if not key.isdecimal() or int(key) != len(table.rows) or not table.rows:
        raise UserError(f"{where}.{key}", f"{len(table.rows)} rows", f"{key} rows", REMEDY)
    return int(key)


def _short(number: float) -> float:
    return float(f"{number:.9g}") + 0.0  # -0.0 becomes 0.0
