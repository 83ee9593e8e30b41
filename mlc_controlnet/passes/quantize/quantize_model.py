"""Quantize a captured model in the formats of `--weights`."""

from collections.abc import Callable

from mlc_controlnet.capture import CapturedModel, Param, Quantizer
from mlc_controlnet.passes.quantize.find_weights import find_weights
from mlc_controlnet.passes.quantize.pack_weights import pack_weights
from mlc_controlnet.quantize.formats import FLOAT16, FORMATS
from mlc_controlnet.quantize.scheme import Scheme, choose_scheme


def quantize_model(captured: CapturedModel, format_of: Callable[[str], str], quantizer: Quantizer) -> CapturedModel:
    """Return the model with the weights of each component in its format.

    A weight that several components read has the format of the first of them.

    Args:
        captured: after phase clean, with the Control-LoRAs' shared weights.
        format_of: the format of a component, FLOAT16 or a key of FORMATS; equal for components that share a function.
        quantizer: shared by the models of all dtypes of a build.
    """
    if all(format_of(component) == FLOAT16 for component in captured.params):
        return captured
    schemes: dict[Param, Scheme] = {}
    places = find_weights(captured)
    for component, own in captured.params.items():
        chosen = format_of(component)
        for param in own:
            if chosen != FLOAT16 and param in places and param not in schemes:
                schemes[param] = choose_scheme(*FORMATS[chosen], places[param].rows, places[param].columns)
    return pack_weights(captured, schemes, quantizer) if schemes else captured
