"""What the peer runs is what torch computes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from torch import nn

from mlc_controlnet.bench.operations.onnx_peer import export_onnx
from mlc_controlnet.bench.operations.operations import Attention, Geglu, GroupNormSilu, UpsampledConvolution

CASES: dict[str, tuple[nn.Module, tuple[tuple[int, ...], ...]]] = {
    "convolution of stride 2": (nn.Conv2d(6, 4, 3, stride=2, padding=1), ((1, 6, 8, 6),)),
    "upsampled convolution": (UpsampledConvolution(4), ((1, 4, 3, 5),)),
    "matmul and bias": (nn.Linear(6, 10), ((1, 7, 6),)),
    "geglu": (Geglu(6), ((1, 7, 6),)),
    "attention": (Attention(2), ((1, 5, 16), (1, 7, 16), (1, 7, 16))),
    "group norm and silu": (GroupNormSilu(64), ((1, 64, 3, 5),)),
    "layer norm": (nn.LayerNorm(6), ((1, 7, 6),)),
}


@pytest.mark.parametrize("name", CASES)
def test_the_exported_operation_computes_what_torch_computes(name: str, tmp_path: Path):
    module, shapes = CASES[name]
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    inputs = tuple(torch.randn(shape) for shape in shapes)
    export_onnx(module.eval(), inputs, tmp_path / "peer.onnx")
    peer = ReferenceEvaluator(str(tmp_path / "peer.onnx"))
    (got,) = peer.run(None, {name: value.numpy() for name, value in zip(peer.input_names, inputs, strict=True)})
    with torch.no_grad():
        np.testing.assert_allclose(got, module(*inputs).numpy(), rtol=1e-4, atol=1e-5)
