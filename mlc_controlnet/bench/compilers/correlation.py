"""Compares predicted times with those that `bench kernels` measured on a real GPU."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlc_controlnet.bench.compilers.figures import CompilerFigures, find
from mlc_controlnet.bench.operations.figures import OURS, Figures, read_file
from mlc_controlnet.errors import UserError


@dataclass(frozen=True)
class Compared:
    """One operation: predicted and measured milliseconds of our kernels."""

    name: str
    predicted_ms: float
    measured_ms: float


def compare(predicted: CompilerFigures, measured: Figures) -> list[Compared]:
    """List the operations that both have, in the order of `predicted`, without rows of reduced size."""
    rows = {row.name: row for row in measured.rows if not row.is_reduced}
    return [
        Compared(row.name, row.microseconds / 1000, measured.median_ms(rows[row.name], OURS))
        for row in predicted.rows
        if row.name in rows and row.kernels
    ]


def rank_correlation(compared: Sequence[Compared]) -> float:
    """Return Spearman's rank correlation: 1 if the order is the same, -1 if it is reversed.

    Raises ValueError if there are less than three operations.
    """
    if len(compared) < 3:
        raise ValueError(f"{len(compared)} operations are predicted and measured: a rank correlation needs 3")
    predicted = _ranks([one.predicted_ms for one in compared])
    measured = _ranks([one.measured_ms for one in compared])
    mean = (len(compared) - 1) / 2
    together = sum((p - mean) * (m - mean) for p, m in zip(predicted, measured, strict=True))
    apart = sum((p - mean) ** 2 for p in predicted) * sum((m - mean) ** 2 for m in measured)
    return together / apart**0.5 if apart else 0.0


def describe(predicted: CompilerFigures, measured: Figures) -> str:
    """One line: how far the order of predicted times is that of the measured ones."""
    compared = compare(predicted, measured)
    return (
        f"{len(compared)} operations on {measured.device.name}, {measured.dtype}: rank correlation of the times "
        f"predicted for {predicted.chip} and measured {rank_correlation(compared):.2f}"
    )


def correlate(kept: Sequence[CompilerFigures], file: Path, chips: Sequence[str]) -> Iterator[str]:
    """Yield that line for the kept predictions of each chip, and the times of each operation.

    file: figures that `bench kernels --keep` wrote.

    Raises UserError if the file or the predictions are missing.
    """
    if not file.is_file():
        raise UserError(str(file), "no such file", "figures of `bench kernels --keep`", "measure on a GPU first")
    measured = read_file(file)
    for chip in chips:
        predicted = find(kept, OURS, chip, measured.dtype)
        if predicted is None:
            raise UserError("--chip", chip, f"kept predictions in {measured.dtype}", "run bench compilers --keep first")
        yield describe(predicted, measured)
        for one in compare(predicted, measured):
            yield f"  {one.name}: predicted {one.predicted_ms:.3f} ms, measured {one.measured_ms:.3f} ms"


def _ranks(values: Sequence[float]) -> list[float]:
    """Return the rank of each value from 0; equal values share the mean of theirs."""
    ordered = sorted(values)
    return [ordered.index(value) + (ordered.count(value) - 1) / 2 for value in values]
