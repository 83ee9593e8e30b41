"""The records that the repository ships."""

import json
from pathlib import Path

import pytest

from mlc_controlnet.passes.schedule.tuning_records import ABOUT_FILE, RECORDS_FILE, read_file

FAMILIES = sorted(file.parent for file in (Path(__file__).parents[2] / "tuning_db").glob("*/*/records.jsonl"))


@pytest.mark.parametrize("family", FAMILIES, ids=lambda folder: f"{folder.parent.name}-{folder.name}")
def test_every_record_applies_to_the_kernels_as_they_are(family: Path) -> None:
    """One of another version of a kernel would never be used again, and nobody would notice."""
    records, skipped = read_file(family / RECORDS_FILE)
    assert records and not skipped
    about = json.loads((family / ABOUT_FILE).read_text())
    assert about["family"] == family.name and about["runs"]
    assert len(about["records"]) == len(records)
