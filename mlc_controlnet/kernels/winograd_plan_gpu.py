"""What is known of Winograd's convolution on GPUs when its kernel is made: its tiles, pitches, and what it reads."""

from typing import Any

import tvm
import tvm_ffi
from tvm import tirx
from tvm.script import tirx as T

from mlc_controlnet.kernels.direct_convolution_gpu import ConvolutionShape, Elementwise, lane, pack
from mlc_controlnet.kernels.float16_sums import SCALE
from mlc_controlnet.kernels.vectors import LANES, spread, vector_of

TAPS = 3  # along a side, as all of these
RESULTS = 2  # of a tile
POINTS = TAPS + RESULTS - 1  # of a tile's patch
CHANNELS, SIDE = 32, 8  # output channels and pixels of a workgroup
VECTORS, TILES = 2, 8  # a thread's: vectors of channels, tiles
THREADS = (2, 4, POINTS * POINTS)  # along tiles, channels and numbers of a patch
STEP = LANES  # input channels
PACKED_STEP = 4 * STEP  # whose packed filters are decoded at once: by each thread four output channels' of one
WINDOW = SIDE + TAPS - 1  # pixels that a workgroup reads

THREADS_X, THREADS_Y, THREADS_Z = THREADS
ALL_THREADS = THREADS_X * THREADS_Y * THREADS_Z
ROWS = SIDE // RESULTS  # of tiles
FILTER_VECTORS = CHANNELS // LANES  # of an input channel
PATCH_PITCH = ROWS * ROWS + THREADS_X  # the distance of two of the 16 numbers in workgroup memory, in vectors


class Plan:
    """What is known of a kernel when it is made.

    Attributes:
        packed: whether weights are decoded.
        in_runs: whether the products of four input channels are summed in float16.
        vector, sums: dtypes of four numbers, and of four sums.
        count: vectors of sums of a thread.
        depth, halves, apart: input channels of a step, how many parts of their filters take turns in workgroup memory,
            and how far two of the channels are apart.
        at_once, rounds, shares: channels of a thread whose sums are transformed at once, which memory bounds; how often
            in all, and of a vector.
        filter_pitch, sum_pitch: distances of two of the 16 numbers in workgroup memory, in vectors.
    """

    def __init__(self, shape: ConvolutionShape, around: Elementwise, packed: bool) -> None:
        """Plan a kernel."""
        self.shape, self.around, self.packed = shape, around, packed
        self.in_runs = shape.dtype == "float16"
        self.vector, self.sums = vector_of(shape.dtype, LANES), vector_of("float32", LANES)
        self.count = TILES * VECTORS
        self.depth, self.halves, self.apart = STEP, 1, 1
        if packed:
            self.depth, self.halves, self.apart = PACKED_STEP, 2, _channels_apart(shape.depth)
        self.at_once = 1 if packed else 2
        self.rounds, self.shares = VECTORS * LANES // self.at_once, LANES // self.at_once
        self.filter_pitch = self.depth // self.halves * FILTER_VECTORS + THREADS_Y
        self.sum_pitch = CHANNELS // self.rounds * ROWS + 1

    @property
    def vectors(self) -> Any:
        """The dtype of four numbers, as annotations have it."""
        return getattr(T, self.vector)

    def const(self, value: float) -> Any:
        """Return a number of the kernel's dtype."""
        return tirx.const(value, self.shape.dtype)

    def pixel(self, b: Any, c: Any, i: Any, j: Any) -> Any:
        """Return four channels of the padded input from c on, 1 / SCALE of them if they are summed in float16."""
        numbers = _pack_under_one_condition([self.around.value(b, c + n * self.apart, i, j) for n in range(LANES)])
        return numbers * spread(T.float16(1 / SCALE), LANES) if self.in_runs else numbers

    def weight(self, b: Any, row: Any, n: Any, m: Any) -> Any:
        """Return the weight of output channel n + m; past the last channel any one, whose results nobody writes."""
        last = self.shape.channels // LANES - 1
        vector = T.min(n // LANES, last) * LANES if self.shape.channels % CHANNELS else n  # seen to be a multiple
        return self.around.weight(b, row, vector + m)

    def signed_half(self, row: Any, at: int) -> Any:
        """Return what rows 1 and 2 of G have in the first and the last column; 1 in row `at`, 0 in the other."""
        middle = T.Select(row == 1, self.const(0.5), T.Select(row == 2, self.const(-0.5), self.const(0)))
        return T.Select(row == at, self.const(1), middle)

    def patch(self, held: Any, t: Any, c: Any) -> Any:
        """Return a transformed number of tile t and channel c.

        Float32 products loop over channels: a quarter of the text.
        """
        return lane(held[t], c) if self.in_runs else held[t]


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
