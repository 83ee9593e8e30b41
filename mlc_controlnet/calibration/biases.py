"""The mean error of a layer's outputs goes into its bias: it costs nothing when pictures are drawn.

A weight W that is read as W' changes the outputs by (W' - W) x, on average over the inputs x by (W' - W) E[x]: bias
correction (arXiv 1906.04721, section 4.2). A layer without a bias keeps its mean error. Of the layers here these
are the projections to queries, keys and values: there the rounding counts whole products of inputs, instead of their
covariance. The keys' mean error is harmless: it adds the same to all logits of a query.
"""

import dataclasses
from collections.abc import Iterator, Mapping

import torch

from mlc_controlnet.capture import CapturedModel, PackedParam
from mlc_controlnet.capture.packed_param import WORDS
from mlc_controlnet.checkpoint import Checkpoint
from mlc_controlnet.quantize.input_moments import InputMoments
from mlc_controlnet.quantize.weight import QuantizedWeight, dequantize


def with_corrected_biases(
    checkpoint: Checkpoint, captured: CapturedModel, moments: Mapping[str, InputMoments]
) -> Checkpoint:
    """Return the checkpoint with biases for packed weights; its `parts` and `tensors` stay as they are.

    Args:
        captured: with packed weights.
        moments: of what layers read, by their weights' tensors.
    """
    tensors = checkpoint.tensors()
    biases: dict[str, torch.Tensor] = {}
    for packed in packed_weights(captured):
        weight = packed.weight
        stored = weight.read(tensors).float()
        decoded = decode(packed.quantizer.quantize(weight, packed.scheme, tensors), stored.shape)
        for rows, error in weight.parts(decoded - stored, tensors):
            own = moments.get(rows.tensor)
            if own is not None and own.corrects_bias:
                name = bias_of(rows.tensor)
                bias = biases.setdefault(name, tensors[name].detach().double().clone())
                bias[rows.start : rows.stop] -= error.flatten(1).double() @ own.mean
    return dataclasses.replace(checkpoint, corrected_biases={name: bias.half() for name, bias in biases.items()})


def bias_of(weight: str) -> str:
    """Return the tensor that is the bias of the layer of a weight."""
    return f"{weight.removesuffix('.weight')}.bias"


def packed_weights(captured: CapturedModel) -> Iterator[PackedParam]:
    """Yield the packed weights of all components, each once, as the param of its words."""
    seen = {param: None for own in captured.params.values() for param in own}
    for param in seen:
        if isinstance(param, PackedParam) and param.stores == WORDS:
            yield param


def decode(quantized: QuantizedWeight, shape: torch.Size) -> torch.Tensor:
    """Return a weight as kernels read it, float32, in the layout of its param."""
    return torch.from_numpy(dequantize(quantized)).reshape(shape)
