"""Give a kernel's buffers and loops short names.

Before: for ax0_ax1_ax2_ax3_fused_0 ...: p_model_mid_block_resnets_0_conv1_weight_shared[...] = ...
After:  for n3 ...: b6[...] = ...

Code generation writes a name wherever it is read, and TVM makes names by appending each transformation to the old name.
WGSL is text, which a browser fetches and parses: short names save about a third of it. The kernel keeps its own name.
"""

import logging

import tvm
import tvm_ffi
from tvm import tirx
from tvm.tirx.buffer import BufferType

from mlc_controlnet.kernels.marks import is_named

log = logging.getLogger(__name__)


@tvm.transform.module_pass(opt_level=0, name="ShortenNames")
class ShortenNames:
    def transform_module(self, mod: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        mod = mod.clone()  # assigning below would change the caller's module
        fired = 0
        for global_var, function in mod.functions_items():
            if isinstance(function, tirx.PrimFunc) and not is_named(function):
                renamer = _Renamer()
                mod[global_var] = tvm_ffi.structural_map(function, (tvm.ir.Var, renamer.short))
                fired += len(renamer.renamed)
        log.info("shortened %d names", fired)
        return mod


class _Renamer:
    """One variable of a kernel -> the same with a short name, at every occurrence."""

    def __init__(self) -> None:
        self.renamed: dict[tvm.ir.Var, tvm.ir.Var] = {}

    def short(self, variable: tvm.ir.Var) -> tvm.ir.Var:
        if "Idx." in variable.name:  # code generation knows threads by their names
            return variable
        if variable not in self.renamed:
            letter = "b" if isinstance(variable.ty, BufferType) else "n"  # i32 is a type of WGSL
            self.renamed[variable] = tvm.ir.Var(f"{letter}{len(self.renamed)}", variable.ty)
        return self.renamed[variable]
