"""torch -> Relax: every component through torch.export (TorchDynamo's own front door) into one IRModule."""

from mlc_controlnet.capture.module import CapturedModel, capture, capture_module, example_inputs, wrap
from mlc_controlnet.capture.packed_param import PackedParam, Quantizer, packed
from mlc_controlnet.capture.param import Param, Rows
from mlc_controlnet.capture.reference import build_references
from mlc_controlnet.capture.share_weights import share_weights, stored_bytes

__all__ = [
    "CapturedModel",
    "PackedParam",
    "Param",
    "Quantizer",
    "Rows",
    "build_references",
    "capture",
    "capture_module",
    "example_inputs",
    "packed",
    "share_weights",
    "stored_bytes",
    "wrap",
]
