"""Convolutions in parts: the same numbers, the kernels that result, and where a split must not fire."""

from pathlib import Path

import numpy as np
import pytest
import tvm
from tvm import relax, tirx
from tvm.relax import transform

from mlc_controlnet.kernels.convolution_tiling_gpu import choose_parts
from mlc_controlnet.kernels.direct_convolution_gpu import ConvolutionShape
from mlc_controlnet.kernels.schedule_convolution_gpu import Convolution
from mlc_controlnet.passes.clean.lay_out_weights import AS_TORCH
from mlc_controlnet.passes.replace.fold_resize_into_conv2d import FoldResizeIntoConv2d
from mlc_controlnet.passes.replace.split_deep_conv2d import SplitDeepConv2d
from tests.kernels.webgpu_device import WEBGPU, run_on_webgpu
from tests.passes.evaluate import evaluate, fuse, ops

DEEP = (2, 512, 4, 6)


def convolution(data: tuple[int, ...] = DEEP, channels: int = 12, *, doubled: bool = False) -> tvm.IRModule:
    """conv(x, w) + b, of the picture or of the doubled picture."""
    builder = relax.BlockBuilder()
    shapes = {"x": data, "w": (data[1], 3, 3, channels), "b": (1, channels, 1, 1)}
    x, w, b = (relax.Var(name, relax.TensorType(shape, "float32")) for name, shape in shapes.items())
    with builder.function("main", [x, w, b]):
        with builder.dataflow():
            y = x
            if doubled:
                size = 2 * data[2], 2 * data[3]
                y = builder.emit(relax.op.image.resize2d(x, size, layout="NCHW", method="nearest_neighbor"))
            w = builder.emit(relax.op.permute_dims(w, AS_TORCH))
            y = builder.emit(relax.op.nn.conv2d(y, w, padding=[1, 1, 1, 1], out_dtype="float32"))
            out = builder.emit_output(builder.emit(relax.op.add(y, b)))
        builder.emit_func_output(out)
    return transform.Normalize()(builder.get())


def random_inputs(data: tuple[int, ...] = DEEP, channels: int = 12) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal(s, dtype=np.float32) for s in (data, (data[1], 3, 3, channels), (1, channels, 1, 1))]


def prim_funcs(mod: tvm.IRModule) -> list[tirx.PrimFunc]:
    return [f for _, f in sorted(mod.functions_items(), key=lambda item: str(item[0])) if isinstance(f, tirx.PrimFunc)]


@pytest.mark.parametrize("doubled", [False, True])
def test_the_numbers_stay(doubled: bool) -> None:
    before = convolution(doubled=doubled)
    after = FoldResizeIntoConv2d(on_gpu=True)(before) if doubled else SplitDeepConv2d()(before)
    assert "relax.nn.conv2d" not in ops(after["main"])
    assert len(prim_funcs(after)) == 2
    inputs = random_inputs()
    np.testing.assert_allclose(evaluate(after, *inputs), evaluate(before, *inputs), rtol=1e-4, atol=1e-3)


def test_what_follows_is_computed_with_the_sum_of_the_parts() -> None:
    kernels = prim_funcs(fuse(SplitDeepConv2d()(convolution())))
    shapes = [tuple(int(size) for size in kernel.params[-1].ty.shape) for kernel in kernels]
    assert shapes == [(2 * 4, 12, 4, 6), (2, 12, 4, 6)]
    assert [len(kernel.params) for kernel in kernels] == [3, 3]  # picture, weights, parts; parts, bias, result


def test_a_gpu_sums_each_part_of_each_picture(tmp_path: Path) -> None:
    kernel, _ = prim_funcs(fuse(SplitDeepConv2d()(convolution())))
    with WEBGPU:
        scheduled = Convolution().apply(kernel, WEBGPU, False)
    assert scheduled is not None
    x, w, b = random_inputs()
    got = np.zeros((2, 4, 12, 4, 6), np.float32)
    *inputs, output = (str(p.name) for p in kernel.params)
    function = scheduled.mod["main"].with_attr("tirx.is_scheduled", True)
    run_on_webgpu([function], dict(zip(inputs, (x, w), strict=True)), {output: got}, tmp_path)
    np.testing.assert_allclose(got.sum(axis=1) + b, evaluate(convolution(), x, w, b), rtol=1e-4, atol=1e-3)


def test_a_picture_that_fills_a_gpu_is_left_whole() -> None:
    before = convolution((1, 512, 128, 64), 64)
    tvm.ir.assert_structural_equal(SplitDeepConv2d()(before), before)


@pytest.mark.parametrize(
    ("channels", "side", "depth", "kernel", "parts"),
    [
        (1280, 8, 1280, 3, 8),  # as few as give 128 workgroups
        (1280, 16, 1280, 3, 2),
        (320, 64, 320, 3, 1),
        (1280, 8, 192, 3, 1),  # a part would be too short to pay for a launch
        (1280, 8, 320, 1, 1),
        (1280, 8, 1284, 3, 1),  # parts would not consist of whole vectors
    ],
)
def test_parts_are_as_few_as_fill_a_gpu(channels: int, side: int, depth: int, kernel: int, parts: int) -> None:
    shape = ConvolutionShape(1, channels, side, side, depth, (kernel, kernel), (1, 1), "float16")
    assert choose_parts(shape) == parts
