"""Turns a captured IRModule into a compiled library and the figures that describe it."""

import dataclasses
import json
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tvm
from tvm import relax

from mlc_controlnet.bundle import manifest
from mlc_controlnet.components import VAE_DECODER, VAE_ENCODER
from mlc_controlnet.config import BROWSER_PROCESSOR, BuildConfig, TargetPreset
from mlc_controlnet.errors import UserError
from mlc_controlnet.instruction_sets import (
    ALL_INSTRUCTION_SETS,
    BROWSER_INSTRUCTION_SETS,
    best_of_host,
    is_foreign,
)
from mlc_controlnet.kernels.marks import tuned_from
from mlc_controlnet.passes.check.check_webgpu_limits import Requirements, measure_kernels, measure_requirements
from mlc_controlnet.passes.generate import opencl_code as _opencl_code  # noqa: F401  TVM finds what it registers
from mlc_controlnet.passes.generate import webgpu_code
from mlc_controlnet.passes.pipeline import Pipeline
from mlc_controlnet.passes.schedule.tuning_records import TuningRecords, families_of

ROOM_BYTES = 256 * 10**6  # several times what compilers and linkers write for one library
POOL_PAGE_BYTES = 4096  # TVM's pooled allocator, which the virtual machine uses, allocates whole pages


class OverLimits(UserError):
    """A model, size and dtype whose kernels a WebGPU device would reject.

    Attributes:
        components: names of the components that call such a kernel.
    """

    def __init__(
        self, subject: str, error: ValueError, components: Sequence[str], sizes: Sequence[tuple[int, int]] | None = None
    ) -> None:
        """Describe the first violation that `error` lists.

        Args:
            error: the error that phase check raised.
            sizes: height and width of the largest pictures that fit, in pixels; empty: none fits; None: not searched.
        """
        _, first, *others = (line.strip() for line in str(error).splitlines())
        more = f", and {len(others)} more demands over the limits" if others else ""
        super().__init__(
            subject,
            f"{', '.join(components)}: {first}{more}",
            "what every WebGPU device grants",
            _remedy(sizes, components),
        )
        self.error = error
        self.components = tuple(components)

    def with_sizes(self, sizes: Sequence[tuple[int, int]]) -> "OverLimits":
        """Return the same error with the largest sizes that fit as its remedy."""
        return OverLimits(self.subject, self.error, self.components, sizes)


def _remedy(sizes: Sequence[tuple[int, int]] | None, components: Sequence[str]) -> str:
    if all(name.startswith((VAE_DECODER, VAE_ENCODER)) for name in components):  # of any size
        return f"decode in tiles: add --vae-tiling 512x512; {_smaller(sizes)}"
    return _smaller(sizes)


def _smaller(sizes: Sequence[tuple[int, int]] | None) -> str:
    if sizes is None:
        return "build smaller pictures with --height and --width, or only --dtype float16"
    if not sizes:
        return "no size is small enough: build only --dtype float16"
    return "the largest that fits is " + ", or ".join(f"--height {height} --width {width}" for height, width in sizes)


@dataclass(frozen=True)
class PlannedLibrary:
    """A module after the last phase, ready for code generation.

    Attributes:
        requirements: the limits and features that the library needs from its device.
        launches, activation_bytes: kernel launches per call, and planned bytes of activations, by component.
        kernels: what each function launches; empty where nothing measures kernels.
        instruction_set: a key of ALL_INSTRUCTION_SETS; "" for a target that is no processor.
        tuned: how many of its kernels have a schedule from tuning records, and from which, for readers.
    """

    module: tvm.IRModule
    dtype: str
    preset: TargetPreset
    target: tvm.target.Target
    requirements: Requirements
    launches: dict[str, int]
    activation_bytes: dict[str, int]
    kernels: tuple[manifest.FunctionKernels, ...]
    instruction_set: str
    tuned: str


def compile_library(
    module: tvm.IRModule, model_name: str, dtype: str, config: BuildConfig, folder: Path, shipped: bool = True
) -> tuple[Path, manifest.Library]:
    """Call `plan_library` for this machine's processor, then `write_library`."""
    return write_library(plan_library(module, dtype, config, shipped=shipped), model_name, folder)


def plan_library(
    module: tvm.IRModule, dtype: str, config: BuildConfig, instruction_set: str | None = None, shipped: bool = True
) -> PlannedLibrary:
    """Take a `module` captured in `dtype` through every phase.

    Args:
        instruction_set: a key of INSTRUCTION_SETS, for llvm; None: the best that this machine's processor has. For
            webgpu a key of BROWSER_INSTRUCTION_SETS: the library runs on the browser's processor instead.
        shipped: False for a processor's library that is only compared with torch: LLVM then optimises less.

    Raises:
        OverLimits: a kernel needs more than a WebGPU device grants by default.
    """
    if config.preset.device == "llvm" and instruction_set is None:
        instruction_set = best_of_host()
    pipeline = pipeline_of(config, instruction_set, shipped)
    after: dict[str, tvm.IRModule] = {}
    try:
        for phase, result in pipeline.walk(module):
            after[phase] = result
    except ValueError as error:
        if "schedule" not in after or "check" in after:  # no other phase rejects a module: the error is ours
            raise
        callers = _callers_over_limits(after["schedule"], pipeline.target)
        raise OverLimits(f"the {dtype} library for {config.target}", error, callers) from error
    requirements = measure_requirements(after["check"])
    launches, activation_bytes = count_launches_and_bytes(after["plan"])
    return PlannedLibrary(
        after["plan"],
        dtype,
        preset_of(config, instruction_set),
        pipeline.target,
        requirements,
        launches,
        activation_bytes,
        list_kernels(after["plan"], requirements, pipeline.target),
        instruction_set or "",
        describe_tuned(after["schedule"], pipeline.tuning_records),
    )


def describe_tuned(scheduled: tvm.IRModule, records: TuningRecords | None) -> str:
    """Say how many kernels of a module after phase schedule are tuned, from what, and how many records are skipped."""
    kernels = [function for _, function in scheduled.functions_items() if isinstance(function, tvm.tirx.PrimFunc)]
    sources = Counter(source for kernel in kernels if (source := tuned_from(kernel)) is not None)
    text = f"{sources.total()} of {len(kernels)} kernels tuned"
    if sources:
        text += f" ({'; '.join(f'{count} {source}' for source, count in sorted(sources.items()))})"
    skipped = "" if records is None else records.count_skipped()
    return f"{text}; records skipped: {skipped}, `tune --report` names the lines" if skipped else text


def keeps_float16(dtype: str, target: str, named: bool) -> bool:
    """Return whether a library of `dtype` for `target` reads its weights in float16 and computes in float32.

    A native processor widens vectors of them as it reads, in half of the bytes, if it has one of INSTRUCTION_SETS.

    Args:
        named: whether the library is for an instruction set by name; else it is for this machine's best, if any.
    """
    return target == "llvm" and dtype == "float32" and (named or best_of_host() is not None)


def for_instruction_set(planned: PlannedLibrary, name: str) -> PlannedLibrary:
    """Return the same plan for another instruction set with vectors and registers of the same size."""
    return dataclasses.replace(planned, target=tvm_target(planned.preset, name), instruction_set=name)


def preset_of(config: BuildConfig, instruction_set: str | None) -> TargetPreset:
    """Return the preset of one of the build's libraries."""
    return BROWSER_PROCESSOR if instruction_set in BROWSER_INSTRUCTION_SETS else config.preset


def pipeline_of(config: BuildConfig, instruction_set: str | None = None, shipped: bool = True) -> Pipeline:
    """Make the phases that `config` asks for; see `plan_library` for the others."""
    target = tvm_target(preset_of(config, instruction_set), instruction_set)
    if not shipped:
        target = tvm.target.Target({**json.loads(str(target)), "opt-level": 1})
    return Pipeline(target, find_records(config, instruction_set), config.dump_ir)


def find_records(config: BuildConfig, instruction_set: str | None) -> TuningRecords:
    """Read the tuning records of a library: those of its instruction set, or of all families of GPUs of its target.

    Raises UserError if there is no family of the name that the build asks for.
    """
    if config.target == "llvm" or instruction_set is not None:  # a browser's processor too
        folders = [config.tuning_db / "llvm" / instruction_set] if instruction_set else []
        if config.tuning_family is not None and config.target == "llvm":
            remedy = "leave it out: a processor's records go by its instruction set"
            raise UserError("--tuning-family", repr(config.tuning_family), "a target with GPUs", remedy)
        return TuningRecords(folders)
    families = {family.name: family for family in families_of(config.tuning_db / config.target)}
    if config.tuning_family is None:
        return TuningRecords(families.values())
    if config.tuning_family not in families:
        wanted = (
            f"one of {', '.join(families)}" if families else f"records for {config.target}, of which there are none"
        )
        raise UserError("--tuning-family", repr(config.tuning_family), wanted, "leave it out")
    return TuningRecords([families[config.tuning_family]])


def _callers_over_limits(scheduled: tvm.IRModule, target: tvm.target.Target) -> list[str]:
    """List the components that call a kernel which is over a limit."""
    rejected = {kernel.prim_func for kernel in measure_kernels(scheduled, target) if any(kernel.violations())}
    callers = []
    for global_var, function in scheduled.functions_items():
        if isinstance(function, relax.Function):
            called = {used.name_hint for used in relax.analysis.all_global_vars(function)}
            if called & rejected:
                callers.append(global_var.name_hint)
    return callers


def write_library(planned: PlannedLibrary, model_name: str, folder: Path) -> tuple[Path, manifest.Library]:
    """Generate code and link it in `folder`. A WebGPU library is a wasm file that contains the TVM runtime.

    Returns:
        The library's file and its description for the manifest.
    """
    preset, dtype = planned.preset, planned.dtype
    _check_room(folder)
    executable = generate_code(planned.module, planned.target)
    instructions = f"-{planned.instruction_set}" if planned.instruction_set else ""
    path = folder / f"{model_name}-{dtype}{instructions}{preset.library_suffix}"
    if preset.device == "wasm":
        from mlc_controlnet.toolchain.link_processor import link_processor

        executable.export_library(str(path), fcompile=link_processor)
    elif preset.device == "webgpu":
        from mlc_controlnet.toolchain import link_wasm

        executable.export_library(str(path), fcompile=link_wasm)
    elif is_foreign(planned.instruction_set):
        from mlc_controlnet.toolchain.link_foreign import link_foreign

        executable.export_library(str(path), fcompile=link_foreign)
    else:
        executable.export_library(str(path))
    return path, manifest.Library(
        file=path.name,
        device=preset.device,
        dtype=dtype,
        required_features=("shader-f16",) if preset.device == "webgpu" and dtype == "float16" else (),
        required_limits=planned.requirements.limits,
        activation_bytes=planned.activation_bytes,
        launches=planned.launches,
        largest_binding_bytes=planned.requirements.largest_binding_bytes,
        instruction_set=planned.instruction_set,
        kernels=planned.kernels,
    )


def generate_code(module: tvm.IRModule, target: tvm.target.Target) -> relax.VMExecutable:
    """Generate code for a module after the last phase."""
    lowering = webgpu_code.PIPELINE if target.kind.name == "webgpu" else "default"
    return relax.build(module, target, relax_pipeline=None, tir_pipeline=lowering)


def _check_room(folder: Path) -> None:
    """Refuse to start on a full disk, because LLVM ends the whole process when it cannot write."""
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < ROOM_BYTES:
        raise UserError(
            f"the temporary folder {folder}",
            f"{free_bytes / 1e6:.0f} MB of room",
            f"{ROOM_BYTES / 1e6:.0f} MB",
            "make room there, or set TMPDIR to another folder",
        )


def tvm_target(preset: TargetPreset, instruction_set: str | None = None) -> tvm.target.Target:
    """Make TVM's target, with its host, from a preset; for processors, of an instruction set or this machine's best."""
    if preset.device in ("llvm", "wasm"):
        name = best_of_host() if instruction_set is None else instruction_set
        return tvm.target.Target({"kind": "llvm"} if name is None else ALL_INSTRUCTION_SETS[name].tvm_target)
    if preset.tvm_host is None:
        return tvm.target.Target(preset.tvm_target)
    return tvm.target.Target(preset.tvm_target, host=preset.tvm_host)


def count_launches_and_bytes(planned: tvm.IRModule) -> tuple[dict[str, int], dict[str, int]]:
    """Count kernel launches and planned bytes (whole pages) of each component of a module after the last phase."""
    launches, planned_bytes = {}, {}
    for global_var, function in planned.functions_items():
        if isinstance(function, relax.Function):
            counter = _Counter(planned)
            counter.visit_expr(function)
            launches[global_var.name_hint] = len(counter.launched)
            planned_bytes[global_var.name_hint] = counter.bytes
    return launches, planned_bytes


def list_kernels(
    planned: tvm.IRModule, requirements: Requirements, target: tvm.target.Target
) -> tuple[manifest.FunctionKernels, ...]:
    """List the kernels that each function of a module after the last phase launches, the first launch first.

    Phase plan makes PrimFuncs that phase check has not measured: those that write over an operand.
    """
    if not requirements.kernels:
        return ()
    launched = {}
    for global_var, function in planned.functions_items():
        if isinstance(function, relax.Function):
            counter = _Counter(planned)
            counter.visit_expr(function)
            launched[global_var.name_hint] = tuple(dict.fromkeys(counter.launched))
    measured = {kernel.prim_func for kernel in requirements.kernels}
    new = {planned.get_global_var(name) for names in launched.values() for name in names if name not in measured}
    others = measure_kernels(tvm.IRModule({global_var: planned[global_var] for global_var in new}), target)
    kernels_of: dict[str, list[str]] = {}
    for kernel in (*requirements.kernels, *others):
        kernels_of.setdefault(kernel.prim_func, []).append(kernel.name)
    return tuple(
        manifest.FunctionKernels(function, tuple(kernel for name in names for kernel in kernels_of[name]))
        for function, names in launched.items()
    )


@relax.expr_functor.visitor
class _Counter(relax.PyExprVisitor):
    def __init__(self, mod: tvm.IRModule) -> None:
        self.mod = mod
        self.launched: list[str] = []  # PrimFuncs, in order
        self.bytes = 0

    def visit_call_(self, call: relax.Call) -> None:
        if isinstance(call.op, tvm.ir.GlobalVar) and isinstance(self.mod[call.op], tvm.tirx.PrimFunc):
            self.launched.append(call.op.name_hint)
        elif isinstance(call.op, tvm.ir.Op) and call.op.name == "relax.vm.alloc_storage":
            self.bytes += -(-int(call.args[0].values[0]) // POOL_PAGE_BYTES) * POOL_PAGE_BYTES
