"""Keeps every trial of a search, so that a search that was stopped goes on where it was."""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from mlc_controlnet.files import append_line
from mlc_controlnet.kernels.tunable import Decisions
from mlc_controlnet.passes.schedule.tuning_records import write_decisions
from mlc_controlnet.tuning.judge import Trial


class Journal:
    """A file of trials, a line of JSON each. A line that cannot be read is a trial that is made again."""

    def __init__(self, file: Path, devices: Collection[str]) -> None:
        """Read `file`, if there is one: what was tried on exactly these devices."""
        self.file = file
        self.devices = set(devices)
        self._trials: dict[tuple[str, str], Trial] = {}
        self._finished: dict[str, tuple[int, float]] = {}  # operation -> trials after which it was settled, and gain
        for line in file.read_bytes().splitlines() if file.exists() else []:
            try:
                self._take(json.loads(line))
            except (ValueError, KeyError, TypeError, AttributeError):
                continue

    def find(self, key: str, decisions: Decisions) -> Trial | None:
        """Return the trial of an operation, if it was made."""
        return self._trials.get((key, write_decisions(decisions)))

    def trials_of(self, key: str) -> list[Trial]:
        """Return the trials of an operation, in order."""
        return [trial for (of, _), trial in self._trials.items() if of == key]

    def add(self, key: str, trial: Trial) -> None:
        """Write a trial, and wait until it is on the disk."""
        self._write(
            {"key": key, "decisions": dict(trial.decisions), "seconds": trial.seconds, "problem": trial.problem}
        )

    def finish(self, key: str, trials: int, ratio: float) -> None:
        """Write that the operation is settled after so many trials, and what the winner takes of the rules' time."""
        self._write({"key": key, "finished": trials, "ratio": ratio})

    def finished(self, key: str) -> tuple[int, float]:
        """Return after how many trials the operation was settled, 0 if it was not, and its ratio; 1: the rules win."""
        return self._finished.get(key, (0, 1.0))

    def _write(self, fields: dict[str, Any]) -> None:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        fields["devices"] = sorted(self.devices)
        append_line(self.file, json.dumps(fields) + "\n")
        self._take(fields)

    def _take(self, fields: dict[str, Any]) -> None:
        if set(fields["devices"]) != self.devices:
            return
        key = str(fields["key"])
        if "finished" in fields:
            self._finished[key] = int(fields["finished"]), float(fields["ratio"])
            return
        decisions = {str(name): int(value) for name, value in fields["decisions"].items()}
        seconds = {str(name): float(value) for name, value in fields["seconds"].items()}
        self._trials[key, write_decisions(decisions)] = Trial(decisions, seconds, str(fields["problem"]))
