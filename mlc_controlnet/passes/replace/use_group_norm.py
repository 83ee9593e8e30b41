"""Replace group norm, and the silu that follows it, by the group norm kernels.

Before: y = nn.group_norm(x, gamma, beta); z = nn.silu(y)
After:  partial = call_tir(statistics, (x,)); z = call_tir(normalize_silu, (x, partial, gamma, beta))
        or, for small groups on a GPU: z = call_tir(group_norm_silu, (x, gamma, beta))

Fires on channels-first static shapes. The kernel computes the silu as well if nothing else reads y, which saves one
round trip of y. A default GPU schedule runs the whole norm on one or two workgroups.
"""

import logging
from dataclasses import dataclass

import tvm
from tvm import relax
from tvm.target import Target

from mlc_controlnet.kernels.group_norm import group_norm
from mlc_controlnet.kernels.normalization import GroupNorm
from mlc_controlnet.passes.matching import is_call, readers
from mlc_controlnet.passes.rewriting import Site, rewrite_calls

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Names:
    """The kernels of a norm in the module; `statistics` is None if one kernel does everything."""

    normalize: tvm.ir.GlobalVar
    statistics: tvm.ir.GlobalVar | None
    partial: relax.TensorType | None


@tvm.transform.module_pass(opt_level=0, name="UseGroupNorm")
class UseGroupNorm:
    def __init__(self, target: Target) -> None:
        self.target = target

    def transform_module(self, mod: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        rule = _Rule(self.target)
        rewritten, fired = rewrite_calls(mod, rule, rule.begin)
        log.info(
            "replaced %d group norms, %d of them with silu, by kernels of %d kinds",
            fired,
            rule.fired_with_silu,
            len(rule.kernels),
        )
        return rewritten


class _Rule:
    def __init__(self, target: Target) -> None:
        self.target = target
        self.kernels: dict[GroupNorm, Names] = {}
        self.only_read_by_silu: set[relax.Var] = set()
        self.fired_with_silu = 0

    def begin(self, function: relax.Function) -> None:
        self.only_read_by_silu = _only_read_by_silu(function)

    def __call__(self, call: relax.Call, site: Site) -> relax.Expr | None:
        if is_call(call, "relax.nn.group_norm") and site.variable in self.only_read_by_silu:
            return None  # the rule replaces it together with the silu
        silu = is_call(call, "relax.nn.silu") and site.original.args[0] in self.only_read_by_silu
        norm = site.bound_to(call.args[0]) if silu else call
        wanted = describe(norm, silu)
        if norm is None or wanted is None:
            return None
        self.fired_with_silu += silu
        kernels = self._kernels_for(wanted, site.builder)
        x, gamma, beta = norm.args
        if kernels.statistics is None:
            return relax.call_tir(kernels.normalize, [x, gamma, beta], call.ty)
        partial = site.emit(relax.call_tir(kernels.statistics, [x], kernels.partial))
        return relax.call_tir(kernels.normalize, [x, partial, gamma, beta], call.ty)

    def _kernels_for(self, norm: GroupNorm, builder: relax.BlockBuilder) -> Names:
        if norm not in self.kernels:
            made = group_norm(norm, self.target)
            suffix = "_silu" if norm.silu else ""
            if made.statistics is None:
                self.kernels[norm] = Names(builder.add_func(made.normalize, f"group_norm{suffix}"), None, None)
            else:
                self.kernels[norm] = Names(
                    builder.add_func(made.normalize, f"group_norm_normalize{suffix}"),
                    builder.add_func(made.statistics, "group_norm_statistics"),
                    relax.TensorType(made.partial_shape, "float32"),
                )
        return self.kernels[norm]


def _only_read_by_silu(function: relax.Function) -> set[relax.Var]:
    """Find the variables of dataflow blocks whose only reader is a silu."""
    return {
        variable
        for variable, reading in readers(function).items()
        if len(reading) == 1 and is_call(reading[0], "relax.nn.silu")
    }


def describe(expr: relax.Expr | None, silu: bool) -> GroupNorm | None:
    """Return the group norm that `expr` computes; None for anything else, or if there is no kernel for it."""
    if expr is None or not is_call(expr, "relax.nn.group_norm"):
        return None
    attrs, shape = expr.attrs, expr.ty.shape
    if not all(isinstance(size, tvm.tirx.IntImm) for size in shape) or not (attrs.center and attrs.scale):
        return None
    rank = len(shape)
    if attrs.channel_axis % rank != 1 or sorted(int(axis) % rank for axis in attrs.axes) != list(range(2, rank)):
        return None
    norm = GroupNorm(
        tuple(int(size) for size in shape), int(attrs.num_groups), float(attrs.epsilon), str(expr.ty.dtype), silu
    )
    return norm if norm.is_supported() else None
