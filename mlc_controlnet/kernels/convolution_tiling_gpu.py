"""How convolutions on GPUs are divided among threads, and which kernel takes them: rules, and a search's space.

A tile of the direct kernel is 64 channels x 8 x 8 pixels, or half or a quarter of it where those divide better among a
GPU's SIMDs. Predicted, of the whole tile's time on a W7900, a W6800 and an RTX 4090, the same at any depth:

                                                                float16               float32
    160 tiles, 640 channels at 32x32 or 1280 at 16x16    half   0.98 0.76 0.94        1.01 0.75 1.02
    320 tiles, 320 channels at 64x64                     half   0.98 1.01 0.71        1.01 1.00 0.77
                                                      quarter   0.91 0.96 0.72        1.27 0.95 0.84
    1440 tiles and more                                 whole   fewer reads of what the prediction leaves out: caches

160 tiles are 3 for the busiest of 60 units, of which one of its two SIMDs runs two: 320 of half the size are 6.
In float32 RDNA 3 issues two products at once in waves of 64 threads alone, and a quarter of a tile has 32.

Packed weights are decoded by each tile for itself, by half a tile for half as many pixels: it takes 1.06 of the time
where it fills no better, a quarter 0.96 1.02 0.72 of 320 tiles' time. Other tiles are 64 channels x 8 x 16 pixels where
those fill a GPU as well, in 128 threads: that takes 0.97 of the time on a W7900 with palette6 and 0.99 with int8, and
0.92 of a doubled picture's, whose weights are sums of up to four packed numbers.

Winograd's kernel multiplies 2.25 times less. Predicted, of the direct kernel's time in its best tiling on these GPUs:

                                                                float16               float32
    320 channels at 64x64                                  0.64 0.65 0.68        0.63 0.53 0.61
    640 channels at 32x32                                  0.68 0.67 0.63        0.71 0.57 0.55
    1280 channels at 16x16, two parts                      0.68 0.68 0.65        0.71 0.57 0.55
    512 channels at 64x64                                  0.63 0.68 0.87        0.65 0.57 0.73
    128 channels at 512x512                                0.67 0.70 0.83        0.75 0.58 0.77

                                                palette6, float16
    320 channels at 64x64                                  0.63 0.65 0.80
    640 channels at 32x32                                  0.71 0.56 0.68
    1280 channels at 16x16, two parts                      0.71 0.56 0.70
    1280 channels at 8x8, eight parts                      0.76 0.61 0.71

In float16 NVIDIA's units wait for its scheduler, in float32 RDNA 3's for workgroup memory. A thread that kept all 16
numbers of a few channels and tiles would exchange none at the end, but read 80 numbers from workgroup memory for 64
products, not 16. Tried for 320 channels: float16 tensors that are float32 from workgroup memory on, 0.61 0.97 0.56;
pixels that are brought behind a condition, 0.72 0.72 0.71.
"""

import math
from collections.abc import Iterator
from dataclasses import replace

from tvm.runtime import DataType

from mlc_controlnet.kernels import winograd_plan_gpu as winograd
from mlc_controlnet.kernels.direct_convolution_gpu import ConvolutionShape, Tiling
from mlc_controlnet.kernels.integers import ceil_div, next_power_of_two
from mlc_controlnet.kernels.vectors import LANES
from mlc_controlnet.kernels.workgroups import (
    ENOUGH_WORKGROUPS,
    WORKGROUP_BYTES,
    WORTH_ANOTHER_TILE,
    busiest_simd,
    mean_share,
)

CHANNELS = 64  # output channels a workgroup, and
ROWS = COLUMNS = 8  # pixels; with fewer channels up to MOST_ROWS x MOST_COLUMNS
MOST_ROWS, MOST_COLUMNS = 16, 32
LEAST_THREADS, MOST_THREADS = 16, 256  # of a workgroup that a search tries
MOST_VECTORS = 4  # of a thread's channels, or its rows, likewise
LEAST_PRODUCTS = 128 * 9  # a sum of a part: with fewer, a launch more takes as long
POINTWISE_VECTORS = 4  # of input channels at a time, if a tap has no neighbours

# Smaller tilings.
LEAST_TAPS = 9  # with four, what is brought in counts: predicted 1.09 for half a tile of a doubled picture
QUARTER = 1.04  # of the time where both fill a GPU, as the GPUs' compilers take it: 0.94 to 1.02 for half a tile
DECODING = 4.5  # pixels that a thread multiplies by a weight in the time in which it decodes one

# Winograd's kernel.
# A thread's work for an input channel, in the direct kernel's products of a thread; before and after all channels it is
# that of so many more. With packed weights it is float16 only.
WINOGRAD_PRODUCTS, WINOGRAD_DEPTH = {"float16": 6.3, "float32": 5.3}, 13
PACKED_PRODUCTS, PACKED_DEPTH = 6.7, 32
LEAST_DEPTH = 64


def choose_tiling(shape: ConvolutionShape, packed: int = 0) -> Tiling:
    """Choose the tiling of `whole_tiling`, or another one whose workgroups keep GPUs busier or decode fewer weights.

    In less time on the geometric mean over GPUS, and on none of them in a twentieth more.

    packed: the packed numbers that make up a weight, which each workgroup decodes for itself; 0: none is packed.
    """
    whole = whole_tiling(shape)
    best, least = whole, WORTH_ANOTHER_TILE
    for tiling, factor in (*_smaller_tilings(whole, shape), *_wider_tilings(whole, shape, packed)):
        times = [factor * time for time in _times(tiling, shape, packed)]
        mean = mean_share(times, _times(whole, shape, packed))
        if mean < least:
            best, least = tiling, mean
    return best


def is_winograd_possible(shape: ConvolutionShape, packed: int = 0) -> bool:
    """Return whether Winograd's kernel can take a convolution's place.

    packed: as choose_tiling has it. In float32 decoded filters would not fit workgroup memory.
    """
    if shape.kernel != (winograd.TAPS, winograd.TAPS) or shape.strides != (1, 1) or shape.channels % LANES:
        return False
    if packed:
        return shape.dtype == "float16" and shape.depth % winograd.PACKED_STEP == 0
    return shape.depth % winograd.STEP == 0


def is_winograd_quicker(shape: ConvolutionShape, packed: int = 0) -> bool:
    """Return whether Winograd's kernel is predicted to take less time than the direct one in its best tiling.

    It must do less work in all, too, which is what counts on a GPU of few units: it does more where much of its tiles
    lies outside of the picture, or of the channels.
    """
    if shape.dtype not in WINOGRAD_PRODUCTS or shape.depth < LEAST_DEPTH:
        return False
    direct = choose_tiling(shape, packed)
    tiles = ceil_div(shape.height, winograd.SIDE) * ceil_div(shape.width, winograd.SIDE)
    workgroups = shape.batch * tiles * ceil_div(shape.channels, winograd.CHANNELS)
    threads = math.prod(winograd.THREADS)
    products, before_and_after = WINOGRAD_PRODUCTS[shape.dtype], WINOGRAD_DEPTH
    if packed:
        products, before_and_after = PACKED_PRODUCTS, PACKED_DEPTH
    work = products * (shape.depth + before_and_after)
    in_all = _workgroups(direct, shape) * math.prod(direct.threads) * _work(direct, shape, packed)
    times = [work * waves for waves in busiest_simd(workgroups, threads)]
    is_less = work * workgroups * threads < in_all
    return is_less and mean_share(times, _times(direct, shape, packed)) < WORTH_ANOTHER_TILE


def whole_tiling(shape: ConvolutionShape) -> Tiling:
    """Return 64 channels x 8 x 8 pixels for 64 threads, or as many pixels more as there are fewer channels."""
    channels = max(LANES, min(CHANNELS, next_power_of_two(shape.channels)))
    rows = min(ROWS if channels > CHANNELS // 4 else MOST_ROWS, next_power_of_two(shape.height))
    columns = min(COLUMNS * CHANNELS // channels * ROWS // rows, MOST_COLUMNS, next_power_of_two(shape.width))
    while columns > COLUMNS and shape.width % columns:
        columns //= 2
    tiling = Tiling(
        channels=channels,
        rows=rows,
        columns=max(LANES, columns),
        channel_vectors=min(2, channels // LANES),
        rows_a_thread=min(2, rows),
        depth_vectors=min(POINTWISE_VECTORS, ceil_div(shape.depth, LANES)) if shape.taps == 1 else 1,
    )
    while _workgroup_bytes(tiling, shape) > WORKGROUP_BYTES:
        tiling = _smaller(tiling)
    return tiling


def choose_parts(shape: ConvolutionShape) -> int:
    """Return into how many parts to split the input channels, a power of two: as few as fill a GPU."""
    tiling = whole_tiling(shape)
    workgroups = _workgroups(tiling, shape)
    step, parts = tiling.depth_vectors * LANES, 1
    while workgroups * parts < ENOUGH_WORKGROUPS and shape.depth % (2 * parts * step) == 0:
        if shape.depth * shape.taps // (2 * parts) < LEAST_PRODUCTS:
            break
        parts *= 2
    return parts


def _smaller_tilings(whole: Tiling, shape: ConvolutionShape) -> Iterator[tuple[Tiling, float]]:
    """Yield tilings that divide better among SIMDs, and the time of the same products where both fill a GPU.

    They bring more to workgroup memory for each product.
    """
    if shape.taps < LEAST_TAPS or whole.columns < 2 * LANES or whole.channel_vectors < 2:
        return
    if shape.dtype == "float32" and shape.strides != (1, 1):
        return  # half a tile reads workgroup memory too often there: predicted 1.24 of the time on a W7900
    half = replace(whole, columns=whole.columns // 2)
    yield replace(half, channel_vectors=1), 1.0
    is_large = whole.channels == CHANNELS and _workgroups(whole, shape) >= ENOUGH_WORKGROUPS
    if is_large and whole.rows_a_thread == 2 and shape.dtype == "float16":
        yield replace(half, channels=whole.channels // 2, rows_a_thread=1), QUARTER


def _wider_tilings(whole: Tiling, shape: ConvolutionShape, packed: int) -> Iterator[tuple[Tiling, float]]:
    """Yield the tiling that decodes packed weights for twice as many pixels, in twice as many threads."""
    wide = replace(whole, columns=2 * whole.columns)
    fits = wide.columns <= shape.width and _workgroup_bytes(wide, shape) <= WORKGROUP_BYTES
    if fits and packed and shape.taps > 1 and shape.dtype == "float16":
        yield wide, 1.0


def _times(tiling: Tiling, shape: ConvolutionShape, packed: int) -> list[float]:
    """Return how long the busiest SIMD of each of GPUS takes, in products of as many threads as it runs at once."""
    work = _work(tiling, shape, packed)
    return [work * waves for waves in busiest_simd(_workgroups(tiling, shape), math.prod(tiling.threads))]


def _work(tiling: Tiling, shape: ConvolutionShape, packed: int) -> float:
    """Return the products of a thread."""
    products = tiling.channel_vectors * tiling.rows_a_thread * shape.depth * shape.taps
    return products * (1 + DECODING * packed / (tiling.rows * tiling.columns))


def _workgroups(tiling: Tiling, shape: ConvolutionShape) -> int:
    tiles = ceil_div(shape.height, tiling.rows) * ceil_div(shape.width, tiling.columns)
    return shape.batch * tiles * ceil_div(shape.channels, tiling.channels)


def _workgroup_bytes(tiling: Tiling, shape: ConvolutionShape) -> int:
    return sum(tiling.vectors(shape)) * LANES * DataType(shape.dtype).itemsize


def _smaller(tiling: Tiling) -> Tiling:
    """Halve what costs least: pixels, the depth of a step, and last channels, which all of a window's pixels serve."""
    if tiling.columns > COLUMNS:
        return replace(tiling, columns=tiling.columns // 2)
    if tiling.rows > ROWS:
        return replace(tiling, rows=tiling.rows // 2)
    if tiling.depth_vectors > 1:
        return replace(tiling, depth_vectors=tiling.depth_vectors // 2)
    channels = tiling.channels // 2
    return replace(tiling, channels=channels, channel_vectors=min(tiling.channel_vectors, channels // LANES))


def list_tilings(shape: ConvolutionShape) -> list[Tiling]:
    """List the search space: every tiling that fits the workgroup memory and has 16 to 256 threads."""

    def up_to(most: int, least: int = 1) -> list[int]:
        return [size for exponent in range(9) if least <= (size := 1 << exponent) <= most]

    return [
        tiling
        for channels in up_to(max(LANES, min(2 * CHANNELS, next_power_of_two(shape.channels))), LANES)
        for rows in up_to(min(MOST_ROWS, next_power_of_two(shape.height)))
        for columns in up_to(max(LANES, min(MOST_COLUMNS, next_power_of_two(shape.width))), LANES)
        for channel_vectors in up_to(min(MOST_VECTORS, channels // LANES))
        for rows_a_thread in up_to(min(MOST_VECTORS, rows))
        for depth_vectors in up_to(min(POINTWISE_VECTORS, next_power_of_two(ceil_div(shape.depth, LANES))))
        if rows_a_thread * channel_vectors <= 2 * MOST_VECTORS
        and LEAST_THREADS
        <= math.prod((tiling := Tiling(channels, rows, columns, channel_vectors, rows_a_thread, depth_vectors)).threads)
        <= MOST_THREADS
        and _workgroup_bytes(tiling, shape) <= WORKGROUP_BYTES
        and tiling.sums_in_float16(shape) == whole_tiling(shape).sums_in_float16(shape)  # else as accurate, or less
    ]
