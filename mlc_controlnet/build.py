"""Build a bundle: model -> library, params, tables and, last, the manifest."""

import tempfile
from collections import defaultdict
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain
from pathlib import Path

import numpy as np

from mlc_controlnet.bundle.manifest import FORMAT_VERSION, Library, Manifest, SamplersSpec
from mlc_controlnet.bundle.reader import Bundle
from mlc_controlnet.bundle.sampler_table import tables_to_json
from mlc_controlnet.bundle.writer import BundleWriter
from mlc_controlnet.capture import capture
from mlc_controlnet.checkpoint import find_model, find_weights, load_checkpoint, model_name
from mlc_controlnet.compile.largest_size import find_largest_sizes
from mlc_controlnet.compile.library import OverLimits, compile_library, plan_library, write_library
from mlc_controlnet.compile.stage_log import StageLog
from mlc_controlnet.config import BuildConfig
from mlc_controlnet.export import description as describe
from mlc_controlnet.export.latent_preview import fit_latent_preview
from mlc_controlnet.export.params import write_params
from mlc_controlnet.export.samplers import build_sampler_tables
from mlc_controlnet.export.weight_residency import plan_memory
from mlc_controlnet.machine import set_thread_count
from mlc_controlnet.parity.parity import check_parity, measure_parity, run_references
from mlc_controlnet.passes import pipeline
from mlc_controlnet.toolchain.gpu_compilers import check_device


def build(config: BuildConfig) -> Bundle:
    set_thread_count()  # TVM would leave half of a virtual machine's processors idle
    stage = StageLog(config)
    with (
        BundleWriter(config.out) as writer,
        tempfile.TemporaryDirectory() as folder,
        ThreadPoolExecutor(max_workers=1) as beside,
    ):
        scratch = Path(folder)
        check_device(config.target)
        with stage("find the model"):
            path = find_model(config.model, config.components)
            controlnet = None if config.controlnet is None else find_weights(config.controlnet, "--controlnet")
        with stage("load the checkpoint"):
            checkpoint = load_checkpoint(
                path,
                config.height,
                config.width,
                name=model_name(config.model),
                controlnet=controlnet,
                loras=config.loras,
                components=config.components,
                tokenizer=config.tokenizer,
                prediction_type=config.prediction_type,
            )
        models = []
        for dtype in config.dtypes:
            with stage(f"capture the components in {dtype}"):
                models.append(pipeline.clean(capture(checkpoint, dtype)))
        tables = beside.submit(build_sampler_tables, checkpoint.scheduler_config)  # while TVM compiles
        references: Future[dict[str, list[np.ndarray]]] | None = None
        libraries: list[Library] = []
        parity_db = defaultdict[str, dict[str, float]](dict)
        for captured in models:
            dtype = captured.dtype
            if config.target != "llvm":
                try:
                    with stage(f"plan for {config.target}"):
                        planned = plan_library(captured.module, dtype, config)
                except OverLimits as error:
                    if config.every_dtype or not libraries:
                        with stage("look for the largest size that fits"):
                            sizes = find_largest_sizes(checkpoint, dtype, config, error)
                        raise error.with_sizes(sizes) from error
                    print(f"notice: left out {error.subject}: {error.got}", flush=True)
                    continue
            # torch computes what libraries are compared with while TVM compiles them.
            references = references or beside.submit(run_references, checkpoint)
            if config.target != "llvm":
                with stage(f"compile for {config.target}"):
                    path, library = write_library(planned, checkpoint.name, scratch)
            with stage("compile for llvm"):
                native = config.for_target("llvm")
                native_path, native_library = compile_library(
                    captured.module, checkpoint.name, dtype, native, scratch, shipped=config.target == "llvm"
                )
            with stage("compare with torch"):
                parity = measure_parity(checkpoint, captured, native_path, references.result())
                check_parity(parity, dtype)
            for name, db in parity.items():
                parity_db[name][dtype] = db
            if config.target == "llvm":
                path, library = native_path, native_library
            writer.add_file(library.file, path)
            libraries.append(library)
        with stage("write params and tables"):
            params = write_params(writer, chain.from_iterable(captured.params.values()), checkpoint.tensors())
            writer.add_bytes("tokenizer/tokenizer.json", checkpoint.tokenizer_json)
            writer.add_json("samplers.json", tables_to_json(tables.result()))
        with stage("write the manifest"):
            components = describe.describe_components(checkpoint, captured)
            bundle = writer.finish(
                Manifest(
                    format_version=FORMAT_VERSION,
                    model=describe.describe_model(checkpoint),
                    target=config.target,
                    libraries=tuple(libraries),
                    components=components,
                    params=params,
                    tokenizer=describe.describe_tokenizer(checkpoint, "tokenizer/tokenizer.json"),
                    samplers=SamplersSpec(file="samplers.json", default="ddim"),
                    defaults=checkpoint.defaults,
                    latent_preview=fit_latent_preview(checkpoint.parts["vae"]),
                    memory=plan_memory(libraries, components, params),
                    parity_db=dict(parity_db),
                    versions=describe.describe_versions(),
                )
            )
    print(stage.summary, flush=True)
    return bundle
