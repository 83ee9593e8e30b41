"""Several picture sizes and longer prompts in one bundle: one set of weights, and functions for each shape."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from mlc_controlnet.bundle.reader import Bundle
from mlc_controlnet.capture import capture
from mlc_controlnet.checkpoint import Checkpoint, load_checkpoint
from mlc_controlnet.components import COMPONENTS, TEXT_ENCODER
from mlc_controlnet.config import BuildConfig
from mlc_controlnet.errors import UserError
from mlc_controlnet.export.description import describe_variants
from mlc_controlnet.passes.pipeline import clean
from mlc_controlnet.runtime.engine import Context, Engine, Residuals
from tests.fixtures.quick_build import build_quickly

ROOT = Path(__file__).parent.parent


def with_shapes(checkpoint: Checkpoint) -> Checkpoint:
    """96 x 128 with one and two chunks, and 64 x 32, whose deepest level has few rows, with one."""
    small = dataclasses.replace(checkpoint.shape, height=64, width=32)
    return dataclasses.replace(checkpoint, other_shapes=(dataclasses.replace(checkpoint.shape, chunks=2), small))


def test_every_size_is_loaded_with_every_number_of_chunks(random_model: Path) -> None:
    loaded = load_checkpoint(random_model, 96, 128, other_sizes=[(64, 32), (96, 128)], prompt_chunks=2)
    shapes = [(shape.height, shape.width, shape.chunks) for shape in loaded.shapes]
    assert shapes == [(96, 128, 1), (96, 128, 2), (64, 32, 1), (64, 32, 2)]


def test_another_size_that_the_unet_cannot_halve_is_refused(random_model: Path) -> None:
    with pytest.raises(UserError, match="width: got 100 pixels, wanted a positive multiple of"):
        load_checkpoint(random_model, 96, 128, other_sizes=[(96, 100)])


def test_all_functions_of_a_component_take_its_params(checkpoint: Checkpoint) -> None:
    several = with_shapes(checkpoint)
    cleaned = clean(capture(several))  # asserts that the params are the same
    assert set(cleaned.params) == set(COMPONENTS)
    added = {f"{name}_32x64" for name in COMPONENTS if name != TEXT_ENCODER}
    added |= {"unet_128x96_2_chunks", "controlnet_128x96_2_chunks"}
    assert set(cleaned.others) == added
    tensors = several.tensors()
    for function, component in cleaned.others.items():
        weights = cleaned.module[function].params[-1].ty.fields
        shapes = [tuple(param.read(tensors).shape) for param in cleaned.params[component]]
        assert [tuple(map(int, weight.shape)) for weight in weights] == shapes


def test_the_manifest_says_which_functions_serve_a_variant(checkpoint: Checkpoint) -> None:
    longer, small = describe_variants(with_shapes(checkpoint))
    assert (longer.height, longer.width, longer.chunks) == (96, 128, 2)
    assert {name: entry.function for name, entry in longer.functions.items()} == {
        "controlnet": "controlnet_128x96_2_chunks",
        "unet": "unet_128x96_2_chunks",
    }
    assert small.functions["vae_decoder"].function == "vae_decoder_32x64"
    assert [tensor.shape for tensor in small.functions["vae_decoder"].outputs] == [(1, 3, 64, 32)]


@pytest.fixture(scope="module")
def two_sizes(random_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A UNet alone, for 64 x 64 and 64 x 96; the build compares both with torch."""
    out = tmp_path_factory.mktemp("sizes") / "bundle"
    config = BuildConfig(
        str(random_model), "llvm", ("float32",), out, ROOT / "tuning_db", components=("unet",), height=64, width=64
    )
    return build_quickly(dataclasses.replace(config, other_sizes=((64, 96),)))


@pytest.mark.integration
def test_a_second_size_costs_kernels_and_no_weights(two_sizes: Bundle) -> None:
    manifest = two_sizes.manifest
    assert manifest.sizes == ((64, 64), (64, 96))
    assert set(manifest.parity_db) == set(manifest.libraries[0].launches) == {"unet", "unet_96x64"}
    names = [record.name for record in manifest.params.records]
    assert tuple(names) == manifest.components["unet"].params


@pytest.mark.integration
def test_the_engine_calls_the_function_of_the_inputs_size(two_sizes: Bundle) -> None:
    components = two_sizes.manifest.components
    generator = torch.Generator().manual_seed(0)
    with Engine.load(two_sizes) as engine:
        for entry in (components["unet"], two_sizes.manifest.variants[0].apply_to(components)["unet"]):
            sample, _, context, *residuals = (
                torch.randn(spec.shape, generator=generator).numpy() for spec in entry.inputs
            )
            output = engine.unet(sample, 481.0, Context(context), Residuals(tuple(residuals)))
            assert output.shape == sample.shape
            assert np.isfinite(output).all()


@pytest.mark.integration
def test_a_size_that_no_function_has_is_an_error(two_sizes: Bundle) -> None:
    inputs = [np.zeros(spec.shape, np.float32) for spec in two_sizes.manifest.components["unet"].inputs]
    with Engine.load(two_sizes) as engine, pytest.raises(Exception, match=r"(?i)shape|dim"):
        engine.unet(np.zeros((1, 4, 8, 16), np.float32), 481.0, Context(inputs[2]), Residuals(tuple(inputs[3:])))
