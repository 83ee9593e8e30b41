"""Control-LoRAs that share their UNet's weights, in Chromium: the GPU makes theirs of the UNet's and of factors."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlc_controlnet.bundle.reader import Bundle, read_bundle
from mlc_controlnet.runtime.pipeline import ControlNetPipeline
from tests.browser.conftest import Visit
from tests.browser.test_covering_set import MIN_PSNR_DB, as_request
from tests.fixtures.build_for_browsers import build_for_browsers
from tests.fixtures.controlnet_models import CONTROL_LORAS, HEIGHT, WIDTH, config_with
from tests.runtime.test_circles import psnr_db
from tests.runtime.test_diffusers import PROMPT, SCALE, random_picture

MODES = ("resident", "reduced")


@pytest.fixture(scope="module")
def bundles(control_loras: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    """By target: of two Control-LoRAs."""
    native = read_bundle(control_loras / "bundle")
    out = tmp_path_factory.mktemp("control-loras") / "webgpu"
    files = {name: control_loras / f"{name}.safetensors" for name in CONTROL_LORAS}
    config = config_with(control_loras / "model", out, files, "webgpu")
    return {"llvm": native, "webgpu": build_for_browsers(config, native)}


@pytest.fixture(scope="module")
def calls() -> list[dict[str, Any]]:
    return [
        {
            "prompt": PROMPT,
            "control_image": [random_picture(i + 1) for i in range(len(names))],
            "controlnets": names,
            "seed": 7,
            "num_inference_steps": 2,
            "guidance_scale": 3.0,
            "controlnet_conditioning_scale": SCALE,
        }
        for names in (["canny"], ["depth"], ["canny", "depth"])
    ]


@pytest.fixture(scope="module")
def facts(visit: Visit, engine_site: Path, bundles: dict[str, Bundle], calls: list[dict[str, Any]]) -> dict[str, Any]:
    """What a picture takes of the GPU's memory in each mode, and the pictures of `calls`."""
    request = {"prompt": PROMPT, "seed": 7, "numInferenceSteps": 1, "guidanceScale": 3, "controlnets": ["canny"]}
    options = {"modes": MODES, "requests": list(map(as_request, calls))}
    return visit("countGpuMemory", bundles["webgpu"], site=engine_site, **options, **request)


def test_the_browser_draws_what_the_native_library_draws(
    facts: dict[str, Any], bundles: dict[str, Bundle], calls: list[dict[str, Any]]
) -> None:
    pipeline = ControlNetPipeline.from_bundle(bundles["llvm"])
    wanted = [np.asarray(pipeline(**call).images[0]) for call in calls]
    drawn = [np.array(pixels).reshape(HEIGHT, WIDTH, 4)[..., :3] for pixels in facts["pictures"]]
    decibels = [psnr_db(d, w) for d, w in zip(drawn, wanted, strict=True)]
    assert min(decibels) >= MIN_PSNR_DB, decibels
    assert psnr_db(wanted[0], wanted[1]) < MIN_PSNR_DB


def test_its_memory_is_the_planned_one(facts: dict[str, Any]) -> None:
    assert facts["reduced"]["image"] == facts["resident"]["image"]
    for mode in MODES:
        assert facts[mode]["peak"] == pytest.approx(facts[mode]["planned"], rel=0.01)
        assert facts[mode]["unloaded"] == 0
