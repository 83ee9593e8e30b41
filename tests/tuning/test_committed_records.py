"""The records that the repository ships."""

import json
from pathlib import Path

import pytest

from mlc_controlnet.passes.schedule.tuning_records import (
    ABOUT_FILE,
    RECORDS_FILE,
    WORST_LOSS,
    TuningRecords,
    families_of,
    read_file,
)
from tests.tuning.operations import made_up_tunable

FAMILIES = sorted(file.parent for file in (Path(__file__).parents[2] / "tuning_db").glob("*/*/records.jsonl"))


@pytest.mark.parametrize("family", FAMILIES, ids=lambda folder: f"{folder.parent.name}-{folder.name}")
def test_every_record_applies_to_the_kernels_as_they_are(family: Path) -> None:
    """One of another version of a kernel would never be used again, and nobody would notice."""
    records, skipped = read_file(family / RECORDS_FILE)
    assert records and not skipped
    about = json.loads((family / ABOUT_FILE).read_text())
    assert about["family"] == family.name and about["runs"]
    assert len(about["records"]) == len(records)


@pytest.mark.parametrize("target", sorted({family.parent for family in FAMILIES}), ids=lambda folder: folder.name)
def test_every_record_is_used_where_its_families_are_served_together(target: Path) -> None:
    """A winner in one family that another has no figure for would never be used."""
    gpus = target.name != "llvm"
    for families in [families_of(target)] if gpus else [[family] for family in families_of(target)]:
        together = TuningRecords(families)
        for record in (record for records in together.families.values() for record in records):
            of_family = {
                family: [one for one in records if one.operation == record.operation]
                for family, records in together.families.items()
            }
            same = [one for records in of_family.values() for one in records if one.decisions == record.decisions]
            figures = {family for family, records in of_family.items() if any(one in same for one in records)}
            assert figures == {family for family, records in of_family.items() if records}, record.operation.title
            best = together.best(made_up_tunable([record.decisions], record.operation))
            if max(one.ratio for one in same) <= 1:
                assert best is not None and best.ratio <= WORST_LOSS, record.operation.title
