"""Which ControlNets can share their compiled functions: those of one graph, whatever their weights."""

import json
from collections.abc import Mapping
from typing import Any

from mlc_controlnet.checkpoint.options import OPTIONS, UNION_CLASS, Irrelevant

# Options of the layers that read the control image, which are a component of their own.
_CONTROL_IMAGE = (
    "conditioning_channels",
    "conditioning_embedding_out_channels",
    "controlnet_conditioning_channel_order",
    "num_trans_layer",  # of a union ControlNet
)
_VERDICTS = {**OPTIONS[UNION_CLASS], **OPTIONS["controlnet"]}


def graph_options(config: Mapping[str, Any], of_control_image: bool) -> str:
    """Return the options that decide a ControlNet's graph, as text: ControlNets of equal text can share a function.

    Args:
        config: the complete configuration of a ControlNet.
        of_control_image: return those of the layers that read the control image, not those of all other layers.
    """
    honoured = {
        option: config[option]
        for option, verdict in _VERDICTS.items()
        if option in config and not isinstance(verdict, Irrelevant)
    }
    if of_control_image:
        chosen = {option: honoured.get(option) for option in _CONTROL_IMAGE}
        chosen["block_out_channels"] = honoured["block_out_channels"][0]
    else:
        chosen = {option: value for option, value in honoured.items() if option not in _CONTROL_IMAGE}
    return json.dumps(chosen, sort_keys=True)
