"""The page without a network: what one visit loaded is enough for the next."""

from typing import Any

import pytest

from mlc_controlnet.bundle.reader import Bundle
from tests.browser.conftest import Visit


@pytest.fixture(scope="module")
def facts(visit: Visit, linear_webgpu_bundle: Bundle) -> dict[str, Any]:
    return visit("loadWithoutANetwork", linear_webgpu_bundle)


def test_without_a_network_the_page_opens_and_draws(facts: dict[str, Any]):
    assert facts["end"].startswith("Done")
    assert facts["requests"] == []


def test_where_the_host_is_down_the_kept_page_opens_whole(facts: dict[str, Any]):
    assert facts["kept"]["description"].startswith("Draw a ring")
    assert len(versions(facts["kept"]["caches"])) == 1  # the host's new version, whose page is missing, is not kept


def test_with_a_network_the_page_is_the_hosts(facts: dict[str, Any]):
    assert facts["newer"]["description"] == "The second page"
    assert {"index.html", "bundle/manifest.json"} <= set(facts["requestsAgain"])


def test_the_version_before_is_kept_for_tabs_that_have_it_open(facts: dict[str, Any]):
    assert versions(facts["newer"]["caches"]) == [*versions(facts["kept"]["caches"]), "second"]
    assert facts["earlierEntry"] == 200  # which the host has no longer


def test_earlier_versions_are_dropped(facts: dict[str, Any]):
    assert facts["newest"]["description"] == "The third page"
    assert versions(facts["newest"]["caches"]) == ["second", "third"]


def test_the_model_is_kept_once_by_the_engine(facts: dict[str, Any]):
    assert [name.split(" http")[0] for name in facts["newest"]["caches"]].count("mlc-controlnet") == 1
    assert not [path for path in facts["requestsAgain"] if path.endswith((".bin", ".wasm"))]


def versions(caches: list[str]) -> list[str]:
    """Of the page, in the order in which they were kept."""
    return [name.split()[-1] for name in caches if name.startswith("mlc-controlnet page ")]
