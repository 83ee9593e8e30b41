"""What `--weights mixed --budget BITSbits` costs the bundled models, with and without `--calibrate`.

The runtime's pipeline draws with torch and the weights that kernels would decode. A compiled library computes the same.
The figures in docs/performance.md: pytest -s tests/parity/test_pictures_of_few_bits.py
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from mlc_controlnet.build import quantize_models
from mlc_controlnet.calibration.pictures import choose_pictures
from mlc_controlnet.calibration.torch_engine import TorchEngine, unwritten_bundle
from mlc_controlnet.capture import CapturedModel, build_references, capture
from mlc_controlnet.checkpoint import Checkpoint, load_checkpoint
from mlc_controlnet.components import DRAWING
from mlc_controlnet.config import Budget, BuildConfig, CalibrationOption, WeightsOption
from mlc_controlnet.locations import BUNDLED_MODELS, TUNING_DB
from mlc_controlnet.parity.parity import Drawn, compared_inputs, signal_to_noise_db
from mlc_controlnet.passes.pipeline import clean
from mlc_controlnet.runtime.pipeline import ControlNetPipeline
from mlc_controlnet.train.circles.drawing import draw_source
from mlc_controlnet.train.circles.quality import measure
from mlc_controlnet.train.circles.recipe import unseen_circles
from mlc_controlnet.train.doodle.colors import name_of
from mlc_controlnet.train.doodle.quality import color_of, edge_recall, ground_of
from tests.fixtures.few_bits import decoded_modules

pytestmark = [pytest.mark.integration, pytest.mark.slow]

SCRIBBLES = BUNDLED_MODELS / "doodle" / "scribbles"
BITS = (8.0, 6.0, 4.45, 3.8)
CALIBRATED = {
    "circles": CalibrationOption(("gold circle with navy background", "red circle with white background")),
    "doodle": CalibrationOption(
        ("red cat, flat style", "green house, flat style, yellow background"), (SCRIBBLES / "house.png",)
    ),
}
# Things of the bundled scribbles, with colours and grounds that the calibration has not.
DOODLES = [
    (thing, color, ground)
    for thing in ("cat", "cup", "fish", "house", "star")
    for color, ground in (("orange", "light blue"), ("pink", "purple"))
]


@dataclass
class Model:
    """A bundled model in phase clean, and what it draws with the weights that it has."""

    name: str
    checkpoint: Checkpoint
    captured: CapturedModel

    def __post_init__(self) -> None:
        self.modules = build_references(self.checkpoint)
        self.pictures = self.draw(self.modules)

    def draw(self, modules: Mapping[str, nn.Module]) -> list[np.ndarray]:
        bundle = unwritten_bundle(self.checkpoint, self.captured)
        pipeline = ControlNetPipeline(TorchEngine(bundle, modules, lambda *_: None))
        if self.name == "circles":
            asked = [(circle.prompt, Image.fromarray(draw_source(circle))) for circle in CIRCLES]
        else:
            asked = [
                (f"{color} {thing}, flat style, {ground} background", Image.open(SCRIBBLES / f"{thing}.png"))
                for thing, color, ground in DOODLES
            ]
        return [np.asarray(pipeline(*each, seed=seed).images[0]) for seed, each in enumerate(asked)]

    def quality(self, pictures: list[np.ndarray]) -> list[float]:
        """circles: fills, backgrounds and IoU; doodle: edge recall, colours and grounds; 0..1."""
        if self.name == "circles":
            quality = measure(pictures, CIRCLES)
            return [quality.fill_accuracy, quality.background_accuracy, quality.mean_iou]
        lines = [np.asarray(Image.open(SCRIBBLES / f"{thing}.png").convert("L")) for thing, _, _ in DOODLES]
        recalls = [
            edge_recall(drawn, np.where(own > 127, 255, 0).astype(np.uint8))
            for drawn, own in zip(pictures, lines, strict=True)
        ]
        colors = [color_of(drawn) == color for drawn, (_, color, _) in zip(pictures, DOODLES, strict=True)]
        grounds = [name_of(ground_of(drawn)) == ground for drawn, (*_, ground) in zip(pictures, DOODLES, strict=True)]
        return [float(np.mean(own)) for own in (recalls, colors, grounds)]


CIRCLES = unseen_circles(16)


@pytest.fixture(scope="module", params=["circles", "doodle"])
def model(request: pytest.FixtureRequest) -> Model:
    checkpoint = load_checkpoint(BUNDLED_MODELS / request.param, components=DRAWING)
    return Model(request.param, checkpoint, clean(capture(checkpoint)))


def decibels(model: Model, modules: Mapping[str, nn.Module], drawn: Drawn | None) -> dict[str, float]:
    """The worst output of each component: what a build prints."""
    found = {}
    with torch.no_grad():
        for name, spec in model.checkpoint.specs.items():
            inputs = compared_inputs(spec, drawn)
            wanted, got = (own[name](*inputs) for own in (model.modules, modules))
            pairs = zip(*([own] if isinstance(own, torch.Tensor) else own for own in (wanted, got)), strict=True)
            found[name] = round(min(signal_to_noise_db(one.numpy(), other.numpy()) for one, other in pairs), 1)
    return {name: db for name, db in found.items() if db < 200}


def picture_psnr(pictures: list[np.ndarray], wanted: list[np.ndarray]) -> float:
    """Peak signal to noise of 8-bit pictures in dB, over all of them."""
    noise = np.mean([np.square(one.astype(float) - other).mean() for one, other in zip(pictures, wanted, strict=True)])
    return 10 * np.log10(255**2 / noise)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("calibrated", [False, True], ids=["plain", "calibrated"])
def test_pictures_are_what_was_asked_for(
    model: Model, bits: float, calibrated: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    option = CALIBRATED[model.name] if calibrated else None
    config = BuildConfig(
        model.name,
        "llvm",
        ("float32",),
        tmp_path,
        TUNING_DB,
        components=DRAWING,
        weights=(WeightsOption("mixed"),),
        budget=Budget(bits=bits),
        calibration=option,
    )
    pictures = [] if option is None else choose_pictures(option, model.checkpoint)
    (packed,), checkpoint, drawn = quantize_models([model.captured], model.checkpoint, config, pictures)
    modules = decoded_modules(checkpoint, packed)
    got = model.draw(modules)
    quality = model.quality(got)
    said = re.search(r"mixed: .*", capsys.readouterr().out)
    with capsys.disabled():
        print(f"\n{model.name}, {bits:g} bits, {'calibrated' if calibrated else 'plain'}: {said and said[0]}")
        print(f"  {decibels(model, modules, None)}; as it draws: {drawn and decibels(model, modules, drawn)}")
        print(f"  PSNR {picture_psnr(got, model.pictures):.1f}, {quality}, of float16 {model.quality(model.pictures)}")
    assert all(one >= other - 0.03 for one, other in zip(quality, model.quality(model.pictures), strict=True))
    assert picture_psnr(got, model.pictures) >= 35
