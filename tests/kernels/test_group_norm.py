"""Group norm against torch: compiled for the processor, and as WGSL on a software WebGPU device."""

import re

import numpy as np
import pytest
import tvm
from tvm.target import Target

from mlc_controlnet.kernels.group_norm import group_norm
from mlc_controlnet.kernels.normalization import GroupNorm
from tests.kernels.torch_references import group_norm_inputs, normalize_in_torch
from tests.kernels.webgpu_device import WEBGPU, build_wgsl, run_on_webgpu

LLVM = Target({"kind": "llvm", "num-cores": 2})

CASES = {
    "unet": GroupNorm((1, 32, 12, 16), 4, 1e-5, "float32", silu=True),
    "unet before attention": GroupNorm((1, 96, 4, 4), 4, 1e-6, "float32", silu=False),
    "vae, two large groups": GroupNorm((1, 16, 96, 128), 2, 1e-6, "float32", silu=True),
    "Stable Diffusion": GroupNorm((1, 320, 16, 24), 32, 1e-5, "float32", silu=True),
    "rows of 17": GroupNorm((1, 8, 40, 17), 2, 1e-5, "float32", silu=True),
    "one group, batch 2": GroupNorm((2, 6, 10, 7), 1, 1e-5, "float32", silu=False),
    "a group of 35 numbers": GroupNorm((1, 2, 5, 7), 2, 1e-5, "float32", silu=True),
    "more slices than threads": GroupNorm((1, 1, 1031, 1024), 1, 1e-5, "float32", silu=False),
    "float16": GroupNorm((1, 32, 12, 16), 4, 1e-5, "float16", silu=True),
}


def run_on_processor(norm: GroupNorm, inputs: dict[str, np.ndarray]) -> np.ndarray:
    kernels = group_norm(norm, LLVM)
    functions = {"statistics": kernels.statistics, "normalize": kernels.normalize}
    library = tvm.compile(
        tvm.IRModule({name: f.with_attr("global_symbol", name) for name, f in functions.items() if f is not None}),
        target=LLVM,
    )
    x, gamma, beta = (tvm.runtime.tensor(array) for array in inputs.values())
    y = tvm.runtime.tensor(np.full(norm.shape, np.nan, norm.dtype))
    if kernels.statistics is None:
        library["normalize"](x, gamma, beta, y)
        return y.numpy()
    partial = tvm.runtime.tensor(np.full(kernels.partial_shape, np.nan, "float32"))
    library["statistics"](x, partial)
    library["normalize"](x, partial, gamma, beta, y)
    return y.numpy()


def relative_error(got: np.ndarray, want: np.ndarray) -> float:
    return float(np.linalg.norm(got.astype("float64") - want) / np.linalg.norm(want))


@pytest.mark.parametrize("norm", CASES.values(), ids=CASES)
def test_compiled_for_the_processor_it_agrees_with_torch(norm):
    inputs = group_norm_inputs(norm)
    error = relative_error(run_on_processor(norm, inputs), normalize_in_torch(norm, inputs))
    assert error < (1e-6 if norm.dtype == "float32" else 1e-3)


@pytest.mark.parametrize("norm", CASES.values(), ids=CASES)
def test_as_wgsl_it_agrees_with_torch(norm, tmp_path):
    inputs = group_norm_inputs(norm)
    kernels = group_norm(norm, WEBGPU)
    y = np.full(norm.shape, np.nan, norm.dtype)
    if kernels.statistics is None:
        run_on_webgpu([kernels.normalize], inputs, {"y": y}, tmp_path)
    else:
        partial = np.full(kernels.partial_shape, np.nan, "float32")
        run_on_webgpu([kernels.statistics, kernels.normalize], inputs, {"partial": partial, "y": y}, tmp_path)
    assert relative_error(y, normalize_in_torch(norm, inputs)) < (1e-6 if norm.dtype == "float32" else 1e-3)


@pytest.mark.parametrize("name", ["unet", "vae, two large groups", "float16"])
def test_a_gpu_reads_and_writes_vectors(name):
    kernels = group_norm(CASES[name], WEBGPU)
    assert "x_ptr : array<vec4<" in build_wgsl(kernels.statistics or kernels.normalize)
    assert re.search(r"x_ptr : array<vec4<.*\n.*y_ptr : array<vec4<", build_wgsl(kernels.normalize))


def test_a_mean_a_thousand_deviations_away_does_not_cancel():
    norm = GroupNorm((1, 16, 48, 64), 2, 1e-6, "float32", silu=False)
    inputs = group_norm_inputs(norm, mean=1000.0)
    assert relative_error(run_on_processor(norm, inputs), normalize_in_torch(norm, inputs)) < 1e-4


def test_channels_that_do_not_fill_groups_are_refused():
    with pytest.raises(ValueError, match="groups=5"):
        group_norm(GroupNorm((1, 32, 8, 8), 5, 1e-5, "float32", silu=False), LLVM)
