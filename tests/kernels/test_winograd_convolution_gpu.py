"""Winograd's convolution for GPUs against torch, as WGSL on a software WebGPU device, and where it must not fire."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import tvm
from tvm import tirx

from mlc_controlnet.kernels import schedule_convolution_gpu
from mlc_controlnet.kernels.convolution_tiling_gpu import is_winograd_possible
from mlc_controlnet.kernels.schedule_convolution_gpu import WINOGRAD, tunable_convolution
from mlc_controlnet.parity.parity import signal_to_noise_db
from mlc_controlnet.passes.check.check_webgpu_limits import measure_kernels
from mlc_controlnet.passes.clean.lay_out_weights import AS_TORCH, LAID_OUT
from mlc_controlnet.quantize.scheme import LINEAR, PALETTE, Scheme, choose_scheme
from mlc_controlnet.quantize.weight import dequantize, quantize
from tests.kernels.test_schedule_convolution_gpu import Case, fuse, schedule
from tests.kernels.webgpu_device import WEBGPU, build_wgsl, run_on_webgpu

CASES = {
    "landscape": Case((1, 64, 24, 40), (32, 64, 3, 3)),
    "odd sizes and 36 channels": Case((1, 68, 9, 13), (36, 68, 3, 3)),
    "batch 2, rows of four pixels more than a tile": Case((2, 64, 10, 12), (32, 64, 3, 3)),
    "padded on two sides": Case((1, 64, 15, 18), (32, 64, 3, 3), 1, (0, 1, 1, 0)),
}


# Depths whose steps take every fourth channel, every other one, and each.
PACKED_CASES = {
    "landscape": CASES["landscape"],
    "batch 2, 96 input channels": Case((2, 96, 10, 12), (32, 96, 3, 3)),
    "odd sizes, 80 input channels": Case((1, 80, 9, 13), (36, 80, 3, 3)),
}


@pytest.fixture(autouse=True)
def _wherever_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule_convolution_gpu, "is_winograd_quicker", is_winograd_possible)


def winograd(case: Case, dtype: str = "float32", epilogue: bool = True, scheme: Scheme | None = None) -> tirx.PrimFunc:
    """Return silu(conv(x, w) + b + r), or the convolution alone, in Winograd's kernel; a scheme: of packed weights."""
    function = fuse(case, dtype, epilogue, scheme)
    tunable = tunable_convolution(function, WEBGPU)
    assert tunable is not None and tunable.chosen == WINOGRAD
    scheduled = schedule(function)
    assert scheduled is not None
    return scheduled


def run(case: Case, x: np.ndarray, w: np.ndarray, folder: Path) -> np.ndarray:
    """Compute the convolution alone."""
    function = winograd(case, str(x.dtype), epilogue=False)
    *inputs, output = (str(p.name) for p in function.params)
    got = np.full(case.output, np.nan, x.dtype)
    run_on_webgpu([function], dict(zip(inputs, (x, w.transpose(LAID_OUT)), strict=True)), {output: got}, folder)
    return got


def scheme_of(case: Case, method: str, bits: int) -> Scheme:
    channels, depth, height, width = case.weight
    return choose_scheme(method, bits, depth * height * width, channels)


def exact(case: Case, x: np.ndarray, w: np.ndarray) -> torch.Tensor:
    top, left, bottom, right = case.padding
    return F.conv2d(F.pad(torch.tensor(x).double(), (left, right, top, bottom)), torch.tensor(w).double())


@pytest.mark.parametrize("name", CASES)
def test_a_software_device_computes_what_torch_computes(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    func = winograd(case)
    rng = np.random.default_rng(0)
    x, w, b, r = (
        rng.standard_normal(shape, dtype=np.float32)
        for shape in (case.data, case.weight, (1, case.weight[0], 1, 1), case.output)
    )
    wanted = F.silu(exact(case, x, w) + torch.tensor(b) + torch.tensor(r))
    *inputs, output = (str(p.name) for p in func.params)
    got = np.full(case.output, np.nan, np.float32)
    run_on_webgpu([func], dict(zip(inputs, (x, w.transpose(LAID_OUT), b, r), strict=True)), {output: got}, tmp_path)
    assert signal_to_noise_db(wanted.numpy(), got.astype(np.float64)) > 120


def test_without_padding_no_neighbour_is_missed(tmp_path: Path) -> None:
    case = Case((1, 64, 18, 10), (32, 64, 3, 3), 1, (0, 0, 0, 0))
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal(shape, dtype=np.float32) for shape in (case.data, case.weight))
    got = run(case, x, w, tmp_path)
    assert signal_to_noise_db(exact(case, x, w).numpy(), got.astype(np.float64)) > 120


# Both need an adapter with shader-f16: VK_ICD_FILENAMES=.../lvp_icd.json.
@pytest.mark.parametrize("name", ["landscape", "odd sizes and 36 channels"])
def test_half_precision_keeps_60_decibels(name: str, tmp_path: Path) -> None:
    """In lavapipe, which rounds a product before it adds it: a GPU's fused multiply-add is half a decibel better."""
    case = CASES[name]
    rng = np.random.default_rng(0)
    x = rng.standard_normal(case.data).astype(np.float16)
    w = (rng.standard_normal(case.weight) / np.prod(case.weight[1:]) ** 0.5).astype(np.float16)
    got = run(case, x, w, tmp_path)
    assert signal_to_noise_db(exact(case, x, w).numpy(), got.astype(np.float64)) > 60


@pytest.mark.parametrize(("method", "bits"), [(LINEAR, 8), (PALETTE, 6), (PALETTE, 4)])
@pytest.mark.parametrize("name", PACKED_CASES)
def test_packed_weights_keep_60_decibels(name: str, method: str, bits: int, tmp_path: Path) -> None:
    case = PACKED_CASES[name]
    rng = np.random.default_rng(0)
    x = rng.standard_normal(case.data).astype(np.float16)
    w = (rng.standard_normal(case.weight) / np.prod(case.weight[1:]) ** 0.5).astype(np.float16)
    packed = quantize(torch.tensor(w.transpose(LAID_OUT)), scheme_of(case, method, bits))
    function = winograd(case, "float16", epilogue=False, scheme=packed.scheme)
    *inputs, output = (str(p.name) for p in function.params)
    got = np.full(case.output, np.nan, np.float16)
    run_on_webgpu([function], dict(zip(inputs, (x, packed.words, packed.table), strict=True)), {output: got}, tmp_path)
    # A decoded weight is a float16 number.
    w = dequantize(packed).astype(np.float16).reshape(case.laid_out).transpose(AS_TORCH)
    assert signal_to_noise_db(exact(case, x, w).numpy(), got.astype(np.float64)) > 60


def test_activations_of_some_thousands_do_not_overflow(tmp_path: Path) -> None:
    """A step's sums are near the most that float16 holds; later channels take as much away again."""
    case = CASES["landscape"]
    x = np.random.default_rng(0).uniform(6000, 7000, case.data).astype(np.float16)
    w = np.ones(case.weight, np.float16)
    w[:, 32:] = -1
    assert 36 * x.astype(np.float64).min() > np.finfo(np.float16).max
    got = run(case, x, w, tmp_path)
    # The results are a thousandth of the sums of either sign, in which a float16 number has 66 decibels.
    assert signal_to_noise_db(exact(case, x, w).numpy(), got.astype(np.float64)) > 25


@pytest.mark.parametrize(("dtype", "packed"), [("float16", False), ("float32", False), ("float16", True)])
def test_any_device_has_its_threads_and_its_workgroup_memory(dtype: str, packed: bool) -> None:
    case = CASES["landscape"]
    function = winograd(case, dtype, scheme=scheme_of(case, PALETTE, 6) if packed else None)
    (facts,) = measure_kernels(tvm.IRModule({"main": function}), WEBGPU)
    assert not list(facts.violations()) and facts.workgroup_bytes <= 16 * 1024 and facts.threads == 128


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_micro_tile_lives_in_registers_and_memory_is_read_in_vectors(dtype: str) -> None:
    wgsl = build_wgsl(winograd(CASES["landscape"], dtype))
    registers = re.findall(r"  var (\w+) : array<", wgsl)
    assert {"total", "held", "taken", "taps", "columns", "turned"} <= set(registers)
    for name in registers:
        assert not re.search(rf"\b{name}\[(?!\d+i\])", wgsl)
    vectors = set(re.findall(r"var<.*> (\w+) : array<vec4<", wgsl))
    assert {"w_ptr", "r_ptr", "window", "filters"} <= vectors
    assert ("patches" in vectors) == (dtype == "float16"), "in float32 a thread's tiles follow each other"


def test_packed_filters_live_in_registers_and_are_decoded_in_vectors() -> None:
    case = CASES["landscape"]
    wgsl = build_wgsl(winograd(case, "float16", scheme=scheme_of(case, LINEAR, 8)))
    registers = re.findall(r"  var (\w+) : array<", wgsl)
    assert {"total", "held", "taken", "row", "upper", "middle", "lower", "ready"} <= set(registers)
    for name in registers:
        assert not re.search(rf"\b{name}\[(?!\d+i\])", wgsl)
    assert {"window", "filters", "patches", "outgoing"} <= set(re.findall(r"var<workgroup> (\w+) : array<vec4<", wgsl))
    assert wgsl.count("words_ptr[") == 1, "a loop over taps, each of four output channels at once"
