"""The bundled model with weights of few bits draws what was asked for."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mlc_controlnet.build import build
from mlc_controlnet.components import DRAWING
from mlc_controlnet.config import BuildConfig, CalibrationOption, WeightsOption
from mlc_controlnet.runtime.pipeline import ControlNetPipeline
from mlc_controlnet.train.circles.drawing import draw_source
from mlc_controlnet.train.circles.quality import measure
from mlc_controlnet.train.circles.recipe import unseen_circles

pytestmark = [pytest.mark.integration, pytest.mark.slow]

ROOT = Path(__file__).parent.parent.parent
PROMPTS = ("gold circle with navy background", "red circle with white background", "teal circle with black background")


@pytest.mark.parametrize(("weights", "calibrated"), [("int8", False), ("palette4", True)])
def test_discs_have_their_place_and_colours(
    weights: str, calibrated: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = BuildConfig(
        "circles",
        "llvm",
        ("float32",),
        tmp_path / "bundle",
        ROOT / "tuning_db",
        components=DRAWING,
        weights=(WeightsOption(weights),),
        calibration=CalibrationOption(PROMPTS) if calibrated else None,
    )
    bundle = build(config)
    pipeline = ControlNetPipeline.from_bundle(bundle)
    circles = unseen_circles(32)
    pictures = [
        np.asarray(pipeline(circle.prompt, Image.fromarray(draw_source(circle)), seed=seed).images[0])
        for seed, circle in enumerate(circles)
    ]
    quality = measure(pictures, circles)
    with capsys.disabled():
        print(f"\n{weights}, {'calibrated' if calibrated else 'plain'}: {quality}, {dict(bundle.manifest.parity_db)}")
    assert quality.fill_accuracy >= 0.95
    assert quality.background_accuracy >= 0.95
    assert quality.mean_iou >= 0.90
