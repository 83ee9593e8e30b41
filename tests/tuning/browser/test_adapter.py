import pytest

from mlc_controlnet.tuning.browser.adapter import Adapter, read_adapter
from tests.tuning.browser.stub_tab import ADAPTER


@pytest.mark.parametrize(
    ("vendor", "architecture", "family"),
    [
        ("nvidia", "lovelace", "ada"),
        ("nvidia", "ada-lovelace", "ada"),
        ("nvidia", "ampere", "ampere"),
        ("amd", "rdna-3", "rdna3"),
        ("amd", "gcn-5", "gcn-5"),
        ("intel", "gen-12lp", "intel-gen-12lp"),
        ("apple", "metal-3", "apple-metal-3"),
        ("google", "swiftshader", "google-swiftshader"),
        ("../..", "/etc", ""),
        ("NVIDIA", "", ""),
        ("", "lovelace", ""),
    ],
)
def test_an_architecture_is_a_family_and_a_family_is_a_folder(vendor: str, architecture: str, family: str) -> None:
    found = Adapter(vendor, architecture, "", "", False, ()).family
    assert found == family


def test_the_name_has_what_a_reader_of_records_wants() -> None:
    name = read_adapter(ADAPTER).name
    assert name == "nvidia lovelace (NVIDIA GeForce RTX 4090), shader-f16, timestamp-query"


def test_nothing_that_a_tab_sends_moves_a_terminals_cursor() -> None:
    adapter = read_adapter({**ADAPTER, "description": "\x1b[2J" + "x" * 1000})
    assert adapter.description == "[2J" + "x" * 97
