# mypy: disable-error-code="no-untyped-def, valid-type"
"""A 3x3 convolution for GPUs by Winograd's F(2x2, 3x3), as thread-level TIR in one kernel: arXiv 1509.09308.

The picture is cut into tiles of 2x2 results, each of a patch of 4x4 pixels that overlaps its neighbours by two. In a
transformed space a tile of results is the product of a patch and a filter, number by number, summed over the channels:
16 products instead of 36. Tiles and channels together make each of the 16 a matrix product.

    patch [4, 4] -> B' d B        filter [3, 3] -> G g G'        results: A' (U * V) A -> [2, 2]

    tile of a workgroup        32 output channels x 8 x 8 pixels, which are 4 x 4 tiles of results. 128 threads
    micro-tile of a thread     one of the 16 numbers of 8 channels x 8 tiles: 64 sums
    per step                   4 input channels: threads bring 10 x 10 pixels to workgroup memory; each transforms a
                               row of a filter of four channels and half a row of a patch; then the products
    at the end                 sums go through workgroup memory, 8 channels at a time, to threads that transform them
                               to rows of 8 pixels and compute what is fused with the convolution

What a step costs a thread on AMD, in vector instructions. Without halves of rows and of tiles, that is with patches
transformed by half of the threads, the others would wait for them:

                                                       float16                 float32
    products, 256 multiply-adds                        128, packed             256
    added to float32 sums                              64                      -
    filters, patches                                   26, 12                  52, 24
    pixels, addresses, loads                           24                      25

A step of the direct kernel takes 367 and 606 for as many results. Workgroup memory bounds RDNA 3 in float32: 29 vectors
a step and thread. Runs in float16 are of four products: 61 dB from exact sums at any depth, of normal numbers; eight
would be 59.8. Half of that distance is the rounding of transformed numbers. They cannot overflow while
max|x| max|w| <= 7,278: patches are up to four times x, of which SCALE takes a quarter, filters up to 2.25 times w.

Row 2 of B' and of G have the other sign here, which their product does not show: any row of a patch is then a pixel's
row and plus or minus another one. Pitches in workgroup memory keep the numbers that threads of a wave read in different
banks.

Packed weights, in float16, would be decoded four times each that way. Instead a step is 16 input channels: a thread
decodes the whole filters of four output channels and one input channel, a row of taps at a time, and transforms them in
registers. They go to workgroup memory in two turns, those of eight input channels in each, whose pixels and products
follow as above, four channels at a time. Sums are exchanged in eight rounds instead of four: so all fits 16 KB.

The channels of a step lie four apart, as many as a word of codes has rows at most: then all threads find their codes
at the same place of a word, which scalar instructions compute. Of some 1,060 vector instructions for 16 channels, 216
with palette6 and 228 with int8 decode and transform filters; 1,000 in all with float16 weights. A thread holds
transformed filters during products: 192 registers on RDNA 3, where eight waves fit a SIMD as without, 216 on RDNA 2
(four waves, not six), 168 with int8 and up to 194 with palette6 on an RTX 4090 (three and two, not three). Tried with
palette6, 640 input and 1280 output channels at 16x16 on a W7900, where the direct kernel takes 200 us and this one
141: weights decoded to workgroup memory, a step of four channels, 169; filters of two output channels a thread, a step
of eight, 153; as here, but neighbouring channels in a step, 154.
"""

from typing import Any

import tvm
import tvm_ffi
from tvm import tirx
from tvm.script import tirx as T

from mlc_controlnet.kernels.direct_convolution_gpu import ConvolutionShape, Elementwise, lane, pack
from mlc_controlnet.kernels.float16_sums import SCALE
from mlc_controlnet.kernels.integers import ceil_div
from mlc_controlnet.kernels.vectors import LANES, spread, vector_of
from mlc_controlnet.kernels.workgroups import in_registers, in_workgroup

TAPS = 3  # along a side, as all of these
RESULTS = 2  # of a tile
POINTS = TAPS + RESULTS - 1  # of a tile's patch
CHANNELS, SIDE = 32, 8  # output channels and pixels of a workgroup
VECTORS, TILES = 2, 8  # a thread's: vectors of channels, tiles
THREADS = (2, 4, POINTS * POINTS)  # along tiles, channels and numbers of a patch
STEP = LANES  # input channels
PACKED_STEP = 4 * STEP  # whose packed filters are decoded at once: by each thread four output channels' of one
WINDOW = SIDE + TAPS - 1  # pixels that a workgroup reads

_TX, _TY, _TZ = THREADS
_THREADS = _TX * _TY * _TZ
_ROWS = SIDE // RESULTS  # of tiles
_FILTER_VECTORS = CHANNELS // LANES  # of an input channel
_PATCH_PITCH = _ROWS * _ROWS + _TX  # the distance of two of the 16 numbers in workgroup memory, in vectors


def _pack_under_one_condition(numbers: list[Any]) -> Any:
    """Return the vector of these numbers; a condition that all of them have is asked once. So it is less text, too."""
    choice = tvm.ir.Op.get("prim.if_then_else")
    calls = [number for number in numbers if isinstance(number, tvm.ir.Call) and choice.same_as(number.op)]
    conditions = [call.args[0] for call in calls]
    if len(calls) < LANES or not all(tvm_ffi.structural_equal(one, conditions[0]) for one in conditions):
        return pack(numbers)
    return T.if_then_else(conditions[0], pack([call.args[1] for call in calls]), pack([call.args[2] for call in calls]))


def _channels_apart(depth: int) -> int:
    """Return how far two channels of a step are apart, where weights are packed: four, or less if the depth wants it.

    The taps of four channels are whole words of codes, so that all threads find their own at the same place of a word.
    """
    return next(apart for apart in (4, 2, 1) if depth % (PACKED_STEP * apart) == 0)


def build(shape: ConvolutionShape, around: Elementwise, packed: bool = False) -> tirx.Stmt:
    """Return the kernel's body: 3x3 taps, strides of one, `shape.depth` a multiple of STEP.

    packed: whether weights are decoded; float16, and the depth a multiple of PACKED_STEP.
    """
    B, N, H, W, C = shape.batch, shape.channels, shape.height, shape.width, shape.depth
    tiles_y, tiles_x = ceil_div(H, SIDE), ceil_div(W, SIDE)
    vector, sums = vector_of(shape.dtype, LANES), vector_of("float32", LANES)
    vectors = getattr(T, vector)
    in_runs = shape.dtype == "float16"  # of a step
    count = TILES * VECTORS
    depth, halves, apart = (PACKED_STEP, 2, _channels_apart(C)) if packed else (STEP, 1, 1)
    at_once = 1 if packed else 2  # channels of a thread whose sums are transformed in a round: memory bounds them
    rounds, shares = VECTORS * LANES // at_once, LANES // at_once  # in all, and of a vector
    # Distances of two of the 16 numbers in workgroup memory, in vectors.
    filter_pitch = depth // halves * _FILTER_VECTORS + _TY
    sum_pitch = CHANNELS // rounds * _ROWS + 1

    def const(value: float) -> Any:
        return tirx.const(value, shape.dtype)

    def pixel(b: Any, c: Any, i: Any, j: Any) -> Any:
        """Four channels of the padded input, the first of them c, 1 / SCALE of them if they are summed in float16."""
        numbers = _pack_under_one_condition([around.value(b, c + n * apart, i, j) for n in range(LANES)])
        return numbers * spread(T.float16(1 / SCALE), LANES) if in_runs else numbers

    def weight(b: Any, row: Any, n: Any, m: Any) -> Any:
        """The weight of output channel n + m; past the last channel any one, whose results nobody writes."""
        vector = T.min(n // LANES, N // LANES - 1) * LANES if N % CHANNELS else n  # seen to be a multiple of LANES
        return around.weight(b, row, vector + m)

    def signed_half(row: Any, at: int) -> Any:
        """What rows 1 and 2 of G have in the first and the last column; 1 in row `at`, 0 in the other."""
        middle = T.Select(row == 1, const(0.5), T.Select(row == 2, const(-0.5), const(0)))
        return T.Select(row == at, const(1), middle)

    def patch(held: Any, t: Any, c: Any) -> Any:
        """A transformed number of tile t and channel c. Float32 products loop over channels: a quarter of the text."""
        return lane(held[t], c) if in_runs else held[t]

    @T.macro
    def clear(numbers):
        numbers[0] = spread(T.float32(0), LANES)
        for i in T.unroll(1, count):
            numbers[i] = numbers[0]

    @T.macro
    def bring(window, b, c, first_y, first_x, thread):
        """Bring a step's pixels; threads without one bring the last row once more, behind the window."""
        window[thread] = pixel(b, c, first_y + T.min(thread // WINDOW, WINDOW - 1), first_x + thread % WINDOW)

    @T.macro
    def transform_filters(filters, b, c, n, row, first, middle, last, at, taps, columns):
        """One row of four output channels' filters of an input channel: the vector `at` of the step's."""
        for k in T.unroll(TAPS * TAPS):
            for m in T.vectorized(LANES):
                taps[k * LANES + m] = weight(b, (c + at // _FILTER_VECTORS) * (TAPS * TAPS) + k, n, m)
        for k in T.unroll(TAPS):
            columns[k] = (
                taps[T.ramp(k * LANES, 1, LANES)] * spread(first, LANES)
                + taps[T.ramp((TAPS + k) * LANES, 1, LANES)] * spread(middle, LANES)
                + taps[T.ramp((2 * TAPS + k) * LANES, 1, LANES)] * spread(last, LANES)
            )
        even: T.let[vectors] = (columns[0] + columns[2]) * spread(const(0.5), LANES)
        odd: T.let[vectors] = columns[1] * spread(const(0.5), LANES)
        place: T.let[T.int32] = row * POINTS * filter_pitch + at
        filters[T.ramp(place * LANES, 1, LANES)] = columns[0]
        filters[T.ramp((place + filter_pitch) * LANES, 1, LANES)] = even + odd
        filters[T.ramp((place + 2 * filter_pitch) * LANES, 1, LANES)] = even - odd
        filters[T.ramp((place + 3 * filter_pitch) * LANES, 1, LANES)] = columns[2]

    @T.macro
    def decode_row(b, c, n, ky, row, upper, middle, lower):
        """Decode a row of four output channels' filters, and transform it along itself; two rows before stay."""
        for kx in T.serial(TAPS):
            row[T.ramp(0, 1, LANES)] = row[T.ramp(LANES, 1, LANES)]
            row[T.ramp(LANES, 1, LANES)] = row[T.ramp(2 * LANES, 1, LANES)]
            for m in T.vectorized(LANES):
                row[2 * LANES + m] = weight(b, c * (TAPS * TAPS) + ky * TAPS + kx, n, m)
        even: T.let[vectors] = (row[T.ramp(0, 1, LANES)] + row[T.ramp(2 * LANES, 1, LANES)]) * spread(const(0.5), LANES)
        odd: T.let[vectors] = row[T.ramp(LANES, 1, LANES)] * spread(const(0.5), LANES)
        for k in T.unroll(POINTS):
            upper[k] = middle[k]
            middle[k] = lower[k]
        lower[0] = row[T.ramp(0, 1, LANES)]
        lower[1] = even + odd
        lower[2] = even - odd
        lower[3] = row[T.ramp(2 * LANES, 1, LANES)]

    @T.macro
    def transform_rows(ready, upper, middle, lower):
        """The 16 numbers of four filters, of three rows."""
        for k in T.unroll(POINTS):
            even: T.let[vectors] = (upper[k] + lower[k]) * spread(const(0.5), LANES)
            odd: T.let[vectors] = middle[k] * spread(const(0.5), LANES)
            ready[k] = upper[k]
            ready[POINTS + k] = even + odd
            ready[2 * POINTS + k] = odd - even
            ready[3 * POINTS + k] = lower[k]

    @T.macro
    def put_filter(filters, ready, at):
        for k in T.unroll(POINTS * POINTS):
            filters[T.ramp((k * filter_pitch + at) * LANES, 1, LANES)] = ready[k]

    @T.macro
    def put_patch(patches, point, tile, value):
        """Four channels of a transformed number: a vector; in float32 each beside the thread's other tiles."""
        if in_runs:
            patches[point * _PATCH_PITCH + tile] = value
        else:
            numbers: T.let[vectors] = value
            for c in T.unroll(STEP):
                patches[point * (_PATCH_PITCH * LANES) + (c * _TX + tile % _TX) * TILES + tile // _TX] = lane(
                    numbers, c
                )

    @T.macro
    def transform_patches(window, patches, half, row, tile, place, sign, first, last, columns):
        """Two of the numbers in a row of a tile's patch: the outer and the inner one of a half."""
        for k in T.unroll(POINTS - 1):
            columns[k] = (
                window[place + T.min(row, 1) * WINDOW + k]
                + spread(sign, LANES) * window[place + T.max(row, 2) * WINDOW + k]
            )
        put_patch(patches, row * POINTS + half * (POINTS - 1), tile, columns[0] - columns[2])
        put_patch(
            patches,
            row * POINTS + half + 1,
            tile,
            columns[1] + spread(first, LANES) * columns[0] + spread(last, LANES) * columns[2],
        )

    @T.macro
    def multiply(total, filters, ty, point, first, c, begins, held, taken):
        """Add the products of an input channel, or begin sums with them."""
        for n in T.unroll(VECTORS):
            place: T.let[T.int32] = point * filter_pitch + (first + c) * _FILTER_VECTORS + n * _TY + ty
            taken[n] = filters[T.ramp(place * LANES, 1, LANES)]
        for t in T.unroll(TILES):
            v: T.let[vectors] = spread(patch(held, t, c), LANES)
            for n in T.unroll(VECTORS):
                if begins:
                    total[t * VECTORS + n] = v * taken[n]
                else:
                    total[t * VECTORS + n] = total[t * VECTORS + n] + v * taken[n]

    @T.macro
    def multiply_step(total, run, filters, patches, first, tx, ty, tz, held, taken):
        """Add the products of four input channels, whose filters begin at the step's channel `first`."""
        if in_runs:
            for t in T.unroll(TILES):
                held[t] = patches[tz * _PATCH_PITCH + t * _TX + tx]
            if packed:  # a loop, as in float32: decoding is text enough
                run[0] = spread(const(0), LANES)
                for i in T.unroll(1, count):
                    run[i] = run[0]
                for c in T.serial(STEP):
                    multiply(run, filters, ty, tz, first + c, 0, False, held, taken)
                    for t in T.unroll(TILES):
                        held[t] = pack([lane(held[t], (k + 1) % LANES) for k in range(LANES)])
            else:
                multiply(run, filters, ty, tz, first, 0, True, held, taken)
                for c in T.unroll(1, STEP):
                    multiply(run, filters, ty, tz, first, c, False, held, taken)
            for i in T.unroll(count):
                total[i] = total[i] + T.cast(run[i], sums)
        else:
            for c in T.serial(STEP):
                for t in T.unroll(TILES):
                    held[t] = patches[tz * (_PATCH_PITCH * LANES) + (c * _TX + tx) * TILES + t]
                multiply(total, filters, ty, tz, first, c, False, held, taken)

    @T.macro
    def share(total, outgoing, r, tx, ty, point):
        """Bring a round's sums to workgroup memory, in vectors of four neighbouring tiles."""
        for i in T.unroll(rounds):
            if r == i:
                for k in T.unroll(at_once):
                    for h in T.unroll(TILES // LANES):
                        outgoing[
                            T.ramp((point * sum_pitch + (ty * at_once + k) * _ROWS + h * _TX + tx) * LANES, 1, LANES)
                        ] = pack(
                            [
                                lane(
                                    total[(h * LANES + t) * VECTORS + i // shares],
                                    i % shares * at_once + k,
                                )
                                for t in range(LANES)
                            ]
                        )

    @T.macro
    def store(total, b, n, y, x):
        T.buffer_store(around.output, around.result(total, b, n, y, x), around.place(b, n, y, x))

    @T.macro
    def write(outgoing, columns, turned, lower, at, b, n, y, x):
        """Write a row of eight pixels, the upper or the lower one of four tiles."""
        sign: T.let[T.float32] = T.cast(1 - 2 * lower, "float32")
        for k in T.unroll(POINTS):
            columns[k] = outgoing[T.ramp(((lower * POINTS + k) * sum_pitch + at) * LANES, 1, LANES)] + spread(
                sign, LANES
            ) * (
                outgoing[T.ramp((((lower + 1) * POINTS + k) * sum_pitch + at) * LANES, 1, LANES)]
                + outgoing[T.ramp((((lower + 2) * POINTS + k) * sum_pitch + at) * LANES, 1, LANES)]
            )
        columns[0] = columns[0] + columns[1] + columns[2]
        columns[1] = columns[1] - columns[2] - columns[3]
        if in_runs:
            columns[0] = columns[0] * spread(T.float32(SCALE), LANES)
            columns[1] = columns[1] * spread(T.float32(SCALE), LANES)
        for v in T.unroll(SIDE // LANES):
            turned[T.ramp(v * LANES, 1, LANES)] = pack(
                [lane(columns[p % RESULTS], v * RESULTS + p // RESULTS) for p in range(LANES)]
            )
        if tirx.all(y < H, n < N):
            for v in T.unroll(SIDE // LANES):
                if x + v * LANES < W:
                    if W % LANES == 0:
                        for p in T.vectorized(LANES):
                            store(turned[v * LANES + p], b, n, y, x + v * LANES + p)
                    else:
                        for p in T.unroll(LANES):
                            if x + v * LANES + p < W:
                                store(turned[v * LANES + p], b, n, y, x + v * LANES + p)

    @T.prim_func(s_tir=True, private=True, check_well_formed=False)
    def convolution():
        for bx in T.thread_binding(B * tiles_y * tiles_x, thread="blockIdx.x"):
            for by in T.thread_binding(ceil_div(N, CHANNELS), thread="blockIdx.y"):
                for tz in T.thread_binding(_TZ, thread="threadIdx.z"):
                    for ty in T.thread_binding(_TY, thread="threadIdx.y"):
                        for tx in T.thread_binding(_TX, thread="threadIdx.x"):
                            with T.sblock("convolution"):
                                T.reads()
                                T.writes()
                                window = in_workgroup(_THREADS, dtype=vector)
                                patches = (
                                    in_workgroup(POINTS * POINTS * _PATCH_PITCH, dtype=vector)
                                    if in_runs
                                    else in_workgroup(POINTS * POINTS * _PATCH_PITCH * LANES)
                                )
                                filters = in_workgroup(POINTS * POINTS * filter_pitch * LANES, dtype=shape.dtype)
                                # In float32 sums take the place of filters.
                                outgoing = in_workgroup(POINTS * POINTS * sum_pitch * LANES if in_runs else LANES)
                                total = in_registers(count, sums)
                                run = in_registers(count, vector)
                                held = in_registers(TILES, vector if in_runs else shape.dtype)
                                taken = in_registers(VECTORS, vector)
                                taps = in_registers(TAPS * TAPS * LANES, shape.dtype)
                                columns = in_registers(TAPS, vector)
                                lines = in_registers(POINTS, sums)
                                turned = in_registers(SIDE)
                                row = in_registers(TAPS * LANES, shape.dtype)
                                upper = in_registers(POINTS, vector)
                                middle = in_registers(POINTS, vector)
                                lower = in_registers(POINTS, vector)
                                ready = in_registers(POINTS * POINTS, vector)
                                thread: T.let[T.int32] = (tz * _TY + ty) * _TX + tx
                                b: T.let[T.int32] = bx // (tiles_y * tiles_x)
                                y: T.let[T.int32] = bx // tiles_x % tiles_y * SIDE
                                x: T.let[T.int32] = bx % tiles_x * SIDE
                                n: T.let[T.int32] = by * CHANNELS
                                # Tile tz lies in row h _TX + tx and column t of the tile's 4 x 4, where a thread of the
                                # products has it as its own h LANES + t: tz = (h LANES + t) _TX + tx.
                                tile_row: T.let[T.int32] = tz // (LANES * _TX) * _TX + tz % _TX
                                tile_column: T.let[T.int32] = tz // _TX % LANES
                                place: T.let[T.int32] = (tile_row * WINDOW + tile_column) * RESULTS + tx
                                vector_at: T.let[T.int32] = tx * _TZ + tz

                                clear(total)
                                if not in_runs:  # or TVM makes one array of this and the window, of two dtypes
                                    patches[thread] = T.float32(0)
                                for s in T.serial(C // depth):
                                    first: T.let[T.int32] = s // apart * (depth * apart) + s % apart
                                    if packed:
                                        for ky in T.serial(TAPS):
                                            decode_row(
                                                b,
                                                first + (tx * (depth // 2) + tz // 2) * apart,
                                                n + (tz % 2 * _TY + ty) * LANES,
                                                ky,
                                                row,
                                                upper,
                                                middle,
                                                lower,
                                            )
                                        transform_rows(ready, upper, middle, lower)
                                    for turn in T.serial(halves):
                                        if packed:
                                            T.tvm_storage_sync("shared")
                                            if tx == turn:
                                                put_filter(filters, ready, tz * _TY + ty)
                                        for h in T.serial(depth // halves // STEP):
                                            c: T.let[T.int32] = first + (turn * (depth // halves) + h * STEP) * apart
                                            bring(window, b, c, y, x, thread)
                                            T.tvm_storage_sync("shared")
                                            if not packed:
                                                transform_filters(
                                                    filters,
                                                    b,
                                                    c,
                                                    n + vector_at % _FILTER_VECTORS * LANES,
                                                    ty,
                                                    signed_half(ty, 0),
                                                    T.Select(tirx.any(ty == 1, ty == 2), const(0.5), const(0)),
                                                    signed_half(ty, POINTS - 1),
                                                    vector_at,
                                                    taps,
                                                    columns,
                                                )
                                            transform_patches(
                                                window,
                                                patches,
                                                tx,
                                                ty,
                                                tz,
                                                place,
                                                T.Select(ty == 1, const(1), const(-1)),
                                                T.Select(tx == 0, const(0), const(-1)),
                                                T.Select(tx == 0, const(1), const(0)),
                                                columns,
                                            )
                                            T.tvm_storage_sync("shared")
                                            multiply_step(
                                                total, run, filters, patches, h * STEP, tx, ty, tz, held, taken
                                            )
                                for r in T.serial(rounds):  # not unrolled: an epilogue may be long
                                    T.tvm_storage_sync("shared")
                                    share(total, outgoing if in_runs else filters, r, tx, ty, tz)
                                    T.tvm_storage_sync("shared")
                                    # Thread (tx, ty, tz) has row tx of the tiles in row ty and channel tz of the round.
                                    if tz < CHANNELS // rounds:
                                        write(
                                            outgoing if in_runs else filters,
                                            lines,
                                            turned,
                                            tx,
                                            tz * _ROWS + ty,
                                            b,
                                            n
                                            + (r // shares * _TY + tz // at_once) * LANES
                                            + r % shares * at_once
                                            + tz % at_once,
                                            y + ty * RESULTS + tx,
                                            x,
                                        )

    return convolution.body
