"""Stable Diffusion XL of random weights in Chromium: two text encoders, a pooled output and time ids."""

from pathlib import Path
from typing import Any

import numpy as np

from mlc_controlnet.bundle.reader import read_bundle
from mlc_controlnet.config import BuildConfig
from mlc_controlnet.runtime.pipeline import ControlNetPipeline
from tests.browser.conftest import ROOT, Visit
from tests.browser.test_covering_set import MIN_PSNR_DB, as_request
from tests.fixtures.build_for_browsers import build_for_browsers
from tests.fixtures.controlnet_models import build_xl, controlnets_of_xl
from tests.fixtures.drawings import HEIGHT, WIDTH, random_picture
from tests.fixtures.shared_build import BuildOnce
from tests.runtime.test_circles import psnr_db
from tests.runtime.test_xl import CASES, PLAIN, PROMPT


def test_the_browser_draws_what_the_native_library_draws(
    visit: Visit, engine_site: Path, build_once: BuildOnce, tmp_path: Path
) -> None:
    folder = build_once("xl", build_xl)
    native = read_bundle(folder / "bundle")
    size: dict[str, Any] = {"height": HEIGHT, "width": WIDTH}
    size["controlnets"] = controlnets_of_xl(folder)
    config = BuildConfig(str(folder / "model"), "webgpu", ("float32",), tmp_path / "web", ROOT / "tuning_db", **size)
    web, pipeline = build_for_browsers(config, native), ControlNetPipeline.from_bundle(native)
    calls: list[dict[str, Any]] = [
        {"prompt": PROMPT, "control_image": random_picture(3), "seed": 11, **PLAIN, **options}
        for options in (
            CASES["two prompts"],
            {**CASES["time ids"], "controlnets": ["depth"]},
        )  # a union ControlNet's type
    ]
    wanted = [np.asarray(pipeline(**call).images[0]) for call in calls]
    facts = visit("drawWithTheEngine", web, site=engine_site, requests=[as_request(call) for call in calls])
    drawn = [np.array(pixels).reshape(HEIGHT, WIDTH, 4)[..., :3] for pixels in facts["pictures"]]
    decibels = [psnr_db(d, w) for d, w in zip(drawn, wanted, strict=True)]
    assert min(decibels) >= MIN_PSNR_DB, decibels
    assert psnr_db(wanted[0], wanted[1]) < MIN_PSNR_DB
