"""Export a torch module to ONNX for onnxruntime, with torch's own exporter."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from mlc_controlnet.bench.operations.case_files import CaseFiles

# The first opset in which GroupNormalization, LayerNormalization and Gelu are all single operators.
OPSET = 21


def export_case(files: CaseFiles) -> None:
    """Read `files.module` and write `files.onnx`, with the weights beside it."""
    module, inputs = torch.load(files.module, weights_only=False)
    export_onnx(module, inputs, files.onnx, external_data=True)


def export_onnx(module: nn.Module, inputs: tuple[torch.Tensor, ...], file: Path, external_data: bool = False) -> None:
    """Write `module` with its weights to `file`. Static shapes let the peer optimize most.

    external_data: write the weights to a second file beside it; one file holds at most 2 GB.
    """
    with quiet_exporter():
        torch.onnx.export(
            module, inputs, file, dynamo=True, opset_version=OPSET, external_data=external_data, verbose=False
        )


@contextlib.contextmanager
def quiet_exporter() -> Iterator[None]:
    """Keep torch's exporter from printing, and from gradients."""
    quiet = logging.getLogger("torch.onnx")
    level = quiet.level
    quiet.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
            warnings.simplefilter("ignore")
            yield
    finally:
        quiet.setLevel(level)
