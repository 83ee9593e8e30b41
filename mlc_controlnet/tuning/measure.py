"""How long a schedule takes on this machine's processor."""

import numpy as np
import tvm
from tvm.s_tir import Schedule
from tvm.target import Target

from mlc_controlnet.passes.schedule.use_vector_exponentials import UseVectorExponentials

REPEATS = 5
LEAST_MS = 10  # of each repeat


class Stopwatch:
    """One compiled schedule and its inputs, to be timed as often as the search wants.

    In this process: MetaSchedule's own builder starts a process a schedule, which imports torch along with TVM and
    takes five seconds where compiling takes a tenth of one. What it guards against, schedules that crash or explode,
    our space does not hold.
    """

    def __init__(self, schedule: Schedule, target: Target) -> None:
        mod = tvm.transform.Sequential([UseVectorExponentials()])(schedule.mod)
        self.library = tvm.compile(mod, target=target)
        random = np.random.default_rng(0)
        self.arguments = []
        for parameter in mod["main"].params:
            values = random.standard_normal([int(size) for size in parameter.ty.shape])
            self.arguments.append(tvm.runtime.tensor(values.astype(str(parameter.ty.dtype))))

    def seconds(self) -> float:
        """One call: the least of several averages, since other programs only add to a time."""
        evaluate = self.library.mod.time_evaluator("main", tvm.cpu(), number=1, repeat=REPEATS, min_repeat_ms=LEAST_MS)
        return float(min(evaluate(*self.arguments).results))
