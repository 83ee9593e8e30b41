"""Shows tuning records: time before and after of each operation, and the lines that no build uses."""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from mlc_controlnet.passes.schedule.tuning_records import (
    RECORDS_FILE,
    Record,
    families_of,
    geometric_mean,
    keep_fastest,
    read_file,
)

HEAD = f"{'before us':>11} {'after us':>11} {'ratio':>6} {'GFLOP/s':>9} {'ceiling':>8}  operation"
Ceilings = Mapping[str, Mapping[str, float]]  # a chip's or its product's name -> dtype -> teraflops


@dataclass(frozen=True)
class Table:
    """What one device's records of a family say, the longest operation first.

    Attributes:
        name: the target and the family: "webgpu/rdna3".
        source: the device, and whether it was measured.
        mean: of the rules' time, the geometric mean.
    """

    name: str
    source: str
    records: tuple[Record, ...]

    @property
    def mean(self) -> float:
        """Return the geometric mean of the records' ratios."""
        return geometric_mean([record.ratio for record in self.records])


def tables_of(family: Path) -> list[Table]:
    """Read the records of a family that builds may use, a table for each device."""
    records, _ = read_file(family / RECORDS_FILE)
    kept = sorted(keep_fastest(records), key=lambda record: -record.rules_seconds)
    of_source: dict[str, list[Record]] = {}
    for record in kept:
        of_source.setdefault(record.source, []).append(record)
    return [Table(f"{family.parent.name}/{family.name}", source, tuple(of)) for source, of in of_source.items()]


def report_lines(folder: Path, ceilings: Ceilings) -> Iterator[str]:
    """Yield a table for each family below `folder`, the longest operation first.

    ceilings: what makers publish. Other devices have a dash in its place: what a processor can do depends on a clock
        that it does not tell.
    """
    for target in families_of(folder):
        for family in families_of(target):
            records, skipped = read_file(family / RECORDS_FILE)
            yield f"{target.name}/{family.name}: {len(records)} records, {len(skipped)} lines skipped"
            for table in tables_of(family):
                yield f"  {table.source}: {table.mean:.3f} of the rules' time, geometric mean of {len(table.records)}"
                yield f"  {HEAD}"
                yield from (f"  {_row(record, ceilings)}" for record in table.records)
            yield from (f"  skipped {one.file}:{one.line}: {one.reason}" for one in skipped)


def _row(record: Record, ceilings: Ceilings) -> str:
    share = share_of_ceiling(record, record.seconds, ceilings)
    shown = "-" if share is None else f"{100 * share:.0f} %"
    before, after = record.rules_seconds * 1e6, record.seconds * 1e6
    rate = _gigaflops(record, record.seconds)
    return f"{before:11.1f} {after:11.1f} {record.ratio:6.3f} {rate:9.0f} {shown:>8}  {record.operation.title}"


def share_of_ceiling(record: Record, seconds: float, ceilings: Ceilings) -> float | None:
    """Return which share of its device's published rate an operation reaches in that time; None if there is none."""
    dtype = "float16" if any(param.startswith("float16") for param in record.operation.params) else "float32"
    teraflops = next((of[dtype] for name, of in ceilings.items() if _is(record.device, name)), None)
    return None if teraflops is None else _gigaflops(record, seconds) / teraflops / 1e3


def _gigaflops(record: Record, seconds: float) -> float:
    return 2 * math.prod(record.operation.axes) / seconds / 1e9


def _is(device: str, name: str) -> bool:
    """Return whether a record's device has that name: "nvidia lovelace (NVIDIA GeForce RTX 4090)", but no laptop's."""
    return re.search(rf"\b{re.escape(name)}(?=\)| \(|$)", device) is not None
