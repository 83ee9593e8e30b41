"""Drawings that combine the features, in Chromium and natively: the same pictures."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mlc_controlnet.bundle.reader import read_bundle
from mlc_controlnet.config import BuildConfig
from mlc_controlnet.runtime.pipeline import ControlNetPipeline
from tests.browser.conftest import ROOT, Visit
from tests.fixtures.build_for_browsers import build_for_browsers
from tests.fixtures.drawings import FACTORS, HEIGHT, WIDTH, arguments_of, build_model, channels_of, drawing_of
from tests.fixtures.pairwise import random_cases
from tests.fixtures.shared_build import BuildOnce
from tests.runtime.test_circles import psnr_db

MIN_PSNR_DB = 40.0  # of 8-bit pictures
# Chosen once, so that all samplers with noise, all modes and tasks, and both numbers of ControlNets are among them.
CASES = [
    {**case, "sampler": sampler}
    for case, sampler in zip(
        random_cases(FACTORS, 12, seed=7),
        [name for name in FACTORS["sampler"] if name not in ("ddpm", "lms", "dpm2", "dpmpp_2s", "deis", "tcd")],
        strict=True,
    )
]


@pytest.mark.parametrize("channels", [4, 9])
def test_the_browser_draws_what_the_native_library_draws(
    visit: Visit, engine_site: Path, build_once: BuildOnce, tmp_path: Path, channels: int
) -> None:
    folder = build_once(f"random-{channels}-channels", lambda partial: build_model(partial, channels))
    native = read_bundle(folder / "bundle")
    config = BuildConfig(
        str(folder / "model"), "webgpu", ("float32",), tmp_path / "web", ROOT / "tuning_db", height=HEIGHT, width=WIDTH
    )
    web, pipeline = build_for_browsers(config, native), ControlNetPipeline.from_bundle(native)
    drawings = [drawing_of(case, seed=i) for i, case in enumerate(CASES) if channels_of(case) == channels]
    calls = [arguments_of(drawing, native) for drawing in drawings]
    wanted = [np.asarray(pipeline(**call).images[0]) for call in calls]
    facts = visit("drawWithTheEngine", web, site=engine_site, requests=[as_request(call) for call in calls])
    drawn = [np.array(pixels).reshape(HEIGHT, WIDTH, 4)[..., :3] for pixels in facts["pictures"]]
    decibels = [round(psnr_db(d, w), 1) for d, w in zip(drawn, wanted, strict=True)]
    assert len(decibels) == {4: 7, 9: 5}[channels]
    assert min(decibels) >= MIN_PSNR_DB, list(zip(decibels, drawings, strict=True))


def as_request(call: dict[str, Any]) -> dict[str, Any]:
    """The same call in JavaScript's names, without what is left out; pictures as the scenario takes them."""
    return {
        re.sub("_(.)", lambda match: match[1].upper(), name): as_value(value)
        for name, value in call.items()
        if value is not None
    }


def as_value(value: Any) -> Any:
    if isinstance(value, list):
        return [as_value(item) for item in value]
    if isinstance(value, Image.Image):
        return {"width": value.width, "data": np.asarray(value.convert("RGBA")).flatten().tolist()}
    return value
