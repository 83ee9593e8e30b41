"""Packed weights of models that a benchmark compiles itself."""

from mlc_controlnet.capture import CapturedModel, Quantizer
from mlc_controlnet.passes.quantize.find_weights import find_weights
from mlc_controlnet.passes.quantize.quantize_model import formats_of_components, quantize_model
from mlc_controlnet.quantize.formats import FLOAT16

# Formats of `build --weights`; which of them `mixed` gives to a weight depends on its values.
WEIGHTS = (FLOAT16, "int8", "palette6", "int4", "palette4")


def pack(captured: CapturedModel, weights: str) -> CapturedModel:
    """Return the model after phase clean as `build --weights` has it. Its params are rounded once they are read."""
    places = find_weights(captured) if weights != FLOAT16 else {}
    return quantize_model(captured, formats_of_components(captured, lambda _: weights, places), places, Quantizer())
