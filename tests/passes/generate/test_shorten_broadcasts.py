import re

from tvm import tirx
from tvm.script import tirx as T

from tests.kernels.webgpu_device import build_wgsl


def scale(dtype: str) -> tirx.PrimFunc:
    """y = x * factor, in vectors of four."""

    @T.prim_func(s_tir=True)
    def func(x: T.Buffer((256,), dtype), factor: T.Buffer((1,), dtype), y: T.Buffer((256,), dtype)):
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        with T.sblock("root"):
            for tx in T.thread_binding(64, thread="threadIdx.x"):
                with T.sblock("scale"):
                    y[T.ramp(tx * 4, 1, 4)] = x[T.ramp(tx * 4, 1, 4)] * T.Broadcast(factor[0] * factor[0], 4)

    return func


def test_a_number_is_written_once_for_all_lanes() -> None:
    for dtype, name in (("float16", "f16"), ("float32", "f32")):
        wgsl = build_wgsl(scale(dtype))
        assert wgsl.count("factor_ptr[") == 2
        assert re.search(rf"\* vec4<{name}>\(\(factor_ptr\[0i\] \* factor_ptr\[0i\]\)\)", wgsl)


def test_vectors_of_integers_stay() -> None:
    """They may be indices, which code generation takes apart."""
    wgsl = build_wgsl(scale("int32"))
    assert wgsl.count("factor_ptr[") == 8
