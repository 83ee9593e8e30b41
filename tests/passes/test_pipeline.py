"""The phases run in order, each once, and only as far as their results are asked for."""

from pathlib import Path

import pytest
import tvm
from tvm import relax

from mlc_controlnet.compile.library import tvm_target
from mlc_controlnet.config import TARGETS
from mlc_controlnet.passes.pipeline import Pipeline

PHASES = ["clean", "replace", "lower", "schedule", "check", "plan"]


@pytest.fixture
def addition() -> tvm.IRModule:
    builder = relax.BlockBuilder()
    x, y = (relax.Var(name, relax.TensorType((6, 4), "float32")) for name in "xy")
    with builder.function("main", [x, y]):
        with builder.dataflow():
            total = builder.emit_output(relax.op.add(x, y))
        builder.emit_func_output(total)
    return builder.get()


@pytest.mark.parametrize("target", ["webgpu", "llvm"])
def test_a_walk_passes_every_phase_once(target: str, addition: tvm.IRModule) -> None:
    after = list(Pipeline(tvm_target(TARGETS[target])).walk(addition))
    assert [phase for phase, _ in after] == PHASES
    assert after[0][1] is addition
    assert "alloc_storage" in after[-1][1].script()


def test_phases_behind_the_one_asked_for_do_not_run(addition: tvm.IRModule, tmp_path: Path) -> None:
    pipeline = Pipeline(tvm_target(TARGETS["llvm"]), dump_ir=tmp_path)
    lowered = pipeline.run(addition, until="lower")
    assert [v.name_hint for v, f in lowered.functions_items() if isinstance(f, tvm.tirx.PrimFunc)] == ["add"]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["0-clean.py", "1-replace.py", "2-lower.py"]


def test_an_unknown_phase_is_an_error(addition: tvm.IRModule) -> None:
    with pytest.raises(KeyError, match="linked"):
        Pipeline(tvm_target(TARGETS["llvm"])).run(addition, until="linked")
