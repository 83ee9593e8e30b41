"""Adds ControlNets to a bundle that exists: their weights, and a new manifest.

The bundle's kernels serve every ControlNet of the graph that they were compiled from. So nothing of the bundle is
compiled or copied again, and its base model is not needed, except for a Control-LoRA, which is a difference from it. A
Control-LoRA shares the bundle's UNet if the bundle's libraries can make its weights: if they were built with one of the
same rank. Otherwise its weights are merged.
"""

import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import tvm

from mlc_controlnet.build import Parity, find_controlnets, report_shared_weights, types_of_controlnets
from mlc_controlnet.bundle.extender import BundleExtender
from mlc_controlnet.bundle.file_names import MANIFEST_NAME
from mlc_controlnet.bundle.manifest import ComponentEntry, ControlNetEntry, Library, Manifest
from mlc_controlnet.bundle.params import ParamsSpec
from mlc_controlnet.bundle.reader import Bundle, read_bundle
from mlc_controlnet.bundle.writer import BundleWriter
from mlc_controlnet.capture import CapturedModel, Param, capture, share_weights
from mlc_controlnet.checkpoint import Checkpoint, find_model, load_added_controlnets
from mlc_controlnet.compile.library import compile_library
from mlc_controlnet.components import CONTROLNET, PER_CONTROLNET, RESIDUAL_SUM, UNET, ModelShape, kind_of
from mlc_controlnet.config import BuildConfig, ControlNetOption
from mlc_controlnet.errors import UserError
from mlc_controlnet.export import description
from mlc_controlnet.export.params import stored_form, write_params
from mlc_controlnet.export.weight_residency import plan_residency
from mlc_controlnet.instruction_sets import host_instruction_sets
from mlc_controlnet.machine import set_up_threads
from mlc_controlnet.parity.parity import check_parity, measure_parity, run_references
from mlc_controlnet.passes.pipeline import clean
from mlc_controlnet.passes.quantize.keep_float16 import keep_float16

_REMEDY = "build the model again with all its ControlNets: --controlnet A --controlnet B"

Captured = Mapping[str, CapturedModel]  # by dtype


def add_controlnets(
    folder: Path, options: Sequence[ControlNetOption], tuning_db: Path, model: str | None = None
) -> Bundle:
    """Add ControlNets to the bundle at `folder`, in place, all or none.

    Args:
        folder: a bundle, or a site that holds one.
        tuning_db: as in `BuildConfig`; a bundle for GPUs is compared with torch by kernels compiled for this processor.
        model: the base model, for a Control-LoRA.

    Raises:
        UserError: there is no bundle, a ControlNet does not fit, or the bundle has no kernels for its graph.
        ParityError: a ControlNet does not compute what torch computes.
    """
    set_up_threads()
    bundle = read_bundle(_bundle_folder(folder))
    _check_extensible(bundle)
    manifest = bundle.manifest
    others = [entry.name for entry in manifest.controlnets]
    paths = find_controlnets(options, others)
    types = types_of_controlnets(options, others)
    base = None if model is None else find_model(model, (UNET,), with_vae=False)
    with BundleExtender(bundle) as writer:
        checkpoint = load_added_controlnets(
            paths, others, model_shapes(manifest), manifest.defaults, manifest.model.name, base, types
        )
        captured = {
            library.dtype: _as_read_by(library, _shared(clean(capture(checkpoint, library.dtype)), checkpoint, bundle))
            for library in manifest.libraries
        }
        first = captured[manifest.libraries[0].dtype]
        report_shared_weights(first, checkpoint)
        entries = description.describe_controlnets(checkpoint, first)
        functions = _functions(entries, bundle)
        parity = compare_with_torch(bundle, checkpoint, captured, functions, tuning_db)
        params = _write_weights(writer, checkpoint, first, manifest.params)
        components = {
            name: dataclasses.replace(entry, function=functions[name])
            for name, entry in description.describe_components(checkpoint, first).items()
            if name != UNET
        }
        return writer.finish(_extended(manifest, components, entries, params, parity))


def model_shapes(manifest: Manifest) -> list[ModelShape]:
    """Return what the ControlNets' components say of the base model: its shapes, the default picture size first."""
    sample, _, context, *others_read = manifest.components[CONTROLNET].inputs
    *down, _ = manifest.components[CONTROLNET].outputs  # without the middle block's
    widths: dict[tuple[int, int], list[int]] = {}  # residuals' channels, by their height and width: by level
    for _, channels, rows, columns in (residual.shape for residual in down):
        widths.setdefault((rows, columns), []).append(channels)
    finest, *_ = widths.values()
    unet = manifest.components.get(UNET)
    shape = ModelShape(
        height=manifest.model.height,
        width=manifest.model.width,
        tokens=context.shape[1],
        text_width=context.shape[2],
        latent_channels=sample.shape[1],
        sample_channels=(unet.inputs[0] if unet else sample).shape[1],
        unet_channels=tuple(channels[-1] for channels in widths.values()),
        layers_per_block=len(finest) - 1,  # besides the first convolution's
        vae_scale_factor=manifest.model.vae_scale_factor,
        guidance_embedding=unet is not None and manifest.embeds_guidance,
        pooled_width=next((tensor.shape[1] for tensor in others_read if tensor.name == "text_embeds"), 0),
    )
    others = (
        dataclasses.replace(shape, height=variant.height, width=variant.width, chunks=variant.chunks)
        for variant in manifest.variants
    )
    return [shape, *others]


def compare_with_torch(
    bundle: Bundle, checkpoint: Checkpoint, captured: Captured, functions: Mapping[str, str], tuning_db: Path
) -> Parity:
    """Measure each component against torch in float32: with the bundle's own library, if processors run it.

    A library for another target cannot run here, so the same functions are compiled for llvm and take its place.

    Args:
        functions: component -> function of the bundle's libraries.

    Raises:
        ParityError: a component is below the threshold of its dtype.
    """
    parity: Parity = {}
    measured_size = dataclasses.replace(checkpoint, other_shapes=())
    own = tuple(name for name in checkpoint.components if name != UNET)
    references = run_references(dataclasses.replace(measured_size, components=own))
    for library in bundle.manifest.libraries:
        model = captured[library.dtype]
        if library.device == "wasm" and all(library.dtype in measured for measured in parity.values()) and parity:
            continue  # the same module has been compared
        with tempfile.TemporaryDirectory() as folder:
            if library.device == "llvm" and library.instruction_set in ("", *host_instruction_sets()):
                path = bundle.verified_path(library.file)
                model = dataclasses.replace(model, shared=functions)
            else:
                native = BuildConfig(checkpoint.name, "llvm", (library.dtype,), Path(folder), tuning_db)
                path, _ = compile_library(model.module, "compared", library.dtype, native, Path(folder), shipped=False)
            measured = measure_parity(measured_size, model, path, references)
        check_parity(measured, library.dtype)
        for component, decibels in measured.items():
            of_component = parity.setdefault(component, {})
            of_component[library.dtype] = min(decibels, of_component.get(library.dtype, decibels))
    return parity


def _shared(captured: CapturedModel, checkpoint: Checkpoint, bundle: Bundle) -> CapturedModel:
    """Share the UNet's weights with Control-LoRAs, as far as the bundle has these weights and the functions."""
    manifest = bundle.manifest
    functions = set.intersection(*(set(library.launches) for library in manifest.libraries))
    records = {record.name: record for record in manifest.params.records}
    tensors = checkpoint.tensors()

    def holds(param: Param) -> bool:
        """Return whether the bundle stores these very numbers: a LoRA may have changed them."""
        record = records.get(param.name)
        if record is None:
            return False
        with bundle.verified_path(manifest.params.shards[record.shard]).open("rb") as shard:
            shard.seek(record.byte_offset)
            return shard.read(record.bytes) == stored_form(param.read(tensors))

    shared = share_weights(captured, checkpoint, holds, functions)
    needed = {v: f for v, f in shared.module.functions_items() if shared.others.get(v.name_hint, v.name_hint) != UNET}
    return dataclasses.replace(shared, module=tvm.IRModule(needed))


def _as_read_by(library: Library, captured: CapturedModel) -> CapturedModel:
    return keep_float16(captured) if library.memory_dtype == "float16" != captured.dtype else captured


def _bundle_folder(folder: Path) -> Path:
    inside = folder / "bundle"  # of a site
    return inside if (inside / MANIFEST_NAME).is_file() and not (folder / MANIFEST_NAME).is_file() else folder


def _check_extensible(bundle: Bundle) -> None:
    """Raise UserError if the bundle's kernels serve no further ControlNet, or cannot add the residuals of two."""
    if bundle.manifest.params.quantized:
        raise UserError(
            str(bundle.path),
            "weights of few bits, which its kernels decode",
            "a bundle of float16 weights",
            f"{_REMEDY} and --weights",
        )
    missing = [name for name in (*PER_CONTROLNET, RESIDUAL_SUM) if name not in bundle.manifest.components]
    if missing:
        raise UserError(
            str(bundle.path), f"no {', '.join(missing)}", "a bundle whose kernels serve another ControlNet", _REMEDY
        )


def _functions(entries: Sequence[ControlNetEntry], bundle: Bundle) -> dict[str, str]:
    """Return the bundle's function for each component of new ControlNets.

    Raises:
        UserError: names the ControlNets whose graph no ControlNet of the bundle has.
    """
    manifest = bundle.manifest
    twins = {other.graph: other for other in manifest.controlnets if other.graph}
    if strange := [entry.name for entry in entries if entry.graph not in twins]:
        here = description.describe_versions()
        older = [f"{name} {built}" for name, built in manifest.versions.items() if here.get(name, built) != built]
        known = ", ".join(f"{other.name}'s" for other in manifest.controlnets)
        raise UserError(
            f"controlnet {', '.join(strange)}",
            "a graph that the bundle has no kernels for" + (f", built with {', '.join(older)}" if older else ""),
            f"the graph of one of its ControlNets: {known}",
            _REMEDY,
        )
    pairs = ((entry, twins[entry.graph]) for entry in entries)
    return {
        getattr(entry, component): manifest.components[getattr(twin, component)].function
        for entry, twin in pairs
        for component in PER_CONTROLNET
    }


def _write_weights(
    writer: BundleWriter, checkpoint: Checkpoint, captured: CapturedModel, old: ParamsSpec
) -> ParamsSpec:
    """Write the ControlNets' weights into shards after the bundle's own; return the specification of both."""
    count = len(old.shards)
    there = set(captured.params.get(UNET, ()))
    stored = {
        name: [param for param in sources if param not in there]
        for name, sources in captured.stored.items()
        if name != UNET
    }
    new = write_params(writer, stored, checkpoint.stored_tensors(), first_shard=count)
    records = tuple(dataclasses.replace(record, shard=count + record.shard) for record in new.records)
    return ParamsSpec(
        old.dtype,
        old.bytes + new.bytes,
        (*old.shards, *new.shards),
        (*old.records, *records),
        (*old.merged, *description.describe_merges(captured)),
    )


def _extended(
    manifest: Manifest,
    components: Mapping[str, ComponentEntry],
    entries: Sequence[ControlNetEntry],
    params: ParamsSpec,
    parity: Parity,
) -> Manifest:
    """Return the manifest with new ControlNets. Their components follow those of the bundle's last one."""
    last = [name for name in manifest.components if kind_of(name) in PER_CONTROLNET][-1]
    merged: dict[str, ComponentEntry] = {}
    for name, entry in manifest.components.items():
        merged[name] = entry
        if name == last:
            merged |= components
    return dataclasses.replace(
        manifest,
        components=merged,
        controlnets=(*manifest.controlnets, *entries),
        params=params,
        memory=plan_residency(manifest.libraries, merged, params, manifest.variants),
        parity_db={**manifest.parity_db, **parity},
    )
