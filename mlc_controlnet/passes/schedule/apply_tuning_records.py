"""Schedule the PrimFuncs that have a tuning record.

Before: a PrimFunc as it was fused, or a finished kernel
After:  the same PrimFunc under its schedule with the record's decisions, or the kernel made again with them; marked as
        scheduled and with their source

Fires if a record is of the same operation, better than the rules, and within the kernel's space. The rules that follow
schedule the others. Nothing in a record is an error: one that does not apply is passed over.
"""

import logging
from collections import Counter

import tvm
from tvm import tirx
from tvm.s_tir import ScheduleError
from tvm.target import Target

from mlc_controlnet.kernels.marks import mark_scheduled, mark_tuned
from mlc_controlnet.kernels.tunable import Tunable
from mlc_controlnet.kernels.tunable_kernels import tunable_of
from mlc_controlnet.passes.schedule.tuning_records import Choice, TuningRecords

log = logging.getLogger(__name__)


@tvm.transform.module_pass(opt_level=0, name="ApplyTuningRecords")
class ApplyTuningRecords:
    def __init__(self, records: TuningRecords) -> None:
        self.records = records

    def transform_module(self, mod: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        target = Target.current(allow_none=False)
        sources: Counter[str] = Counter()
        scheduled = {}
        for global_var, function in mod.functions_items():
            if not isinstance(function, tirx.PrimFunc):
                continue
            tunable = tunable_of(function, target)
            choice = None if tunable is None else self.records.best(tunable)
            if tunable is None or choice is None:
                continue
            tuned = _schedule(tunable, choice)
            if tuned is not None:
                scheduled[global_var] = mark_tuned(mark_scheduled(tuned), choice.source)
                sources[choice.source] += 1
        mod = mod.clone()
        for global_var, function in scheduled.items():
            mod[global_var] = function
        log.info("scheduled %d PrimFuncs from tuning records: %s", sources.total(), dict(sources))
        return mod


def _schedule(tunable: Tunable, choice: Choice) -> tirx.PrimFunc | None:
    try:
        return tunable.schedule(choice.decisions)
    except (ScheduleError, ValueError) as error:
        log.warning("the record of %s does not apply: %s", tunable.operation.title, error)
        return None
