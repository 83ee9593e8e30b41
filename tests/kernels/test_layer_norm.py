"""Layer norm against torch, as WGSL on a software WebGPU device."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mlc_controlnet.kernels.layer_norm_gpu import LayerNorm, layer_norm
from tests.kernels.webgpu_device import run_on_webgpu

CASES = {
    "many rows": LayerNorm((1, 520, 40), 1e-5, "float32"),
    "few wide rows": LayerNorm((2, 5, 768), 1e-5, "float32"),
    "rows that fill no workgroup": LayerNorm((3, 171, 33), 1e-6, "float32"),
    "no batch": LayerNorm((7, 1280), 1e-5, "float32"),
    "float16": LayerNorm((1, 520, 64), 1e-5, "float16"),
}


@pytest.mark.parametrize("name", CASES)
def test_layer_norm_is_torchs(name: str, tmp_path: Path) -> None:
    norm = CASES[name]
    random = np.random.default_rng(0)
    x = (random.standard_normal(norm.shape) + 3).astype(norm.dtype)
    gamma, beta = (random.standard_normal(norm.width).astype(norm.dtype) for _ in range(2))
    y = np.full(norm.shape, np.nan, norm.dtype)
    run_on_webgpu([layer_norm(norm)], {"x": x, "gamma": gamma, "beta": beta}, {"y": y}, tmp_path)
    x, gamma, beta = (torch.tensor(array).double() for array in (x, gamma, beta))
    want = torch.nn.functional.layer_norm(x, (norm.width,), gamma, beta, norm.epsilon).numpy()
    error = np.linalg.norm(y - want) / np.linalg.norm(want)
    assert error < (1e-6 if norm.dtype == "float32" else 1e-3)


def test_deviations_survive_a_large_mean(tmp_path: Path) -> None:
    norm = LayerNorm((1, 8, 64), 1e-5, "float32")
    x = np.random.default_rng(0).standard_normal(norm.shape).astype("float32") + np.float32(4096)
    y = np.full(norm.shape, np.nan, "float32")
    ones, zeros = np.ones(norm.width, "float32"), np.zeros(norm.width, "float32")
    run_on_webgpu([layer_norm(norm)], {"x": x, "gamma": ones, "beta": zeros}, {"y": y}, tmp_path)
    want = torch.nn.functional.layer_norm(torch.tensor(x).double(), (norm.width,)).numpy()
    assert np.abs(y - want).max() < 1e-3


def test_no_rule_schedules_the_kernel_again() -> None:
    assert layer_norm(CASES["many rows"]).attrs["tirx.is_scheduled"]


def test_a_row_of_few_is_shared_by_more_threads() -> None:
    assert LayerNorm((1, 4096, 320), 1e-5, "float32").threads_a_row == 32
    assert LayerNorm((1, 64, 1280), 1e-5, "float32").threads_a_row == 128
    assert not LayerNorm((1, 64, 8192), 1e-5, "float32").is_supported()
