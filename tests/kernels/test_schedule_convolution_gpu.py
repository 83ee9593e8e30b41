"""The convolution schedule against torch, as WGSL on a software WebGPU device, and where it must not fire."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import tvm
from tvm import relax, tirx
from tvm.relax import transform

from mlc_controlnet.kernels.float16_sums import run_length
from mlc_controlnet.kernels.schedule_convolution_gpu import Convolution
from mlc_controlnet.parity.parity import signal_to_noise_db
from mlc_controlnet.passes.clean.lay_out_weights import AS_TORCH, LAID_OUT
from mlc_controlnet.passes.lower.fuse_decoding import FuseDecoding
from mlc_controlnet.passes.quantize.decoding_calls import emit_decoding
from mlc_controlnet.passes.replace.fold_resize_into_conv2d import FoldResizeIntoConv2d
from mlc_controlnet.passes.replace.use_direct_conv2d import UseDirectConv2d
from mlc_controlnet.quantize.scheme import Scheme
from tests.kernels.webgpu_device import WEBGPU, build_wgsl, run_on_webgpu


@dataclass(frozen=True)
class Case:
    data: tuple[int, int, int, int]
    weight: tuple[int, int, int, int]
    stride: int = 1
    padding: tuple[int, int, int, int] = (1, 1, 1, 1)  # top, left, bottom, right

    @property
    def laid_out(self) -> tuple[int, int, int, int]:
        """The shape of the weights as the kernel reads them."""
        channels, depth, height, width = self.weight
        return depth, height, width, channels

    @property
    def output(self) -> tuple[int, int, int, int]:
        top, left, bottom, right = self.padding
        height = (self.data[2] + top + bottom - self.weight[2]) // self.stride + 1
        width = (self.data[3] + left + right - self.weight[3]) // self.stride + 1
        return (self.data[0], self.weight[0], height, width)


CASES = {
    "3x3, landscape": Case((1, 16, 24, 40), (32, 16, 3, 3)),
    "odd sizes and few channels": Case((1, 5, 9, 13), (3, 5, 3, 3)),
    "stride 2, padded on two sides as the VAE does": Case((1, 16, 16, 24), (24, 16, 3, 3), 2, (0, 0, 1, 1)),
    "stride 2, padded on all sides": Case((1, 8, 14, 10), (8, 8, 3, 3), 2),
    "1x1": Case((1, 24, 12, 20), (48, 24, 1, 1), 1, (0, 0, 0, 0)),
    "1x1, stride 2": Case((1, 24, 12, 20), (48, 24, 1, 1), 2, (0, 0, 0, 0)),
    "few channels, many pixels": Case((1, 6, 20, 36), (4, 6, 3, 3)),
    "16 channels, stride 2": Case((1, 12, 34, 30), (16, 12, 3, 3), 2),
    "a 4x6 latent": Case((1, 96, 4, 6), (96, 96, 3, 3)),
    "wide tiles": Case((1, 12, 64, 64), (128, 12, 3, 3)),
    "batch 2": Case((2, 6, 10, 12), (7, 6, 3, 3)),
}


def fuse(case: Case, dtype: str = "float32", epilogue: bool = True, scheme: Scheme | None = None) -> tirx.PrimFunc:
    """silu(conv(x, w) + b + r) as the pass pipeline fuses it, or the convolution alone.

    scheme: of a packed weight, whose words and table are params in its place.
    """
    builder = relax.BlockBuilder()
    shapes = {"x": case.data, "w": case.laid_out, "b": (1, case.weight[0], 1, 1), "r": case.output}
    x, w, b, r = (relax.Var(name, relax.TensorType(shape, dtype)) for name, shape in shapes.items())
    weights = [w]
    if scheme is not None:
        types = relax.TensorType((scheme.words,), "uint32"), relax.TensorType(scheme.table_shape, dtype)
        weights = [relax.Var(name, ty) for name, ty in zip(("words", "table"), types, strict=True)]
    with builder.function("main", [x, *weights, b, r]):
        with builder.dataflow():
            if scheme is not None:
                w = builder.emit(emit_decoding(builder, *weights, scheme, case.laid_out))
            w = builder.emit(relax.op.permute_dims(w, AS_TORCH))
            conv = relax.op.nn.conv2d(x, w, strides=case.stride, padding=list(case.padding), out_dtype="float32")
            y = builder.emit(conv)
            if dtype != "float32":
                y = builder.emit(relax.op.astype(y, dtype))
            if epilogue:
                y = builder.emit(relax.op.nn.silu(relax.op.add(relax.op.add(y, b), r)))
            out = builder.emit_output(y)
        builder.emit_func_output(out)
    passes = [
        transform.Normalize(),
        UseDirectConv2d(),
        transform.LegalizeOps(),
        transform.AnnotateTIROpPattern(),
        FuseDecoding(),
        transform.FuseOps(),
        transform.FuseTIR(),
        transform.DeadCodeElimination(),
    ]
    with WEBGPU:
        mod = tvm.transform.Sequential(passes)(builder.get())
    (func,) = (f for f in mod.functions.values() if isinstance(f, tirx.PrimFunc))
    return func


def schedule(func: tirx.PrimFunc) -> tirx.PrimFunc | None:
    with WEBGPU:
        scheduled = Convolution().apply(func, WEBGPU, False)
    return None if scheduled is None else scheduled.mod["main"].with_attr("tirx.is_scheduled", True)


@pytest.mark.parametrize("epilogue", [True, False], ids=["with bias, residual and silu", "alone"])
@pytest.mark.parametrize("name", CASES)
def test_a_software_device_computes_what_torch_computes(name: str, epilogue: bool, tmp_path: Path) -> None:
    case = CASES[name]
    func = schedule(fuse(case, epilogue=epilogue))
    assert func is not None
    rng = np.random.default_rng(0)
    x, w, b, r = (
        rng.standard_normal(shape, dtype=np.float32)
        for shape in (case.data, case.weight, (1, case.weight[0], 1, 1), case.output)
    )
    top, left, bottom, right = case.padding
    padded = F.pad(torch.tensor(x), (left, right, top, bottom))
    wanted = F.conv2d(padded.double(), torch.tensor(w).double(), stride=case.stride)
    if epilogue:
        wanted = F.silu(wanted + torch.tensor(b) + torch.tensor(r))
    *inputs, output = (str(p.name) for p in func.params)
    got = np.zeros(case.output, np.float32)
    w = w.transpose(LAID_OUT)
    run_on_webgpu([func], dict(zip(inputs, (x, w, b, r)[: len(inputs)], strict=True)), {output: got}, tmp_path)
    np.testing.assert_allclose(got, wanted.numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("channels", [16, 32, 64, 72])  # a thread brings 1, 2, 4 and 4 taps at a time
def test_an_upsampled_picture_is_never_written(channels: int, tmp_path: Path) -> None:
    case = Case((1, 12, 14, 16), (channels, 12, 3, 3))
    mod = FoldResizeIntoConv2d(on_gpu=True)(upsampled(case))
    (func,) = (f for f in mod.functions.values() if is_prim_func(f))
    func = schedule(func)
    assert func is not None
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal(shape, dtype=np.float32) for shape in (case.data, case.weight))
    doubled = F.interpolate(torch.tensor(x).double(), scale_factor=2, mode="nearest")
    wanted = F.conv2d(doubled, torch.tensor(w).double(), padding=1)
    *inputs, output = (str(p.name) for p in func.params)
    got = np.zeros(wanted.shape, np.float32)
    run_on_webgpu([func], dict(zip(inputs, (x, w.transpose(LAID_OUT)), strict=True)), {output: got}, tmp_path)
    np.testing.assert_allclose(got, wanted.numpy(), rtol=1e-4, atol=1e-4)
    assert len(func.params) == 3  # the picture, the weights, the result


@pytest.mark.parametrize(("channels", "reads"), [(16, 4), (32, 6), (64, 6)])
def test_taps_of_an_upsampled_picture_that_a_thread_brings_share_the_weights_they_are_made_of(
    channels: int, reads: int
) -> None:
    mod = FoldResizeIntoConv2d(on_gpu=True)(upsampled(Case((1, 12, 14, 16), (channels, 12, 3, 3))))
    (func,) = (f for f in mod.functions.values() if is_prim_func(f))
    func = schedule(func)
    assert func is not None
    weights = str(func.params[1].name)
    assert len(set(re.findall(rf"{weights}_ptr\[(.*?)\]", build_wgsl(func)))) == reads


def test_an_upsampled_picture_keeps_60_decibels_in_half_precision(tmp_path: Path) -> None:
    case = Case((1, 64, 6, 12), (16, 64, 3, 3))
    (func,) = (
        f for f in FoldResizeIntoConv2d(on_gpu=True)(upsampled(case, "float16")).functions.values() if is_prim_func(f)
    )
    func = schedule(func)
    assert func is not None
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal(shape).astype(np.float16) for shape in (case.data, case.weight))
    doubled = F.interpolate(torch.tensor(x).double(), scale_factor=2, mode="nearest")
    wanted = F.conv2d(doubled, torch.tensor(w).double(), padding=1).numpy()
    *inputs, output = (str(p.name) for p in func.params)
    got = np.zeros(wanted.shape, np.float32)
    run_on_webgpu([func], dict(zip(inputs, (x, w.transpose(LAID_OUT)), strict=True)), {output: got}, tmp_path)
    assert signal_to_noise_db(wanted, got.astype(np.float64)) > 60


def is_prim_func(function: object) -> bool:
    return isinstance(function, tirx.PrimFunc)


def upsampled(case: Case, dtype: str = "float32") -> tvm.IRModule:
    builder = relax.BlockBuilder()
    x, w = (relax.Var(name, relax.TensorType(shape, dtype)) for name, shape in (("x", case.data), ("w", case.laid_out)))
    _, _, height, width = case.data
    with builder.function("main", [x, w]):
        with builder.dataflow():
            doubled = relax.op.image.resize2d(x, (2 * height, 2 * width), layout="NCHW", method="nearest_neighbor")
            y = builder.emit(doubled)
            w = builder.emit(relax.op.permute_dims(w, AS_TORCH))
            out = builder.emit_output(relax.op.nn.conv2d(y, w, padding=list(case.padding), out_dtype="float32"))
        builder.emit_func_output(out)
    return transform.Normalize()(builder.get())


# Both need an adapter with shader-f16: VK_ICD_FILENAMES=.../lvp_icd.json.
@pytest.mark.parametrize("name", ["3x3, landscape", "odd sizes and few channels", "1x1", "a 4x6 latent", "batch 2"])
def test_half_precision_keeps_60_decibels(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    rng = np.random.default_rng(0)
    x = rng.standard_normal(case.data).astype(np.float16)
    w = (rng.standard_normal(case.weight) / np.prod(case.weight[1:]) ** 0.5).astype(np.float16)
    assert half_precision_db(case, x, w, tmp_path) > 60


def test_activations_of_some_thousands_do_not_overflow(tmp_path: Path) -> None:
    """A row of taps sums to more than float16 holds; the next channels take as much away again."""
    case = CASES["3x3, landscape"]
    x = np.random.default_rng(0).uniform(6000, 8000, case.data).astype(np.float16)
    w = np.full(case.weight, 2, np.float16)
    w[:, 8:] = -2
    assert 12 * x.astype(np.float64).min() * 2 > np.finfo(np.float16).max
    assert half_precision_db(case, x, w, tmp_path) > 30  # of sums of which nearly all cancels


def half_precision_db(case: Case, x: np.ndarray, w: np.ndarray, folder: Path) -> float:
    func = schedule(fuse(case, "float16", epilogue=False))
    assert func is not None
    top, left, bottom, right = case.padding
    padded = F.pad(torch.tensor(x).double(), (left, right, top, bottom))
    wanted = F.conv2d(padded, torch.tensor(w).double(), stride=case.stride).numpy()
    *inputs, output = (str(p.name) for p in func.params)
    got = np.zeros(case.output, np.float16)
    run_on_webgpu([func], dict(zip(inputs, (x, w.transpose(LAID_OUT)), strict=True)), {output: got}, folder)
    return signal_to_noise_db(wanted, got.astype(np.float64))


def test_half_precision_is_summed_in_single_after_a_row_of_taps() -> None:
    func = schedule(fuse(CASES["3x3, landscape"], "float16"))
    assert func is not None
    wgsl = build_wgsl(func)
    assert "var<workgroup> window : array<vec4<f16>" in wgsl
    assert "var total : array<vec4<f32>, 8>" in wgsl
    assert "var run : array<vec4<f16>, 8>" in wgsl
    assert run_length("float16", 12) == 12  # three taps of four channels


def test_a_long_row_of_taps_is_summed_in_single() -> None:
    func = schedule(fuse(Case((1, 8, 12, 12), (8, 8, 5, 5), 1, (2, 2, 2, 2)), "float16"))
    assert func is not None
    assert "var run" not in build_wgsl(func)


def test_a_micro_tile_lives_in_registers() -> None:
    """An array that a loop variable indexes has to lie in memory."""
    func = schedule(fuse(CASES["3x3, landscape"], "float16", epilogue=True))
    assert func is not None
    wgsl = build_wgsl(func)
    registers = re.findall(r"  var (\w+) : array<", wgsl)
    assert registers == ["total", "run", "held", "taken", "turned"]
    for name in registers:
        assert not re.search(rf"\b{name}\[(?!\d+i\])", wgsl)


def test_indices_into_workgroup_memory_are_sums_of_products() -> None:
    """Tint proves the range of these, and clamps what is found by division, a shift or a mask."""
    func = schedule(fuse(CASES["3x3, landscape"], "float16"))
    assert func is not None
    wgsl = build_wgsl(func)
    named = dict(re.findall(r"let (\w+) : i32 = (.*);", wgsl))

    def written_out(index: str) -> str:
        return re.sub(r"(?<!\.)\b\w+", lambda word: written_out(named[word[0]]) if word[0] in named else word[0], index)

    indices = re.findall(r"= (?:window|weights)\[(.*)\];", wgsl)
    assert len(indices) > 8
    for index in indices:
        assert not re.search(r"[/%&>]", written_out(index))


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_weights_residual_and_result_are_vectors_in_memory(dtype: str) -> None:
    func = schedule(fuse(CASES["3x3, landscape"], dtype))
    assert func is not None
    lines = build_wgsl(func).splitlines()
    vectors = {re.search(r"(\w+) : array<vec4<", line)[1] for line in lines if re.search(r"var<.*array<vec4<", line)}
    assert vectors == {"w_ptr", "r_ptr", "window", "weights", f"{func.params[-1].name}_ptr"}


def test_a_step_of_two_brings_no_pixel_to_workgroup_memory_that_nobody_reads() -> None:
    func = schedule(fuse(Case((1, 8, 32, 32), (32, 8, 1, 1), 2, (0, 0, 0, 0))))
    assert func is not None
    vectors, rows, pitch = 8 // 4, 8, 17
    (size,) = re.findall(r"window : array<vec4<f32>, (\d+)>", build_wgsl(func))
    assert int(size) <= vectors * rows * pitch


def test_a_matrix_product_is_left_to_other_rules() -> None:
    builder = relax.BlockBuilder()
    a, b = (relax.Var(n, relax.TensorType((64, 64), "float32")) for n in "ab")
    with builder.function("main", [a, b]):
        builder.emit_func_output(builder.emit(relax.op.matmul(a, b)))
    with WEBGPU:
        mod = transform.LegalizeOps()(builder.get())
    (func,) = (f for f in mod.functions.values() if isinstance(f, tirx.PrimFunc))
    assert schedule(func) is None
