"""A visitor draws a ring, writes a prompt and gets the disc: the bundled model in the real Chromium."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mlc_controlnet.bundle.reader import Bundle
from mlc_controlnet.locations import THIRD_PARTY_LICENSES
from mlc_controlnet.runtime.metadata import read_settings
from mlc_controlnet.runtime.output import PipelineOutput
from mlc_controlnet.runtime.pipeline import ControlNetPipeline
from mlc_controlnet.runtime.png import png_bytes
from mlc_controlnet.train.circles.drawing import IMAGE_SIZE, Circle, draw_source
from mlc_controlnet.train.circles.quality import measure
from tests.browser.conftest import Visit

PROMPT = "gold circle with navy background"
SEED = 7
STEPS = 8  # a software adapter needs seconds for each
RING = {"x": 0.45, "y": 0.55, "radius": 0.25}  # fractions of the drawing board
CIRCLE = Circle(
    center_x=RING["x"] * IMAGE_SIZE,
    center_y=RING["y"] * IMAGE_SIZE,
    radius=RING["radius"] * IMAGE_SIZE,
    outline_width=1.5,
    fill="gold",
    background="navy",
)
MIN_IOU = 0.8  # of one picture; the model's mean over many is in its card
MIN_PSNR_DB = 40.0  # against the native library, of 8-bit pictures


@pytest.fixture(scope="module")
def facts(visit: Visit, circles_webgpu_bundle: Bundle) -> dict[str, Any]:
    """What the visitor saw and saved; with guidance, which is the bundle's default."""
    return visit("drawARing", circles_webgpu_bundle, ring=RING, prompt=PROMPT, seed=SEED, steps=STEPS)


@pytest.fixture(scope="module")
def picture(facts: dict[str, Any]) -> Image.Image:
    return Image.open(facts["picture"])


def psnr_db(picture: np.ndarray, reference: np.ndarray) -> float:
    mean_square = np.mean((picture.astype(np.float64) - reference.astype(np.float64)) ** 2)
    return float(10 * np.log10(255**2 / max(mean_square, 1e-6)))


def test_the_disc_is_where_the_ring_was_drawn_in_the_colours_of_the_prompt(picture: Image.Image):
    quality = measure([np.asarray(picture)], [CIRCLE])
    assert quality.fill_accuracy == 1
    assert quality.background_accuracy == 1
    assert quality.mean_iou >= MIN_IOU


def test_the_picture_is_that_of_the_native_library(facts: dict[str, Any], picture: Image.Image, circles_bundle: Bundle):
    native = ControlNetPipeline.from_bundle(circles_bundle)(
        PROMPT, Image.open(facts["outline"]), seed=SEED, num_inference_steps=STEPS
    )
    assert psnr_db(np.asarray(picture), np.asarray(native.images[0])) >= MIN_PSNR_DB
    ours, theirs = (read_settings(data) for data in (Path(facts["picture"]).read_bytes(), native_png(native)))
    assert ours.bundle_sha256 != theirs.bundle_sha256  # another library: another bundle
    assert (ours.options, ours.model, ours.notices) == (theirs.options, theirs.model, theirs.notices)


def native_png(native: PipelineOutput) -> bytes:
    return png_bytes(native.images[0], native.metadata)


def test_the_outline_is_drawn_like_those_that_the_model_was_trained_on(facts: dict[str, Any]):
    outline = np.asarray(Image.open(facts["outline"]))
    assert psnr_db(outline, draw_source(CIRCLE)) >= 30  # the mouse moves by whole pixels of the screen


def test_after_loading_nothing_is_requested(facts: dict[str, Any]):
    assert facts["requestsAfterLoading"] == []


def test_progress_is_told_in_bytes_in_kernels_and_in_steps(facts: dict[str, Any]):
    statuses = facts["statuses"]
    loading = re.compile(r"Loading the model: [\d.]+ of [\d.]+ MB, \d+ of \d+ GPU kernels")
    assert any(loading.fullmatch(status) for status in statuses)
    steps = [status.split(",")[0] for status in statuses if status.startswith("Step ")]
    assert steps == [f"Step {i} of {STEPS}" for i in range(1, STEPS + 1)]
    assert facts["end"] == statuses[-1]
    assert re.fullmatch(rf"Done in [\d.]+ s with seed {SEED}", facts["end"])


def test_the_picture_is_previewed_while_it_is_made(facts: dict[str, Any]):
    assert facts["previews"] >= STEPS // 2  # two steps may fall into one frame


def test_nothing_is_complained_about(facts: dict[str, Any]):
    assert facts["messages"] == []
    assert facts["complaints"] == []


def test_downloads_are_named_for_what_they_show(facts: dict[str, Any]):
    assert Path(facts["picture"]).name == f"gold-circle-with-navy-background-{SEED}.png"
    assert Path(facts["outline"]).name == "outline.png"


def test_the_licenses_of_what_a_library_contains_travel_with_it(circles_webgpu_bundle: Bundle) -> None:
    """TVM's runtime and the C++ standard library are linked into the .wasm."""
    assert THIRD_PARTY_LICENSES.name in {entry.path for entry in circles_webgpu_bundle.manifest.files}
