"""Compiles a candidate to WGSL."""

from dataclasses import dataclass

import tvm
from tvm import tirx
from tvm.target import Target

from mlc_controlnet.passes.check.check_webgpu_limits import KernelFacts, measure_kernels
from mlc_controlnet.passes.generate import webgpu_code


@dataclass(frozen=True)
class Shader:
    """A candidate compiled to WGSL, with the function that it was compiled from."""

    function: tirx.PrimFunc
    wgsl: str
    facts: KernelFacts

    @property
    def workgroups(self) -> int:
        """Return the workgroups of a launch."""
        x, y, z = self.facts.grid
        return x * y * z


def compile_shader(kernel: tirx.PrimFunc, target: Target) -> Shader:
    """Compile a scheduled kernel for `target`, WebGPU's.

    Raises ScheduleError or ValueError if it cannot be, or if it is over one of WebGPU's limits.
    """
    function = kernel.with_attr("global_symbol", "candidate")
    module = tvm.IRModule({"candidate": function})
    (facts,) = measure_kernels(module, target)
    if violations := list(facts.violations()):
        raise ValueError(violations[0])
    library = tirx.build(module, target=target, pipeline=webgpu_code.PIPELINE)
    (wgsl,) = dict(webgpu_code.shaders_of(library)).values()
    return Shader(function, wgsl, facts)
