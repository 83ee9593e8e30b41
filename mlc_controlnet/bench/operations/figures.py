"""The results of one benchmark run: raw times with the device, the versions and the command that produced them."""

import dataclasses
import json
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlc_controlnet.bundle.json_record import from_json, to_json
from mlc_controlnet.files import write_text

FOLDER = Path(__file__).parents[1] / "figures"
OURS = "ours"
KERNELS, MODEL = "kernels", "model"


@dataclass(frozen=True)
class Timing:
    """Times of one contestant at one row, in milliseconds.

    Attributes:
        load_ms: time until the first call is possible. Work that all rows share, such as loading a compiled library,
            counts in the first row.
        first_call_ms: time of the first call, which includes compilation for some peers.
        wall_ms: time of one call in each round, until the device has finished, on the host's clock.
        device_ms: the same on the device's own clock, summed over its passes; empty if the device has no clock.
        ours_wall_ms: `wall_ms` of our library in the same rounds, for a peer that took turns with ours alone; empty
            where all contestants took turns. Ours has the turns of all its rounds in `wall_ms`.
        peak_memory_mib: largest resident set of the contestant's process, in MiB: on a GPU the host's part only. 0
            where contestants share a process.
    """

    load_ms: float
    first_call_ms: float
    wall_ms: tuple[float, ...]
    device_ms: tuple[float, ...]
    ours_wall_ms: tuple[float, ...] = ()
    peak_memory_mib: float = 0.0


@dataclass(frozen=True)
class ReferenceRates:
    """Rates that this device reached in the same run, to compare other rows with.

    Attributes:
        gflops: arithmetic of a large matmul, by the fastest contestant.
        gigabytes_per_second: memory traffic of a large copy, bytes read plus bytes written.
    """

    gflops: float
    gigabytes_per_second: float


@dataclass(frozen=True)
class Row:
    """One computation.

    Attributes:
        is_reduced: whether it is smaller than in Stable Diffusion, because the device is slow.
        gflop, megabytes: the amount of work, as work.py counts it.
        reference: rates of the run that measured this row; rows may be measured on different days.
        times: contestant -> its times; one of them is `ours`. A peer that failed at this row is missing.
        ours_db: signal-to-noise ratio of our outputs against torch's in float32.
        note: a warning about a peer's times, or why they are missing; usually empty.
    """

    name: str
    title: str
    is_reduced: bool
    gflop: float
    megabytes: float
    reference: ReferenceRates
    times: Mapping[str, Timing]
    ours_db: float
    note: str

    @property
    def reference_ms(self) -> float:
        """Time of the row's arithmetic at the rate of a large matmul, or of its memory traffic at the rate of a large
        copy: the longer of the two."""
        arithmetic = self.gflop / self.reference.gflops
        memory = self.megabytes / 1000 / self.reference.gigabytes_per_second
        return 1000 * max(arithmetic, memory)


@dataclass(frozen=True)
class Device:
    """The device and host of a run.

    Attributes:
        kind: `GPU`, `software GPU` (the processor computes what a GPU would) or `processor`.
        host: the program that ran our code.
    """

    kind: str
    name: str
    host: str
    processor: str

    @property
    def short_names(self) -> tuple[str, str]:
        """`llvmpipe`, `Chromium`: the device and its host, without versions and details."""
        device = re.split(r"[:,(]", self.name)[0].strip()
        return tuple(re.sub(r" \d+(\.\d+)+$", "", name) for name in (device, self.host))  # type: ignore[return-value]


@dataclass(frozen=True)
class Figures:
    """One run of the command.

    Attributes:
        subject: KERNELS or MODEL.
        clock: `device` if rows are compared by the device's clock, `wall` if by the host's.
        rows: the first is a large matmul, which gives the reference rate of arithmetic.
    """

    subject: str
    command: str
    date: str
    device: Device
    dtype: str
    versions: Mapping[str, str]
    clock: str
    rows: tuple[Row, ...]

    @property
    def file_name(self) -> str:
        """`kernels-llvmpipe-chromium-float32.json`: no versions, so that a newer driver replaces the file."""
        words = " ".join([self.subject, *self.device.short_names, self.dtype])
        return re.sub(r"[^a-z0-9]+", "-", words.lower()) + ".json"

    @property
    def peers(self) -> tuple[str, ...]:
        """Names of the contestants that we are compared with."""
        return tuple(dict.fromkeys(name for row in self.rows for name in row.times if name != OURS))

    def median_ms(self, row: Row, contestant: str) -> float:
        """Return the median time of one call, on the clock of this run."""
        return median_ms(row.times[contestant], self.clock)

    def ratio(self, row: Row, peer: str) -> float:
        """Return how many times as fast as the peer our library is, by turns of the same rounds."""
        beside = row.times[peer].ours_wall_ms
        return self.median_ms(row, peer) / (statistics.median(beside) if beside else self.median_ms(row, OURS))

    def ratios(self, peer: str) -> dict[str, float]:
        """Return the ratio of each row at which the peer has times, without the large matmul's, by the row's name."""
        return {row.name: self.ratio(row, peer) for row in self.rows[1:] if peer in row.times}

    def gflops(self, row: Row) -> float:
        """Return the rate of our library's arithmetic in GFLOP/s."""
        return 1000 * row.gflop / self.median_ms(row, OURS)

    def relative_rate(self, row: Row) -> float:
        """Return our library's rate divided by the reference rate.

        It can exceed 1: the large matmul is no upper bound where small operands stay in caches.
        """
        return row.reference_ms / self.median_ms(row, OURS)


def median_ms(timing: Timing, clock: str) -> float:
    """Return the median time of one call. clock: `device` or `wall`."""
    return statistics.median(timing.device_ms if clock == "device" else timing.wall_ms)


def write_figures(figures: Figures, order: Sequence[str] = (), folder: Path = FOLDER) -> Path:
    """Write `figures` into `folder` and return the file's path.

    A slow device can be measured in parts. If the file of this subject, device and dtype exists and was measured with
    the same versions and clock, its other rows stay.

    order: names of rows in the order to write them; rows that it does not name come first.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / figures.file_name
    before = read_file(path) if path.exists() else figures
    if (before.device, before.versions, before.clock) == (figures.device, figures.versions, figures.clock):
        rows = {row.name: row for row in before.rows} | {row.name: row for row in figures.rows}
        place = {name: number for number, name in enumerate(order)}
        in_order = sorted(rows.values(), key=lambda row: place.get(row.name, -1))
        figures = dataclasses.replace(figures, rows=tuple(in_order))
    write_text(path, json.dumps(to_json(figures), indent=1) + "\n")
    return path


def read_figures(folder: Path = FOLDER) -> list[Figures]:
    """Read all figures in `folder`, real GPUs first. Raises UserError for a damaged file."""
    kept = [read_file(path) for path in sorted(folder.glob("*.json"))]
    kinds = ("GPU", "processor", "software GPU")
    return sorted(kept, key=lambda figures: (kinds.index(figures.device.kind), figures.file_name))


def read_file(path: Path) -> Figures:
    """Read one file. Raises UserError if it is damaged."""
    return from_json(Figures, json.loads(path.read_bytes()), path.name)
