import numpy as np
import tvm
from tvm.s_tir import Schedule
from tvm.script import ir as I
from tvm.script import tirx as T

from mlc_controlnet.passes.schedule.keep_loops_rolled import PRAGMA, KeepLoopsRolled


@I.ir_module(s_tir=True)
class Double:
    @T.prim_func(s_tir=True)
    def main(x: T.Buffer((64,), "float32"), y: T.Buffer((64,), "float32")):
        for i in range(64):
            with T.sblock("double"):
                vi = T.axis.spatial(64, i)
                y[vi] = x[vi] * T.float32(2)


def annotated(steps: int) -> tvm.IRModule:
    schedule = Schedule(Double)
    (loop,) = schedule.get_loops("double")
    schedule.annotate(loop, PRAGMA, steps)
    return schedule.mod


def steps_of(mod: tvm.IRModule) -> int:
    schedule = Schedule(mod)
    (loop,) = schedule.get_loops("double")
    return int(schedule.get(loop).annotations[PRAGMA])


def test_what_asks_to_be_unrolled_stays_rolled() -> None:
    assert steps_of(KeepLoopsRolled()(annotated(256))) == 0


def test_a_function_that_asks_for_nothing_is_left_alone() -> None:
    tvm.ir.assert_structural_equal(KeepLoopsRolled()(Double), Double)


def test_the_numbers_stay_the_same() -> None:
    x = np.arange(64, dtype=np.float32)
    y = tvm.runtime.tensor(np.zeros(64, np.float32))
    tvm.compile(KeepLoopsRolled()(annotated(256)), "llvm")(tvm.runtime.tensor(x), y)
    np.testing.assert_array_equal(y.numpy(), 2 * x)
