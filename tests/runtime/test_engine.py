import dataclasses
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mlc_controlnet.bundle.file_names import MANIFEST_NAME
from mlc_controlnet.bundle.reader import Bundle, read_bundle
from mlc_controlnet.errors import UserError
from mlc_controlnet.runtime import engine as engine_module
from mlc_controlnet.runtime.engine import Engine
from tests.fixtures.linear_bundle import (
    IMAGE,
    LATENT,
    TOKENS,
    compile_linear_library,
    linear_model,
    write_linear_bundle,
)

TOLERANCE = {"float32": 1e-5, "float16": 2e-2}


@pytest.fixture(scope="module", params=["float32", "float16"])
def engine(request, tmp_path_factory):
    """The linear bundle's engine, once for each compute dtype, from the same float16 shards."""
    folder = tmp_path_factory.mktemp(request.param)
    compile_linear_library(folder / "linear.so", request.param)
    bundle = write_linear_bundle(folder / "linear-llvm", linear_model(), folder / "linear.so", request.param)
    with Engine.load(bundle) as engine:
        yield engine


def test_every_component_computes_what_numpy_computes(engine):
    rng = np.random.default_rng(0)
    model, tolerance = linear_model(), TOLERANCE[engine.library.dtype]
    token_ids = rng.integers(0, 256, (1, TOKENS)).astype(np.int32)
    sample = rng.normal(size=LATENT).astype(np.float32)
    image = rng.uniform(size=IMAGE).astype(np.float32)

    context = engine.text_encoder(token_ids)
    expected_context = model.text_encoder(token_ids)
    np.testing.assert_allclose(context.tensor.numpy(), expected_context, atol=tolerance)
    control = engine.control_embedding(image, engine.bundle.manifest.controlnets[0])
    expected_control = model.control_embedding(image)
    np.testing.assert_allclose(control.tensor.numpy(), expected_control, atol=tolerance)
    residuals = engine.controlnet(sample, 750.0, context, control, [0.8, 1.1])
    expected_residuals = model.controlnet(sample, 750.0, expected_context, expected_control, [0.8, 1.1])
    for residual, expected in zip(residuals.tensors, expected_residuals, strict=True):
        np.testing.assert_allclose(residual.numpy(), expected, atol=tolerance)
    for total, expected in zip(engine.residual_sum(residuals, residuals).tensors, expected_residuals, strict=True):
        np.testing.assert_allclose(total.numpy(), 2 * expected, atol=2 * tolerance)
    output = engine.unet(sample, 750.0, context, residuals)
    np.testing.assert_allclose(output, model.unet(sample, 750.0, expected_context, *expected_residuals), atol=tolerance)
    np.testing.assert_allclose(engine.vae_decoder(sample), model.vae_decoder(sample), atol=tolerance)
    np.testing.assert_allclose(engine.vae_encoder(image), model.vae_encoder(image), atol=tolerance)


def test_what_passes_between_components_has_the_librarys_dtype(engine):
    context = engine.text_encoder(np.zeros((1, TOKENS), np.int32))
    control = engine.control_embedding(np.zeros(IMAGE, np.float32), engine.bundle.manifest.controlnets[0])
    residuals = engine.controlnet(np.zeros(LATENT, np.float32), 1.0, context, control, [1.0, 1.0])
    passed = (context.tensor, control.tensor, *residuals.tensors)
    assert {str(tensor.dtype) for tensor in passed} == {engine.library.dtype}


@pytest.mark.parametrize("clip_skip", [0, 1, 2])
def test_the_last_layers_of_the_text_encoder_are_skipped(engine, clip_skip):
    token_ids = np.arange(TOKENS, dtype=np.int32)[None]
    context = engine.text_encoder(token_ids, clip_skip).tensor.numpy()
    expected = linear_model().text_encoder(token_ids, clip_skip)
    np.testing.assert_allclose(context, expected, atol=TOLERANCE[engine.library.dtype])


def test_an_unloaded_engine_says_so(linear_bundle):
    engine = Engine.load(linear_bundle)
    engine.unload()
    with pytest.raises(RuntimeError, match="unloaded"):
        engine.vae_decoder(np.zeros(LATENT, np.float32))


@pytest.mark.parametrize("name", ["params/00.bin", "linear-float32.so"])
def test_an_altered_file_is_named_before_it_is_used(linear_bundle_copy, name):
    data = bytearray((linear_bundle_copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (linear_bundle_copy / name).write_bytes(data)
    with pytest.raises(UserError, match=rf"{name}: got .*\(altered\), wanted"):
        Engine.load(read_bundle(linear_bundle_copy))


def test_a_device_that_the_bundle_is_not_for_is_refused(linear_bundle):
    with pytest.raises(UserError, match=r"got llvm only, wanted one for vulkan; build one with .* --target vulkan"):
        Engine.load(linear_bundle, "vulkan")


def test_a_bundle_for_browsers_is_refused(linear_bundle):
    libraries = (dataclasses.replace(linear_bundle.manifest.libraries[0], device="webgpu"),)
    browser = dataclasses.replace(linear_bundle.manifest, libraries=libraries)
    with pytest.raises(UserError, match="got webgpu only, wanted one for this machine"):
        Engine.load(Bundle(linear_bundle.path, browser, linear_bundle.sha256))


def test_a_device_that_is_not_there_is_refused(linear_bundle):
    libraries = (dataclasses.replace(linear_bundle.manifest.libraries[0], device="opencl"),)
    manifest = dataclasses.replace(linear_bundle.manifest, libraries=libraries)
    with pytest.raises(UserError, match="device: got no opencl on this machine"):
        Engine.load(Bundle(linear_bundle.path, manifest, linear_bundle.sha256))


def test_the_runtime_works_where_there_is_no_torch(linear_bundle):
    """A picture is drawn in a process in which `import torch` fails, as do the other packages of the build."""
    script = (
        "import sys\n"
        "for name in ('torch', 'diffusers', 'transformers', 'safetensors', 'ziglang'): sys.modules[name] = None\n"
        "from PIL import Image\n"
        "from mlc_controlnet.runtime.pipeline import ControlNetPipeline\n"
        "pipeline = ControlNetPipeline.from_bundle(sys.argv[1])\n"
        "print(pipeline('a', Image.new('RGB', (24, 16)), seed=0).images[0].size)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script, str(linear_bundle.path)], capture_output=True, text=True, check=False
    )
    assert (run.stdout, run.returncode) == ("(24, 16)\n", 0), run.stderr


def of_instruction_sets(bundle: Bundle, folder: Path, *names: str) -> Bundle:
    """The bundle with its library once for each name."""
    (library,) = bundle.manifest.libraries
    (entry,) = (entry for entry in bundle.manifest.files if entry.path == library.file)
    copy = folder / "bundle"
    shutil.copytree(bundle.path, copy)
    files = {name: f"{name}.so" for name in names}
    for file in files.values():
        shutil.copyfile(copy / library.file, copy / file)
    manifest = dataclasses.replace(
        bundle.manifest,
        libraries=tuple(dataclasses.replace(library, file=file, instruction_set=name) for name, file in files.items()),
        memory=dict.fromkeys(files.values(), bundle.manifest.memory[library.file]),
        files=(
            *(other for other in bundle.manifest.files if other.path != library.file),
            *(dataclasses.replace(entry, path=file) for file in files.values()),
        ),
    )
    (copy / library.file).unlink()
    (copy / MANIFEST_NAME).write_bytes(manifest.to_bytes())
    return read_bundle(copy)


@pytest.mark.parametrize("had", [("x86-64-v4", "x86-64-v3"), ("x86-64-v3",)], ids=["AVX-512", "AVX2"])
def test_the_best_library_that_the_processor_has_is_loaded(linear_bundle, tmp_path, monkeypatch, had):
    monkeypatch.setattr(engine_module, "host_instruction_sets", lambda: had)
    with Engine.load(of_instruction_sets(linear_bundle, tmp_path, "x86-64-v3", "x86-64-v4")) as engine:
        assert engine.library.instruction_set == had[0]


def test_a_bundle_for_other_processors_says_how_to_build_one_for_this(linear_bundle, tmp_path, monkeypatch):
    monkeypatch.setattr(engine_module, "host_instruction_sets", lambda: ("x86-64-v3",))
    with pytest.raises(UserError, match=r"x86-64-v4, aarch64 only, wanted one for x86-64-v3.*--cpu native"):
        Engine.load(of_instruction_sets(linear_bundle, tmp_path, "x86-64-v4", "aarch64"))


def test_a_processor_that_no_library_is_for_is_told_so(linear_bundle, tmp_path, monkeypatch):
    monkeypatch.setattr(engine_module, "host_instruction_sets", lambda: ())
    with pytest.raises(UserError, match=r"this machine: .*a processor without.*draw on another machine"):
        Engine.load(of_instruction_sets(linear_bundle, tmp_path, "x86-64-v4"))
