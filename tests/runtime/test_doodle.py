"""The bundled model for scribbles on the native runtime: a drawing becomes a picture of it, in the colours named."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mlc_controlnet.bundle.reader import read_bundle
from mlc_controlnet.checkpoint import find_model
from mlc_controlnet.config import BuildConfig
from mlc_controlnet.locations import BUNDLED_MODELS, TUNING_DB
from mlc_controlnet.runtime.pipeline import ControlNetPipeline
from mlc_controlnet.train.doodle.colors import name_of
from mlc_controlnet.train.doodle.quality import color_of, edge_recall, ground_of

SCRIBBLES = BUNDLED_MODELS / "doodle" / "scribbles"
STEPS = 8


@pytest.fixture(scope="module")
def pipeline(build_once):
    from tests.fixtures.quick_build import build_quickly

    def build_doodle(folder: Path) -> None:
        build_quickly(BuildConfig(str(find_model("doodle")), "llvm", ("float32",), folder / "doodle-llvm", TUNING_DB))

    return ControlNetPipeline.from_bundle(read_bundle(build_once("doodle-llvm", build_doodle) / "doodle-llvm"))


def test_a_scribbled_star_becomes_a_star_in_the_colours_named(pipeline):
    scribble = Image.open(SCRIBBLES / "star.png")
    prompt = "pink star, flat style, purple background"
    drawn = pipeline(prompt, scribble, num_inference_steps=STEPS, seed=1).images[0]
    pixels = np.asarray(drawn)
    lines = np.asarray(scribble.convert("L"))
    assert edge_recall(pixels, np.where(lines > 127, 255, 0).astype(np.uint8)) >= 0.85
    assert (color_of(pixels), name_of(ground_of(pixels))) == ("pink", "purple")
