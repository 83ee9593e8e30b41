"""What a benchmark measured, as it is kept: raw times, with the device, the versions and the command that gave them."""

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
    """Of one contestant at one row, in milliseconds.

    Attributes:
        load_ms: until it could be called. What all rows share, such as a compiled library, counts in the first.
        first_call_ms: with what comes only then: compilation, for a peer.
        wall_ms: a call in each round, until the device had done it.
        device_ms: the same on the device's own clock, its passes summed; none where it has no clock.
    """

    load_ms: float
    first_call_ms: float
    wall_ms: tuple[float, ...]
    device_ms: tuple[float, ...]


@dataclass(frozen=True)
class Ceiling:
    """The most that was measured on a device: of a large matrix product, and of a large copy, read and written."""

    gflops: float
    gigabytes_per_second: float


@dataclass(frozen=True)
class Row:
    """One computation.

    Attributes:
        is_reduced: its size is smaller than Stable Diffusion's: the device is slow.
        gflop, megabytes: as bench/work.py counts them.
        ceiling: of the run that measured it: rows may be measured on different days.
        times: contestant -> its times; one of them is `ours`.
        ours_db: how near our outputs were to torch's in float32: signal to noise.
        note: what must be known of a peer's times; mostly nothing.
    """

    name: str
    title: str
    is_reduced: bool
    gflop: float
    megabytes: float
    ceiling: Ceiling
    times: Mapping[str, Timing]
    ours_db: float
    note: str

    @property
    def best_ms(self) -> float:
        """Nothing that does the row's arithmetic and moves its memory is faster."""
        arithmetic, memory = self.gflop / self.ceiling.gflops, self.megabytes / 1000 / self.ceiling.gigabytes_per_second
        return 1000 * max(arithmetic, memory)


@dataclass(frozen=True)
class Device:
    """Attributes:
    kind: `GPU`, `software GPU` (a GPU's interface, computed on the processor) or `processor`.
    host: what our code ran in.
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
        clock: `device` where rows are compared by the device's clock, `wall` where by the host's.
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
        """`kernels-llvmpipe-chromium-float32.json`: the device and host without what a newer version would change."""
        words = " ".join([self.subject, *self.device.short_names, self.dtype])
        return re.sub(r"[^a-z0-9]+", "-", words.lower()) + ".json"

    @property
    def ceiling(self) -> Ceiling:
        """Of the latest run, whose first row it is measured with."""
        return self.rows[0].ceiling

    @property
    def peers(self) -> tuple[str, ...]:
        """The names of the contestants that ours is compared with."""
        return tuple(name for name in self.rows[0].times if name != OURS)

    def median_ms(self, row: Row, contestant: str) -> float:
        """Return the median time of one contestant's call at `row`."""
        return median_ms(row.times[contestant], self.clock)

    def ratio(self, row: Row, peer: str) -> float:
        """How many times as fast as the peer we are."""
        return self.median_ms(row, peer) / self.median_ms(row, OURS)

    def gflops(self, row: Row) -> float:
        """Return our rate at `row`, in GFLOP/s."""
        return 1000 * row.gflop / self.median_ms(row, OURS)

    def share(self, row: Row) -> float:
        """Of the measured ceiling, 0 to about 1."""
        return row.best_ms / self.median_ms(row, OURS)


def median_ms(timing: Timing, clock: str) -> float:
    """Return the median time of a call on the device's clock or, for any other `clock`, on the wall's."""
    return statistics.median(timing.device_ms if clock == "device" else timing.wall_ms)


def write_figures(figures: Figures, order: Sequence[str] = (), folder: Path = FOLDER) -> Path:
    """Keep `figures`. Of what was kept for the same subject, device and dtype, rows that were not measured again stay
    if nothing else changed: slow devices can be measured a part at a time.

    order: names of rows; those that are not among them come first.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / figures.file_name
    before = _read(path) if path.exists() else figures
    if (before.device, before.versions, before.clock) == (figures.device, figures.versions, figures.clock):
        rows = {row.name: row for row in before.rows} | {row.name: row for row in figures.rows}
        place = {name: number for number, name in enumerate(order)}
        in_order = sorted(rows.values(), key=lambda row: place.get(row.name, -1))
        figures = dataclasses.replace(figures, rows=tuple(in_order))
    return write_text(path, json.dumps(to_json(figures), indent=1) + "\n")


def _read(path: Path) -> Figures:
    return from_json(Figures, json.loads(path.read_bytes()), path.name)


def read_figures(folder: Path = FOLDER) -> list[Figures]:
    """All that are kept, real devices first. Raises UserError for a file that is damaged."""
    kept = [_read(path) for path in sorted(folder.glob("*.json"))]
    kinds = ("GPU", "processor", "software GPU")
    return sorted(kept, key=lambda figures: (kinds.index(figures.device.kind), figures.file_name))
