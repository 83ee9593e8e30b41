"""Softmax against torch, as WGSL on a software WebGPU device."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mlc_controlnet.kernels.softmax_gpu import is_supported, softmax
from tests.kernels.webgpu_device import run_on_webgpu

CASES = {
    "rows of several vectors a thread": (1, 7, 2304),
    "a row shorter than a workgroup, batch 2": (2, 5, 36),
    "rows of no whole vector": (1, 3, 517),
}


def scores(shape: tuple[int, int, int]) -> np.ndarray:
    """With one so large that its row is one-hot, and rows whose exponentials would overflow."""
    values = 4 * np.random.default_rng(0).standard_normal(shape) + 300 * np.arange(shape[1])[:, None]
    values[0, 1, 2] += 1e4
    return values.astype("float32")


@pytest.mark.parametrize("shape", CASES.values(), ids=CASES)
def test_softmax_is_torchs(shape: tuple[int, int, int], tmp_path: Path) -> None:
    x = scores(shape)
    y = np.full(shape, np.nan, "float32")
    run_on_webgpu([softmax(shape, scale=0.25)], {"x": x}, {"y": y}, tmp_path)
    want = torch.softmax(0.25 * torch.tensor(x).double(), dim=-1).numpy()
    np.testing.assert_allclose(y, want, rtol=2e-4, atol=1e-9)
    np.testing.assert_allclose(y.sum(axis=-1), 1, rtol=1e-5)


def test_no_rule_schedules_the_kernel_again_and_a_row_may_take_its_scores_place() -> None:
    attrs = softmax((1, 8, 64), scale=1.0).attrs
    assert attrs["tirx.is_scheduled"] and list(attrs["overwritable"]) == [0]


def test_a_row_has_to_fit_into_registers() -> None:
    assert is_supported(8192) and not is_supported(8196)
