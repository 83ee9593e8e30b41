import pytest
import tvm
from tvm.script import ir as I
from tvm.script import tirx as T

from mlc_controlnet.kernels.attention import Attention
from mlc_controlnet.kernels.flash_attention import flash_attention
from mlc_controlnet.passes.check.check_webgpu_limits import LIMITS, CheckWebGPULimits, measure_requirements
from tests.kernels.webgpu_device import WEBGPU


def check(mod: tvm.IRModule) -> tvm.IRModule:
    with WEBGPU:
        return CheckWebGPULimits()(mod)


def make_copy(workgroups: int = 1, threads: int = 64, axis: str = "x", shared: int = 0, rows: int = 1) -> tvm.IRModule:
    """A kernel that copies numbers, through workgroup memory where `shared` floats are asked for."""

    @I.ir_module
    class Copy:
        @T.prim_func(s_tir=True, private=True)
        def copy(x: T.Buffer((rows, threads), "float32"), y: T.Buffer((rows, threads), "float32")):
            for block in T.thread_binding(workgroups, thread=f"blockIdx.{axis}"):
                for thread in T.thread_binding(threads, thread="threadIdx.x"):
                    with T.sblock("copy"):
                        T.reads()
                        T.writes()
                        staged = T.sblock_alloc_buffer((max(shared, threads),), "float32", scope="shared")
                        staged[thread] = x[0, thread]
                        staged[max(shared, threads) - 1 - thread] = x[0, thread]
                        y[0, thread] = staged[thread] + T.Cast("float32", block)

    return Copy


def test_module_within_limits_passes_and_carries_its_figures() -> None:
    mod = make_copy(workgroups=70000, shared=1000, rows=5)
    mod["flash_attention"] = flash_attention(Attention(1, 64, 77, 4, 16, "float32", 0.25), WEBGPU)
    requirements = measure_requirements(check(mod))
    copy, attention = requirements.kernels
    assert (copy.name, copy.threads, copy.workgroup_bytes, copy.grid) == ("copy_kernel", 64, 4000, (70000, 1, 1))
    assert (copy.storage_buffers, copy.largest_binding_bytes) == (2, 5 * 64 * 4)
    assert (attention.storage_buffers, attention.largest_binding_bytes) == (4, 77 * 4 * 16 * 4)
    assert requirements.largest_binding_bytes == 77 * 4 * 16 * 4
    assert requirements.limits["maxComputeWorkgroupStorageSize"] == 4000
    assert requirements.limits.keys() == LIMITS.keys()


@pytest.mark.parametrize(
    "mod,words",
    [
        (make_copy(threads=512), "copy_kernel: maxComputeInvocationsPerWorkgroup is 512, the limit is 256"),
        (make_copy(shared=9000), "copy_kernel: maxComputeWorkgroupStorageSize is 36000, the limit is 32768"),
        (make_copy(workgroups=70000, axis="y"), "maxComputeWorkgroupsPerDimension is 70000, the limit is 65535"),
        (make_copy(rows=1 << 20), "maxStorageBufferBindingSize is 268435456, the limit is 134217728"),
    ],
    ids=["threads", "workgroup memory", "workgroups in y", "binding"],
)
def test_each_limit_is_named_with_its_value(mod: tvm.IRModule, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        check(mod)


def test_each_launch_knows_the_prim_func_that_makes_it() -> None:
    @I.ir_module
    class TwoLaunches:
        @T.prim_func(s_tir=True, private=True)
        def twice_kernel_1(x: T.Buffer((64,), "float32"), y: T.Buffer((64,), "float32"), z: T.Buffer((64,), "float32")):
            for thread in T.thread_binding(64, thread="threadIdx.x"):
                with T.sblock("first"):
                    T.reads()
                    T.writes()
                    y[thread] = x[thread] + T.float32(1)
            for thread in T.thread_binding(64, thread="threadIdx.x"):
                with T.sblock("second"):
                    T.reads()
                    T.writes()
                    z[thread] = y[thread] * T.float32(2)

    mod = TwoLaunches
    mod["copy"] = make_copy()["copy"]
    kernels = measure_requirements(check(mod)).kernels
    assert [kernel.prim_func for kernel in kernels] == ["copy", "twice_kernel_1", "twice_kernel_1"]
    assert len({kernel.name for kernel in kernels}) == 3


def test_all_kernels_over_a_limit_are_named_at_once() -> None:
    mod = make_copy(threads=512)
    mod["second"] = make_copy(shared=9000)["copy"]
    with pytest.raises(ValueError, match=r"2 demands of 2 WebGPU kernels(.|\n)*copy_kernel(.|\n)*second_kernel"):
        check(mod)


def test_eleven_tensors_are_too_many() -> None:
    @I.ir_module
    class Add:
        @T.prim_func(s_tir=True, private=True)
        def add(
            a: T.Buffer((64,), "float32"),
            b: T.Buffer((64,), "float32"),
            c: T.Buffer((64,), "float32"),
            d: T.Buffer((64,), "float32"),
            e: T.Buffer((64,), "float32"),
            f: T.Buffer((64,), "float32"),
            g: T.Buffer((64,), "float32"),
            h: T.Buffer((64,), "float32"),
            i: T.Buffer((64,), "float32"),
            j: T.Buffer((64,), "float32"),
            y: T.Buffer((64,), "float32"),
        ):
            for n in T.thread_binding(64, thread="threadIdx.x"):
                with T.sblock("add"):
                    T.reads()
                    T.writes()
                    y[n] = a[n] + b[n] + c[n] + d[n] + e[n] + f[n] + g[n] + h[n] + i[n] + j[n]

    with pytest.raises(ValueError, match="add_kernel: maxStorageBuffersPerShaderStage is 11, the limit is 10"):
        check(Add)


@pytest.mark.parametrize("dtype", ["int64", "float64"])
def test_a_tensor_of_a_dtype_that_wgsl_lacks_is_named(dtype: str) -> None:
    @I.ir_module
    class Copy:
        @T.prim_func(s_tir=True, private=True)
        def copy(a: T.Buffer((64,), dtype), y: T.Buffer((64,), "float32")):
            for n in T.thread_binding(64, thread="threadIdx.x"):
                with T.sblock("copy"):
                    T.reads()
                    T.writes()
                    y[n] = T.Cast("float32", a[n])

    with pytest.raises(ValueError, match=f"copy_kernel: has a tensor of {dtype}, which WGSL lacks"):
        check(Copy)


def test_library_for_a_processor_asks_nothing_but_knows_its_largest_tensor() -> None:
    requirements = measure_requirements(make_copy(rows=5))
    assert requirements.limits == {} and requirements.largest_binding_bytes == 5 * 64 * 4
