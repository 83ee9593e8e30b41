"""A captured IRModule -> a compiled library, and the figures that describe it."""

from dataclasses import dataclass
from pathlib import Path

import tvm
from tvm import relax

from mlc_controlnet.bundle import manifest
from mlc_controlnet.config import TARGETS, TargetPreset
from mlc_controlnet.passes import pipeline
from mlc_controlnet.passes.check_webgpu_limits import Requirements, measure_requirements

Executable = relax.VMExecutable


@dataclass(frozen=True)
class CompiledModel:
    """Code for one target, not yet on disk.

    Attributes:
        launches: kernel launches in one call of each component.
        activation_bytes: what the static memory plan gives each component.
    """

    executable: Executable
    preset: TargetPreset
    dtype: str
    launches: dict[str, int]
    activation_bytes: dict[str, int]
    requirements: Requirements


def compile_model(
    module: tvm.IRModule, target_name: str, dtype: str, tuning_db: Path, dump_ir: Path | None = None
) -> CompiledModel:
    """Take a captured `module` through every pass and generate code."""
    preset = TARGETS[target_name]
    target = tvm_target(preset)
    records = tuning_db / target_name
    records_here = records if records.is_dir() else None
    scheduled = pipeline.run(module, target, records_here, dump_ir, until="check")
    planned = pipeline.run(scheduled, target, records_here, dump_ir, after="check")
    launches, activation_bytes = _count(planned)
    return CompiledModel(
        executable=relax.build(planned, target, relax_pipeline=None),
        preset=preset,
        dtype=dtype,
        launches=launches,
        activation_bytes=activation_bytes,
        requirements=measure_requirements(scheduled),
    )


def export_library(compiled: CompiledModel, model_name: str, folder: Path) -> tuple[Path, manifest.Library]:
    """Link into a shared library or, for WebGPU, with the TVM runtime into a wasm; returns its file and description."""
    path = folder / f"{model_name}-{compiled.dtype}{compiled.preset.library_suffix}"
    if compiled.preset.library_suffix == ".wasm":
        from mlc_controlnet.toolchain import link_wasm

        compiled.executable.export_library(str(path), fcompile=link_wasm)
    else:
        compiled.executable.export_library(str(path))
    on_webgpu = compiled.preset.device == "webgpu"
    return path, manifest.Library(
        file=path.name,
        device=compiled.preset.device,
        dtype=compiled.dtype,
        required_features=("shader-f16",) if on_webgpu and compiled.dtype == "float16" else (),
        required_limits=compiled.requirements.limits if on_webgpu else {},
        activation_bytes=compiled.activation_bytes,
        launches=compiled.launches,
        largest_binding_bytes=compiled.requirements.largest_binding_bytes,
    )


def tvm_target(preset: TargetPreset) -> tvm.target.Target:
    if preset.tvm_host is None:
        return tvm.target.Target(preset.tvm_target)
    return tvm.target.Target(preset.tvm_target, host=preset.tvm_host)


def _count(planned: tvm.IRModule) -> tuple[dict[str, int], dict[str, int]]:
    """Launches and planned bytes of each component of a module that has been through the last phase."""
    launches, planned_bytes = {}, {}
    for global_var, function in planned.functions_items():
        if isinstance(function, relax.Function):
            counter = _Counter(planned)
            counter.visit_expr(function)
            launches[global_var.name_hint] = counter.launches
            planned_bytes[global_var.name_hint] = counter.bytes
    return launches, planned_bytes


@relax.expr_functor.visitor
class _Counter(relax.PyExprVisitor):
    def __init__(self, mod: tvm.IRModule) -> None:
        self.mod = mod
        self.launches = 0
        self.bytes = 0

    def visit_call_(self, call: relax.Call) -> None:
        if isinstance(call.op, tvm.ir.GlobalVar) and isinstance(self.mod[call.op], tvm.tirx.PrimFunc):
            self.launches += 1
        elif isinstance(call.op, tvm.ir.Op) and call.op.name == "relax.vm.alloc_storage":
            self.bytes += int(call.args[0].values[0])
