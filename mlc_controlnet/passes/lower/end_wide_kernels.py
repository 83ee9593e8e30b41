"""End a kernel before FuseOps makes it bind more buffers than a WebGPU device grants.

Before: c1 = add(multiply(c0, k1), multiply(x1, t1)); c2 = add(multiply(c1, k2), multiply(x2, t2)); ...
After:  the same, with the sum c1 marked as the end of its kernel: FuseOps takes what comes before it into the kernel,
        and nothing that comes after it

It fires where a chain of broadcasts reads more buffers than BINDINGS. In Stable Diffusion XL that is the context of the
second text encoder, which is chosen from the outputs of 31 layers: FuseOps would make one kernel of them, which binds
over a hundred buffers, and no device would compile it. It becomes 31 kernels, once a prompt.
"""

import logging
from collections.abc import Mapping

import tvm
from tvm import relax

from mlc_controlnet.kernels.marks import ENDS_KERNEL, INJECTIVE, OPAQUE, mark_pattern, pattern_of
from mlc_controlnet.passes.matching import is_call, readers
from mlc_controlnet.passes.rewriting import Site, rewrite_calls

log = logging.getLogger(__name__)

BINDINGS = 8  # storage buffers of one kernel, its result among them, that every WebGPU device grants


@tvm.transform.module_pass(opt_level=0, name="EndWideKernels")
class EndWideKernels:
    def transform_module(self, mod: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        rewritten, fired = rewrite_calls(mod, rule := _Rule(mod), rule.begin)
        log.info("ended %d kernels that would bind more than %d buffers", fired, BINDINGS)
        return rewritten if fired else mod


class _Rule:
    def __init__(self, mod: tvm.IRModule) -> None:
        self.mod = mod
        self.last: set[relax.Var] = set()  # what kernels end with, in the function that is being rewritten
        self.marked: dict[tvm.ir.GlobalVar, tvm.ir.GlobalVar] = {}

    def begin(self, function: relax.Function) -> None:
        self.last = _last_of_kernels(function, self.mod)

    def __call__(self, call: relax.Call, site: Site) -> relax.Expr | None:
        if site.variable not in self.last:
            return None
        kernel, operands = call.args[:2]
        if kernel not in self.marked:
            marked = mark_pattern(self.mod[kernel], ENDS_KERNEL)
            self.marked[kernel] = site.builder.add_func(marked, f"{kernel.name_hint}_last")
        return relax.call_tir(self.marked[kernel], operands, call.ty)


def _last_of_kernels(function: relax.Function, mod: tvm.IRModule) -> set[relax.Var]:
    """Choose where kernels end so that none of them binds too much, the first of a chain as wide as it can be."""
    reading = readers(function)
    pattern: dict[relax.Expr, int] = {}
    bound: dict[relax.Expr, frozenset[relax.Expr]] = {}  # variable -> what the kernel that computes it would bind
    last: set[relax.Var] = set()
    for block in function.body.blocks:
        for binding in block.bindings:
            call = binding.value
            if not is_call(call, "relax.call_tir") or not isinstance(call.args[1], relax.Tuple):
                continue
            own = pattern_of(mod[call.args[0]])
            fuses = own <= INJECTIVE
            read = {
                operand: bound[operand]
                if fuses and _joins(operand, pattern, reading) and operand not in last
                else frozenset([operand])
                for operand in call.args[1]
            }
            while fuses and len(frozenset().union(*read.values())) + 1 > BINDINGS:
                widest = max(read, key=lambda operand: len(read[operand]))
                if len(read[widest]) == 1 or pattern[widest] > INJECTIVE:
                    break
                last.add(widest)
                read[widest] = frozenset([widest])
            pattern[binding.var] = own
            bound[binding.var] = frozenset().union(*read.values())
    return last


def _joins(
    operand: relax.Expr, pattern: Mapping[relax.Expr, int], reading: Mapping[relax.Var, list[relax.Expr]]
) -> bool:
    """Return whether FuseOps takes what computes `operand` into the kernel of its only reader."""
    return pattern.get(operand, OPAQUE) < OPAQUE and len(reading.get(operand, ())) == 1
