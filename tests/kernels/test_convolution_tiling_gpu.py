"""Which tiles convolutions on GPUs take, and which of them are Winograd's."""

import numpy as np
import pytest

from mlc_controlnet.kernels.convolution_tiling_gpu import (
    choose_tiling,
    is_winograd_possible,
    is_winograd_quicker,
    whole_tiling,
)
from mlc_controlnet.kernels.direct_convolution_gpu import ConvolutionShape, Tiling
from mlc_controlnet.kernels.workgroups import WORKGROUP_BYTES


@pytest.mark.parametrize("channels", [3, 16, 32, 320, 1280])
@pytest.mark.parametrize("kernel", [1, 3, 7])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("dtype,item_bytes", [("float16", 2), ("float32", 4)])
def test_every_tiling_fits_any_device(channels: int, kernel: int, stride: int, dtype: str, item_bytes: int) -> None:
    for size in (1, 4, 8, 64, 512):
        shape = ConvolutionShape(1, channels, size, size, channels, (kernel, kernel), (stride, stride), dtype)
        tiling = choose_tiling(shape)
        assert sum(tiling.vectors(shape)) * 4 * item_bytes <= WORKGROUP_BYTES
        assert 1 <= np.prod(tiling.threads) <= 256


def test_few_channels_have_as_many_threads() -> None:
    for channels in (4, 16, 32, 64, 320):
        shape = ConvolutionShape(1, channels, 64, 64, 320, (3, 3), (1, 1), "float16")
        assert np.prod(whole_tiling(shape).threads) == 64
        assert np.prod(choose_tiling(shape).threads) == (32 if channels == 320 else 64)


@pytest.mark.parametrize(
    ("batch", "channels", "side", "single", "half"),
    [
        (1, 640, 32, 2, 2),  # 160 tiles are 3 for the busiest of 60 units, 6 of half the size
        (2, 1280, 16, 2, 2),
        (1, 320, 64, 2, 4),  # 320 are 4 for the busiest of 96, 1280 of a quarter 14
        (1, 128, 512, 1, 1),  # 8192 fill any GPU
    ],
)
def test_tiles_shrink_where_smaller_ones_fill_gpus_better(
    batch: int, channels: int, side: int, single: int, half: int
) -> None:
    """In float32 and float16."""
    for dtype, share in (("float32", single), ("float16", half)):
        shape = ConvolutionShape(batch, channels, side, side, 320, (3, 3), (1, 1), dtype)
        assert size(whole_tiling(shape)) == share * size(choose_tiling(shape))


@pytest.mark.parametrize(
    ("batch", "channels", "side", "taps", "share"),
    [
        (1, 640, 32, 3, 2),
        (2, 1280, 16, 3, 2),
        (8, 1280, 8, 3, 1),  # no picture has more pixels
        (1, 320, 64, 3, 1 / 4),  # as with numbers
        (4, 640, 32, 2, 2),  # a doubled picture: four packed numbers to a weight
        (4, 1280, 16, 2, 2),
    ],
)
def test_tiles_of_packed_weights_grow_where_larger_ones_fill_gpus_as_well(
    batch: int, channels: int, side: int, taps: int, share: float
) -> None:
    """A tile decodes its weights for as many pixels as it has."""
    shape = ConvolutionShape(batch, channels, side, side, 320, (taps, taps), (1, 1), "float16")
    assert size(choose_tiling(shape, packed=4 if taps == 2 else 1)) == share * size(whole_tiling(shape))


def size(tiling: Tiling) -> int:
    """Return the results of a workgroup."""
    return tiling.channels * tiling.rows * tiling.columns


@pytest.mark.parametrize(
    ("channels", "depth", "side"), [(320, 320, 64), (640, 640, 32), (1280, 2560, 16), (1280, 1280, 8), (128, 128, 512)]
)
def test_the_3x3_convolutions_of_stable_diffusion_are_quicker_so(channels: int, depth: int, side: int) -> None:
    for dtype, packed in (("float16", 0), ("float32", 0), ("float16", 1)):
        shape = ConvolutionShape(1, channels, side, side, depth, (3, 3), (1, 1), dtype)
        assert is_winograd_possible(shape, packed) and is_winograd_quicker(shape, packed)


@pytest.mark.parametrize(
    ("channels", "depth", "kernel", "stride", "packed"),
    [(320, 320, 3, 2, 0), (320, 320, 1, 1, 0), (320, 320, 2, 1, 0), (320, 322, 3, 1, 0), (6, 320, 3, 1, 0)]
    + [(320, 324, 3, 1, 1)],
)
def test_other_convolutions_are_left_to_the_direct_kernel(
    channels: int, depth: int, kernel: int, stride: int, packed: int
) -> None:
    shape = ConvolutionShape(1, channels, 64, 64, depth, (kernel, kernel), (stride, stride), "float16")
    assert not is_winograd_possible(shape, packed)


def test_packed_weights_in_float32_are_left_to_the_direct_kernel() -> None:
    shape = ConvolutionShape(1, 320, 64, 64, 320, (3, 3), (1, 1), "float32")
    assert is_winograd_possible(shape) and not is_winograd_possible(shape, packed=1)


@pytest.mark.parametrize(
    ("channels", "depth", "height", "width"), [(320, 4, 64, 64), (4, 320, 64, 64), (16, 16, 64, 64), (96, 96, 4, 6)]
)
def test_tiles_that_are_mostly_empty_and_short_sums_are_not_worth_the_transforms(
    channels: int, depth: int, height: int, width: int
) -> None:
    for dtype, packed in (("float16", 0), ("float32", 0), ("float16", 1)):
        shape = ConvolutionShape(1, channels, height, width, depth, (3, 3), (1, 1), dtype)
        assert not is_winograd_quicker(shape, packed)
