"""What is known of flash attention for GPUs when its kernel is made: the tile, runs of float16 sums, factors."""

import math
from typing import Any

from tvm.script import tirx as T

from mlc_controlnet.kernels.attention import Attention
from mlc_controlnet.kernels.exponential import LOG2_E
from mlc_controlnet.kernels.flash_attention_tile import Tile, choose_tile
from mlc_controlnet.kernels.float16_sums import SCALE, run_length
from mlc_controlnet.kernels.integers import ceil_div
from mlc_controlnet.kernels.vectors import LANES, vector_of


class Plan:
    """What is known of a kernel when it is made.

    Attributes:
        run: vectors of depth whose products are summed in float16; None: all sums are float32.
        pair, value_pair: how many vectors of a run, and threads' keys, are unrolled.
        parts, chunk_parts: output vectors per thread and row, and those of them in a chunk of values.
        query_factor, score_factor: the product of both is scale log2 e.
        value_factor: of values, divided out at the end.
    """

    def __init__(self, attention: Attention, tile: Tile | None = None) -> None:
        """Plan a kernel. tile: None is the rules' choice."""
        self.attention = attention
        self.tile = tile = choose_tile(attention) if tile is None else tile
        self.dtype = attention.dtype
        self.run = run_length(attention.dtype, tile.chunk)
        self.pair = 2 if self.run is not None and self.run % 2 == 0 else 1
        self.value_pair = 2 if self.run is not None and tile.value_threads % 2 == 0 else 1
        self.parts = tile.depth // tile.threads_x
        self.chunk_parts = tile.value_chunk // tile.threads_x
        self.query_tiles = ceil_div(attention.queries, tile.queries)
        self.key_tiles = ceil_div(attention.keys, tile.keys)
        self.vector = vector_of(attention.dtype, LANES)
        self.sums = vector_of("float32", LANES)
        self.run_vector = self.sums if self.run is None else self.vector
        self.query_factor, self.score_factor, self.value_factor = 1.0, attention.scale * LOG2_E, 1.0
        if self.run is not None:
            self.query_factor, self.score_factor = factors(attention.scale)
            self.value_factor = 1 / SCALE

    def zeros(self, lanes: int) -> Any:
        """Return a vector of zeros."""
        return T.Broadcast(T.Cast(self.dtype, T.float32(0)), lanes)

    def scaled(self, maxima: Any, i: int) -> Any:
        """Return a row's maximum as a score to base 2."""
        return T.cast(T.Shuffle([maxima], [i]), "float32") * T.float32(self.score_factor)

    def pack(self, numbers: Any, first: int, count: int) -> Any:
        """Return float32 numbers as a vector of the kernel's dtype."""
        return T.Shuffle([T.cast(numbers[first + j], self.dtype) for j in range(count)], list(range(count)))


def factors(scale: float) -> tuple[float, float]:
    """Return the factor of queries, a power of two, and that of their products with keys, 16 to 32.

    The product of both is scale log2 e. A run overflows where its share of a score to base 2 is 65504 * 16.
    """
    score_factor = 16 * 2 ** (math.log2(scale * LOG2_E) % 1)
    return scale * LOG2_E / score_factor, score_factor
