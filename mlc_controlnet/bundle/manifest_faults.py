"""What types cannot express of a manifest: file names stay inside the bundle, and every reference has a target.

Twin: web/src/engine/manifest_faults.ts, the same functions in the same order.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from mlc_controlnet.bundle.file_names import MANIFEST_NAME, is_inside
from mlc_controlnet.bundle.params import DTYPE_BYTES, RECORD_ALIGNMENT_BYTES, ParamsSpec

if TYPE_CHECKING:
    from mlc_controlnet.bundle.manifest import Manifest

Complaint = tuple[str, str, str]  # subject, got, wanted


def faults_of(manifest: "Manifest") -> Iterator[Complaint]:
    """Yield what contradicts itself in a manifest."""
    yield from _file_faults(manifest)
    yield from _param_faults(manifest)
    yield from _reference_faults(manifest)
    yield from _controlnet_faults(manifest)
    yield from _variant_faults(manifest)
    yield from _memory_faults(manifest)
    yield from _preview_faults(manifest)


def _file_faults(manifest: "Manifest") -> Iterator[Complaint]:
    seen: set[str] = set()
    for entry in manifest.files:
        if not is_inside(entry.path) or entry.path == MANIFEST_NAME:
            yield "files", repr(entry.path), "a relative path inside the bundle"
        if entry.path in seen:
            yield "files", f"{entry.path} twice", "every file once"
        seen.add(entry.path)
        if entry.bytes < 0 or len(entry.sha256) != 64 or set(entry.sha256) - set("0123456789abcdef"):
            yield f"files: {entry.path}", f"{entry.bytes} bytes, sha256 {entry.sha256!r}", "a size and 64 hex digits"


def _param_faults(manifest: "Manifest") -> Iterator[Complaint]:
    params, sizes = manifest.params, {entry.path: entry.bytes for entry in manifest.files}
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


def _reference_faults(manifest: "Manifest") -> Iterator[Complaint]:
    files = {entry.path for entry in manifest.files}
    named = {
        **{f"libraries: {library.file}": library.file for library in manifest.libraries},
        **{f"params.shards: {shard}": shard for shard in manifest.params.shards},
        "tokenizer": manifest.tokenizer.file,
        **{f"more_tokenizers[{i}]": tokenizer.file for i, tokenizer in enumerate(manifest.more_tokenizers)},
        "samplers": manifest.samplers.file,
    }
    for subject, path in named.items():
        if path not in files:
            yield subject, f"{path!r}, which files does not list", "a file of the bundle"
    if not manifest.libraries:
        yield "libraries", "none", "at least one"
    for library in manifest.libraries:
        if library.memory_dtype and (library.device, library.memory_dtype) != ("llvm", "float16"):
            got = f"memory_dtype {library.memory_dtype} for {library.device}"
            yield f"libraries: {library.file}", got, "float16 for llvm, or none"
    params = {record.name for record in manifest.params.records} | {merged.name for merged in manifest.params.merged}
    for name, entry in manifest.components.items():
        for param in entry.params:
            if param not in params:
                yield f"components.{name}.params", f"{param}, which has no record", "recorded params only"


def _controlnet_faults(manifest: "Manifest") -> Iterator[Complaint]:
    names = [controlnet.name for controlnet in manifest.controlnets]
    if len(set(names)) < len(names):
        yield "controlnets", ", ".join(names), "a name of its own for each"
    for controlnet in manifest.controlnets:
        for component in (controlnet.control_embedding, controlnet.controlnet):
            if component not in manifest.components:
                yield f"controlnets.{controlnet.name}", f"{component!r}, which is no component", "components"


def _variant_faults(manifest: "Manifest") -> Iterator[Complaint]:
    functions = {entry.function for entry in manifest.components.values()}
    for variant in manifest.variants:
        if unknown := sorted(set(variant.functions) - functions):
            yield f"variants: {variant}", f"{', '.join(unknown)}, no component's function", "components' functions"


def _memory_faults(manifest: "Manifest") -> Iterator[Complaint]:
    for library in manifest.libraries:
        if library.file not in manifest.memory:
            yield "memory", f"none for {library.file}", "a plan for each library"
    for file, plan in manifest.memory.items():
        for mode in (plan.resident, plan.reduced):
            for name, entry in manifest.components.items():
                kept = mode.kept_params.get(name, -1)
                if not 0 <= kept <= len(entry.params):
                    yield f"memory: {file}", f"{kept} params kept of {name}", f"0 to {len(entry.params)}"


def _preview_faults(manifest: "Manifest") -> Iterator[Complaint]:
    channels, preview = manifest.model.latent_channels, manifest.latent_preview
    if len(preview.weight) != 3 or len(preview.bias) != 3 or any(len(row) != channels for row in preview.weight):
        yield "latent_preview", "another shape", f"weight [3, {channels}] and bias [3]"
