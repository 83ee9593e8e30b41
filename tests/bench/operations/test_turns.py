"""Our library and its peers in turns: who is alive when, what a failing peer leaves, and what is reported."""

import statistics
from functools import partial
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest

from mlc_controlnet.bench.operations import contestant
from mlc_controlnet.bench.operations.case_files import CaseFiles, read_arrays, write_arrays
from mlc_controlnet.bench.operations.contestant import Entrant
from mlc_controlnet.bench.operations.figures import OURS
from mlc_controlnet.bench.operations.turns import take_turns
from mlc_controlnet.bench.own_process import ProcessFailed
from tests.bench.operations.made_up_sides import OUTPUT, adding, dying, failing


@pytest.fixture
def files(tmp_path: Path) -> CaseFiles:
    made = CaseFiles(tmp_path, "case")
    write_arrays(made.reference, [OUTPUT])
    return made


def test_arrays_come_back_as_they_were(tmp_path: Path) -> None:
    arrays = [np.float16([[1, 2]]).T, np.float32(3.0), np.arange(3, dtype=np.int32)]
    write_arrays(tmp_path / "arrays", arrays)
    for wanted, got in zip(arrays, read_arrays(tmp_path / "arrays"), strict=True):
        assert got.dtype == wanted.dtype and got.shape == wanted.shape and np.array_equal(got, wanted)
        assert got.flags.c_contiguous


def test_peers_take_turns_with_ours_and_a_failing_one_costs_its_own_times_only(
    files: CaseFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contestant, "TURN_SECONDS", 0.0)
    log = tmp_path / "log"
    wrong, no_number = OUTPUT + 1, np.full_like(OUTPUT, np.nan)
    peers = [
        Entrant("large", partial(adding, "large", log, held_mib=72)),
        Entrant("mortal", partial(dying, 3)),
        Entrant("failing", failing),
        Entrant("wrong", partial(adding, "wrong", log, wrong)),
        Entrant("no number", partial(adding, "no number", log, no_number)),
        Entrant("small", partial(adding, "small", log)),
    ]
    outcome = take_turns(Entrant(OURS, partial(adding, OURS, log)), peers, 3, files, least_db=60.0)

    assert outcome.ours_db == 200
    assert list(outcome.times) == [OURS, "large", "small"]
    assert outcome.failures == (
        "mortal was ended by SIGKILL, as the system does where memory is short",
        "failing failed: MemoryError: 16 GB wanted",
        "wrong computed something else: 10 dB against torch, wanted 60",
        "no number computed something else: -inf dB against torch, wanted 60",
    )
    large, small = outcome.times["large"], outcome.times["small"]
    assert len(large.wall_ms) == len(large.ours_wall_ms) == len(small.ours_wall_ms) == 3
    assert outcome.times[OURS].wall_ms == large.ours_wall_ms + small.ours_wall_ms
    assert statistics.median(large.wall_ms) > 0 and large.first_call_ms > 0
    assert 64 < large.peak_memory_mib - small.peak_memory_mib < 90
    assert 0 < outcome.times[OURS].peak_memory_mib < 64  # numpy, and no torch
    # Each turn is a call that wakes the threads and one that is timed; before the first, a peer calls three times.
    turns = [(name, len(list(calls))) for name, calls in groupby(log.read_text().splitlines())]
    assert turns[:7] == [("ours 0", 3), ("large large", 3), *[("ours 0", 2), ("large large", 2)] * 3][:7]


def test_the_end_of_ours_ends_the_case(files: CaseFiles, tmp_path: Path) -> None:
    with pytest.raises(ProcessFailed, match=r"^ours was ended by SIGKILL"):
        take_turns(
            Entrant(OURS, partial(dying, 4)),
            [Entrant("peer", partial(adding, "peer", tmp_path / "log"))],
            9,
            files,
            60.0,
        )


def test_outputs_of_ours_that_are_not_torchs_are_an_error(files: CaseFiles, tmp_path: Path) -> None:
    ours = Entrant(OURS, partial(adding, OURS, tmp_path / "log", np.full_like(OUTPUT, np.nan)))
    with pytest.raises(RuntimeError, match="case: our outputs differ from torch's: -inf dB, wanted 60"):
        take_turns(ours, [], 1, files, 60.0)
