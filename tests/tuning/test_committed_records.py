"""The records that the repository ships."""

from pathlib import Path

import pytest
import tvm_ffi
from tvm import tirx

from mlc_controlnet.capture import capture
from mlc_controlnet.checkpoint import find_model, load_checkpoint
from mlc_controlnet.compile.library import tvm_target
from mlc_controlnet.config import TARGETS
from mlc_controlnet.kernels.marks import is_scheduled
from mlc_controlnet.passes.pipeline import Pipeline, clean
from mlc_controlnet.passes.schedule.apply_tuning_records import as_workload, open_database

pytestmark = pytest.mark.integration

SETS = sorted(file.parent for file in (Path(__file__).parents[2] / "tuning_db" / "llvm").glob("*/about.json"))


@pytest.mark.parametrize("records_of_set", SETS, ids=lambda folder: folder.name)
def test_every_record_is_of_a_kernel_that_the_bundled_model_has(records_of_set: Path) -> None:
    """One whose kernel has changed would never be found again, and nobody would notice."""
    target = tvm_target(TARGETS["llvm"], records_of_set.name)
    cleaned = clean(capture(load_checkpoint(find_model("circles")), "float32"))
    lowered = Pipeline(target).run(cleaned.module, until="lower")
    kernels = [
        as_workload(function)
        for function in lowered.functions.values()
        if isinstance(function, tirx.PrimFunc) and not is_scheduled(function)
    ]
    records = open_database(records_of_set).get_all_tuning_records()
    assert records
    lost = [
        record.workload.mod.script()
        for record in records
        if not any(tvm_ffi.structural_equal(record.workload.mod, kernel) for kernel in kernels)
    ]
    assert not lost
