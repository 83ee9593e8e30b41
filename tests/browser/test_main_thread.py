"""What the page's own thread does while the model loads and pictures are drawn, in the real Chromium."""

from typing import Any

import pytest

from mlc_controlnet.bundle.reader import Bundle
from tests.browser.conftest import Visit

LONGEST_MS = 50  # from there on browsers call a task long


@pytest.fixture(scope="module")
def facts(visit: Visit, linear_webgpu_bundle: Bundle) -> dict[str, Any]:
    return visit("watchTheMainThread", linear_webgpu_bundle, steps=8)


def test_the_model_is_compiled_and_runs_on_a_worker_never_on_the_page_s_thread(facts: dict[str, Any]):
    assert all(end.startswith("Done") for end in facts["ends"])
    page_s = facts["wasm"].pop("CrRendererMain")
    assert page_s == 0 < facts["wasm"]["DedicatedWorker thread"], facts["wasm"]


@pytest.mark.slow  # timed: a busy machine doubles the processor's time of a task, too
def test_no_task_blocks_the_page(facts: dict[str, Any]):
    longest, *_ = facts["tasks"]
    assert 1 < longest["processorMs"] <= LONGEST_MS, facts["tasks"]
