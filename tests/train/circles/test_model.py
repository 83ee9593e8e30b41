"""The bundled model does what its card says, on a subset of the unseen circles that the card's figures come from."""

import json
from pathlib import Path

import pytest
from diffusers import StableDiffusionControlNetPipeline
from PIL import Image

from mlc_controlnet.checkpoint import find_model
from mlc_controlnet.train.circles.colors import COLORS
from mlc_controlnet.train.circles.recipe import evaluate, load_model, unseen_circles

pytestmark = pytest.mark.integration
SUBSET = 16


@pytest.fixture(scope="module")
def pipeline() -> StableDiffusionControlNetPipeline:
    return load_model(find_model("circles"))


def test_discs_are_where_the_outlines_are_in_the_named_colours(pipeline: StableDiffusionControlNetPipeline) -> None:
    quality, _ = evaluate(pipeline, unseen_circles(SUBSET))
    assert quality.fill_accuracy >= 0.95, quality
    assert quality.background_accuracy >= 0.95, quality
    assert quality.mean_iou >= 0.90, quality


def test_without_the_control_the_discs_are_elsewhere(pipeline: StableDiffusionControlNetPipeline) -> None:
    quality, _ = evaluate(pipeline, unseen_circles(SUBSET), conditioning_scale=0.0)
    assert quality.mean_iou < 0.5, quality


def test_diffusers_runs_the_model_without_a_dtype() -> None:
    """transformers loads the text encoder in the dtype that its configuration names, diffusers the rest in float32."""
    pipeline = StableDiffusionControlNetPipeline.from_pretrained(find_model("circles"), local_files_only=True)
    ring = Image.open(find_model("circles") / "ring.png").convert("RGB")
    assert pipeline("gold circle", image=ring, num_inference_steps=1).images[0].size == (128, 128)


def test_the_model_takes_twelve_megabytes_at_most() -> None:
    assert sum(f.stat().st_size for f in find_model("circles").rglob("*") if f.is_file()) <= 12e6


def test_the_colours_are_listed_beside_the_model() -> None:
    listed = json.loads((find_model("circles") / "colors.json").read_text())
    assert {name: tuple(rgb) for name, rgb in listed.items()} == COLORS


def test_no_weights_are_pickled() -> None:
    suffixes = {Path(f).suffix for f in find_model("circles").rglob("*") if Path(f).is_file()}
    assert suffixes <= {".json", ".safetensors", ".md", ".png"}
