"""Share one kernel between those that differ only in the length of a row, of which they read a part.

Before: y = call_tir(f, (x, t)); z = call_tir(g, (x, u)), of t [1, 20160] and u [1, 9600], f and g otherwise equal
After:  y = call_tir(f, (x, t)); z = call_tir(f, (x, u)), of an f that takes rows [1, n]

No address depends on the length of a single row. In Stable Diffusion the UNet and the ControlNet have the same residual
blocks, but not as many of them, so their packed time projections differ in length. Without this pass the library has
the kernels of these blocks twice. Runs on scheduled PrimFuncs whose variables have canonical names.
"""

import logging

import tvm
import tvm_ffi
from tvm import relax, tirx
from tvm.tirx.buffer import BufferType

from mlc_controlnet.passes.matching import is_call
from mlc_controlnet.passes.rewriting import Site, rewrite_calls

log = logging.getLogger(__name__)


@tvm.transform.module_pass(opt_level=0, name="ShareKernels")
class ShareKernels:
    def transform_module(self, mod: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        alike: dict[int, list[tuple[tvm.ir.GlobalVar, tirx.PrimFunc]]] = {}
        for global_var, function in mod.functions_items():
            if isinstance(function, tirx.PrimFunc):
                general = _of_any_row(function)
                if general is not None:
                    alike.setdefault(tvm_ffi.structural_hash(general), []).append((global_var, general))
        shared: dict[tvm.ir.GlobalVar, tvm.ir.GlobalVar] = {}  # a kernel -> the first of those that are alike
        generals: dict[tvm.ir.GlobalVar, tirx.PrimFunc] = {}  # the first kernel -> the one that replaces all of them
        for kernels in alike.values():
            (first, general), *others = kernels
            same = [other for other, function in others if tvm_ffi.structural_equal(general, function)]
            if same:
                shared |= dict.fromkeys([first, *same], first)
                generals[first] = general
        rewritten, _ = rewrite_calls(mod, _Rule(shared, generals))
        log.info("%d kernels do what %d did", len(generals), len(shared))
        return relax.transform.DeadCodeElimination()(rewritten)


class _Rule:
    """Calls a general kernel in place of each shared one. It gets a name of its own, because a name has a type."""

    def __init__(
        self, shared: dict[tvm.ir.GlobalVar, tvm.ir.GlobalVar], generals: dict[tvm.ir.GlobalVar, tirx.PrimFunc]
    ) -> None:
        self.shared = shared
        self.generals = generals
        self.added: dict[tvm.ir.GlobalVar, tvm.ir.GlobalVar] = {}

    def __call__(self, call: relax.Call, site: Site) -> relax.Expr | None:
        if not is_call(call, "relax.call_tir") or call.args[0] not in self.shared:
            return None
        first = self.shared[call.args[0]]
        if first not in self.added:
            self.added[first] = site.builder.add_func(self.generals[first], first.name_hint)
        return relax.call_tir(self.added[first], list(call.args[1].fields), call.ty)


def _of_any_row(function: tirx.PrimFunc) -> tirx.PrimFunc | None:
    """Return the kernel for rows [1, N] of any length; None if it has no such param."""
    rows = [param for param in function.params[:-1] if isinstance(param.ty, BufferType) and _is_row(param.ty.shape)]
    if not rows:
        return None
    of_any_length = {}
    for row in rows:
        length = tirx.Var(f"{row.name}_length", "int64")
        of_any_length[row] = tirx.decl_buffer((tirx.IntImm("int64", 1), length), row.ty.dtype, row.name)
    opened = tvm_ffi.structural_map(function, (tvm.ir.Var, lambda variable: of_any_length.get(variable, variable)))
    return tirx.PrimFunc(opened.params, opened.body, opened.ret_type, opened.attrs)  # which is of another type


def _is_row(shape: list[tirx.Expr]) -> bool:
    return len(shape) == 2 and all(isinstance(size, tirx.IntImm) for size in shape) and int(shape[0]) == 1
