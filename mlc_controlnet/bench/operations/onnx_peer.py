"""Export a torch module to ONNX for onnxruntime, with torch's own exporter."""

import contextlib
import io
import logging
import warnings
from pathlib import Path

import torch
from torch import nn

# The first opset in which GroupNormalization, LayerNormalization and Gelu are all single operators.
OPSET = 21


def export_onnx(module: nn.Module, inputs: tuple[torch.Tensor, ...], file: Path, external_data: bool = False) -> None:
    """Write `module` with its weights to `file`. Static shapes let the peer optimize most.

    external_data: write the weights to a second file beside it; one file holds at most 2 GB.
    """
    quiet = logging.getLogger("torch.onnx")
    level = quiet.level
    quiet.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                module, inputs, file, dynamo=True, opset_version=OPSET, external_data=external_data, verbose=False
            )
    finally:
        quiet.setLevel(level)
