"""The gate for distilled models: no middle block, a guidance embedding, a tiny autoencoder."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mlc_controlnet.capture import build_references, capture, example_inputs
from mlc_controlnet.checkpoint import Checkpoint, load_checkpoint
from mlc_controlnet.compile.library import compile_library
from mlc_controlnet.components import COMPONENTS
from mlc_controlnet.config import BuildConfig
from mlc_controlnet.export.latent_preview import fit_latent_preview
from mlc_controlnet.parity.parity import check_parity, measure_parity, run_references
from mlc_controlnet.passes.pipeline import clean
from tests.fixtures.distilled_model import save_distilled_model
from tests.fixtures.quick_build import unoptimised


@pytest.fixture(scope="module")
def distilled(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return load_checkpoint(save_distilled_model(tmp_path_factory.mktemp("distilled") / "model"), 96, 128)


def test_the_components_say_what_differs_from_stable_diffusion(distilled: Checkpoint) -> None:
    specs = distilled.specs
    residuals = [spec.name for spec in specs["controlnet"].outputs]
    assert [spec.name for spec in specs["unet"].inputs] == [
        "sample",
        "timestep",
        "context",
        "guidance_scale",
        *residuals,
    ]
    assert [(spec.name, spec.shape) for spec in specs["vae_encoder"].outputs] == [("latents", (1, 4, 12, 16))]


def test_the_guidance_scale_and_the_last_residual_reach_the_output(distilled: Checkpoint) -> None:
    unet = build_references(distilled)["unet"]
    inputs = example_inputs(distilled.specs["unet"], "float32")
    with torch.no_grad():
        output = unet(*inputs)
        for changed in (3, len(inputs) - 1):
            others = [2 * value if index == changed else value for index, value in enumerate(inputs)]
            assert not torch.allclose(unet(*others), output, rtol=1e-3)


@pytest.mark.integration
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_every_component_computes_what_torch_computes(distilled: Checkpoint, dtype: str, tmp_path: Path) -> None:
    captured = clean(capture(distilled, dtype))
    config = BuildConfig("distilled", "llvm", (dtype,), out=tmp_path, tuning_db=tmp_path / "no-records")
    with unoptimised():
        library, _ = compile_library(captured.module, "distilled", dtype, config, tmp_path)
    measured = measure_parity(distilled, captured, library, run_references(distilled))
    assert set(measured) == set(COMPONENTS)
    check_parity(measured, dtype)


def test_the_latent_preview_is_fitted_with_a_tiny_autoencoder_too(distilled: Checkpoint) -> None:
    preview = fit_latent_preview(distilled.parts["vae"])
    assert np.shape(preview.weight) == (3, 4)
    assert np.isfinite(preview.weight).all()
    assert np.any(preview.weight)
