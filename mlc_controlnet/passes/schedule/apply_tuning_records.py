"""Schedule the PrimFuncs that have a tuning record.

Before: a PrimFunc as it was fused
After:  the same PrimFunc under the record's trace, marked as scheduled

Fires if the database has the PrimFunc's workload: equal in structure, under any name. The rules that follow schedule
the others. A trace that this TVM cannot replay is an error: the records belong to another version of TVM.
"""

import logging
from pathlib import Path

import tvm
from tvm import tirx
from tvm.s_tir import Schedule, meta_schedule
from tvm.target import Target

from mlc_controlnet.kernels.marks import is_scheduled, mark_scheduled

log = logging.getLogger(__name__)


@tvm.transform.module_pass(opt_level=0, name="ApplyTuningRecords")
class ApplyTuningRecords:
    def __init__(self, folder: Path) -> None:
        """Open the records of `folder`, which has database_workload.json and database_tuning_record.json."""
        self.folder = folder

    def transform_module(self, mod: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        database = open_database(self.folder)
        target = Target.current(allow_none=False)
        missed = []
        hits = 0
        scheduled = {}
        for global_var, function in mod.functions_items():
            if not isinstance(function, tirx.PrimFunc) or is_scheduled(function):
                continue
            workload = as_workload(function)
            record = database.query_tuning_record(workload, target, global_var.name_hint)
            if record is None:
                missed.append(global_var.name_hint)
                continue
            schedule = Schedule(workload, enable_check=False)
            record.trace.apply_to_schedule(schedule, remove_postproc=False)
            tuned = schedule.mod["main"].without_attr("global_symbol")
            scheduled[global_var] = mark_scheduled(tuned)
            hits += 1
        mod = mod.clone()
        for global_var, function in scheduled.items():
            mod[global_var] = function
        log.info("scheduled %d PrimFuncs from tuning records, left %d", hits, len(missed))
        log.debug("without a tuning record: %s", ", ".join(sorted(missed)))
        return mod


def open_database(folder: Path) -> meta_schedule.database.JSONDatabase:
    """Return the records of `folder`, which must exist."""
    return meta_schedule.database.JSONDatabase(work_dir=str(folder), allow_missing=False)


def as_workload(function: tirx.PrimFunc) -> tvm.IRModule:
    """Return the key of a record: the function without the name and pattern that it has in its module."""
    return tvm.IRModule({"main": function.without_attr("op_pattern").with_attr("global_symbol", "main")})
