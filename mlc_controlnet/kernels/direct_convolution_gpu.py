# mypy: disable-error-code="no-untyped-def, valid-type"
"""A 2-D convolution for GPUs, as thread-level TIR: all taps read one tile of the input, in vectors of four channels.

    tile of a workgroup        64 output channels x 8 x 8 pixels; fewer channels, more pixels. 64 threads
    micro-tile of a thread     8 channels x 4 neighbouring pixels x 2 rows: 16 vectors of four output channels
    per step                   4 input channels: the window that the tile reads, and the weights, in workgroup memory

What that costs, for 3x3 taps in float16 and a thread:

    workgroup memory   a pixel is one vector of its 4 channels, gathered from four planes as it is brought in; its
                       weights are 4 x 2 vectors of four output channels. Per row of taps 12 pixels and 12 pairs of
                       vectors for 768 multiply-adds, 32 a load. 5.6 KB in all (float32, strides of two: 14.3 KB)
    arithmetic         a vector of weights times one number of a pixel: two v_pk_fma_f16, which read either half of a
                       register. Sums are float16 over a row of taps, 12 products, and float32 between: see
                       `float16_sums`. 1.57 multiply-adds an instruction on AMD, with all loads; float32 0.95
    registers          64 float32 sums, 32 of the run, 16 of pixels, 8 of weights: 144 to 192 on AMD, where 8 to 10
                       waves of them fit a SIMD, 150 on NVIDIA, where 13 warps fit a multiprocessor. Half the
                       micro-tile would take 80 and read workgroup memory twice as often for each product
    memory             576 vectors of weights and 100 pixels for 147,456 multiply-adds: 26 a byte

A thread's two rows lie half a tile apart and the window's rows an odd number of vectors, so that neighbouring threads
read different banks. Indices into workgroup memory are made of loop variables and thread numbers by addition and
multiplication: Tint, Chrome's compiler, proves that they are in range, and leaves out the clamp that it puts elsewhere.
The loops over steps, taps and what is brought in stay loops: WGSL text is start-up time.

Whole rounds of weights are brought without a condition, past which AMD's compiler takes no address out of a loop. The
four taps of a doubled picture are sums of nine weights, up to four each: a thread brings two neighbouring taps at once,
or all four where weights are packed, which decodes nine numbers instead of sixteen. Divisions of the window's index
before its condition would take 0.97 of the time, but eight waves fit a SIMD then instead of ten.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tvm import tirx
from tvm.script import tirx as T

from mlc_controlnet.kernels.float16_sums import LONGEST_RUN, SCALE
from mlc_controlnet.kernels.integers import ceil_div
from mlc_controlnet.kernels.vectors import LANES, spread, vector_of
from mlc_controlnet.kernels.workgroups import in_registers, in_workgroup


@dataclass(frozen=True)
class ConvolutionShape:
    """A convolution to [batch, channels, height, width], `depth` input channels deep; dtype of input and weights."""

    batch: int
    channels: int
    height: int
    width: int
    depth: int
    kernel: tuple[int, int]
    strides: tuple[int, int]
    dtype: str

    @property
    def taps(self) -> int:
        """The weights of an input and an output channel."""
        return self.kernel[0] * self.kernel[1]


@dataclass(frozen=True)
class Tiling:
    """Sizes of the tiles of one convolution; all are powers of two."""

    channels: int  # output channels a workgroup
    rows: int
    columns: int
    channel_vectors: int  # a thread
    rows_a_thread: int
    depth_vectors: int  # input channels in workgroup memory at once, in vectors

    @property
    def threads(self) -> tuple[int, int, int]:
        """Along columns, rows and channels."""
        channels = self.channels // (self.channel_vectors * LANES)
        return self.columns // LANES, self.rows // self.rows_a_thread, channels

    def window(self, shape: ConvolutionShape) -> tuple[int, int]:
        """Rows and columns of the input that a tile reads."""
        (kernel_y, kernel_x), (down, across) = shape.kernel, shape.strides
        return (self.rows - 1) * down + kernel_y, (self.columns - 1) * across + kernel_x

    def vectors(self, shape: ConvolutionShape) -> tuple[int, int]:
        """Vectors of the window and of the weights in workgroup memory."""
        rows, columns = self.window(shape)
        weights = self.depth_vectors * LANES * shape.taps * self.channels // LANES
        return self.depth_vectors * rows * odd(columns), weights

    def sums_in_float16(self, shape: ConvolutionShape) -> bool:
        """Return whether a run, of a row of taps, is summed in float16."""
        return shape.dtype == "float16" and shape.kernel[1] * self.depth_vectors * LANES <= LONGEST_RUN

    def runs(self, shape: ConvolutionShape) -> int:
        """Count the runs of a step: a single one if it is short enough, or one of each row of taps."""
        return 1 if shape.taps * self.depth_vectors * LANES <= LONGEST_RUN else shape.kernel[0]


@dataclass(frozen=True)
class Elementwise:
    """What a convolution reads and writes, as expressions.

    Attributes:
        value: the padded input at (b, c, i, j).
        weight: the weight at (b, row, n), where rows are (c, ky, kx).
        taps_together: whose weights a thread brings at a time at most; sums that share numbers.
        output: the tensor to write.
        place: the index into the output for (b, n, y, x).
        result: the value there, of (sum, b, n, y, x).
    """

    value: Callable[..., tirx.Expr]
    weight: Callable[..., tirx.Expr]
    taps_together: int
    output: tirx.Buffer
    place: Callable[..., list[tirx.Expr]]
    result: Callable[..., tirx.Expr]


def odd(vectors: int) -> int:
    """Return the distance of two rows of so many vectors in workgroup memory."""
    return vectors | 1


def lane(vector: Any, number: int) -> Any:
    """Return one number of a vector."""
    return T.Shuffle([vector], [number])


def pack(numbers: list[Any]) -> Any:
    """Return the vector of these numbers."""
    return T.Shuffle(numbers, list(range(LANES)))


def build(shape: ConvolutionShape, tiling: Tiling, around: Elementwise) -> tirx.Stmt:
    """Return the kernel's body."""
    B, N, H, W, C = shape.batch, shape.channels, shape.height, shape.width, shape.depth
    (KY, KX), (down, across), taps = shape.kernel, shape.strides, shape.taps
    TX, TY, TZ = tiling.threads
    threads = TX * TY * TZ
    tiles_y, tiles_x = ceil_div(H, tiling.rows), ceil_div(W, tiling.columns)
    channel_vectors, rows, groups = tiling.channel_vectors, tiling.rows_a_thread, tiling.depth_vectors
    channels = channel_vectors * LANES  # a thread
    tile_vectors = tiling.channels // LANES
    step = groups * LANES
    window_rows, window_columns = tiling.window(shape)
    pitch = odd(window_columns)
    plane = window_rows * pitch
    pixels = groups * window_rows * window_columns
    window_vectors, weight_vectors = tiling.vectors(shape)
    vector, sums = vector_of(shape.dtype, LANES), vector_of("float32", LANES)
    runs = tiling.runs(shape)
    in_runs = tiling.sums_in_float16(shape)
    together = min(taps, around.taps_together, max(1, weight_vectors // threads))
    full_rounds, last_round = divmod(weight_vectors // together, threads)
    zero = T.Cast(shape.dtype, 0)
    splat = getattr(T, vector)

    def pixel(b: Any, c: Any, i: Any, j: Any) -> Any:
        """Four channels of the padded input, 1 / SCALE of them if they are summed in float16."""
        numbers = [around.value(b, c + n, i, j) for n in range(LANES)]
        if C % step:
            numbers = [T.if_then_else(c + n < C, number, zero) for n, number in enumerate(numbers)]
        return pack(numbers) * spread(T.float16(1 / SCALE), LANES) if in_runs else pack(numbers)

    def weight(b: Any, row: Any, n: Any, m: Any) -> Any:
        """The weight of output channel n + m; zero past the last channel."""
        if C % step == 0 and N % tiling.channels == 0:
            return around.weight(b, row, n + m)
        inside = row < C * taps
        return T.if_then_else(
            tirx.all(inside, (n if N % LANES == 0 else n + m) < N), around.weight(b, row, n + m), zero
        )

    @T.macro
    def clear(vectors, count, of):
        vectors[0] = spread(T.Cast(of, 0), LANES)
        for i in T.unroll(1, count):
            vectors[i] = vectors[0]

    @T.macro
    def bring_weights(weights, b, c, first_n, at):
        for t in T.unroll(together):
            place: T.let[T.int32] = at // tile_vectors * together + t
            row: T.let[T.int32] = c * taps + place
            for m in T.vectorized(LANES):
                weights[(place * tile_vectors + at % tile_vectors) * LANES + m] = weight(
                    b, row, first_n + at % tile_vectors * LANES, m
                )

    @T.macro
    def bring(window, weights, b, c, first_y, first_x, first_n, thread):
        """Bring a step's input and weights to workgroup memory."""
        for n in T.serial(ceil_div(pixels, threads)):
            at: T.let[T.int32] = n * threads + thread
            if at < pixels:
                window[at // window_columns * pitch + at % window_columns] = pixel(
                    b,
                    c + at // (window_rows * window_columns) * LANES,
                    first_y * down + at // window_columns % window_rows,
                    first_x * across + at % window_columns,
                )
        for n in T.serial(full_rounds):
            bring_weights(weights, b, c, first_n, n * threads + thread)
        if thread < last_round:
            bring_weights(weights, b, c, first_n, full_rounds * threads + thread)

    @T.macro
    def multiply(total, window, weights, pixel_at, weight_at, held, taken):
        """Add the products of four input channels and one tap."""
        for r in T.unroll(rows):
            for p in T.unroll(LANES):
                held[r * LANES + p] = window[pixel_at + (r * TY * down * pitch + p * across)]
        for c in T.unroll(LANES):
            for n in T.unroll(channel_vectors):
                taken[n] = weights[T.ramp((weight_at + (c * taps * tile_vectors + n)) * LANES, 1, LANES)]
            for p in T.unroll(rows * LANES):
                v: T.let[splat] = spread(lane(held[p], c), LANES)
                for n in T.unroll(channel_vectors):
                    total[p * channel_vectors + n] = total[p * channel_vectors + n] + v * taken[n]

    @T.macro
    def store(total, b, n, y, x):
        T.buffer_store(around.output, around.result(total, b, n, y, x), around.place(b, n, y, x))

    @T.macro
    def write(total, turned, r, b, n, y, x):
        """Write a row's pixels, in vectors if rows divide into them."""
        for i in T.unroll(rows):
            if r == i:
                for m in T.unroll(channels):
                    turned[T.ramp(m * LANES, 1, LANES)] = pack(
                        [lane(total[(i * LANES + p) * channel_vectors + m // LANES], m % LANES) for p in range(LANES)]
                    )
        if tirx.all(y < H, x < W):
            for m in T.unroll(channels):
                if N % tiling.channels == 0 or n + m < N:
                    if W % LANES == 0:
                        for p in T.vectorized(LANES):
                            store(turned[m * LANES + p], b, n + m, y, x + p)
                    else:
                        for p in T.unroll(LANES):
                            if x + p < W:
                                store(turned[m * LANES + p], b, n + m, y, x + p)

    @T.prim_func(s_tir=True, private=True, check_well_formed=False)
    def convolution():
        for bx in T.thread_binding(B * tiles_y * tiles_x, thread="blockIdx.x"):
            for by in T.thread_binding(ceil_div(N, tiling.channels), thread="blockIdx.y"):
                for tz in T.thread_binding(TZ, thread="threadIdx.z"):
                    for ty in T.thread_binding(TY, thread="threadIdx.y"):
                        for tx in T.thread_binding(TX, thread="threadIdx.x"):
                            with T.sblock("convolution"):
                                T.reads()
                                T.writes()
                                window = in_workgroup(window_vectors, dtype=vector)
                                weights = in_workgroup(weight_vectors * LANES, dtype=shape.dtype)
                                total = in_registers(rows * LANES * channel_vectors, sums)
                                run = in_registers(rows * LANES * channel_vectors, vector)
                                held = in_registers(rows * LANES, vector)
                                taken = in_registers(channel_vectors, vector)
                                turned = in_registers(channels * LANES)
                                thread: T.let[T.int32] = (tz * TY + ty) * TX + tx
                                b: T.let[T.int32] = bx // (tiles_y * tiles_x)
                                y: T.let[T.int32] = bx // tiles_x % tiles_y * tiling.rows
                                x: T.let[T.int32] = bx % tiles_x * tiling.columns
                                n: T.let[T.int32] = by * tiling.channels

                                clear(total, rows * LANES * channel_vectors, "float32")
                                for c in T.serial(ceil_div(C, step)):
                                    T.tvm_storage_sync("shared")
                                    bring(window, weights, b, c * step, y, x, n, thread)
                                    T.tvm_storage_sync("shared")
                                    for k in T.serial(runs):
                                        if in_runs:
                                            clear(run, rows * LANES * channel_vectors, "float16")
                                        for ky in T.serial(KY // runs):
                                            for kx in T.serial(KX):
                                                for g in T.serial(groups):
                                                    multiply(
                                                        run if in_runs else total,
                                                        window,
                                                        weights,
                                                        g * plane
                                                        + (ty * down + k * (KY // runs) + ky) * pitch
                                                        + tx * (LANES * across)
                                                        + kx,
                                                        (g * (LANES * taps) + (k * (KY // runs) + ky) * KX + kx)
                                                        * tile_vectors
                                                        + tz * channel_vectors,
                                                        held,
                                                        taken,
                                                    )
                                        if in_runs:
                                            for i in T.unroll(rows * LANES * channel_vectors):
                                                total[i] = total[i] + T.cast(run[i], sums)
                                for i in T.unroll(rows * LANES * channel_vectors if in_runs else 0):
                                    total[i] = total[i] * spread(T.float32(SCALE), LANES)
                                for r in T.serial(rows):  # not unrolled: an epilogue may be long
                                    write(total, turned, r, b, n + tz * channels, y + ty + r * TY, x + tx * LANES)

    return convolution.body
