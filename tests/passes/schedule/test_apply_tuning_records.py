import dataclasses
from pathlib import Path

import numpy as np
import pytest
import tvm
from tvm import relax

from mlc_controlnet.compile.library import describe_tuned
from mlc_controlnet.kernels.layer_norm_cpu import Tile, build
from mlc_controlnet.kernels.marks import OPAQUE, computed_by, is_scheduled, mark_scheduled, pattern_of, tuned_from
from mlc_controlnet.kernels.registers_cpu import registers_of
from mlc_controlnet.passes.schedule.apply_tuning_records import ApplyTuningRecords
from mlc_controlnet.passes.schedule.tuning_records import RECORDS_FILE, TuningRecords
from tests.tuning.operations import LAYER_NORM, LLVM, RECORD, make_finished, make_linear, make_tunable


@pytest.fixture
def records(tmp_path: Path) -> TuningRecords:
    """One record, for 16 rows, and two lines that are none."""
    tunable = make_tunable(make_linear(16)["NT_matmul"])
    decisions = next(one for one in tunable.space() if one != tunable.chosen)
    record = dataclasses.replace(RECORD, operation=tunable.operation, decisions=decisions)
    (tmp_path / RECORDS_FILE).write_bytes(record.to_line().encode() + b"\x80\n{")
    return TuningRecords([tmp_path])


def apply(mod: tvm.IRModule, records: TuningRecords) -> tvm.IRModule:
    with LLVM:
        return ApplyTuningRecords(records)(mod)


def test_recorded_operation_is_scheduled_as_recorded_and_computes_the_same(records: TuningRecords) -> None:
    after = apply(make_linear(16), records)
    function = after["NT_matmul"]
    assert function.attrs["tirx.is_scheduled"] and "T.parallel" in function.script()
    assert tuned_from(function) == "measured on EPYC"
    tunable = make_tunable(make_linear(16)["NT_matmul"])
    assert function.script() != mark_scheduled(tunable.schedule(tunable.chosen)).script()
    random = np.random.default_rng(0)
    x, weight = random.standard_normal((16, 32), "float32"), random.standard_normal((48, 32), "float32")
    machine = relax.VirtualMachine(tvm.compile(after, LLVM), tvm.cpu())
    y = machine["main"](tvm.runtime.tensor(x), tvm.runtime.tensor(weight)).numpy()
    np.testing.assert_allclose(y, x @ weight.T, rtol=1e-5, atol=1e-5)


def test_record_is_found_under_another_name(records: TuningRecords) -> None:
    renamed = tvm.IRModule({"something_else": make_linear(16)["NT_matmul"]})
    assert apply(renamed, records)["something_else"].attrs["tirx.is_scheduled"]


def test_another_shape_is_left_alone(records: TuningRecords) -> None:
    before = make_linear(8)
    tvm.ir.assert_structural_equal(apply(before, records), before)


def test_scheduled_function_is_left_alone(records: TuningRecords) -> None:
    before = tvm.IRModule({"NT_matmul": mark_scheduled(make_linear(16)["NT_matmul"])})
    tvm.ir.assert_structural_equal(apply(before, records), before)


def test_a_finished_kernel_is_made_again_as_recorded(tmp_path: Path) -> None:
    before = make_finished("layer_norm", LLVM)
    tunable = make_tunable(before)
    decisions = next(one for one in tunable.space() if one != tunable.chosen)
    record = dataclasses.replace(RECORD, operation=tunable.operation, decisions=decisions)
    (tmp_path / RECORDS_FILE).write_text(record.to_line())
    after = apply(tvm.IRModule({"layer_norm": before}), TuningRecords([tmp_path]))["layer_norm"]
    assert tuned_from(after) == "measured on EPYC" and is_scheduled(after)
    assert after.script() != before.script() and pattern_of(after) == OPAQUE and computed_by(after)
    wanted = build(LAYER_NORM, registers_of(LLVM), Tile(**decisions))
    tvm.ir.assert_structural_equal(after.body, wanted.body, map_free_vars=True)


def test_a_build_says_how_many_kernels_are_tuned_and_what_was_skipped(records: TuningRecords) -> None:
    said = describe_tuned(apply(make_linear(16), records), records)
    assert said == (
        "1 of 1 kernels tuned (1 measured on EPYC); "
        "records skipped: 1 cut off, 1 no text, `tune --report` names the lines"
    )
    assert describe_tuned(make_linear(16), None) == "0 of 1 kernels tuned"


def test_a_build_counts_what_its_kernel_does_not_allow(tmp_path: Path) -> None:
    """Such as a record that somebody edited, or of a kernel whose version should have been raised."""
    operation = make_tunable(make_linear(16)["NT_matmul"]).operation
    odd = [{"rows": 5, "columns": 16}, {"rows": 4, "columns": 16, "threads": 8}]
    records = [dataclasses.replace(RECORD, operation=operation, decisions=decisions) for decisions in odd]
    (tmp_path / RECORDS_FILE).write_text("".join(record.to_line() for record in records))
    read = TuningRecords([tmp_path])
    said = describe_tuned(apply(make_linear(16), read), read)
    assert said.startswith("0 of 1 kernels tuned; records skipped: 2 outside of its kernel's space")
