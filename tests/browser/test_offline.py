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


def test_with_a_network_the_page_is_the_hosts(facts: dict[str, Any]):
    assert facts["placeholder"] == "A new page appears here"
    assert {"index.html", "bundle/manifest.json"} <= set(facts["requestsAgain"])


def test_the_model_is_kept_once_by_the_engine(facts: dict[str, Any]):
    assert sorted(name.split(" http")[0] for name in facts["caches"]) == ["mlc-controlnet", "mlc-controlnet page"]
    assert not [path for path in facts["requestsAgain"] if path.endswith((".bin", ".wasm"))]
