"""The launches of a function and the WGSL of each kernel."""

from collections.abc import Iterator
from dataclasses import dataclass

import tvm
from tvm import relax, tirx

from mlc_controlnet.compile.library import generate_code, plan_library, tvm_target
from mlc_controlnet.compile.sources import generate_source
from mlc_controlnet.config import TARGETS, BuildConfig
from mlc_controlnet.locations import TUNING_DB
from mlc_controlnet.passes.check.check_webgpu_limits import KernelFacts, measure_kernels
from mlc_controlnet.passes.generate.webgpu_code import shaders_of
from mlc_controlnet.passes.pipeline import Pipeline
from mlc_controlnet.passes.schedule.tuning_records import TuningRecords, families_of


@dataclass(frozen=True)
class Kernel:
    """One kernel of a function of the library.

    Attributes:
        launches: how often a call of the function launches it.
        wgsl: its shader; empty where the kernels have one source together.
        operand_bytes: bytes of all its tensors.
    """

    facts: KernelFacts
    launches: int
    wgsl: str
    operand_bytes: int

    @property
    def name(self) -> str:
        """Return its entry point."""
        return self.facts.name

    @property
    def workgroups(self) -> int:
        """Return the workgroups of a launch."""
        x, y, z = self.facts.grid
        return x * y * z


def compile_kernels(module: tvm.IRModule, dtype: str) -> list[Kernel]:
    """Compile a module after phase clean for WebGPU; list its kernels by name."""
    config = BuildConfig(model="bench", target="webgpu", dtypes=(dtype,), out=TUNING_DB, tuning_db=TUNING_DB)
    planned = plan_library(module, dtype, config)
    shaders = dict(shaders_of(generate_code(planned.module, planned.target).mod))
    return list(_kernels(planned.module, planned.target, shaders))


def write_kernels(module: tvm.IRModule, target_name: str) -> tuple[str, list[Kernel]]:
    """Compile a module after phase clean to source, CUDA C or OpenCL C, without the target's compiler.

    The source stands in for WebGPU's, so tuning records of WebGPU's families decide about it.
    """
    target = tvm_target(TARGETS[target_name])
    planned = Pipeline(target, TuningRecords(families_of(TUNING_DB / "webgpu"))).run(module)
    kernels = list(_kernels(planned, target, {}))
    called = {kernel.facts.prim_func for kernel in kernels}
    launched = tvm.IRModule({v: f for v, f in planned.functions_items() if v.name_hint in called})
    return generate_source(launched, target).text, kernels


def _kernels(planned: tvm.IRModule, target: tvm.target.Target, shaders: dict[str, str]) -> Iterator[Kernel]:
    launches = _count_launches(planned)
    # Measured here: phase plan gives some kernels an operand to write over, and replaces reshapes by views.
    called = tvm.IRModule({v: f for v, f in planned.functions_items() if v.name_hint in launches})
    sizes = {v.name_hint: sum(bytes_of(parameter.ty) for parameter in f.params) for v, f in called.functions_items()}
    for facts in measure_kernels(called, target):
        yield Kernel(facts, launches[facts.prim_func], shaders.get(facts.name, ""), sizes[facts.prim_func])


def bytes_of(tensor: object) -> int:
    """Return the bytes of a tensor; 0 if it is of any size."""
    shape = getattr(tensor, "shape", ())
    if not shape or not all(isinstance(size, tirx.IntImm) for size in shape):
        return 0
    count = 1
    for size in shape:
        count *= int(size)
    return count * tvm.runtime.DataType(str(tensor.dtype)).bits // 8  # type: ignore[attr-defined]


def _count_launches(planned: tvm.IRModule) -> dict[str, int]:
    counter = _Launches(planned)
    for _, function in planned.functions_items():
        if isinstance(function, relax.Function):
            counter.visit_expr(function)
    return counter.launches


@relax.expr_functor.visitor
class _Launches(relax.PyExprVisitor):
    def __init__(self, mod: tvm.IRModule) -> None:
        self.mod = mod
        self.launches: dict[str, int] = {}

    def visit_call_(self, call: relax.Call) -> None:
        if isinstance(call.op, tvm.ir.GlobalVar) and isinstance(self.mod[call.op], tirx.PrimFunc):
            self.launches[call.op.name_hint] = self.launches.get(call.op.name_hint, 0) + 1
