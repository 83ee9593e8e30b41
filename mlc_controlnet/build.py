"""Builds a bundle: the stages in order, from a model to its libraries, weights, tables and manifest.

`build` is the table of contents; every stage is a function below it.
"""

import dataclasses
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mlc_controlnet.bundle.manifest import FORMAT_VERSION, Library, Manifest, SamplersSpec
from mlc_controlnet.bundle.params import DTYPE_BYTES, ParamsSpec
from mlc_controlnet.bundle.reader import Bundle
from mlc_controlnet.bundle.sampler_description import descriptions_to_json
from mlc_controlnet.bundle.writer import BundleWriter
from mlc_controlnet.calibration.biases import with_corrected_biases
from mlc_controlnet.calibration.gain import measure_gains
from mlc_controlnet.calibration.observe import observe
from mlc_controlnet.calibration.pictures import Picture, choose_pictures
from mlc_controlnet.capture import CapturedModel, Quantizer, capture, share_weights, stored_bytes
from mlc_controlnet.checkpoint import (
    Checkpoint,
    find_model,
    find_vae,
    find_weights,
    load_checkpoint,
    model_name,
    name_controlnets,
    part_of,
)
from mlc_controlnet.compile.background import Background
from mlc_controlnet.compile.largest_size import find_largest_sizes
from mlc_controlnet.compile.library import (
    OverLimits,
    PlannedLibrary,
    compile_library,
    find_records,
    for_instruction_set,
    keeps_float16,
    plan_library,
    write_library,
)
from mlc_controlnet.compile.stage_log import StageLog
from mlc_controlnet.components import CONTROLNET, UNET, kind_of, numbered
from mlc_controlnet.config import BROWSER_PROCESSOR, Budget, BuildConfig, ControlNetOption
from mlc_controlnet.errors import print_notice
from mlc_controlnet.export import description
from mlc_controlnet.export.latent_preview import fit_latent_preview
from mlc_controlnet.export.params import write_params
from mlc_controlnet.export.sampler_descriptions import check_samplers, default_sampler, describe_samplers
from mlc_controlnet.export.weight_residency import plan_residency
from mlc_controlnet.files import check_writable_folder
from mlc_controlnet.instruction_sets import host_instruction_sets
from mlc_controlnet.locations import THIRD_PARTY_LICENSES
from mlc_controlnet.machine import give_back_freed_memory, set_up_threads
from mlc_controlnet.parity.mixed_bits import mix_bits
from mlc_controlnet.parity.parity import Drawn, check_parity, measure_parity, run_references
from mlc_controlnet.passes.pipeline import clean
from mlc_controlnet.passes.quantize.find_weights import find_weights as find_places
from mlc_controlnet.passes.quantize.keep_float16 import keep_float16
from mlc_controlnet.passes.quantize.quantize_model import formats_of_components, quantize_model
from mlc_controlnet.quantize.formats import FLOAT16, LEAST_DB, MIXED, MORE_BITS
from mlc_controlnet.toolchain.gpu_compilers import check_device
from mlc_controlnet.toolchain.link_wasm import MAX_MEMORY_BYTES

SAME_DB = 200.0  # what two equal outputs have: of a component without weights

Parity = dict[str, dict[str, float]]  # component -> dtype -> dB


@dataclass(frozen=True)
class BuiltLibrary:
    """One compiled library: its file, its description for the manifest, and the components it was made from."""

    path: Path
    description: Library
    model: CapturedModel


def build(config: BuildConfig) -> Bundle:
    """Build the bundle that `config` describes and write it to `config.out`, whole or not at all.

    Raises:
        UserError: an option, the model or the machine does not allow this build.
        ParityError: a compiled component does not compute what torch computes.
    """
    set_up_threads()  # TVM would use half of a virtual machine's processors
    give_back_freed_memory()
    check_device(config.target)
    find_records(config, None)
    if config.dump_ir is not None:
        check_writable_folder(config.dump_ir, "--dump-ir")
    stage = StageLog(config)
    with BundleWriter(config.out) as writer, tempfile.TemporaryDirectory() as folder, Background() as background:
        with stage("load the model"):
            checkpoint = load_model(config)
            config = for_browsers_that_hold(checkpoint, config)
        pictures = [] if config.calibration is None else choose_pictures(config.calibration, checkpoint)
        with stage("capture its components"):
            made = () if packs_control_loras(config) else None
            captured = (clean(capture(checkpoint, dtype)) for dtype in config.captured_dtypes)
            models = [share_weights(model, checkpoint, functions=made) for model in captured]
            report_shared_weights(models[0], checkpoint, packs_control_loras(config))
        drawn: Drawn | None = None
        if any(config.weights_of(name) != FLOAT16 for name in config.components):
            with stage("quantize its weights"):
                models, checkpoint, drawn = quantize_models(models, checkpoint, config, pictures)
        with stage(f"plan for {config.target}"):
            planned = plan_libraries(models, checkpoint, config)
        references = background.start(run_references, checkpoint, drawn)
        with stage(f"compile for {config.target}"):
            libraries = compile_libraries(planned, checkpoint.name, Path(folder))
        with stage("compare with torch"):
            parity = compare_with_torch(libraries, checkpoint, config, references(), drawn)
        with stage("write weights and samplers"):
            params = write_data(writer, libraries, checkpoint)
        with stage("write the manifest"):
            bundle = writer.finish(describe_bundle(libraries, checkpoint, config, params, parity))
    print(stage.summary, flush=True)
    return bundle


def load_model(config: BuildConfig) -> Checkpoint:
    """Find the model and its ControlNets, by name, path or hub id, and account for every tensor of them."""
    checkpoint = load_checkpoint(
        find_model(config.model, config.components, with_vae=config.vae is None),
        config.height,
        config.width,
        other_sizes=config.other_sizes,
        prompt_chunks=config.prompt_chunks,
        cached_branch=config.cached_branch,
        tiles_vae=config.tiles_vae,
        vae_tile=config.vae_tile,
        name=model_name(config.model),
        controlnets=find_controlnets(config.controlnets),
        control_types=types_of_controlnets(config.controlnets),
        vae=None if config.vae is None else find_vae(config.vae),
        preview_vae=None if config.preview_vae is None else find_weights(config.preview_vae, "--preview-vae"),
        loras=config.loras,
        embeddings=config.embeddings,
        components=config.components,
        tokenizer=config.tokenizer,
        prediction_type=config.prediction_type,
    )
    for error in check_samplers(checkpoint.scheduler_config).values():
        print_notice(f"left out {error.subject}: {error.got}")
    return checkpoint


def for_browsers_that_hold(checkpoint: Checkpoint, config: BuildConfig) -> BuildConfig:
    """Return the build without libraries for a browser's processor if a component's weights do not fit there."""
    if config.target != "webgpu" or not config.instruction_sets:
        return config
    counts = (sum(tensor.numel() for tensor in part.parameters()) for part in checkpoint.parts.values())
    weights_bytes = DTYPE_BYTES["float32"] * max(counts)
    if weights_bytes <= MAX_MEMORY_BYTES:
        return config
    got = f"a component with {weights_bytes / 1e9:.1f} GB of weights in float32"
    print_notice(f"left out the libraries for browsers without a GPU: {got}, where WebAssembly has 2 GiB")
    return dataclasses.replace(config, instruction_sets=())


def find_controlnets(options: Sequence[ControlNetOption], taken: Sequence[str] = ()) -> dict[str, Path]:
    """Return the file or folder of each ControlNet, by its name in the bundle; `taken` are the names of others."""
    paths = (find_weights(option.path, "--controlnet") for option in options)
    return dict(zip(name_controlnets(options, taken), paths, strict=True))


def types_of_controlnets(options: Sequence[ControlNetOption], taken: Sequence[str] = ()) -> dict[str, str]:
    """Return the control type of each union ControlNet, by its name in the bundle; `taken` are the names of others."""
    named = zip(name_controlnets(options, taken), options, strict=True)
    return {name: option.control_type for name, option in named if option.control_type}


def packs_control_loras(config: BuildConfig) -> bool:
    """Return whether the build merges Control-LoRAs, so that their weights have few bits, and the UNet's.

    Weights that the device makes others of stay float16 (passes/quantize/find_weights.py): the UNet's encoder would.
    Two weights of 8.25 bits take about as much, and fewer bits less: Stable Diffusion 1.5 with rank 128 and 4.5 bits
    has 812 MB of weights instead of 1,262 (tests/test_full_size_control_lora.py).
    """
    return FLOAT16 not in map(config.weights_of, (UNET, CONTROLNET))


def report_shared_weights(model: CapturedModel, checkpoint: Checkpoint, packs: bool = False) -> None:
    """Print what each ControlNet that shares weights with others adds to the bundle.

    packs: `packs_control_loras`.
    """
    names = {part_of(numbered(CONTROLNET, i + 1)): name for i, name in enumerate(checkpoint.controlnets)}
    for part, twin in _sharing_controlnets(model, list(names)).items():
        stored, alone = (count / 1e6 for count in stored_bytes(model, part, checkpoint))
        print(f"  {names[part]}: {stored:.1f} MB instead of {alone:.1f}, by {names[twin]}'s weights", flush=True)
    for part in checkpoint.control_loras:
        if part in model.params and packs:  # also the component's name
            print(f"  {names[part]}: merged, because its factors would keep the UNet's weights float16", flush=True)
        elif part in model.params:
            stored, alone = (count / 1e6 for count in stored_bytes(model, part, checkpoint))
            if stored < alone:
                print(f"  {names[part]}: {stored:.1f} MB instead of {alone:.1f}, by the UNet's weights", flush=True)
            else:
                print(f"  {names[part]}: {alone:.1f} MB, merged: it shares nothing with the UNet's weights", flush=True)


def _sharing_controlnets(model: CapturedModel, controlnets: Sequence[str]) -> dict[str, str]:
    """Map each ControlNet that reads another one's weights to the first such one before it."""
    params = {name: set(model.params.get(name, ())) for name in controlnets}
    found: dict[str, str] = {}
    for i, own in enumerate(controlnets):
        twins = [other for other in controlnets[:i] if params[own] & params[other]]
        if twins:
            found[own] = twins[0]
    return found


def quantize_models(
    models: Sequence[CapturedModel], checkpoint: Checkpoint, config: BuildConfig, pictures: Sequence[Picture] = ()
) -> tuple[list[CapturedModel], Checkpoint, Drawn | None]:
    """Pack the weights of the models of all dtypes in the formats that the build asks for.

    Args:
        pictures: to draw for calibration; none: without.

    Returns:
        The models; the checkpoint with the biases that belong to their weights; and what components read as they drew,
        on pictures that the weights do not know.

    Raises:
        UserError: no choice of formats is within the budget, or a picture cannot be drawn.
    """
    first = models[0]
    places = find_places(first)  # the same for every dtype
    formats = formats_of_components(first, config.weights_of, places)
    seen = None
    if pictures:
        weights = {rows.tensor for param in formats for rows in param.rows}
        seen = observe(checkpoint, first, pictures, weights)
    quantizer = Quantizer() if seen is None else Quantizer(seen.moments)
    if MIXED in formats.values():
        inputs = None if seen is None else seen.inputs
        formats = mix_bits(first, checkpoint, places, formats, config.budget or Budget(), inputs, quantizer)
    packed = [quantize_model(model, formats, places, quantizer) for model in models]
    if seen is None:
        return packed, checkpoint, None
    checkpoint = with_corrected_biases(checkpoint, packed[0], seen.moments)
    for gain in measure_gains(checkpoint, packed[0], seen.unseen):
        print(f"  {gain}", flush=True)
    return packed, checkpoint, {name: calls[0][0] for name, calls in seen.unseen.items()}


def plan_libraries(
    models: Sequence[CapturedModel], checkpoint: Checkpoint, config: BuildConfig
) -> list[tuple[CapturedModel, PlannedLibrary]]:
    """Take each dtype's module through the passes, once for each instruction set of processors.

    If a library after the first exceeds WebGPU's default limits, and its dtype was not asked for by name, it is left
    out with a notice.

    Raises:
        OverLimits: any other library exceeds them. The error names the largest picture sizes that fit.
    """
    planned: list[tuple[CapturedModel, PlannedLibrary]] = []
    for captured in models:
        if captured.dtype not in config.dtypes:
            continue
        model = captured
        if keeps_float16(captured.dtype, config.target, bool(config.instruction_sets)):
            model = keep_float16(captured)
        try:
            for instruction_set in (config.instruction_sets if config.target == "llvm" else ()) or (None,):
                planned.append((model, plan_library(model.module, model.dtype, config, instruction_set)))
        except OverLimits as error:
            if config.every_dtype or not planned:
                print("  looking for the largest size that fits ...", flush=True)
                raise error.with_sizes(find_largest_sizes(checkpoint, model.dtype, config, error)) from error
            print_notice(f"left out {error.subject}: {error.got}")
    if config.target == "webgpu" and config.instruction_sets:
        (model,) = (one for one in models if one.dtype in BROWSER_PROCESSOR.dtypes)
        planned += _plan_for_browser_processors(model, config)
    for model, library in planned:
        print(f"  {' '.join(filter(None, (model.dtype, library.instruction_set)))}: {library.tuned}", flush=True)
    return planned


def _plan_for_browser_processors(
    model: CapturedModel, config: BuildConfig
) -> list[tuple[CapturedModel, PlannedLibrary]]:
    """Plan once: the instruction sets of browsers have vectors and registers of one size."""
    first, *others = config.instruction_sets
    planned = plan_library(model.module, model.dtype, config, first)
    return [(model, one) for one in (planned, *(for_instruction_set(planned, name) for name in others))]


def compile_libraries(
    planned: Sequence[tuple[CapturedModel, PlannedLibrary]], name: str, folder: Path
) -> list[BuiltLibrary]:
    """Generate code for each library and link it in `folder`."""
    built = []
    for model, library in planned:
        path, written = write_library(library, name, folder)
        built.append(BuiltLibrary(path, dataclasses.replace(written, memory_dtype=model.memory_dtype), model))
    return built


def compare_with_torch(
    libraries: Sequence[BuiltLibrary],
    checkpoint: Checkpoint,
    config: BuildConfig,
    references: Mapping[str, Sequence[np.ndarray]],
    drawn: Drawn | None,
) -> Parity:
    """Measure each component against torch in float32, on this machine's processor.

    A library for another target or processor cannot run here. Unless one of the same module does, the module is
    compiled for this processor and takes its place. One that computes in float32 reads the weights in float16
    meanwhile: the numbers are the same, in half of the memory.

    Raises:
        ParityError: a component is below the threshold of its dtype.
        UserError: a component is below the threshold of the format of its weights.
    """
    specs = checkpoint.call_specs

    def of_function(name: str) -> str:
        return config.weights_of(specs[name].name)

    parity: Parity = {}
    here = host_instruction_sets()
    compared: list[CapturedModel] = []
    for library in sorted(libraries, key=lambda one: one.description.instruction_set not in here):
        model = library.model
        runs_here = library.description.instruction_set in here
        if not runs_here and any(model is other for other in compared):
            continue  # another library of it ran, or one that took its place
        compared.append(model)
        with tempfile.TemporaryDirectory() as folder:
            path = library.path
            if not runs_here:
                native = config.for_target("llvm")
                if keeps_float16(model.dtype, native.target, named=False) and not (model.memory_dtype or model.merges):
                    model = keep_float16(model)
                path, _ = compile_library(model.module, "compared", model.dtype, native, Path(folder), shipped=False)
            measured = measure_parity(checkpoint, model, path, references, drawn)
        report_packed(measured, model.dtype, of_function)
        check_parity(measured, model.dtype, of_function, lambda name: more_bits(specs[name].name, config))
        for component, decibels in measured.items():
            of_component = parity.setdefault(component, {})
            of_component[model.dtype] = min(decibels, of_component.get(model.dtype, decibels))
    return parity


def report_packed(measured: Mapping[str, float], dtype: str, weights_of: Callable[[str], str]) -> None:
    """Print what each function with packed weights keeps, and what it must."""
    for name, decibels in measured.items():
        if (least := LEAST_DB.get(weights_of(name))) is not None and decibels < SAME_DB:
            print(f"  {dtype} {name}: {decibels} dB ({weights_of(name)}: at least {least:g})", flush=True)


def more_bits(component: str, config: BuildConfig) -> str:
    """Return what a user can do for a component whose weights have too few bits."""
    name, given = kind_of(component), config.weights_of(component)
    more = "raise --budget" if given == MIXED else f"give it more bits with --weights {name}={MORE_BITS[given]}"
    return more if config.calibration is not None else f"{more}, or round for your prompts with --calibrate PROMPTS"


def write_data(
    writer: BundleWriter,
    libraries: Sequence[BuiltLibrary],
    checkpoint: Checkpoint,
) -> ParamsSpec:
    """Write the libraries, the weights in shards, the tokenizer and what the samplers are computed from."""
    for library in libraries:
        writer.add_file(library.description.file, library.path)
    if any(library.path.suffix == ".wasm" for library in libraries):  # it contains TVM's runtime and C++'s library
        writer.add_file(THIRD_PARTY_LICENSES.name, THIRD_PARTY_LICENSES)
    model = libraries[0].model  # its params are the same for every dtype
    written = write_params(writer, model.stored, checkpoint.stored_tensors())
    for file, data in {file: tokenizer.json for file, tokenizer in description.tokenizer_files(checkpoint)}.items():
        writer.add_bytes(file, data)
    writer.add_json(description.SAMPLERS_FILE, descriptions_to_json(describe_samplers(checkpoint.scheduler_config)))
    return dataclasses.replace(
        written,
        merged=description.describe_merges(model),
        quantized=description.describe_quantized(model, checkpoint),
    )


def describe_bundle(
    libraries: Sequence[BuiltLibrary],
    checkpoint: Checkpoint,
    config: BuildConfig,
    params: ParamsSpec,
    parity: Parity,
) -> Manifest:
    """Collect what manifest.json says. The writer adds the files with their hashes."""
    described = tuple(library.description for library in libraries)
    components = description.describe_components(checkpoint, libraries[0].model)
    variants = description.describe_variants(checkpoint)
    tokenizers = description.describe_tokenizers(checkpoint)
    return Manifest(
        format_version=FORMAT_VERSION,
        model=description.describe_model(checkpoint),
        target=config.target,
        libraries=described,
        components=components,
        variants=variants,
        controlnets=description.describe_controlnets(checkpoint, libraries[0].model),
        params=params,
        tokenizer=tokenizers[0],
        more_tokenizers=tokenizers[1:],
        samplers=SamplersSpec(file=description.SAMPLERS_FILE, default=default_sampler(checkpoint.scheduler_config)),
        defaults=checkpoint.defaults,
        latent_preview=fit_latent_preview(checkpoint.parts["vae"]),
        memory=plan_residency(described, components, params, variants),
        parity_db=parity,
        versions=description.describe_versions(),
    )
