"""The same computation for onnxruntime: a torch module as torch itself exports it."""

import contextlib
import io
import logging
import warnings
from pathlib import Path

import torch
from torch import nn

# GroupNormalization, LayerNormalization and Gelu are ops of their own in it.
OPSET = 21


def export_onnx(module: nn.Module, inputs: tuple[torch.Tensor, ...], file: Path) -> None:
    """Write `module`, weights included, with static shapes: that gives the peer the most to optimize."""
    quiet = logging.getLogger("torch.onnx")
    level = quiet.level
    quiet.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                module, inputs, file, dynamo=True, opset_version=OPSET, external_data=False, verbose=False
            )
    finally:
        quiet.setLevel(level)
