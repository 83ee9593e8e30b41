import numpy as np
import tvm
from tvm import tirx
from tvm.script import ir as I
from tvm.script import relax as R
from tvm.script import tirx as T

from mlc_controlnet.passes.schedule.share_kernels import ShareKernels
from tests.passes.evaluate import evaluate


@I.ir_module
class TwoRows:
    """Kernels that read eight numbers of a row of 40 and of one of 24."""

    @T.prim_func(private=True, s_tir=True)
    def add_of_40(x: T.Buffer((8,), "float32"), t: T.Buffer((1, 40), "float32"), y: T.Buffer((8,), "float32")):
        for i in range(8):
            with T.sblock("add"):
                v = T.axis.spatial(8, i)
                y[v] = x[v] + t[0, v + 3]

    @T.prim_func(private=True, s_tir=True)
    def add_of_24(x: T.Buffer((8,), "float32"), t: T.Buffer((1, 24), "float32"), y: T.Buffer((8,), "float32")):
        for i in range(8):
            with T.sblock("add"):
                v = T.axis.spatial(8, i)
                y[v] = x[v] + t[0, v + 3]

    @T.prim_func(private=True, s_tir=True)
    def elsewhere(x: T.Buffer((8,), "float32"), t: T.Buffer((1, 24), "float32"), y: T.Buffer((8,), "float32")):
        for i in range(8):
            with T.sblock("add"):
                v = T.axis.spatial(8, i)
                y[v] = x[v] + t[0, v + 4]

    @R.function
    def main(x: R.Tensor((8,), "float32"), t: R.Tensor((1, 40), "float32"), u: R.Tensor((1, 24), "float32")):
        cls = TwoRows
        with R.dataflow():
            a = R.call_tir(cls.add_of_40, (x, t), out_ty=R.Tensor((8,), "float32"))
            b = R.call_tir(cls.add_of_24, (a, u), out_ty=R.Tensor((8,), "float32"))
            c = R.call_tir(cls.elsewhere, (b, u), out_ty=R.Tensor((8,), "float32"))
            R.output(c)
        return c


def kernels(mod: tvm.IRModule) -> list[tirx.PrimFunc]:
    return [function for function in mod.functions.values() if isinstance(function, tirx.PrimFunc)]


def test_kernels_on_rows_of_different_length_are_one() -> None:
    after = ShareKernels()(TwoRows)
    assert len(kernels(after)) == 2, "the third reads another part"
    rng = np.random.default_rng(0)
    inputs = [rng.standard_normal(shape, dtype=np.float32) for shape in ((8,), (1, 40), (1, 24))]
    np.testing.assert_array_equal(evaluate(after, *inputs), evaluate(TwoRows, *inputs))


def test_a_kernel_that_nobody_shares_keeps_its_sizes() -> None:
    mod = ShareKernels()(TwoRows)
    open_lengths = [
        function for function in kernels(mod) if not isinstance(function.params[1].ty.shape[1], tirx.IntImm)
    ]
    assert len(open_lengths) == 1
