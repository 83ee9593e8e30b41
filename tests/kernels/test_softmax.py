"""Softmax against torch, as WGSL on a software WebGPU device."""

from pathlib import Path

import numpy as np
import pytest

from mlc_controlnet.kernels.softmax_gpu import is_supported, softmax
from tests.kernels.torch_references import softmax_in_torch, softmax_scores
from tests.kernels.webgpu_device import run_on_webgpu

CASES = {
    "rows of several vectors a thread": (1, 7, 2304),
    "a row shorter than a workgroup, batch 2": (2, 5, 36),
    "rows of no whole vector": (1, 3, 517),
}


@pytest.mark.parametrize("shape", CASES.values(), ids=CASES)
def test_softmax_is_torchs(shape: tuple[int, int, int], tmp_path: Path) -> None:
    x = softmax_scores(shape)
    y = np.full(shape, np.nan, "float32")
    run_on_webgpu([softmax(shape, scale=0.25)], {"x": x}, {"y": y}, tmp_path)
    want = softmax_in_torch(x, 0.25)
    np.testing.assert_allclose(y, want, rtol=2e-4, atol=1e-9)
    np.testing.assert_allclose(y.sum(axis=-1), 1, rtol=1e-5)


def test_no_rule_schedules_the_kernel_again_and_a_row_may_take_its_scores_place() -> None:
    attrs = softmax((1, 8, 64), scale=1.0).attrs
    assert attrs["tirx.is_scheduled"] and list(attrs["overwritable"]) == [0]


def test_a_row_has_to_fit_into_registers() -> None:
    assert is_supported(8192) and not is_supported(8196)
