"""What one task takes of the page's own thread while the model loads and pictures are drawn, in the real Chromium."""

from typing import Any

import pytest

from mlc_controlnet.bundle.reader import Bundle
from tests.browser.conftest import Visit

LONGEST_MS = 50  # from there on browsers call a task long


@pytest.fixture(scope="module")
def facts(visit: Visit, linear_webgpu_bundle: Bundle) -> dict[str, Any]:
    return visit("watchTheMainThread", linear_webgpu_bundle, steps=8)


def test_no_task_blocks_the_page(facts: dict[str, Any]):
    """By the processor's time: other work on the machine does not count."""
    assert all(end.startswith("Done") for end in facts["ends"])
    longest, *_ = facts["tasks"]
    assert 1 < longest["processorMs"] <= LONGEST_MS, facts["tasks"]
