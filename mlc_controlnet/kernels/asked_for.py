"""What a finished kernel was asked for, read from its mark: so that it can be made again with other sizes of tiles."""

import ast

from tvm import tirx

from mlc_controlnet.kernels.attention import Attention
from mlc_controlnet.kernels.marks import computed_by
from mlc_controlnet.kernels.normalization import GroupNorm, LayerNorm

Asked = Attention | GroupNorm | LayerNorm
_KINDS = {kind.__name__: kind for kind in (Attention, GroupNorm, LayerNorm)}


def asked_for(kernel: tirx.PrimFunc) -> Asked | None:
    """Return what the kernel computes by itself; None for a part of it, such as statistics, and for other functions.

    The mark is the description's text, which Python reads back.
    """
    try:
        call = ast.parse(computed_by(kernel) or "", mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.func.id not in _KINDS:
            return None
        fields = {str(field.arg): ast.literal_eval(field.value) for field in call.keywords}
    except (SyntaxError, ValueError):
        return None
    asked: Asked = _KINDS[call.func.id](**fields)
    return asked
