import numpy as np
import pytest
import tvm
from tvm import relax, tirx
from tvm.s_tir import Schedule

from mlc_controlnet.passes.replace.fold_resize_into_conv2d import FoldResizeIntoConv2d
from tests.passes.evaluate import evaluate, ops


def upsampled(
    size: tuple[int, int] = (12, 20),
    strides: int = 1,
    mode: str = "half_pixel",
    rounding: str = "round",
    padding: int = 1,
) -> tvm.IRModule:
    """A picture of 6x10 resized to `size`, then a 3x3 convolution."""
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((1, 5, 6, 10), "float32"))
    w = relax.Var("w", relax.TensorType((4, 5, 3, 3), "float32"))
    with builder.function("main", [x, w]):
        with builder.dataflow():
            y = builder.emit(
                relax.op.image.resize2d(
                    x,
                    size,
                    layout="NCHW",
                    method="nearest_neighbor",
                    coordinate_transformation_mode=mode,
                    rounding_method=rounding,
                )
            )
            out = builder.emit_output(relax.op.nn.conv2d(y, w, strides=strides, padding=padding, out_dtype="float32"))
        builder.emit_func_output(out)
    return builder.get()


@pytest.mark.parametrize("on_gpu", [True, False], ids=["GPU", "processor"])
@pytest.mark.parametrize(("mode", "rounding"), [("half_pixel", "round"), ("asymmetric", "floor")])
def test_the_convolution_reads_the_small_picture_and_computes_the_same(mode: str, rounding: str, on_gpu: bool) -> None:
    before = upsampled(mode=mode, rounding=rounding)
    after = FoldResizeIntoConv2d(on_gpu)(before)
    assert not {"relax.image.resize2d", "relax.nn.conv2d"} & ops(after["main"])
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal(shape, dtype=np.float32) for shape in ((1, 5, 6, 10), (4, 5, 3, 3)))
    np.testing.assert_allclose(evaluate(after, x, w), evaluate(before, x, w), rtol=1e-4, atol=1e-4)


def test_taps_other_than_3x3_with_a_halo_of_one_read_the_small_picture_too() -> None:
    before = upsampled(padding=2)
    after = FoldResizeIntoConv2d(on_gpu=True)(before)
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal(shape, dtype=np.float32) for shape in ((1, 5, 6, 10), (4, 5, 3, 3)))
    np.testing.assert_allclose(evaluate(after, x, w), evaluate(before, x, w), rtol=1e-4, atol=1e-4)


def test_a_processor_writes_the_picture_out_in_any_case_so_other_taps_stay() -> None:
    tvm.ir.assert_structural_equal(FoldResizeIntoConv2d(on_gpu=False)(upsampled(padding=2)), upsampled(padding=2))


@pytest.mark.parametrize("on_gpu", [True, False], ids=["GPU", "processor"])
def test_four_of_nine_multiplications_are_left(on_gpu: bool) -> None:
    """Four phases of the small picture, each of 2x2 taps."""
    after = FoldResizeIntoConv2d(on_gpu)(upsampled())
    (function,) = (f for _, f in after.functions_items() if isinstance(f, tirx.PrimFunc))
    schedule = Schedule(function)
    convolution = schedule.get_sblock("conv2d_nchw")
    extents = [int(schedule.get(loop).extent) for loop in schedule.get_loops(convolution)]
    assert extents == [4, 4, 6, 10, 5, 2, 2]


@pytest.mark.parametrize(
    "before",
    [
        upsampled(size=(18, 30)),
        upsampled(size=(12, 10)),
        upsampled(strides=2),
        upsampled(rounding="ceil"),
        upsampled(padding=0),
    ],
    ids=["three times", "one axis", "a stride", "another rounding", "no halo"],
)
def test_anything_else_stays(before: tvm.IRModule) -> None:
    tvm.ir.assert_structural_equal(FoldResizeIntoConv2d(on_gpu=True)(before), before)
