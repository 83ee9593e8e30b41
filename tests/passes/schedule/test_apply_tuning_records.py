from pathlib import Path

import numpy as np
import pytest
import tvm
from tvm import relax
from tvm.target import Target

from mlc_controlnet.passes.schedule.apply_tuning_records import ApplyTuningRecords
from mlc_controlnet.tuning.records import write_records
from mlc_controlnet.tuning.search import Found
from mlc_controlnet.tuning.tasks import Task, list_candidates

LLVM = Target({"kind": "llvm", "num-cores": 2})


def make_linear(rows: int) -> tvm.IRModule:
    """x @ w.T as a fused but unscheduled PrimFunc named NT_matmul."""
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((rows, 32), "float32"))
    weight = relax.Var("weight", relax.TensorType((48, 32), "float32"))
    with builder.function("main", [x, weight]):
        with builder.dataflow():
            transposed = builder.emit(relax.op.permute_dims(weight))
            y = builder.emit_output(relax.op.matmul(x, transposed))
        builder.emit_func_output(y)
    transform = relax.transform
    with LLVM:
        return tvm.transform.Sequential(
            [
                transform.FuseTransposeMatmul(),
                transform.LegalizeOps(),
                transform.AnnotateTIROpPattern(),
                transform.FuseOps(),
                transform.FuseTIR(),
                transform.DeadCodeElimination(),
            ]
        )(builder.get())


@pytest.fixture
def records(tmp_path: Path) -> Path:
    """One record, for 16 rows."""
    function = make_linear(16)["NT_matmul"]
    schedule = next(iter(list_candidates(function, LLVM)))
    write_records(tmp_path, [Found(Task("NT_matmul", function, 40), schedule, 2e-6, 1e-6)], LLVM, "tune")
    return tmp_path


def apply(mod: tvm.IRModule, folder: Path) -> tvm.IRModule:
    with LLVM:
        return ApplyTuningRecords(folder)(mod)


def test_recorded_workload_is_scheduled_as_recorded_and_computes_the_same(records: Path) -> None:
    after = apply(make_linear(16), records)
    function = after["NT_matmul"]
    assert function.attrs["tirx.is_scheduled"] and "T.parallel" in function.script()
    random = np.random.default_rng(0)
    x, weight = random.standard_normal((16, 32), "float32"), random.standard_normal((48, 32), "float32")
    machine = relax.VirtualMachine(tvm.compile(after, LLVM), tvm.cpu())
    y = machine["main"](tvm.runtime.tensor(x), tvm.runtime.tensor(weight)).numpy()
    np.testing.assert_allclose(y, x @ weight.T, rtol=1e-5, atol=1e-5)


def test_record_is_found_under_another_name(records: Path) -> None:
    mod = make_linear(16)
    renamed = tvm.IRModule({"something_else": mod["NT_matmul"]})
    assert apply(renamed, records)["something_else"].attrs["tirx.is_scheduled"]


def test_another_shape_is_left_alone(records: Path) -> None:
    before = make_linear(8)
    tvm.ir.assert_structural_equal(apply(before, records), before)


def test_scheduled_function_is_left_alone(records: Path) -> None:
    mod = make_linear(16)
    before = tvm.IRModule({"NT_matmul": mod["NT_matmul"].with_attr("tirx.is_scheduled", True)})
    tvm.ir.assert_structural_equal(apply(before, records), before)


def test_folder_without_records_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"database_workload\.json"):
        apply(make_linear(16), tmp_path)
