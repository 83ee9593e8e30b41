"""Measures how long a schedule takes on this machine's processor."""

import numpy as np
import tvm
from tvm.s_tir import Schedule
from tvm.target import Target

from mlc_controlnet.passes.schedule.use_vector_exponentials import UseVectorExponentials

REPEATS = 5
MIN_REPEAT_MS = 10


class Stopwatch:
    """One compiled schedule with its inputs. It can be timed any number of times.

    It compiles and runs in this process. MetaSchedule's own builder starts one process per schedule, and each imports
    torch and TVM, which takes fifty times as long as compiling. That isolation guards against schedules that crash or
    never end; our spaces contain none.
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
        """Return the time of one call: the minimum of several averages, because other programs only add time."""
        evaluate = self.library.mod.time_evaluator(
            "main", tvm.cpu(), number=1, repeat=REPEATS, min_repeat_ms=MIN_REPEAT_MS
        )
        return float(min(evaluate(*self.arguments).results))
