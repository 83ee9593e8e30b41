"""Read tuning records: what a search decided about a kernel on a device, a line of JSON each.

    tuning_db/webgpu/rdna3/records.jsonl     a folder for each family of GPUs, with about.json
    tuning_db/llvm/x86-64-v4/records.jsonl   a folder for each instruction set

A line that is not a record, or a record of another version of a kernel, is skipped, counted, and never an error. What a
record decides is checked again against the kernel's space before it is used.
"""

import dataclasses
import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlc_controlnet.kernels.tunable import Decisions, Operation, Tunable
from mlc_controlnet.kernels.tunable_kernels import VERSIONS

RECORDS_FILE, ABOUT_FILE = "records.jsonl", "about.json"
MEASURED, PREDICTED = "measured", "predicted"
WORTH_A_RECORD = 0.98  # of the rules' time: a smaller gain is noise
WORST_LOSS = 1.05  # of the rules' time, on any family of GPUs that a bundle is for
CUT_OFF = "cut off"
LEAST_SECONDS, MOST_SECONDS = 1e-9, 1e4  # of a call; a mean of ratios of other numbers might not be finite


@dataclass(frozen=True)
class Record:
    """A decision and what it costs on one device.

    Attributes:
        seconds, rules_seconds: of one call under the decision, and under the rules.
        how: MEASURED or PREDICTED.
        device: what was measured, or the chip that the prediction is for.
        decibels: agreement with the reference on random inputs.
        tvm: the release that compiled it.
        tvm_hash: that release's structural hash of the unscheduled PrimFunc, 16 hex digits; empty in records that were
            made before it was kept. It is for readers: no build asks for it, because other releases hash otherwise.
    """

    operation: Operation
    decisions: Decisions
    seconds: float
    rules_seconds: float
    how: str
    device: str
    decibels: float
    tvm: str
    tvm_hash: str = ""

    @property
    def ratio(self) -> float:
        """Return its time over the rules' time."""
        return self.seconds / self.rules_seconds

    @property
    def source(self) -> str:
        """Say where the figures are from."""
        return describe_sources([self])

    def to_line(self) -> str:
        """Return the record as a line of JSON, with the operation's key."""
        return json.dumps({"key": self.operation.key, **dataclasses.asdict(self)}) + "\n"


@dataclass(frozen=True)
class Choice:
    """What records say about a kernel.

    Attributes:
        ratio: of the rules' time, the geometric mean over the families.
        source: where the figures of all families are from.
    """

    decisions: Decisions
    ratio: float
    source: str


class NotARecord(ValueError):
    """A line that holds no record that applies; its text is the reason."""


def parse_line(line: bytes) -> Record:
    """Read a line. Raises NotARecord."""
    try:
        fields = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise NotARecord("no text") from error
    except (ValueError, RecursionError) as error:
        raise NotARecord("no JSON" if line.endswith(b"\n") else CUT_OFF) from error
    try:
        operation = _operation(fields["operation"])
        record = Record(
            operation=operation,
            decisions={str(name): _integer(value) for name, value in fields["decisions"].items()},
            seconds=_seconds(fields["seconds"]),
            rules_seconds=_seconds(fields["rules_seconds"]),
            how=str(fields["how"]),
            device=str(fields["device"]),
            decibels=float(fields["decibels"]),
            tvm=str(fields["tvm"]),
            tvm_hash=str(fields.get("tvm_hash", "")),
        )
        key = fields["key"]
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise NotARecord("no record") from error
    if record.how not in (MEASURED, PREDICTED):
        raise NotARecord("neither measured nor predicted")
    if operation.kernel not in VERSIONS:
        raise NotARecord("unknown kernel")
    if operation.version != VERSIONS[operation.kernel]:
        raise NotARecord("another version of the kernel")
    if key != operation.key:
        raise NotARecord("key of another operation")
    return record


def _operation(fields: dict[str, Any]) -> Operation:
    return Operation(
        kernel=str(fields["kernel"]),
        version=_integer(fields["version"]),
        axes=tuple(map(_integer, fields["axes"])),
        form=tuple(map(str, fields["form"])),
        params=tuple(map(str, fields["params"])),
    )


def _integer(value: object) -> int:
    if not isinstance(value, int):  # a bool is one
        raise TypeError(value)
    return value


def _seconds(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(value)
    if not LEAST_SECONDS <= value <= MOST_SECONDS:
        raise ValueError(value)
    return float(value)


@dataclass(frozen=True)
class Skipped:
    """A line that no build uses, and why."""

    file: Path
    line: int
    reason: str


def read_file(file: Path) -> tuple[list[Record], list[Skipped]]:
    """Read one file of records; none if there is none, or if it cannot be read."""
    try:
        lines = file.read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return [], []
    except OSError as error:
        return [], [Skipped(file, 0, error.strerror or "no file that can be read")]
    records, skipped = [], []
    for number, line in enumerate(lines, 1):
        try:
            records.append(parse_line(line))
        except NotARecord as error:
            skipped.append(Skipped(file, number, str(error)))
    return records, skipped


def keep_fastest(records: Iterable[Record]) -> list[Record]:
    """Keep of each operation, decision, device and way of judging the fastest; of a measured device, no predictions."""
    fastest: dict[tuple[str, str, str, str], Record] = {}
    measured = set()
    for record in records:
        place = record.operation.key, write_decisions(record.decisions), record.device, record.how
        if place not in fastest or record.ratio < fastest[place].ratio:
            fastest[place] = record
        if record.how == MEASURED:
            measured.add((record.operation.key, record.device))
    return [
        record for (key, _, device, how), record in fastest.items() if how == MEASURED or (key, device) not in measured
    ]


def write_decisions(decisions: Decisions) -> str:
    """Return decisions as text, the same for equal ones."""
    return json.dumps({name: int(value) for name, value in decisions.items()}, sort_keys=True)


def describe_sources(records: Iterable[Record]) -> str:
    """Say where the figures of some records are from: "measured on A, predicted for B and C"."""
    devices: dict[str, set[str]] = {"measured on": set(), "predicted for": set()}
    for record in records:
        devices["measured on" if record.how == MEASURED else "predicted for"].add(record.device)
    return ", ".join(f"{words} {' and '.join(sorted(names))}" for words, names in devices.items() if names)


def geometric_mean(ratios: Sequence[float]) -> float:
    """Return the mean of ratios."""
    return math.exp(sum(map(math.log, ratios)) / len(ratios))


class TuningRecords:
    """The records for one target: of an instruction set, or of several families of GPUs.

    Attributes:
        families: the records of each folder.
        skipped: lines that are none.
        outside: key and decisions of records that were asked for and are not in the kernel's space.
    """

    def __init__(self, folders: Iterable[Path]) -> None:
        """Read `folders`, each a family."""
        self.families: dict[str, list[Record]] = {}
        self.skipped: list[Skipped] = []
        self.outside: set[tuple[str, str]] = set()
        for folder in folders:
            records, skipped = read_file(folder / RECORDS_FILE)
            if records:
                self.families[folder.name] = keep_fastest(records)
            self.skipped += skipped
        self._of_key: dict[str, dict[str, list[Record]]] = defaultdict(lambda: defaultdict(list))
        for family, records in self.families.items():
            for record in records:
                self._of_key[record.operation.key][family].append(record)

    def best(self, tunable: Tunable) -> Choice | None:
        """Return the decision that wins on the geometric mean over the families; None: the rules' is as good.

        A family in which something is measured counts by its measurements alone. A decision is passed over if it is not
        in the kernel's space, if a family with records of this operation has no figure for it, or if it loses more than
        WORST_LOSS in a family.
        """
        families = self._of_key.get(tunable.operation.key)
        if families is None:
            return None
        ratios: dict[str, list[float]] = defaultdict(list)  # decisions -> of each family
        found: dict[str, list[Record]] = defaultdict(list)
        for records in families.values():
            is_measured = any(record.how == MEASURED for record in records)
            of_family: dict[str, list[Record]] = defaultdict(list)
            for record in records:
                if (record.how == MEASURED) == is_measured:
                    of_family[write_decisions(record.decisions)].append(record)
            for name, same in of_family.items():
                ratios[name].append(geometric_mean([record.ratio for record in same]))
                found[name] += same
        possible = {write_decisions(decisions) for decisions in tunable.space()}
        self.outside |= {(tunable.operation.key, name) for name in ratios if name not in possible}
        means = {
            name: geometric_mean(each)
            for name, each in ratios.items()
            if len(each) == len(families) and max(each) <= WORST_LOSS and name in possible
        }
        name = min(means, key=lambda name: (means[name], name), default="")
        if means.get(name, 1.0) > WORTH_A_RECORD:
            return None
        return Choice(found[name][0].decisions, means[name], describe_sources(found[name]))

    def count_skipped(self) -> str:
        """Say how many records are not used, by reason; empty if there are none such."""
        reasons = Counter(one.reason for one in self.skipped)
        if self.outside:
            reasons["outside of its kernel's space"] = len(self.outside)
        return ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))


def families_of(folder: Path) -> list[Path]:
    """Return the folders of a target that may hold records, by name."""
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
