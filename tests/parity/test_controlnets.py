"""Several ControlNets: each component is torch's own, also with a shared function; their number costs no kernels."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from mlc_controlnet.capture import capture
from mlc_controlnet.checkpoint import Checkpoint, load_checkpoint
from mlc_controlnet.compile.library import compile_library, plan_library
from mlc_controlnet.config import BuildConfig
from mlc_controlnet.parity.parity import THRESHOLD_DB, measure_parity, run_references
from mlc_controlnet.passes.pipeline import clean
from tests.conftest import ROOT
from tests.fixtures.quick_build import unoptimised
from tests.fixtures.random_model import save_random_model

pytestmark = pytest.mark.integration

CONTROLS = ("control_embedding", "controlnet", "residual_sum")
OPTIONS = ({}, {"controlnet_conditioning_channel_order": "bgr"}, {"global_pool_conditions": True})


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """Two of one graph, one that reads BGR and one that pools its residuals; for two picture sizes."""
    model = save_random_model(tmp_path_factory.mktemp("four") / "model", more_controlnets=OPTIONS)
    return load_checkpoint(model, 96, 128, other_sizes=[(64, 64)], components=CONTROLS)


def config_for(target: str, folder: Path) -> BuildConfig:
    return BuildConfig("random", target, ("float32",), folder, ROOT / "tuning_db")


def test_every_controlnet_is_torchs_with_its_own_weights(four: Checkpoint, tmp_path: Path) -> None:
    captured = clean(capture(four))
    with unoptimised():
        library, _ = compile_library(captured.module, "four", "float32", config_for("llvm", tmp_path), tmp_path)
    references = run_references(four)
    measured = measure_parity(four, captured, library, references)
    assert set(four.components) <= measured.keys()
    assert {"controlnet_64x64", "controlnet_4_64x64", "control_embedding_3_64x64"} <= measured.keys()
    assert min(measured.values()) >= THRESHOLD_DB["float32"]
    # With the weights of another ControlNet a component is far from torch: the figure above is no accident.
    swapped = dataclasses.replace(captured, params={**captured.params, "controlnet_2": captured.params["controlnet"]})
    assert measure_parity(four, swapped, library, references)["controlnet_2"] < 30
    assert not np.allclose(references["controlnet"][0], references["controlnet_2"][0], rtol=0.1)


def test_a_second_controlnet_of_the_same_graph_adds_no_kernel_and_no_launch(four: Checkpoint, tmp_path: Path) -> None:
    def plan(count: int) -> tuple[int, dict[str, int], dict[str, int]]:
        parts = {part: four.parts[part] for part in ("controlnet", "controlnet_2")[:count]}
        names = [name for i in range(count) for name in _components(i)]
        checkpoint = dataclasses.replace(
            four, components=(*names, "residual_sum"), parts={**parts, "vae": four.parts["vae"]}, other_shapes=()
        )
        planned = plan_library(clean(capture(checkpoint)).module, "float32", config_for("webgpu", tmp_path))
        return len(planned.module.get_global_vars()), planned.launches, planned.activation_bytes

    assert plan(1) == plan(2)


def _components(index: int) -> tuple[str, ...]:
    return (f"control_embedding_{index + 1}", f"controlnet_{index + 1}") if index else CONTROLS[:2]
