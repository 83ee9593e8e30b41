from pathlib import Path

from mlc_controlnet.tuning.journal import Journal
from mlc_controlnet.tuning.judge import Trial

FAST, WRONG = Trial({"rows": 4}, {"EPYC": 1e-6}), Trial({"rows": 8}, {}, "differs from the reference: 3 dB")


def test_trials_are_there_after_a_restart(tmp_path: Path) -> None:
    file = tmp_path / "below" / "trials.jsonl"
    journal = Journal(file, ["EPYC"])
    journal.add("k", FAST)
    journal.add("k", WRONG)
    journal.add("other", FAST)
    journal.finish("other", 64, 0.8)
    again = Journal(file, ["EPYC"])
    assert again.trials_of("k") == [FAST, WRONG]
    assert again.find("k", {"rows": 4}) == FAST and again.find("k", {"rows": 2}) is None
    assert (again.finished("k"), again.finished("other")) == ((0, 1.0), (64, 0.8))


def test_a_line_that_was_cut_off_costs_one_trial(tmp_path: Path) -> None:
    file = tmp_path / "trials.jsonl"
    Journal(file, ["EPYC"]).add("k", FAST)
    Journal(file, ["EPYC"]).add("k", WRONG)
    file.write_bytes(file.read_bytes()[:-20])
    journal = Journal(file, ["EPYC"])
    assert journal.trials_of("k") == [FAST]
    journal.add("k", WRONG)
    assert Journal(file, ["EPYC"]).trials_of("k") == [FAST, WRONG]


def test_what_another_device_did_does_not_count(tmp_path: Path) -> None:
    file = tmp_path / "trials.jsonl"
    journal = Journal(file, ["EPYC"])
    journal.add("k", FAST)
    journal.add("k", WRONG)
    journal.finish("k", 64, 1.0)
    other = Journal(file, ["EPYC", "Xeon"])
    assert other.trials_of("k") == [] and other.finished("k")[0] == 0
    assert Journal(file, ["EPYC"]).finished("k") == (64, 1.0)
