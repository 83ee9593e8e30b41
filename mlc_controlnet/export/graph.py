"""A hash of what a component's function computes, without its weights.

Components of equal hashes can share one compiled function: the hash covers operators, shapes, dtypes, and the order and
layout of the params. It is the same in every process, with one version of TVM and of the passes.
"""

import tvm_ffi

from mlc_controlnet.capture import CapturedModel
from mlc_controlnet.capture.param import TENSORS

_NAMES = ("global_symbol", TENSORS)  # attributes that say whose function it is


def graph_of(captured: CapturedModel, component: str) -> str:
    """Return the hash of a component's function after phase clean: 16 hex digits."""
    function = captured.module[captured.function_of(component)]
    for attribute in _NAMES:
        function = function.without_attr(attribute)
    return f"{tvm_ffi.structural_hash(function) & (2**64 - 1):016x}"
