"""Take the codes of four neighbours out of the word that holds them, and convert them as they are taken.

Before: vec4<f16>((vec4<i32>(i32(b1[i]), i32(b1[i]), i32(b1[i]), i32(b1[i])) >> vec4<u32>(min(vec4<i32>(0i, 8i, 16i,
        24i), vec4<i32>(31i, 31i, 31i, 31i)))) & vec4<i32>(255i, 255i, 255i, 255i) - vec4<i32>(128i, 128i, 128i, 128i))
After:  vec4<f16>(vec4<f32>(vec4<u32>(w & 255u, w >> 8u & 255u, w >> 16u & 255u, w >> 24u & 255u)) - vec4<f32>(128f)),
        of let w = b1[i]

TVM writes a number for each lane, and bounds shifts of vectors even by constants. Shifts are of u32, and a byte is
converted before the middle is taken from it, which is exact: of i32, AMD's compiler shifts and masks where it could
take a byte (v_bfe_u32) or convert it at once (v_cvt_f32_ubyte0 to 3). The middle is taken in float32, since that and
the conversion to float16 are one instruction (v_fma_mixlo_f16): 10 for four weights in int8, 12 if it is taken after.

Two codes at a time could be float16 numbers without a conversion: 0x6400 are the bits of 1024, whose last bit counts 1,
so that bitcast<vec2<f16>>(w & 0xff00ff | 0x64006400) - 1024 are two codes. It would save 3 of the 10 on a Radeon Pro
W7900. But naga, and so Firefox, has no such bitcast (gfx-rs/wgpu issue 8896).

`kernels/decoding.py` says what is decoded. Runs on device functions for WGSL after common subexpressions are gone,
which would have taken the numbers out of the vectors.
"""

import logging

import tvm
import tvm_ffi
from tvm import tirx

from mlc_controlnet.quantize.scheme import LANES

log = logging.getLogger(__name__)

HALF, SINGLE = "float16x4", "float32x4"


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
                    (tirx.Add, _with_number),
                    (tirx.Sub, _with_number),
                    (tirx.Cast, _converted),
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
    held = tirx.Var("w", "uint32")
    shifts = [int(places.base) + lane * int(places.stride) for lane in range(int(places.lanes))]
    bits = tirx.const(int(mask.value), "uint32")
    numbers = [(held >> tirx.const(shift, "uint32") if shift else held) & bits for shift in shifts]
    vector = tirx.call_pure_extern("uint32x4", "vec4<u32>", *numbers)
    return tirx.Let(held, _unsigned(word.value), tirx.call_pure_extern("int32x4", "vec4<i32>", vector))


def _unsigned(word: tvm.ir.Expr) -> tvm.ir.Expr:
    return word.value if isinstance(word, tirx.Cast) and str(word.value.ty) == "uint32" else tirx.Cast("uint32", word)


def _is_constant(mask: tvm.ir.Expr) -> bool:
    return isinstance(mask, tirx.Broadcast) and isinstance(mask.value, tirx.IntImm)


def _are_constant(places: tvm.ir.Expr) -> bool:
    return (
        isinstance(places, tirx.Ramp)
        and int(places.lanes) == LANES
        and isinstance(places.base, tirx.IntImm)
        and isinstance(places.stride, tirx.IntImm)
    )


def _with_number(sum_: tirx.Add | tirx.Sub) -> tvm.ir.Expr:
    """Write once a number that is added to each code, or taken away."""
    if not _is_code(sum_.a) and not _is_code(sum_.b):
        return sum_
    one, other = (_vector(_int32(x.value)) if isinstance(x, tirx.Broadcast) else x for x in (sum_.a, sum_.b))
    return one + other if isinstance(sum_, tirx.Add) else one - other


def _converted(cast: tirx.Cast) -> tvm.ir.Expr:
    """Convert codes before the middle is taken from them."""
    difference = cast.value
    if str(cast.ty) not in (HALF, SINGLE) or not isinstance(difference, tirx.Sub) or not _is_code(difference.a):
        return cast
    codes, (_, middle) = difference.a, difference.b.args
    _, unsigned = codes.body.args
    numbers = tirx.Let(codes.var, codes.value, tirx.call_pure_extern(SINGLE, "vec4<f32>", unsigned))
    decoded = numbers - tirx.Broadcast(tirx.const(int(middle), "float32"), LANES)
    return decoded if str(cast.ty) == SINGLE else tirx.Cast(str(cast.ty), decoded)


def _vector(number: tvm.ir.Expr) -> tvm.ir.Expr:
    return tirx.call_pure_extern("int32x4", "vec4<i32>", number)


def _int32(expr: tvm.ir.Expr) -> tvm.ir.Expr:
    """Return a number as what code generation makes of it: every int64 becomes i32, but not the type of a call."""
    return expr if str(expr.ty) == "int32" else tirx.Cast("int32", expr)


def _is_code(expr: tvm.ir.Expr) -> bool:
    """Return whether an expression is what `_codes` returns."""
    return isinstance(expr, tirx.Let) and str(expr.ty) == "int32x4"
