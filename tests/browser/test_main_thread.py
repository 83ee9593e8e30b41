"""What one task takes of the page's own thread while the model loads and pictures are drawn, in the real Chromium."""

from typing import Any

import pytest

from mlc_controlnet.bundle.reader import Bundle
from tests.browser.conftest import Visit

LONGEST_MS = 50  # from there on browsers call a task long
VISITS = 3


@pytest.fixture(scope="module")
def visits(visit: Visit, linear_webgpu_bundle: Bundle) -> list[dict[str, Any]]:
    """Up to the first one without a long task: a disturbed machine adds to a task's time, and nothing takes from it."""
    made: list[dict[str, Any]] = []
    while len(made) < VISITS and (not made or longest_ms(made[-1]) > LONGEST_MS):
        made.append(visit("watchTheMainThread", linear_webgpu_bundle, steps=8))
    return made


def longest_ms(facts: dict[str, Any]) -> float:
    longest, *_ = facts["tasks"]
    return longest["processorMs"]


def test_no_task_blocks_the_page_in_every_visit(visits: list[dict[str, Any]]):
    """By the processor's time: other work on the machine counts for little."""
    assert all(end.startswith("Done") for facts in visits for end in facts["ends"])
    assert 1 < longest_ms(visits[-1]) <= LONGEST_MS, [facts["tasks"] for facts in visits]
