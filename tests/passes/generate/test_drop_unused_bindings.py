from tvm import tirx
from tvm.script import tirx as T

from tests.kernels.webgpu_device import build_wgsl


def copy(named: bool) -> tirx.PrimFunc:
    """y[4 tx] = x[4 tx], with the index in a name of its own if it is `named`, beside one that nothing reads."""

    @T.prim_func(s_tir=True)
    def func(x: T.Buffer((256,), "float32"), y: T.Buffer((256,), "float32"), z: T.Buffer((256,), "float32")):
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        with T.sblock("root"):
            for tx in T.thread_binding(64, thread="threadIdx.x"):
                with T.sblock("copy"):
                    at: T.let[T.int32] = tx * 4
                    unused: T.let[T.int32] = at * 3 + 1  # noqa: F841
                    y[at if named else tx * 4] = x[at]
                    z[tx * 4] = x[tx * 4] + x[tx * 4]

    return func


def test_a_second_name_of_a_value_and_what_it_alone_reads_are_dropped() -> None:
    wgsl = build_wgsl(copy(named=True))
    assert "unused" not in wgsl
    assert "* 3i" not in wgsl
    assert wgsl.count("let ") == 1  # the index


def test_what_is_read_stays() -> None:
    wgsl = build_wgsl(copy(named=False))
    assert "* 4i" in wgsl
