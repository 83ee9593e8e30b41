"""Check every kernel against what a WebGPU device grants by default, and record what the kernels need.

Before: a scheduled module
After:  the same module; its attribute `webgpu_kernels` holds the figures of every kernel

Raises one error that names every kernel over a limit. TVM compiles such a kernel without an error, and a browser
rejects it only on the user's machine, when it makes the pipeline.
"""

import json
import logging
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import tvm
import tvm_ffi
from tvm import tirx
from tvm.target import Target

from mlc_controlnet.kernels.integers import ceil_div

log = logging.getLogger(__name__)

ATTRIBUTE = "webgpu_kernels"

# The names are WebGPU's; the values are what tvmjs requests, or WebGPU's defaults if it requests nothing.
LIMITS = {
    "maxComputeInvocationsPerWorkgroup": 256,
    "maxComputeWorkgroupStorageSize": 32 * 1024,
    "maxStorageBuffersPerShaderStage": 10,
    "maxStorageBufferBindingSize": 128 * 1024 * 1024,
    "maxBufferSize": 256 * 1024 * 1024,  # a planned storage is as large as the largest tensor in it
    "maxComputeWorkgroupsPerDimension": 65535,  # in y and z; the runtime folds a larger x into z
}
# Code generation narrows int64 arithmetic to int32 silently: right for indices, wrong for tensors.
NOT_IN_WGSL = ("int64", "uint64", "float64", "int8", "uint8", "int16", "uint16", "bfloat16")


@dataclass(frozen=True)
class KernelFacts:
    """One launch as WGSL sees it.

    Attributes:
        prim_func: the function of the module that launches it; empty for a kernel that was measured on its own.
    """

    name: str
    threads: int
    workgroup_bytes: int
    storage_buffers: int
    largest_binding_bytes: int
    grid: tuple[int, int, int]
    dtypes: tuple[str, ...]
    prim_func: str = ""

    def violations(self) -> Iterator[str]:
        """List one sentence for each limit that the kernel exceeds: what, value, limit."""
        for limit, value in self.demands().items():
            if value > LIMITS[limit]:
                yield f"{self.name}: {limit} is {value}, the limit is {LIMITS[limit]}"
        for dtype in self.dtypes:
            if dtype.split("x")[0] in NOT_IN_WGSL:
                yield f"{self.name}: has a tensor of {dtype}, which WGSL lacks"

    def demands(self) -> dict[str, int]:
        """Return the kernel's needs, under the names of WebGPU's limits."""
        return {
            "maxComputeInvocationsPerWorkgroup": self.threads,
            "maxComputeWorkgroupStorageSize": self.workgroup_bytes,
            "maxStorageBuffersPerShaderStage": self.storage_buffers,
            "maxStorageBufferBindingSize": self.largest_binding_bytes,
            "maxBufferSize": self.largest_binding_bytes,
            "maxComputeWorkgroupsPerDimension": max(self.grid[1:]),
        }


@dataclass(frozen=True)
class Requirements:
    """The requirements that a library has of its device.

    Attributes:
        limits: GPUSupportedLimits names to the most that any kernel needs; empty for a processor.
        largest_binding_bytes: the largest tensor that a kernel reads or writes.
        kernels: the figures of each launch; empty for a processor.
    """

    limits: dict[str, int]
    largest_binding_bytes: int
    kernels: tuple[KernelFacts, ...]


@tvm.transform.module_pass(opt_level=0, name="CheckWebGPULimits")
class CheckWebGPULimits:
    def transform_module(self, mod: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        kernels = measure_kernels(mod, Target.current(allow_none=False))
        violations = [violation for kernel in kernels for violation in kernel.violations()]
        if violations:
            raise ValueError(
                f"{len(violations)} demands of {len(kernels)} WebGPU kernels are over the limits:\n  "
                + "\n  ".join(violations)
            )
        log.info("%d WebGPU kernels are within the limits", len(kernels))
        return mod.with_attr(ATTRIBUTE, json.dumps([asdict(kernel) for kernel in kernels]))


def measure_requirements(mod: tvm.IRModule) -> Requirements:
    """Return the requirements that a scheduled module has of its device; for WebGPU, after `CheckWebGPULimits`."""
    attribute = (mod.attrs or {}).get(ATTRIBUTE)
    if attribute is None:
        return Requirements({}, max(_parameter_bytes(mod), default=0), ())
    kernels = tuple(
        KernelFacts(**fields | {"grid": tuple(fields["grid"]), "dtypes": tuple(fields["dtypes"])})
        for fields in json.loads(attribute)
    )
    limits = {limit: max((kernel.demands()[limit] for kernel in kernels), default=0) for limit in LIMITS}
    return Requirements(limits, limits["maxStorageBufferBindingSize"], kernels)


def measure_kernels(mod: tvm.IRModule, target: Target) -> list[KernelFacts]:
    """Lower the scheduled PrimFuncs of `mod` as code generation will, up to the split of host and device."""
    prim_funcs = {
        global_var: function.with_attr("global_symbol", global_var.name_hint)
        for global_var, function in mod.functions_items()
        if isinstance(function, tirx.PrimFunc)
    }
    lower, _, _ = tirx.get_tir_pipeline("s_tir")
    with tvm.transform.PassContext(config={"tirx.disable_cse_tir": True}):  # no figure depends on it; 15% of the time
        lowered = lower(tirx.transform.BindTarget(target)(tvm.IRModule(prim_funcs)))
    on_device = tirx.transform.Filter(lambda function: function.attrs["target"].kind.name == target.kind.name)(lowered)
    device_functions = {global_var.name_hint: function for global_var, function in on_device.functions_items()}
    launcher_of = _launchers(lowered, set(device_functions))
    kernels = (measure_kernel(name, kernel, launcher_of[name]) for name, kernel in device_functions.items())
    return sorted(kernels, key=lambda kernel: kernel.name)


def _launchers(lowered: tvm.IRModule, kernels: set[str]) -> dict[str, str]:
    """Map each kernel to the PrimFunc whose host code launches it: a launch names its kernel in a string."""
    launchers = {}
    for global_var, function in lowered.functions_items():

        def visit(text: tvm.ir.StringImm, launcher: str = global_var.name_hint) -> None:
            if text.value in kernels:
                launchers[text.value] = launcher

        tvm_ffi.structural_walk(function.body, (tvm.ir.StringImm, visit), order="pre")
    return launchers


def measure_kernel(name: str, kernel: tirx.PrimFunc, prim_func: str = "") -> KernelFacts:
    """Return the figures of one lowered kernel, which `prim_func` launches."""
    extents = {}  # thread tag -> count
    workgroup_bytes = 0
    bindings = []  # bytes of each tensor
    dtypes = set()

    def visit_attr(statement: tirx.AttrStmt) -> None:
        if statement.attr_key == "thread_extent":
            extents[statement.node.thread_tag] = int(statement.value)

    def visit_allocation(statement: tirx.AllocBuffer) -> None:
        nonlocal workgroup_bytes
        if statement.buffer.scope().startswith("shared"):
            workgroup_bytes += _bytes(statement.buffer)

    def visit_parameter(statement: tirx.DeclBuffer) -> None:
        if statement.buffer.scope() == "global":
            bindings.append(_bytes(statement.buffer))

    def visit_tensor(variable: tvm.ir.Var) -> None:
        if isinstance(variable.ty, tirx.buffer.BufferType):
            dtypes.add(str(variable.ty.dtype))

    tvm_ffi.structural_walk(kernel.body, (tirx.AttrStmt, visit_attr), order="pre")
    tvm_ffi.structural_walk(kernel.body, (tirx.AllocBuffer, visit_allocation), order="pre")
    tvm_ffi.structural_walk(kernel.body, (tirx.DeclBuffer, visit_parameter), order="pre")
    tvm_ffi.structural_walk(kernel.body, (tvm.ir.Var, visit_tensor), order="pre")
    return KernelFacts(
        name=name,
        threads=math.prod(extents.get(f"threadIdx.{axis}", 1) for axis in "xyz"),
        workgroup_bytes=workgroup_bytes,
        storage_buffers=len(kernel.params),
        largest_binding_bytes=max(bindings, default=0),
        grid=(extents.get("blockIdx.x", 1), extents.get("blockIdx.y", 1), extents.get("blockIdx.z", 1)),
        dtypes=tuple(sorted(dtypes)),
        prim_func=prim_func,
    )


def _parameter_bytes(mod: tvm.IRModule) -> Iterator[int]:
    for _, function in mod.functions_items():
        if isinstance(function, tirx.PrimFunc):
            yield from (_bytes(parameter.ty) for parameter in function.params if hasattr(parameter.ty, "shape"))


def _bytes(tensor: tirx.Buffer) -> int:
    """Return 0 if the kernel takes tensors of any size: then the kernel that writes them counts."""
    if not all(isinstance(size, tirx.IntImm) for size in tensor.shape):
        return 0
    dtype = tvm.runtime.DataType(str(tensor.dtype))
    return math.prod(int(size) for size in tensor.shape) * dtype.lanes * ceil_div(dtype.bits, 8)
