import dataclasses
from pathlib import Path

from mlc_controlnet.capture import capture
from mlc_controlnet.checkpoint import Checkpoint
from mlc_controlnet.passes.pipeline import clean
from tests.kernels.execute_all import Outcome, execute_all, schedule


def test_every_kernel_of_a_component_computes_what_its_definition_says(checkpoint: Checkpoint, tmp_path: Path) -> None:
    alone = dataclasses.replace(checkpoint, components=("control_embedding",))
    scheduled = schedule(clean(capture(alone, "float32")).module)
    outcomes = list(execute_all(scheduled, tmp_path))
    assert len(outcomes) > 4
    assert not list(execute_all(scheduled, tmp_path, known=[outcome.name for outcome in outcomes]))
    assert all(outcome.passes("float32") for outcome in outcomes), "\n".join(map(str, outcomes))


def test_a_kernel_that_differs_or_is_not_finite_fails() -> None:
    assert not Outcome("add", (2,), 59.9, finite=True).passes("float32")
    assert not Outcome("softmax", (2,), None, finite=False).passes("float16")
