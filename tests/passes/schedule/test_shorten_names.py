import tvm
import tvm_ffi
from tvm import tirx
from tvm.script import ir as I
from tvm.script import tirx as T

from mlc_controlnet.passes.schedule.shorten_names import ShortenNames


@I.ir_module
class Kernel:
    @T.prim_func(private=True, s_tir=True)
    def a_kernel(a_long_name: T.Buffer((64,), "float32"), another_long_name: T.Buffer((64,), "float32")):
        T.func_attr({"tirx.is_scheduled": True})
        for threads in T.thread_binding(32, thread="threadIdx.x"):
            for a_loop in range(2):
                with T.sblock("block"):
                    v = T.axis.spatial(64, a_loop * 32 + threads)
                    another_long_name[v] = a_long_name[v] * T.float32(2)


def names(mod: tvm.IRModule) -> list[str]:
    return [parameter.name for parameter in mod["a_kernel"].params]


def test_buffers_get_short_names_of_their_own() -> None:
    first, second = names(ShortenNames()(Kernel))
    assert len(first) <= 3
    assert len(second) <= 3
    assert first != second


def test_no_name_is_a_type_of_wgsl() -> None:
    """i32 and f16 are."""
    seen: set[str] = set()
    tvm_ffi.structural_walk(ShortenNames()(Kernel)["a_kernel"], (tvm.ir.Var, lambda v: seen.add(v.name)), order="pre")
    assert {name[0] for name in seen if "Idx" not in name} == {"b", "n"}


def test_names_are_no_structure() -> None:
    tvm.ir.assert_structural_equal(ShortenNames()(Kernel), Kernel)


def test_the_callers_module_keeps_its_names() -> None:
    ShortenNames()(Kernel)
    assert names(Kernel) == ["a_long_name", "another_long_name"]
    assert isinstance(Kernel["a_kernel"], tirx.PrimFunc)
