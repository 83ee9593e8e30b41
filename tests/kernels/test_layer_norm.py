"""Layer norm against torch: compiled for the processor, and as WGSL on a software WebGPU device."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import tvm
from tvm.target import Target

from mlc_controlnet.kernels.layer_norm import is_supported, layer_norm
from mlc_controlnet.kernels.layer_norm_gpu import threads_a_row
from mlc_controlnet.kernels.normalization import LayerNorm
from tests.kernels.torch_references import layer_norm_in_torch, layer_norm_inputs
from tests.kernels.webgpu_device import WEBGPU, run_on_webgpu

LLVM = Target({"kind": "llvm", "num-cores": 2})

CASES = {
    "many rows": LayerNorm((1, 520, 40), 1e-5, "float32"),
    "few wide rows": LayerNorm((2, 5, 768), 1e-5, "float32"),
    "rows that fill no workgroup": LayerNorm((3, 171, 33), 1e-6, "float32"),
    "no batch": LayerNorm((7, 1280), 1e-5, "float32"),
    "float16": LayerNorm((1, 520, 64), 1e-5, "float16"),
}


def run_on_processor(norm: LayerNorm, inputs: dict[str, np.ndarray], _tmp_path: Path) -> np.ndarray:
    library = tvm.compile(tvm.IRModule({"f": layer_norm(norm, LLVM).with_attr("global_symbol", "f")}), target=LLVM)
    y = tvm.runtime.tensor(np.full(norm.shape, np.nan, norm.dtype))
    library["f"](*(tvm.runtime.tensor(array) for array in inputs.values()), y)
    return y.numpy()


def run_as_wgsl(norm: LayerNorm, inputs: dict[str, np.ndarray], tmp_path: Path) -> np.ndarray:
    y = np.full(norm.shape, np.nan, norm.dtype)
    run_on_webgpu([layer_norm(norm, WEBGPU)], inputs, {"y": y}, tmp_path)
    return y


on_both = pytest.mark.parametrize("run", [run_on_processor, run_as_wgsl], ids=["processor", "wgsl"])


@pytest.mark.parametrize("name", CASES)
@on_both
def test_layer_norm_is_torchs(name: str, run: Callable[..., np.ndarray], tmp_path: Path) -> None:
    norm = CASES[name]
    inputs = layer_norm_inputs(norm)
    y = run(norm, inputs, tmp_path)
    want = layer_norm_in_torch(norm, inputs)
    error = np.linalg.norm(y - want) / np.linalg.norm(want)
    assert error < (1e-6 if norm.dtype == "float32" else 1e-3)


@on_both
def test_deviations_survive_a_large_mean(run: Callable[..., np.ndarray], tmp_path: Path) -> None:
    norm = LayerNorm((1, 8, 64), 1e-5, "float32")
    x = np.random.default_rng(0).standard_normal(norm.shape).astype("float32") + np.float32(4096)
    y = run(norm, {"x": x, "gamma": np.ones(64, "float32"), "beta": np.zeros(64, "float32")}, tmp_path)
    want = torch.nn.functional.layer_norm(torch.tensor(x).double(), (norm.width,)).numpy()
    assert np.abs(y - want).max() < 1e-3


@pytest.mark.parametrize("target", [LLVM, WEBGPU], ids=["processor", "wgsl"])
def test_no_rule_schedules_the_kernel_again(target: Target) -> None:
    assert layer_norm(CASES["many rows"], target).attrs["tirx.is_scheduled"]


def test_a_row_of_few_is_shared_by_more_threads() -> None:
    assert threads_a_row(LayerNorm((1, 4096, 320), 1e-5, "float32")) == 32
    assert threads_a_row(LayerNorm((1, 64, 1280), 1e-5, "float32")) == 128


def test_a_row_that_fits_into_no_workgroup_is_for_processors_alone() -> None:
    wide = LayerNorm((1, 64, 8192), 1e-5, "float32")
    assert is_supported(wide, LLVM) and not is_supported(wide, WEBGPU)
    with pytest.raises(ValueError, match="no layer norm kernel for"):
        layer_norm(wide, WEBGPU)
