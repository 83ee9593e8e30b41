"""Ops that the importer would compute in half precision."""

import numpy as np
import torch
import tvm
from torch import nn
from tvm import relax

from mlc_controlnet.capture import capture_module


class Mean(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.mean(x, dim=(2, 3), keepdim=True)


def test_a_mean_in_float16_is_accumulated_in_float32() -> None:
    """4096 times 100 is more than float16 holds."""
    x = np.random.default_rng(0).uniform(90, 110, (1, 2, 64, 64)).astype(np.float16)
    function, _ = capture_module(Mean(), (torch.from_numpy(x),))
    library = relax.build(tvm.IRModule({"mean": function.with_attr("global_symbol", "mean")}), "llvm")
    got = relax.VirtualMachine(library, tvm.cpu())["mean"](tvm.runtime.tensor(x))
    got = got if hasattr(got, "numpy") else got[0]
    np.testing.assert_allclose(got.numpy(), x.astype(np.float64).mean((2, 3), keepdims=True), rtol=1e-3)
    assert str(got.dtype) == "float16"
