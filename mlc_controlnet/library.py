"""A planned IRModule -> a compiled library on disk, and the figures that describe it."""

from dataclasses import dataclass
from pathlib import Path

import tvm
from tvm import relax

from mlc_controlnet.config import TargetPreset

Executable = relax.VMExecutable


@dataclass(frozen=True)
class LibraryFigures:
    """What one call of each component costs."""

    launches: dict[str, int]  # kernel launches
    activation_bytes: dict[str, int]  # planned statically


def tvm_target(preset: TargetPreset) -> tvm.target.Target:
    if preset.tvm_host is None:
        return tvm.target.Target(preset.tvm_target)
    return tvm.target.Target(preset.tvm_target, host=preset.tvm_host)


def compile_module(planned: tvm.IRModule, target: tvm.target.Target) -> Executable:
    """Generate code for a module that has been through every phase of the pass pipeline."""
    return relax.build(planned, target, relax_pipeline=None)


def export_library(executable: Executable, path: Path, target: tvm.target.Target) -> None:
    """Link `executable` into a shared library, or for WebGPU into a wasm with the TVM runtime."""
    if target.kind.name == "webgpu":
        from mlc_controlnet.toolchain import link_wasm

        executable.export_library(str(path), fcompile=link_wasm)
    else:
        executable.export_library(str(path))


def figures(planned: tvm.IRModule) -> LibraryFigures:
    """Count launches and planned bytes in a module that has been through the pipeline up to `plan`."""
    launches, activation_bytes = {}, {}
    for global_var, function in planned.functions_items():
        if not isinstance(function, relax.Function):
            continue
        counter = _Counter(planned)
        counter.visit_expr(function)
        launches[global_var.name_hint] = counter.launches
        activation_bytes[global_var.name_hint] = counter.bytes
    return LibraryFigures(launches, activation_bytes)


@relax.expr_functor.visitor
class _Counter(relax.PyExprVisitor):
    def __init__(self, mod: tvm.IRModule) -> None:
        self.mod = mod
        self.launches = 0
        self.bytes = 0

    def visit_call_(self, call: relax.Call) -> None:
        if isinstance(call.op, tvm.ir.GlobalVar) and isinstance(self.mod[call.op], tvm.tirx.PrimFunc):
            self.launches += 1
        elif isinstance(call.op, tvm.ir.Op) and call.op.name == "relax.builtin.alloc_storage":
            self.bytes += int(call.args[0].values[0])
