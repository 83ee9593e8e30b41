"""Shows tuning records: time before and after of each operation, and the lines that no build uses."""

import math
import re
from collections.abc import Iterator, Mapping
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


def report_lines(folder: Path, ceilings: Ceilings) -> Iterator[str]:
    """Yield a table for each family below `folder`, the longest operation first.

    ceilings: what makers publish. Other devices have a dash in its place: what a processor can do depends on a clock
        that it does not tell.
    """
    for target in families_of(folder):
        for family in families_of(target):
            records, skipped = read_file(family / RECORDS_FILE)
            yield f"{target.name}/{family.name}: {len(records)} records, {len(skipped)} lines skipped"
            kept = sorted(keep_fastest(records), key=lambda record: -record.rules_seconds)
            for source in dict.fromkeys(record.source for record in kept):
                of_source = [record for record in kept if record.source == source]
                mean = geometric_mean([record.ratio for record in of_source])
                yield f"  {source}: {mean:.3f} of the rules' time, geometric mean of {len(of_source)}"
                yield f"  {HEAD}"
                yield from (f"  {_row(record, ceilings)}" for record in of_source)
            yield from (f"  skipped {one.file}:{one.line}: {one.reason}" for one in skipped)


def _row(record: Record, ceilings: Ceilings) -> str:
    operation = record.operation
    gigaflops = 2 * math.prod(operation.axes) / record.seconds / 1e9
    dtype = "float16" if any(param.startswith("float16") for param in operation.params) else "float32"
    teraflops = next((of[dtype] for name, of in ceilings.items() if _is(record.device, name)), None)
    share = "-" if teraflops is None else f"{gigaflops / teraflops / 10:.0f} %"
    before, after = record.rules_seconds * 1e6, record.seconds * 1e6
    return f"{before:11.1f} {after:11.1f} {record.ratio:6.3f} {gigaflops:9.0f} {share:>8}  {operation.title}"


def _is(device: str, name: str) -> bool:
    """Return whether a record's device has that name: "nvidia lovelace (NVIDIA GeForce RTX 4090)", but no laptop's."""
    return re.search(rf"\b{re.escape(name)}(?=\)| \(|$)", device) is not None
