# mypy: disable-error-code="no-untyped-def, valid-type"
"""The steps of Winograd's convolution on GPUs: pixels, filters and patches, products, and the results."""

from tvm import tirx
from tvm.script import tirx as T

from mlc_controlnet.kernels.direct_convolution_gpu import lane, pack
from mlc_controlnet.kernels.float16_sums import SCALE
from mlc_controlnet.kernels.vectors import LANES, spread
from mlc_controlnet.kernels.winograd_plan_gpu import (
    FILTER_VECTORS,
    PATCH_PITCH,
    POINTS,
    RESULTS,
    ROWS,
    SIDE,
    STEP,
    TAPS,
    THREADS_X,
    THREADS_Y,
    TILES,
    VECTORS,
    WINDOW,
)


@T.macro
def clear(plan, numbers):
    """Begin all sums of a thread with zero."""
    numbers[0] = spread(T.float32(0), LANES)
    for i in T.unroll(1, plan.count):
        numbers[i] = numbers[0]


@T.macro
def bring(plan, window, b, c, first_y, first_x, thread):
    """Bring a step's pixels; threads without one bring the last row once more, behind the window."""
    window[thread] = plan.pixel(b, c, first_y + T.min(thread // WINDOW, WINDOW - 1), first_x + thread % WINDOW)


@T.macro
def transform_filters(plan, filters, b, c, n, row, first, middle, last, at, taps, columns):
    """One row of four output channels' filters of an input channel: the vector `at` of the step's."""
    for k in T.unroll(TAPS * TAPS):
        for m in T.vectorized(LANES):
            taps[k * LANES + m] = plan.weight(b, (c + at // FILTER_VECTORS) * (TAPS * TAPS) + k, n, m)
    for k in T.unroll(TAPS):
        columns[k] = (
            taps[T.ramp(k * LANES, 1, LANES)] * spread(first, LANES)
            + taps[T.ramp((TAPS + k) * LANES, 1, LANES)] * spread(middle, LANES)
            + taps[T.ramp((2 * TAPS + k) * LANES, 1, LANES)] * spread(last, LANES)
        )
    even: T.let[plan.vectors] = (columns[0] + columns[2]) * spread(plan.const(0.5), LANES)
    odd: T.let[plan.vectors] = columns[1] * spread(plan.const(0.5), LANES)
    place: T.let[T.int32] = row * POINTS * plan.filter_pitch + at
    filters[T.ramp(place * LANES, 1, LANES)] = columns[0]
    filters[T.ramp((place + plan.filter_pitch) * LANES, 1, LANES)] = even + odd
    filters[T.ramp((place + 2 * plan.filter_pitch) * LANES, 1, LANES)] = even - odd
    filters[T.ramp((place + 3 * plan.filter_pitch) * LANES, 1, LANES)] = columns[2]


@T.macro
def decode_row(plan, b, c, n, ky, row, upper, middle, lower):
    """Decode a row of four output channels' filters, and transform it along itself; two rows before stay."""
    for kx in T.serial(TAPS):
        row[T.ramp(0, 1, LANES)] = row[T.ramp(LANES, 1, LANES)]
        row[T.ramp(LANES, 1, LANES)] = row[T.ramp(2 * LANES, 1, LANES)]
        for m in T.vectorized(LANES):
            row[2 * LANES + m] = plan.weight(b, c * (TAPS * TAPS) + ky * TAPS + kx, n, m)
    even: T.let[plan.vectors] = (row[T.ramp(0, 1, LANES)] + row[T.ramp(2 * LANES, 1, LANES)]) * spread(
        plan.const(0.5), LANES
    )
    odd: T.let[plan.vectors] = row[T.ramp(LANES, 1, LANES)] * spread(plan.const(0.5), LANES)
    for k in T.unroll(POINTS):
        upper[k] = middle[k]
        middle[k] = lower[k]
    lower[0] = row[T.ramp(0, 1, LANES)]
    lower[1] = even + odd
    lower[2] = even - odd
    lower[3] = row[T.ramp(2 * LANES, 1, LANES)]


@T.macro
def transform_rows(plan, ready, upper, middle, lower):
    """The 16 numbers of four filters, of three rows."""
    for k in T.unroll(POINTS):
        even: T.let[plan.vectors] = (upper[k] + lower[k]) * spread(plan.const(0.5), LANES)
        odd: T.let[plan.vectors] = middle[k] * spread(plan.const(0.5), LANES)
        ready[k] = upper[k]
        ready[POINTS + k] = even + odd
        ready[2 * POINTS + k] = odd - even
        ready[3 * POINTS + k] = lower[k]


@T.macro
def put_filter(plan, filters, ready, at):
    """Bring the 16 numbers of four filters to workgroup memory, as the vector `at` of each."""
    for k in T.unroll(POINTS * POINTS):
        filters[T.ramp((k * plan.filter_pitch + at) * LANES, 1, LANES)] = ready[k]


@T.macro
def put_patch(plan, patches, point, tile, value):
    """Four channels of a transformed number: a vector; in float32 each beside the thread's other tiles."""
    if plan.in_runs:
        patches[point * PATCH_PITCH + tile] = value
    else:
        numbers: T.let[plan.vectors] = value
        for c in T.unroll(STEP):
            patches[point * (PATCH_PITCH * LANES) + (c * THREADS_X + tile % THREADS_X) * TILES + tile // THREADS_X] = (
                lane(numbers, c)
            )


@T.macro
def transform_patches(plan, window, patches, half, row, tile, place, sign, first, last, columns):
    """Two of the numbers in a row of a tile's patch: the outer and the inner one of a half."""
    for k in T.unroll(POINTS - 1):
        columns[k] = (
            window[place + T.min(row, 1) * WINDOW + k]
            + spread(sign, LANES) * window[place + T.max(row, 2) * WINDOW + k]
        )
    put_patch(plan, patches, row * POINTS + half * (POINTS - 1), tile, columns[0] - columns[2])
    put_patch(
        plan,
        patches,
        row * POINTS + half + 1,
        tile,
        columns[1] + spread(first, LANES) * columns[0] + spread(last, LANES) * columns[2],
    )


@T.macro
def multiply(plan, total, filters, ty, point, first, c, begins, held, taken):
    """Add the products of an input channel, or begin sums with them."""
    for n in T.unroll(VECTORS):
        place: T.let[T.int32] = point * plan.filter_pitch + (first + c) * FILTER_VECTORS + n * THREADS_Y + ty
        taken[n] = filters[T.ramp(place * LANES, 1, LANES)]
    for t in T.unroll(TILES):
        v: T.let[plan.vectors] = spread(plan.patch(held, t, c), LANES)
        for n in T.unroll(VECTORS):
            if begins:
                total[t * VECTORS + n] = v * taken[n]
            else:
                total[t * VECTORS + n] = total[t * VECTORS + n] + v * taken[n]


@T.macro
def multiply_step(plan, total, run, filters, patches, first, tx, ty, tz, held, taken):
    """Add the products of four input channels, whose filters begin at the step's channel `first`."""
    if plan.in_runs:
        for t in T.unroll(TILES):
            held[t] = patches[tz * PATCH_PITCH + t * THREADS_X + tx]
        if plan.packed:  # a loop, as in float32: decoding is text enough
            run[0] = spread(plan.const(0), LANES)
            for i in T.unroll(1, plan.count):
                run[i] = run[0]
            for c in T.serial(STEP):
                multiply(plan, run, filters, ty, tz, first + c, 0, False, held, taken)
                for t in T.unroll(TILES):
                    held[t] = pack([lane(held[t], (k + 1) % LANES) for k in range(LANES)])
        else:
            multiply(plan, run, filters, ty, tz, first, 0, True, held, taken)
            for c in T.unroll(1, STEP):
                multiply(plan, run, filters, ty, tz, first, c, False, held, taken)
        for i in T.unroll(plan.count):
            total[i] = total[i] + T.cast(run[i], plan.sums)
    else:
        for c in T.serial(STEP):
            for t in T.unroll(TILES):
                held[t] = patches[tz * (PATCH_PITCH * LANES) + (c * THREADS_X + tx) * TILES + t]
            multiply(plan, total, filters, ty, tz, first, c, False, held, taken)


@T.macro
def share(plan, total, outgoing, r, tx, ty, point):
    """Bring a round's sums to workgroup memory, in vectors of four neighbouring tiles."""
    for i in T.unroll(plan.rounds):
        if r == i:
            for k in T.unroll(plan.at_once):
                for h in T.unroll(TILES // LANES):
                    outgoing[
                        T.ramp(
                            (point * plan.sum_pitch + (ty * plan.at_once + k) * ROWS + h * THREADS_X + tx) * LANES,
                            1,
                            LANES,
                        )
                    ] = pack(
                        [
                            lane(
                                total[(h * LANES + t) * VECTORS + i // plan.shares],
                                i % plan.shares * plan.at_once + k,
                            )
                            for t in range(LANES)
                        ]
                    )


@T.macro
def store(plan, total, b, n, y, x):
    """Write one number, with what is fused with the convolution."""
    T.buffer_store(plan.around.output, plan.around.result(total, b, n, y, x), plan.around.place(b, n, y, x))


@T.macro
def write(plan, outgoing, columns, turned, lower, at, b, n, y, x):
    """Write a row of eight pixels, the upper or the lower one of four tiles."""
    sign: T.let[T.float32] = T.cast(1 - 2 * lower, "float32")
    for k in T.unroll(POINTS):
        columns[k] = outgoing[T.ramp(((lower * POINTS + k) * plan.sum_pitch + at) * LANES, 1, LANES)] + spread(
            sign, LANES
        ) * (
            outgoing[T.ramp((((lower + 1) * POINTS + k) * plan.sum_pitch + at) * LANES, 1, LANES)]
            + outgoing[T.ramp((((lower + 2) * POINTS + k) * plan.sum_pitch + at) * LANES, 1, LANES)]
        )
    columns[0] = columns[0] + columns[1] + columns[2]
    columns[1] = columns[1] - columns[2] - columns[3]
    if plan.in_runs:
        columns[0] = columns[0] * spread(T.float32(SCALE), LANES)
        columns[1] = columns[1] * spread(T.float32(SCALE), LANES)
    for v in T.unroll(SIDE // LANES):
        turned[T.ramp(v * LANES, 1, LANES)] = pack(
            [lane(columns[p % RESULTS], v * RESULTS + p // RESULTS) for p in range(LANES)]
        )
    if tirx.all(y < plan.shape.height, n < plan.shape.channels):
        for v in T.unroll(SIDE // LANES):
            if x + v * LANES < plan.shape.width:
                if plan.shape.width % LANES == 0:
                    for p in T.vectorized(LANES):
                        store(plan, turned[v * LANES + p], b, n, y, x + v * LANES + p)
                else:
                    for p in T.unroll(LANES):
                        if x + v * LANES + p < plan.shape.width:
                            store(plan, turned[v * LANES + p], b, n, y, x + v * LANES + p)
