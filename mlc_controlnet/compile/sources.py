"""Writes every kernel as source code for another GPU: CUDA C, Metal, OpenCL C or AMD's LLVM assembly.

All sources come from the same definitions. The target's compiler, driver and device are not needed.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import tvm
from tvm import tirx
from tvm.target import Target
from tvm.tirx.build import codegen_build

from mlc_controlnet.capture import capture
from mlc_controlnet.checkpoint import find_model, load_checkpoint, model_name
from mlc_controlnet.compile.library import tvm_target
from mlc_controlnet.components import COMPONENTS
from mlc_controlnet.config import DTYPES, TARGETS
from mlc_controlnet.errors import check_one_of
from mlc_controlnet.files import check_writable_folder
from mlc_controlnet.passes.check.check_webgpu_limits import KernelFacts, measure_kernel
from mlc_controlnet.passes.pipeline import Pipeline, clean
from mlc_controlnet.toolchain.gpu_compilers import no_compiler

SUFFIXES = {"cuda": ".cu", "rocm": ".ll", "metal": ".metal", "opencl": ".cl"}
# The definition of one kernel: its name and its body.
_DEFINITIONS = {
    "cuda": r'extern "C" __global__ void (?:__launch_bounds__\(\d+\) )?(\w+)\([^)]*\) \{\n(.*?)\n\}',
    "rocm": r"define (?:dllexport )?amdgpu_kernel void @(\w+)\([^{]*\{\n(.*?)\n\}",
    "metal": r"kernel void (\w+)\([^{]*\{\n(.*?)\n\}",
    "opencl": r"__kernel void (?:__attribute__\(\(.*?\)\) )*(\w+)\([^)]*\) \{\n(.*?)\n\}",
}


@dataclass(frozen=True)
class Source:
    """The kernels of one module.

    Attributes:
        text: the source code of all kernels.
        bodies: the body of each kernel's definition in `text`, by name.
        kernels: the figures of each kernel that TVM launches, by name.
    """

    text: str
    bodies: dict[str, str]
    kernels: dict[str, KernelFacts]

    def faults(self, target: Target) -> list[str]:
        """List kernels without code and kernels that exceed the limits of `target`."""
        found = [f"{name}: no definition" for name in self.kernels if not self.bodies.get(name, "").strip()]
        for name, kernel in self.kernels.items():
            for what, value, limit in (
                ("threads per workgroup", kernel.threads, int(target.attrs["max_threads_per_block"])),
                ("bytes of workgroup memory", kernel.workgroup_bytes, int(target.attrs["max_shared_memory_per_block"])),
            ):
                if value > limit:
                    found.append(f"{name}: {value} {what}, the limit is {limit}")
        return found


def generate_source(scheduled: tvm.IRModule, target: Target) -> Source:
    """Generate the source of all kernels of a module that has been through phase schedule for `target`."""
    functions = {
        global_var: function.with_attr("global_symbol", global_var.name_hint)
        for global_var, function in scheduled.functions_items()
        if isinstance(function, tirx.PrimFunc)
    }
    lower, _, finish = tirx.get_tir_pipeline("s_tir")
    lowered = lower(tirx.transform.BindTarget(target)(tvm.IRModule(functions)))
    on_device = tirx.transform.Filter(lambda function: function.attrs["target"].kind.name == target.kind.name)(lowered)
    kernels = {v.name_hint: measure_kernel(v.name_hint, function) for v, function in on_device.functions_items()}
    with target, no_compiler():
        text: str = codegen_build(finish()(on_device), target).inspect_source()
    bodies = dict(re.findall(_DEFINITIONS[target.kind.name], text, re.DOTALL))
    return Source(text, bodies, kernels)


def write_source(
    target_name: str,
    model: str,
    dtype: str,
    folder: Path,
    components: Sequence[str] = COMPONENTS,
    log: Callable[[str], None] = lambda line: None,
) -> str:
    """Write the kernels of `components` to `folder`/<model>-<dtype><suffix>.

    Args:
        log: takes a line when a part of the work begins.

    Returns:
        One line that summarises the file.

    Raises:
        UserError: there is no such target, dtype, component or model.
    """
    for option, value, allowed in (
        ("--target", target_name, SUFFIXES),
        ("--dtype", dtype, DTYPES),
        *(("--component", name, COMPONENTS) for name in components),
    ):
        check_one_of(option, value, allowed)
    check_writable_folder(folder, "--out")
    target = tvm_target(TARGETS[target_name])
    checkpoint = load_checkpoint(find_model(model, components), components=components)
    folder.mkdir(parents=True, exist_ok=True)
    log(f"capture {model} ...")
    captured = clean(capture(checkpoint, dtype))
    log(f"schedule its kernels for {target_name} ...")
    scheduled = Pipeline(target).run(captured.module, until="schedule")
    log("generate their source ...")
    source = generate_source(scheduled, target)
    faults = source.faults(target)
    if faults:
        raise RuntimeError("\n".join(faults))
    file = folder / f"{model_name(model)}-{dtype}{SUFFIXES[target_name]}"
    file.write_text(source.text)
    threads = max(kernel.threads for kernel in source.kernels.values())
    workgroup = max(kernel.workgroup_bytes for kernel in source.kernels.values())
    return (
        f"{file}: {len(source.kernels)} kernels, {len(source.text) / 1e6:.1f} MB; at most {threads} threads and "
        f"{workgroup} bytes of workgroup memory"
    )
