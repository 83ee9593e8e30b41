import json

import pytest

from mlc_controlnet.bundle.sampler_table import (
    SamplerRow,
    SamplerTable,
    describe_counts,
    pick_table,
    tables_from_json,
    tables_to_json,
)
from mlc_controlnet.errors import UserError

ROW = SamplerRow(999.0, 0.5, 1 / 3, -2.0, 0.25, 0.75, 0.0)
TABLES = {"ddim": {1: SamplerTable(14.5, (ROW,)), 2: SamplerTable(14.5, (ROW, ROW))}}


def test_tables_survive_the_way_through_their_file_to_nine_digits():
    data = json.dumps(tables_to_json(TABLES)).encode()
    read = tables_from_json(data, "samplers.json")
    assert read["ddim"][2].rows[0].x0_sample == pytest.approx(1 / 3, rel=1e-9)
    assert read["ddim"][1].init_noise_sigma == 14.5
    assert tables_to_json(read) == tables_to_json(TABLES)


def test_a_table_with_a_row_too_few_is_refused():
    raw = tables_to_json(TABLES)
    raw["ddim"]["2"]["rows"].pop()
    with pytest.raises(UserError, match=r"ddim.2: got 1 rows, wanted 2 rows"):
        tables_from_json(json.dumps(raw).encode(), "samplers.json")


@pytest.mark.parametrize("data", [b"", b"[]", b'{"ddim": {"1": {"rows": [[1, 2]], "init_noise_sigma": 1}}}'])
def test_what_is_no_table_is_a_users_error(data):
    with pytest.raises(UserError, match=r"samplers.json"):
        tables_from_json(data, "samplers.json")


@pytest.mark.parametrize("steps", [0, -1, 3, 1001, 2.0, True])
def test_an_unknown_number_of_steps_lists_what_there_is(steps):
    with pytest.raises(UserError, match=f"num inference steps: got {steps}, wanted 1 or 2"):
        pick_table(TABLES, "ddim", steps)


def test_an_unknown_sampler_lists_what_there_is():
    with pytest.raises(UserError, match=r"sampler: got 'plms', wanted one of ddim"):
        pick_table(TABLES, "plms", 1)


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ([*range(1, 101), 125, 150], "1 to 100, 125 or 150"),
        ([1], "1"),
        ([1, 2, 5], "1 or 2 or 5"),
        ([1, 2, 3], "1 to 3"),
    ],
)
def test_counts_are_described_as_ranges(counts, words):
    assert describe_counts(counts) == words
