"""The weights in a manifest: their shards, the place of each tensor in them, and what can be wrong with these."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

DTYPE_BYTES = {"float16": 2, "float32": 4, "int32": 4, "uint32": 4}
RECORD_ALIGNMENT_BYTES = 4  # WebGPU copies multiples of four bytes only

Complaint = tuple[str, str, str]  # subject, got, wanted


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


def param_faults(params: ParamsSpec, sizes: Mapping[str, int]) -> Iterator[Complaint]:
    """Yield what is wrong with the records; `sizes` are the bytes of each file by its path."""
    shard_bytes = [sizes.get(path, 0) for path in params.shards]
    ends = [0] * len(params.shards)
    seen: set[str] = set()
    for record in sorted(params.records, key=lambda r: (r.shard, r.byte_offset)):
        subject = f"params.records: {record.name}"
        if record.name in seen:
            yield subject, "two records", "one"
        seen.add(record.name)
        if not 0 <= record.shard < len(params.shards):
            yield subject, f"shard {record.shard}", f"one of {len(params.shards)} shards"
            continue
        if record.dtype not in DTYPE_BYTES or any(d < 1 for d in record.shape):
            yield subject, f"{record.dtype}{list(record.shape)}", f"one of {', '.join(DTYPE_BYTES)} and positive sizes"
            continue
        wanted_bytes = DTYPE_BYTES[record.dtype]
        for size in record.shape:
            wanted_bytes *= size
        if record.bytes != wanted_bytes:
            yield subject, f"{record.bytes} bytes", f"{wanted_bytes} bytes for {record.dtype}{list(record.shape)}"
        if record.byte_offset % RECORD_ALIGNMENT_BYTES:
            yield subject, f"byte_offset {record.byte_offset}", f"a multiple of {RECORD_ALIGNMENT_BYTES}"
        if record.byte_offset < ends[record.shard]:
            yield subject, f"byte_offset {record.byte_offset}", f"{ends[record.shard]} or more: records do not overlap"
        ends[record.shard] = record.byte_offset + record.bytes
        if ends[record.shard] > shard_bytes[record.shard]:
            wanted = f"{shard_bytes[record.shard]} at most, the shard's size"
            yield subject, f"an end at byte {ends[record.shard]}", wanted
    yield from _merged_faults(params)
    yield from _quantized_faults(params)
    record_bytes = sum(record.bytes for record in params.records)
    if params.bytes != record_bytes:
        yield "params.bytes", str(params.bytes), f"{record_bytes}, the sum of all records"


def _merged_faults(params: ParamsSpec) -> Iterator[Complaint]:
    records = {record.name for record in params.records}
    seen = set(records)
    for merged in params.merged:
        subject = f"params.merged: {merged.name}"
        if merged.name in seen:
            yield subject, "two weights", "one"
        if any(size < 1 for size in merged.shape):
            yield subject, f"a shape of {list(merged.shape)}", "positive sizes"
        if unknown := [source for source in merged.sources if source not in records]:
            yield subject, f"{unknown[0]}, which has no record", "recorded params only"
        seen.add(merged.name)


def _quantized_faults(params: ParamsSpec) -> Iterator[Complaint]:
    dtypes = {record.name: record.dtype for record in params.records}
    for quantized in params.quantized:
        subject = f"params.quantized: {quantized.name}"
        if any(size < 1 for size in quantized.shape):
            yield subject, f"a shape of {list(quantized.shape)}", "positive sizes"
        for param, wanted in ((quantized.words, "uint32"), (quantized.table, "float16")):
            if dtypes.get(param) != wanted:
                yield subject, f"{param}, of dtype {dtypes.get(param, 'none')}", f"a recorded param of {wanted}"
