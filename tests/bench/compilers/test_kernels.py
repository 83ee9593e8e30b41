"""The sources of kernels that the makers' compilers take; no compiler is needed for that."""

import math
from pathlib import Path

import pytest
from tvm import relax

from mlc_controlnet.bench.compilers import kernels
from mlc_controlnet.compile.library import tvm_target
from mlc_controlnet.config import TARGETS
from mlc_controlnet.kernels.tunable import Decisions
from mlc_controlnet.passes.pipeline import Pipeline
from mlc_controlnet.passes.schedule.tuning_records import PREDICTED
from mlc_controlnet.tuning.records import append_record
from mlc_controlnet.tuning.tasks import find_tasks
from tests.tuning.operations import changed

SHAPES = {"x": (64, 32), "weight": (32, 128)}


def _threads(decisions: Decisions) -> int:
    return math.prod(decisions[name] for name in ("threads_x", "threads_y", "slices"))


def test_a_source_that_stands_in_for_webgpu_is_decided_by_its_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    builder = relax.BlockBuilder()
    x, weight = (relax.Var(name, relax.TensorType(shape, "float32")) for name, shape in SHAPES.items())
    with builder.function("main", [x, weight]):
        with builder.dataflow():
            y = builder.emit_output(relax.op.matmul(x, weight))
        builder.emit_func_output(y)
    module, target = builder.get(), tvm_target(TARGETS["cuda"])
    (task,) = find_tasks(Pipeline(target).run(module, until="lower"), target, {"main": 1})
    chosen = task.tunable.chosen
    other = next(one for one in task.tunable.space() if _threads(one) != _threads(chosen))

    monkeypatch.setattr(kernels, "TUNING_DB", tmp_path)
    _, (by_rules,) = kernels.write_kernels(module, "cuda")
    record = changed(operation=task.tunable.operation, decisions=other, how=PREDICTED, device="navi31")
    append_record(tmp_path / "webgpu" / "rdna3", record)
    _, (tuned,) = kernels.write_kernels(module, "cuda")
    assert (by_rules.facts.threads, tuned.facts.threads) == (_threads(chosen), _threads(other))
