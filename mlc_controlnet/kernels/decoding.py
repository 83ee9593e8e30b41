"""Decode weights of few bits, and widen those of float16, where a kernel reads them: no copy of all is ever in memory.

A PrimFunc that reads a packed weight has one block more, from words and table to the weight. Schedules of convolutions
and matrix products leave it (`Anchored.weights`), and inline it into the copy of the weight that they make anyway: to
workgroup memory on a GPU, where each number is decoded once for all rows of a tile; to the packed panel on a processor.
Four neighbours of a row lie in one word, a byte each: a vector of four is one read, shift and mask for 8 or 4 bits, two
for 6 bits, then a shift and a mask of each. A palette's table is read from storage: 128 bytes for 64 entries, one or
two lines of a cache.
"""

import math
from collections.abc import Sequence

import tvm
from tvm import te, tirx

from mlc_controlnet.quantize.scheme import BYTE_BITS, LANES, PALETTE, Scheme

WORDS_DTYPE = "uint32"
# The name of the block that widens a weight. A float16 library casts other tensors with the same structure.
WIDENED = "widened_weight"


def decode(words: te.Tensor, table: te.Tensor, scheme: Scheme, shape: Sequence[int]) -> te.Tensor:
    """Return the weight of `shape`, whose last axes are the scheme's columns, in the table's dtype.

    Args:
        words: uint32 [scheme.words].
        table: scheme.table_shape.
    """
    row_axes = _row_axes(scheme, shape)

    def value(*index: tirx.Var) -> tirx.Expr:
        row, column = _flat(index[:row_axes], shape[:row_axes]), _flat(index[row_axes:], shape[row_axes:])
        codes = None  # of four neighbours, a byte each
        for plane in scheme.planes:
            word = words[plane.first_word + row // plane.rows * (scheme.columns // LANES) + column // LANES]
            # TVM's passes reject vectors of uint32 indices. A shift of int32 repeats the sign, which the mask removes.
            own = word.astype("int32")
            if plane.rows > 1:
                own = own >> row % plane.rows * plane.bits
                own = own & tirx.const(_in_each_byte(2**plane.bits - 1), "int32")
            if plane.first_bit:
                own = own << plane.first_bit
            codes = own if codes is None else codes | own
        code = codes >> column % LANES * BYTE_BITS & tirx.const(2**BYTE_BITS - 1, "int32")
        output, inputs = (column, row) if scheme.outputs_last else (row, column)
        if scheme.method == PALETTE:
            return table[output // scheme.group, code]
        middle = tirx.const(2 ** (scheme.bits - 1), "int32")
        place = (inputs // scheme.group, output) if scheme.outputs_last else (output, inputs // scheme.group)
        return (code - middle).astype(table.dtype) * table[place]

    return te.compute(tuple(shape), value, "decode")


def widen(weight: te.Tensor) -> te.Tensor:
    """Return a float16 weight in float32, which is exact: a processor converts a vector of them in one instruction."""
    return te.compute(weight.shape, lambda *index: weight[index].astype("float32"), WIDENED)


def has_columns_of(scheme: Scheme, shape: Sequence[int]) -> bool:
    """Return whether a weight of this shape has the scheme's columns as its last axes."""
    return any(math.prod(shape[axis:]) == scheme.columns for axis in range(len(shape)))


def is_decoding(block: tvm.s_tir.SBlock) -> bool:
    """Return whether a block reads words of codes: nothing else of a model is uint32."""
    return any(str(region.source.dtype) == WORDS_DTYPE for region in block.reads)


def is_widening(block: tvm.s_tir.SBlock) -> bool:
    """Return whether a block widens a weight."""
    return str(block.name_hint) == WIDENED


def reads_words(function: tirx.PrimFunc) -> bool:
    """Return whether a PrimFunc decodes a weight."""
    return any(str(param.ty.dtype) == WORDS_DTYPE for param in function.params)


def _in_each_byte(bits: int) -> int:
    return bits * 0x01010101


def _row_axes(scheme: Scheme, shape: Sequence[int]) -> int:
    """Return how many of the first axes make up a row's number; the others are its columns."""
    return next(axis for axis in reversed(range(len(shape))) if math.prod(shape[axis:]) == scheme.columns)


def _flat(index: Sequence[tirx.Expr], shape: Sequence[int]) -> tirx.Expr:
    flat: tirx.Expr = tirx.const(0, "int32")
    for place, size in zip(index, shape, strict=True):
        flat = place if size == math.prod(shape) else flat * size + place
    return flat
