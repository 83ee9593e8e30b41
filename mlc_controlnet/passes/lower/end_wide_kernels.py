"""End a kernel before FuseOps makes it bind more buffers than a WebGPU device grants.

Before: c1 = add(multiply(c0, k1), multiply(x1, t1)); c2 = add(multiply(c1, k2), multiply(x2, t2)); ...
After:  the same, with the sum c1 marked as the end of its kernel: FuseOps takes what comes before it into the kernel,
        and nothing that comes after it

Before: y = conv2d(x, words, table); z = add(y, b); s = add(z, r); ...
After:  the same, with the sum s marked as data movement, which FuseOps does not take into a convolution's kernel

It fires where a chain of broadcasts reads more buffers than BINDINGS. In Stable Diffusion XL that is the context of the
second text encoder, which is chosen from the outputs of 31 layers: FuseOps would make one kernel of them, which binds
over a hundred buffers, and no device would compile it. It becomes 31 kernels, once a prompt.

A kernel has one anchor, a convolution or matrix product, and only broadcasts follow it. Those that bind a packed weight
bind a buffer more. Counted as if two shared a kernel, chains would end too early with packed weights: 21 launches more
in Stable Diffusion's UNet, 7 in its decoder, whose plan would need twice the memory.
"""

import logging
from collections.abc import Mapping

import tvm
from tvm import relax

from mlc_controlnet.kernels.marks import (
    ANCHOR,
    BROADCAST,
    ENDS_KERNEL,
    INJECTIVE,
    OPAQUE,
    mark_pattern,
    pattern_of,
)
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
        self.marks: dict[relax.Var, int] = {}  # of the function that is being rewritten
        self.marked: dict[tuple[tvm.ir.GlobalVar, int], tvm.ir.GlobalVar] = {}

    def begin(self, function: relax.Function) -> None:
        self.marks = _marks_of(function, self.mod)

    def __call__(self, call: relax.Call, site: Site) -> relax.Expr | None:
        if site.variable not in self.marks:
            return None
        kernel, operands = call.args[:2]
        key = kernel, self.marks[site.variable]
        if key not in self.marked:
            suffix = "last" if key[1] == ENDS_KERNEL else "first"
            self.marked[key] = site.builder.add_func(
                mark_pattern(self.mod[kernel], key[1]), f"{kernel.name_hint}_{suffix}"
            )
        return relax.call_tir(self.marked[key], operands, call.ty)


def _marks_of(function: relax.Function, mod: tvm.IRModule) -> dict[relax.Var, int]:
    """Choose where kernels end so that none of them binds too much, the first of a chain as wide as it can be.

    Returns the patterns of what ends a kernel, or begins one after an anchor's, which takes no other patterns.
    """
    reading = readers(function)
    pattern: dict[relax.Expr, int] = {}
    bound: dict[relax.Expr, frozenset[relax.Expr]] = {}  # variable -> what the kernel that computes it would bind
    anchored: set[relax.Expr] = set()  # variables in whose kernel there is an anchor
    marks: dict[relax.Var, int] = {}
    for block in function.body.blocks:
        for binding in block.bindings:
            call = binding.value
            if not is_call(call, "relax.call_tir") or not isinstance(call.args[1], relax.Tuple):
                continue
            own = pattern_of(mod[call.args[0]])
            fuses = own <= INJECTIVE
            joined = [x for x in call.args[1] if fuses and marks.get(x) != ENDS_KERNEL and _joins(x, pattern, reading)]
            anchors = sorted((x for x in joined if x in anchored), key=lambda x: len(bound[x]))
            # One joins. FuseOps chooses which; the others' results are read from memory.
            apart = anchors if own > BROADCAST else anchors[:-1]
            read = {x: bound[x] if x in joined and x not in apart else frozenset([x]) for x in call.args[1]}
            while fuses and len(frozenset().union(*read.values())) + 1 > BINDINGS:
                widest = max(read, key=lambda operand: len(read[operand]))
                if len(read[widest]) == 1:
                    break
                if widest in anchored:
                    marks[binding.var] = own = INJECTIVE
                    apart = anchors
                else:
                    marks[widest] = pattern[widest] = ENDS_KERNEL
                read[widest] = frozenset([widest])
            pattern[binding.var] = own
            bound[binding.var] = frozenset().union(*read.values())
            if own == ANCHOR or len(apart) < len(anchors):
                anchored.add(binding.var)
    return marks


def _joins(
    operand: relax.Expr, pattern: Mapping[relax.Expr, int], reading: Mapping[relax.Var, list[relax.Expr]]
) -> bool:
    """Return whether FuseOps may take what computes `operand` into the kernel of its only reader."""
    is_inside = isinstance(operand, relax.DataflowVar)  # no output of its block
    fuses = pattern.get(operand, OPAQUE) in (*range(INJECTIVE + 1), ANCHOR)
    return is_inside and fuses and len(reading.get(operand, ())) == 1
