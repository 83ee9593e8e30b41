"""Quantize a captured model in the formats of `--weights`."""

from collections.abc import Callable, Mapping

from mlc_controlnet.capture import CapturedModel, Param, Quantizer
from mlc_controlnet.passes.quantize.find_weights import Place
from mlc_controlnet.passes.quantize.pack_weights import pack_weights
from mlc_controlnet.quantize.formats import FLOAT16, FORMATS


def formats_of_components(
    captured: CapturedModel, format_of: Callable[[str], str], places: Mapping[Param, Place]
) -> dict[Param, str]:
    """Return the formats of the weights to pack: each has that of its component, and of the first if several read it.

    Args:
        captured: after phase clean, with the Control-LoRAs' shared weights.
        format_of: the format of a component, one of WEIGHTS; equal for components that share a function.
        places: of the weights that can be packed.
    """
    formats: dict[Param, str] = {}
    for component, own in captured.params.items():
        chosen = format_of(component)
        for param in own:
            if chosen != FLOAT16 and param in places:
                formats.setdefault(param, chosen)
    return formats


def quantize_model(
    captured: CapturedModel, formats: Mapping[Param, str], places: Mapping[Param, Place], quantizer: Quantizer
) -> CapturedModel:
    """Return the model with packed weights.

    Args:
        captured: after phase clean, with the Control-LoRAs' shared weights.
        formats: of the weights to pack, keys of FORMATS.
        places: of the weights that can be packed.
        quantizer: shared by the models of all dtypes of a build.
    """
    schemes = {param: places[param].scheme(*FORMATS[name]) for param, name in formats.items()}
    return pack_weights(captured, schemes, quantizer) if schemes else captured
