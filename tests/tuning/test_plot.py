from pathlib import Path
from xml.etree import ElementTree

import pytest

from mlc_controlnet.cli.main import main
from mlc_controlnet.passes.schedule.tuning_records import PREDICTED
from mlc_controlnet.tuning.records import append_record
from tests.tuning.operations import OPERATION, RECORD, changed


@pytest.fixture
def records(tmp_path: Path) -> Path:
    append_record(tmp_path / "db" / "llvm" / "v3", RECORD)
    append_record(tmp_path / "db" / "webgpu" / "rdna3", changed(how=PREDICTED, device="navi31", seconds=1e-9))
    return tmp_path / "db"


def test_the_report_is_drawn_with_the_time_before_and_after_and_the_share_of_the_ceiling(records: Path) -> None:
    picture = records / "report.svg"
    assert main(["tune", "--report", str(picture), "--out", str(records)]) == 0
    drawn = ElementTree.parse(picture).getroot()
    texts = ["".join(text.itertext()) for text in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert texts.count(OPERATION.title) == 2
    assert "llvm/v3, measured on EPYC: 0.500 of the rules' time, geometric mean" in texts
    assert "0.500" in texts, "nobody publishes a ceiling of that processor"
    (of_chip,) = (text for text in texts if "ceiling" in text)
    ratio, shares = of_chip.split("; ")
    before, after = (int(word) for word in shares.split() if word.isdigit())
    assert float(ratio) == pytest.approx(1e-9 / RECORD.rules_seconds, abs=1e-3)
    assert 0 <= before < after


@pytest.mark.parametrize(
    ("name", "folder", "words"), [("report.jpg", "db", ".svg or .png"), ("a.svg", "empty", "no tuning record")]
)
def test_a_picture_that_cannot_be_is_one_clear_message(
    name: str, folder: str, words: str, records: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    assert records.name == "db"
    assert main(["tune", "--report", str(tmp_path / name), "--out", str(tmp_path / folder)]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / name).exists()
