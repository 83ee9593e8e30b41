"""The calls that decode a packed weight in Relax or widen one of float16, and how passes recognise them.

w = call_tir(decode, (words, table))          # the scheme is an attribute of `decode`
w = call_tir(widen, (weight,))                # so is that it widens
"""

from dataclasses import asdict, dataclass

import tvm
from tvm import relax, te, tirx

from mlc_controlnet.kernels.decoding import decode, widen
from mlc_controlnet.passes.matching import is_call
from mlc_controlnet.quantize.scheme import Scheme

_SCHEME = "quantization"  # the attribute of a PrimFunc that decodes
_WIDENS = "widens_weight"  # and of one that widens


def emit_decoding(
    builder: relax.BlockBuilder, words: relax.Expr, table: relax.Expr, scheme: Scheme, shape: tuple[int, ...]
) -> relax.Call:
    """Return the call that decodes a weight of `shape`, in the dtype of its table."""

    def decoded(words: te.Tensor, table: te.Tensor) -> te.Tensor:
        return decode(words, table, scheme, shape)

    # Marked before it is added: a builder adds equal functions once, and so equal layers share a kernel.
    return builder.call_te(decoded, words, table, primfunc_name_hint="decode", primfunc_attrs={_SCHEME: asdict(scheme)})


def emit_widening(builder: relax.BlockBuilder, weight: relax.Expr) -> relax.Call:
    """Return the call that widens a float16 weight."""
    return builder.call_te(widen, weight, primfunc_name_hint="widen", primfunc_attrs={_WIDENS: True})


def scheme_of(function: tirx.PrimFunc) -> Scheme | None:
    """Return the scheme of a PrimFunc that decodes a weight, None of any other."""
    fields = (function.attrs or {}).get(_SCHEME)
    if fields is None:
        return None
    method, outputs_last = str(fields["method"]), bool(fields["outputs_last"])
    bits, group, rows, columns = (int(fields[name]) for name in ("bits", "group", "rows", "columns"))
    return Scheme(method, bits, group, rows, columns, outputs_last)


@dataclass(frozen=True)
class Decoding:
    """A call that decodes a weight."""

    call: relax.Call
    scheme: Scheme

    @property
    def operands(self) -> list[relax.Expr]:
        """Words and table."""
        return list(self.call.args[1])


def computed_weight(expr: relax.Expr | None, mod: tvm.IRModule) -> relax.Call | None:
    """Return the call that decodes or widens a weight; None if `expr` is no such call."""
    if not is_call(expr, "relax.call_tir"):
        return None
    attributes = getattr(mod[expr.args[0]], "attrs", None) or {}
    return expr if _SCHEME in attributes or _WIDENS in attributes else None


def decoding(expr: relax.Expr | None, mod: tvm.IRModule) -> Decoding | None:
    """Return what `expr` decodes; None if it is no such call."""
    if not is_call(expr, "relax.call_tir"):
        return None
    function = mod[expr.args[0]]
    scheme = scheme_of(function) if isinstance(function, tirx.PrimFunc) else None
    return None if scheme is None else Decoding(expr, scheme)
