"""How the numbers of one weight are coded, and where the codes lie.

A weight is a matrix of inputs by outputs: [K, N], or [C, kh, kw, N] of a convolution with K = C kh kw; or [N, K], where
a product of a few rows reads along K. Each number becomes a code of 2, 4, 6 or 8 bits:

    linear     w = (code - 2^(bits - 1)) scale; a scale for `group` neighbouring inputs of an output
    palette    w = table[code]; a table of 2^bits numbers for `group` neighbouring outputs (arXiv 1510.00149, section 3)

Codes lie in words of 32 bits, in planes of 8, 4 or 2 bits: 6 bits are a plane of their low 4 and one of their high 2.
A word holds 4 neighbours of the last axis, which a GPU's thread reads as one vector, of 1, 2 or 4 neighbouring rows.
Each neighbour has a byte: a shift and a mask take a row out of a word, and planes join, for all four at once.
"""

import math
from dataclasses import dataclass
from functools import cached_property

LANES = 4  # numbers of a row in a word, a byte each
BYTE_BITS = 8
WORD_BITS = 32
LINEAR, PALETTE = "linear", "palette"
METHODS = (LINEAR, PALETTE)
PLANES = {2: (2,), 4: (4,), 6: (4, 2), 8: (8,)}  # bits of a code, the lowest first -> bits of each plane
GROUP_OF_INPUTS = {8: 64, 4: 32, 2: 16}  # at most: 16 bits of scale for so many codes
NUMBERS_OF_A_TABLE_ENTRY = 256  # at least: 16 bits of table for so many codes


@dataclass(frozen=True)
class Plane:
    """A part of every code, `bits` wide, in the words from `first_word`."""

    bits: int
    first_bit: int
    first_word: int

    @property
    def rows(self) -> int:
        """Rows of a word."""
        return WORD_BITS // (self.bits * LANES)


@dataclass(frozen=True)
class Scheme:
    """How one weight is coded.

    Attributes:
        method: one of METHODS.
        bits: of a code, a key of PLANES.
        group: neighbouring inputs that share a scale, or outputs that share a table.
        rows, columns: of the weight as a matrix, in the order of memory.
        outputs_last: whether the columns are the outputs; otherwise the rows are.
    """

    method: str
    bits: int
    group: int
    rows: int
    columns: int
    outputs_last: bool = True

    @property
    def inputs(self) -> int:
        """K."""
        return self.rows if self.outputs_last else self.columns

    @property
    def outputs(self) -> int:
        """N."""
        return self.columns if self.outputs_last else self.rows

    @property
    def table_shape(self) -> tuple[int, int]:
        """Of the float16 numbers beside the codes: scales in the order of the weight, or a row for each table."""
        if self.method == PALETTE:
            return self.outputs // self.group, 2**self.bits
        groups = self.inputs // self.group
        return (groups, self.outputs) if self.outputs_last else (self.outputs, groups)

    @cached_property
    def planes(self) -> tuple[Plane, ...]:
        """The planes of the codes, in the order of memory."""
        planes: list[Plane] = []
        first_bit = first_word = 0
        for bits in PLANES[self.bits]:
            plane = Plane(bits, first_bit, first_word)
            planes.append(plane)
            first_bit += bits
            first_word += self.words_of(plane)
        return tuple(planes)

    def words_of(self, plane: Plane) -> int:
        """Count the words of a plane. A last word whose rows are not all there is filled up with zeros."""
        return math.ceil(self.rows / plane.rows) * (self.columns // LANES)

    @property
    def words(self) -> int:
        """Count the words of all planes."""
        return sum(map(self.words_of, self.planes))

    @property
    def bytes(self) -> int:
        """Of codes and table."""
        return 4 * self.words + 2 * math.prod(self.table_shape)

    def __str__(self) -> str:
        return f"{self.method}{self.bits}"


def can_code(rows: int, columns: int) -> bool:
    """Return whether a weight of this size has a scheme: its rows must be whole words."""
    return columns % LANES == 0 and rows > 0


def choose_scheme(method: str, bits: int, rows: int, columns: int, outputs_last: bool = True) -> Scheme:
    """Return the scheme of a weight: groups as fine as they cost little, and that divide it.

    A scale for 64 codes of 8 bits, or 32 of 4 bits, adds 1/4 or 1/2 bit to each; a table adds 1/16 bit at most, unless
    the whole weight has fewer numbers.
    """
    inputs, outputs = (rows, columns) if outputs_last else (columns, rows)
    if method == LINEAR:
        most = GROUP_OF_INPUTS[bits]
        step = 1 if outputs_last else LANES  # of a row, a vector has one scale
        group = max(size for size in range(1, most + 1) if inputs % size == 0 and (size % step == 0 or step == 1))
    else:
        sizes = [size for size in range(LANES, outputs + 1, LANES) if outputs % size == 0] or [outputs]
        enough = [size for size in sizes if size * inputs >= NUMBERS_OF_A_TABLE_ENTRY * 2**bits]
        group = (enough or sizes[-1:])[0]
    return Scheme(method, bits, group, rows, columns, outputs_last)
