"""The weights in a manifest: their shards, and the place of each tensor in them."""

from dataclasses import dataclass

DTYPE_BYTES = {"float16": 2, "float32": 4, "int32": 4, "uint32": 4}
RECORD_ALIGNMENT_BYTES = 4  # WebGPU copies multiples of four bytes only


@dataclass(frozen=True)
class ParamRecord:
    """The place of one weight in the shards. It is stored little-endian, in C order."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    shard: int
    byte_offset: int
    bytes: int


@dataclass(frozen=True)
class MergedParam:
    """A weight that no shard holds: the device makes it of others, once, in the library's own dtype."""

    name: str
    shape: tuple[int, ...]
    function: str  # of the library; it returns the weight
    sources: tuple[str, ...]  # the function's arguments


@dataclass(frozen=True)
class QuantizedParam:
    """A weight that is stored in few bits, as two params: kernels decode it. quantize/scheme.py says how.

    Attributes:
        shape: of the weight.
        method: linear or palette.
        bits: of a code.
        group: neighbouring inputs that share a scale, or outputs that share a palette.
        words: the param with its codes, uint32.
        table: the param with its scales or palettes, float16.
    """

    name: str
    shape: tuple[int, ...]
    method: str
    bits: int
    group: int
    words: str
    table: str


@dataclass(frozen=True)
class ParamsSpec:
    """The weights: their shards, and the place of each tensor in them."""

    dtype: str
    bytes: int  # of all records, without alignment
    shards: tuple[str, ...]
    records: tuple[ParamRecord, ...]
    merged: tuple[MergedParam, ...] = ()
    quantized: tuple[QuantizedParam, ...] = ()

    @property
    def tables(self) -> frozenset[str]:
        """The names of the params that are scales or palettes."""
        return frozenset(quantized.table for quantized in self.quantized)
