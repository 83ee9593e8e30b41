from tvm.s_tir import Schedule
from tvm.script import ir as I
from tvm.script import tirx as T
from tvm.target import Target

from mlc_controlnet.tuning.measure import Stopwatch

LLVM = Target({"kind": "llvm", "num-cores": 1})


def make_sum(count: int) -> Schedule:
    @I.ir_module
    class Sum:
        @T.prim_func(s_tir=True)
        def main(x: T.Buffer((count,), "float32"), y: T.Buffer((1,), "float32")):
            for i in range(count):
                with T.sblock("sum"):
                    k = T.axis.reduce(count, i)
                    with T.init():
                        y[0] = T.float32(0)
                    y[0] = y[0] + x[k]

    return Schedule(Sum)


def test_a_hundred_times_the_work_takes_longer() -> None:
    little, much = (Stopwatch(make_sum(count), LLVM).seconds() for count in (10_000, 1_000_000))
    assert 0 < little < much < 1
