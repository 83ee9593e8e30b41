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

from tvm import tirx
from tvm.script import tirx as T

from mlc_controlnet.kernels.direct_convolution_gpu import ConvolutionShape, Elementwise
from mlc_controlnet.kernels.integers import ceil_div
from mlc_controlnet.kernels.vectors import LANES
from mlc_controlnet.kernels.winograd_plan_gpu import (
    ALL_THREADS,
    CHANNELS,
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
    THREADS_Z,
    TILES,
    VECTORS,
    WINDOW,
    Plan,
)
from mlc_controlnet.kernels.winograd_steps_gpu import (
    bring,
    clear,
    decode_row,
    multiply_step,
    put_filter,
    share,
    transform_filters,
    transform_patches,
    transform_rows,
    write,
)
from mlc_controlnet.kernels.workgroups import in_registers, in_workgroup


def build(shape: ConvolutionShape, around: Elementwise, packed: bool = False) -> tirx.Stmt:
    """Return the kernel's body: 3x3 taps, strides of one, `shape.depth` a multiple of STEP.

    packed: whether weights are decoded; float16, and the depth a multiple of PACKED_STEP.
    """
    plan = Plan(shape, around, packed)
    B, N, C = shape.batch, shape.channels, shape.depth
    tiles_y, tiles_x = ceil_div(shape.height, SIDE), ceil_div(shape.width, SIDE)

    @T.prim_func(s_tir=True, private=True, check_well_formed=False)
    def convolution():
        for bx in T.thread_binding(B * tiles_y * tiles_x, thread="blockIdx.x"):
            for by in T.thread_binding(ceil_div(N, CHANNELS), thread="blockIdx.y"):
                for tz in T.thread_binding(THREADS_Z, thread="threadIdx.z"):
                    for ty in T.thread_binding(THREADS_Y, thread="threadIdx.y"):
                        for tx in T.thread_binding(THREADS_X, thread="threadIdx.x"):
                            with T.sblock("convolution"):
                                T.reads()
                                T.writes()
                                window = in_workgroup(ALL_THREADS, dtype=plan.vector)
                                patches = (
                                    in_workgroup(POINTS * POINTS * PATCH_PITCH, dtype=plan.vector)
                                    if plan.in_runs
                                    else in_workgroup(POINTS * POINTS * PATCH_PITCH * LANES)
                                )
                                filters = in_workgroup(
                                    POINTS * POINTS * plan.filter_pitch * LANES, dtype=plan.shape.dtype
                                )
                                # In float32 sums take the place of filters.
                                outgoing = in_workgroup(
                                    POINTS * POINTS * plan.sum_pitch * LANES if plan.in_runs else LANES
                                )
                                total = in_registers(plan.count, plan.sums)
                                run = in_registers(plan.count, plan.vector)
                                held = in_registers(TILES, plan.vector if plan.in_runs else plan.shape.dtype)
                                taken = in_registers(VECTORS, plan.vector)
                                taps = in_registers(TAPS * TAPS * LANES, plan.shape.dtype)
                                columns = in_registers(TAPS, plan.vector)
                                lines = in_registers(POINTS, plan.sums)
                                turned = in_registers(SIDE)
                                row = in_registers(TAPS * LANES, plan.shape.dtype)
                                upper = in_registers(POINTS, plan.vector)
                                middle = in_registers(POINTS, plan.vector)
                                lower = in_registers(POINTS, plan.vector)
                                ready = in_registers(POINTS * POINTS, plan.vector)
                                thread: T.let[T.int32] = (tz * THREADS_Y + ty) * THREADS_X + tx
                                b: T.let[T.int32] = bx // (tiles_y * tiles_x)
                                y: T.let[T.int32] = bx // tiles_x % tiles_y * SIDE
                                x: T.let[T.int32] = bx % tiles_x * SIDE
                                n: T.let[T.int32] = by * CHANNELS
                                # Tile tz lies in row h THREADS_X + tx and column t of the tile's 4 x 4, where a thread
                                # of the products has it as its own h LANES + t: tz = (h LANES + t) THREADS_X + tx.
                                tile_row: T.let[T.int32] = tz // (LANES * THREADS_X) * THREADS_X + tz % THREADS_X
                                tile_column: T.let[T.int32] = tz // THREADS_X % LANES
                                place: T.let[T.int32] = (tile_row * WINDOW + tile_column) * RESULTS + tx
                                vector_at: T.let[T.int32] = tx * THREADS_Z + tz

                                clear(plan, total)
                                if not plan.in_runs:  # or TVM makes one array of this and the window, of two dtypes
                                    patches[thread] = T.float32(0)
                                for s in T.serial(C // plan.depth):
                                    first: T.let[T.int32] = s // plan.apart * (plan.depth * plan.apart) + s % plan.apart
                                    if plan.packed:
                                        for ky in T.serial(TAPS):
                                            decode_row(
                                                plan,
                                                b,
                                                first + (tx * (plan.depth // plan.halves) + tz // 2) * plan.apart,
                                                n + (tz % 2 * THREADS_Y + ty) * LANES,
                                                ky,
                                                row,
                                                upper,
                                                middle,
                                                lower,
                                            )
                                        transform_rows(plan, ready, upper, middle, lower)
                                    for turn in T.serial(plan.halves):
                                        if plan.packed:
                                            T.tvm_storage_sync("shared")
                                            if tx == turn:
                                                put_filter(plan, filters, ready, tz * THREADS_Y + ty)
                                        for h in T.serial(plan.depth // plan.halves // STEP):
                                            c: T.let[T.int32] = (
                                                first + (turn * (plan.depth // plan.halves) + h * STEP) * plan.apart
                                            )
                                            bring(plan, window, b, c, y, x, thread)
                                            T.tvm_storage_sync("shared")
                                            if not plan.packed:
                                                transform_filters(
                                                    plan,
                                                    filters,
                                                    b,
                                                    c,
                                                    n + vector_at % FILTER_VECTORS * LANES,
                                                    ty,
                                                    plan.signed_half(ty, 0),
                                                    T.Select(
                                                        tirx.any(ty == 1, ty == 2), plan.const(0.5), plan.const(0)
                                                    ),
                                                    plan.signed_half(ty, POINTS - 1),
                                                    vector_at,
                                                    taps,
                                                    columns,
                                                )
                                            transform_patches(
                                                plan,
                                                window,
                                                patches,
                                                tx,
                                                ty,
                                                tz,
                                                place,
                                                T.Select(ty == 1, plan.const(1), plan.const(-1)),
                                                T.Select(tx == 0, plan.const(0), plan.const(-1)),
                                                T.Select(tx == 0, plan.const(1), plan.const(0)),
                                                columns,
                                            )
                                            T.tvm_storage_sync("shared")
                                            multiply_step(
                                                plan, total, run, filters, patches, h * STEP, tx, ty, tz, held, taken
                                            )
                                for r in T.serial(plan.rounds):  # not unrolled: an epilogue may be long
                                    T.tvm_storage_sync("shared")
                                    share(plan, total, outgoing if plan.in_runs else filters, r, tx, ty, tz)
                                    T.tvm_storage_sync("shared")
                                    # Thread (tx, ty, tz) has row tx of the tiles in row ty and channel tz of the round.
                                    if tz < CHANNELS // plan.rounds:
                                        write(
                                            plan,
                                            outgoing if plan.in_runs else filters,
                                            lines,
                                            turned,
                                            tx,
                                            tz * ROWS + ty,
                                            b,
                                            n
                                            + (r // plan.shares * THREADS_Y + tz // plan.at_once) * LANES
                                            + r % plan.shares * plan.at_once
                                            + tz % plan.at_once,
                                            y + ty * RESULTS + tx,
                                            x,
                                        )

    return convolution.body
