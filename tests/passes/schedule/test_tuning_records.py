import json
import math
from pathlib import Path

import pytest

from mlc_controlnet.kernels.tunable import Decisions, Tunable
from mlc_controlnet.passes.schedule.tuning_records import (
    CUT_OFF,
    MEASURED,
    PREDICTED,
    RECORDS_FILE,
    NotARecord,
    Record,
    TuningRecords,
    keep_fastest,
    parse_line,
    read_file,
)
from tests.tuning.operations import RECORD, changed, made_up_tunable

A, B, C = ({"rows": rows, "columns": 16} for rows in (2, 4, 8))


def tunable(*space: dict[str, int]) -> Tunable:
    return made_up_tunable(space or (A, B, C))


def decided(records: TuningRecords, about: Tunable) -> Decisions | None:
    """What a build decides; None: as the rules."""
    best = records.best(about)
    return None if best is None else best.decisions


def write(folder: Path, *records: Record) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RECORDS_FILE).write_text("".join(record.to_line() for record in records))
    return folder


def test_a_record_survives_writing() -> None:
    assert parse_line(RECORD.to_line().encode()) == RECORD


def damaged(**fields: object) -> bytes:
    return (json.dumps({**json.loads(RECORD.to_line()), **fields}) + "\n").encode()


OLD_OPERATION = {**json.loads(RECORD.to_line())["operation"], "version": 0}
TRACE = b'[1, [[["GetSBlock", [], ["T_matmul_NT", "main"], ["b0"]]], []], [1e-3], {"kind": "llvm"}]\n'  # MetaSchedule's


@pytest.mark.parametrize(
    "line,reason",
    [
        (damaged(key="0" * 16), "key of another operation"),
        (damaged(operation=OLD_OPERATION), "another version of the kernel"),
        (damaged(operation={**OLD_OPERATION, "kernel": "winograd"}), "unknown kernel"),
        (damaged(seconds=0), "no record"),
        (damaged(seconds="fast"), "no record"),
        (damaged(decisions={"rows": 1.5}), "no record"),
        (damaged(decisions=None), "no record"),
        (damaged(how="guessed"), "neither measured nor predicted"),
        (RECORD.to_line().encode()[:-40], CUT_OFF),
        (b'{"key": }\n', "no JSON"),
        (b"[" * 100_000 + b"\n", "no JSON"),
        (TRACE, "no record"),
        (b"\xff\xfe\x00\x01\x80\n", "no text"),
        (b"\n", "no JSON"),
        (b"7\n", "no record"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_line_that_does_not_apply_is_skipped_with_its_reason(line: bytes, reason: str, tmp_path: Path) -> None:
    with pytest.raises(NotARecord, match=reason):
        parse_line(line)
    file = tmp_path / RECORDS_FILE
    file.write_bytes(RECORD.to_line().encode() + line)
    records, skipped = read_file(file)
    assert records == [RECORD]
    assert [(one.line, one.reason) for one in skipped] == [(2, reason)]


def test_infinite_and_missing_times_are_no_times() -> None:
    for value in (math.inf, math.nan, -1.0, True, 1e-300, 1e300, 10**400):
        with pytest.raises(NotARecord):
            parse_line(damaged(seconds=value))


def test_a_folder_without_records_and_one_that_is_none_have_none(tmp_path: Path) -> None:
    (tmp_path / "odd" / RECORDS_FILE).mkdir(parents=True)
    records = TuningRecords([tmp_path / "missing", tmp_path / "odd"])
    assert records.best(tunable()) is None
    assert records.count_skipped() == "1 Is a directory"


def test_the_faster_record_of_a_device_wins(tmp_path: Path) -> None:
    folder = write(tmp_path / "v3", changed(decisions=B, seconds=1.5e-6), changed(decisions=C, seconds=1.2e-6))
    assert decided(TuningRecords([folder]), tunable()) == C


def test_the_rules_stay_where_a_record_gains_nothing(tmp_path: Path) -> None:
    assert TuningRecords([write(tmp_path / "v3", changed(seconds=1.99e-6))]).best(tunable()) is None


def test_a_decision_outside_the_space_is_passed_over(tmp_path: Path) -> None:
    folder = write(tmp_path / "v3", changed(decisions=C, seconds=1e-7), changed(decisions=B, seconds=1e-6))
    records = TuningRecords([folder])
    assert decided(records, tunable(A, B)) == B
    assert decided(records, tunable(A)) is None
    assert records.count_skipped() == "2 outside of its kernel's space"


def test_what_is_measured_supersedes_what_was_predicted(tmp_path: Path) -> None:
    predicted, measured = changed(how=PREDICTED, seconds=1e-7), changed(decisions=C, seconds=1.5e-6)
    assert keep_fastest([predicted, measured]) == [measured]
    of_another_chip = changed(how=PREDICTED, seconds=1e-7, device="Rome")
    records = TuningRecords([write(tmp_path / "v3", of_another_chip, measured)])
    assert decided(records, tunable()) == measured.decisions
    assert measured.source == "measured on EPYC" and predicted.source == "predicted for EPYC"


@pytest.mark.parametrize(
    "of_rdna,of_ada,winner",
    [
        ({"b": 0.5, "c": 0.8}, {"b": 0.9, "c": 0.6}, "b"),  # 0.67 and 0.69 on the geometric mean
        ({"b": 0.5, "c": 0.8}, {"b": 1.06, "c": 0.9}, "c"),  # b loses too much on one
        ({"b": 0.5}, {"c": 0.5}, None),  # nobody knows how each is on the other
    ],
)
def test_several_families_are_served_by_the_geometric_mean(
    of_rdna: dict[str, float], of_ada: dict[str, float], winner: str | None, tmp_path: Path
) -> None:
    names = {"b": B, "c": C}
    folders = [
        write(tmp_path / family, *(changed(decisions=names[n], seconds=2e-6 * r, device=family) for n, r in of.items()))
        for family, of in (("rdna3", of_rdna), ("ada", of_ada))
    ]
    assert decided(TuningRecords(folders), tunable()) == (names[winner] if winner else None)
    assert decided(TuningRecords(folders[:1]), tunable()) == B


def test_a_choice_says_where_the_figures_of_all_families_are_from(tmp_path: Path) -> None:
    folders = [
        write(tmp_path / "rdna3", changed(decisions=B, seconds=1e-6, how=MEASURED, device="W7900")),
        write(tmp_path / "rdna2", changed(decisions=B, seconds=1.8e-6, how=PREDICTED, device="navi21")),
        write(tmp_path / "ada", changed(decisions=B, seconds=1.8e-6, how=PREDICTED, device="sm_89")),
    ]
    best = TuningRecords(folders).best(tunable())
    assert best is not None and best.decisions == B
    assert best.ratio == pytest.approx((0.5 * 0.9 * 0.9) ** (1 / 3))
    assert best.source == "measured on W7900, predicted for navi21 and sm_89"
    alone = TuningRecords(folders[1:2]).best(tunable())
    assert alone is not None and alone.source == "predicted for navi21"
