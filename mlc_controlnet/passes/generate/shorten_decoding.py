"""Write the word that holds a vector of codes once.

Before: (vec4<i32>(i32(b1[i]), i32(b1[i]), i32(b1[i]), i32(b1[i])) >> vec4<u32>(min(vec4<i32>(0i, 4i, 8i, 12i),
        vec4<i32>(31i, 31i, 31i, 31i)))) & vec4<i32>(15i, 15i, 15i, 15i)
After:  vec4<i32>(w & 15i, w >> 4u & 15i, w >> 8u & 15i, w >> 12u & 15i), of let w = i32(b1[i])

TVM writes a number for each lane, and bounds shifts of vectors even by constants. `kernels/decoding.py` says what is
decoded. Without this pass each kernel that decodes has 1 to 4 KB of WGSL more, 7 % of a library. Runs on device
functions for WGSL after common subexpressions are gone, which would have taken the numbers out of the vectors.
"""

import logging

import tvm
import tvm_ffi
from tvm import tirx

from mlc_controlnet.quantize.scheme import LANES

log = logging.getLogger(__name__)


@tvm.transform.module_pass(opt_level=0, name="ShortenDecoding")
class ShortenDecoding:
    def transform_module(self, mod: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        fired = 0

        def codes(masked: tirx.BitwiseAnd) -> tvm.ir.Expr:
            nonlocal fired
            found = _codes(masked)
            fired += found is not None
            return masked if found is None else found

        mod = mod.clone()
        for global_var, function in mod.functions_items():
            if isinstance(function, tirx.PrimFunc):
                callbacks = (
                    (tirx.BitwiseAnd, codes),
                    (tirx.BitwiseOr, _joined),
                    (tirx.Add, _with_number),
                    (tirx.Sub, _with_number),
                )
                mod[global_var] = tvm_ffi.structural_map(function, callbacks)
        log.info("shortened %d vectors of codes", fired)
        return mod


def _codes(masked: tirx.BitwiseAnd) -> tirx.Let | None:
    """Return the vector of codes that is taken out of one word; None if it is something else."""
    shifted, mask = masked.a, masked.b
    if not isinstance(shifted, tirx.RShift) or not _is_constant(mask):
        return None
    word, places = shifted.a, shifted.b
    if not isinstance(word, tirx.Broadcast) or not _are_constant(places):
        return None
    held = tirx.Var("w", "int32")
    shifts = [int(places.base) + lane * int(places.stride) for lane in range(int(places.lanes))]
    bits = tirx.const(int(mask.value), "int32")
    numbers = [(held >> tirx.const(shift, "int32") if shift else held) & bits for shift in shifts]
    return tirx.Let(held, _int32(word.value), _vector(*numbers))


def _is_constant(mask: tvm.ir.Expr) -> bool:
    return isinstance(mask, tirx.Broadcast) and isinstance(mask.value, tirx.IntImm)


def _are_constant(places: tvm.ir.Expr) -> bool:
    return (
        isinstance(places, tirx.Ramp)
        and int(places.lanes) == LANES
        and isinstance(places.base, tirx.IntImm)
        and isinstance(places.stride, tirx.IntImm)
    )


def _joined(planes: tirx.BitwiseOr) -> tvm.ir.Expr:
    """Join the parts of codes that lie in two planes."""
    return planes.a | planes.b if _is_code(planes.a) else planes


def _with_number(sum_: tirx.Add | tirx.Sub) -> tvm.ir.Expr:
    """Write once a number that is added to each code, or taken away."""
    if not _is_code(sum_.a) and not _is_code(sum_.b):
        return sum_
    one, other = (_vector(_int32(x.value)) if isinstance(x, tirx.Broadcast) else x for x in (sum_.a, sum_.b))
    return one + other if isinstance(sum_, tirx.Add) else one - other


def _vector(*numbers: tvm.ir.Expr) -> tvm.ir.Expr:
    return tirx.call_pure_extern("int32x4", "vec4<i32>", *numbers)


def _int32(expr: tvm.ir.Expr) -> tvm.ir.Expr:
    """Return a number as what code generation makes of it: every int64 becomes i32, but not the type of a call."""
    return expr if str(expr.ty) == "int32" else tirx.Cast("int32", expr)


def _is_code(expr: tvm.ir.Expr) -> bool:
    """Return whether an expression is what `_codes` returns, or several of these joined."""
    if isinstance(expr, tirx.BitwiseOr):
        return _is_code(expr.a) and _is_code(expr.b)
    return isinstance(expr, tirx.Let) and str(expr.ty) == "int32x4"
