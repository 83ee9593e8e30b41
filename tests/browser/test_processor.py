"""A browser without a GPU: the same bundle draws on the processor."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mlc_controlnet.bundle.reader import Bundle
from mlc_controlnet.runtime.pipeline import ControlNetPipeline
from tests.browser.conftest import Visit
from tests.fixtures.linear_bundle import HEIGHT, WIDTH

PROMPT, SEED = "gold circle with navy background", 7
REQUEST = {"prompt": PROMPT, "seed": SEED}
MIN_PSNR_DB = 60.0  # against the native library, of 8-bit pictures
ON_GPU, ON_PROCESSOR = "bundle/linear-float32.wasm", "bundle/linear-float32-wasm-simd128.wasm"


def psnr_db(picture: np.ndarray, reference: np.ndarray) -> float:
    mean_square = np.mean((picture.astype(np.float64) - reference.astype(np.float64)) ** 2)
    return float(10 * np.log10(255**2 / max(mean_square, 1e-6)))


@pytest.fixture(scope="module")
def drawn(visit: Visit, engine_site: Path, linear_processor_bundle: Bundle) -> dict[str, Any]:
    """One picture on each device; the adapter is software."""
    devices = ("cpu", "gpu", "auto")
    facts = visit("drawOnEachDevice", linear_processor_bundle, site=engine_site, devices=devices, request=REQUEST)
    return dict(zip(devices, facts["drawn"], strict=True))


def test_a_device_is_taken_if_asked_for_and_no_software_adapter_otherwise(drawn: dict[str, Any]):
    assert [drawn[device]["runsOn"] for device in ("cpu", "gpu", "auto")] == ["cpu", "gpu", "cpu"]
    assert drawn["auto"]["reason"] == "no GPU: the browser imitates one, slowly"


def test_the_library_of_the_other_device_is_not_fetched(drawn: dict[str, Any]):
    assert drawn["cpu"]["libraries"] == drawn["auto"]["libraries"] == [ON_PROCESSOR]
    assert drawn["gpu"]["libraries"] == [ON_GPU]


def test_every_device_draws_the_picture_of_the_native_library(drawn: dict[str, Any], linear_bundle: Bundle):
    white = Image.new("RGB", (WIDTH, HEIGHT), "white")
    native = np.asarray(ControlNetPipeline.from_bundle(linear_bundle)(PROMPT, white, seed=SEED).images[0])
    for facts in drawn.values():
        picture = np.array(facts["data"], np.uint8).reshape(HEIGHT, WIDTH, 4)[..., :3]
        assert psnr_db(picture, native) >= MIN_PSNR_DB


def test_a_picture_on_the_processor_can_be_cancelled_after_a_step(drawn: dict[str, Any]):
    assert "AbortError" in drawn["cpu"]["end"]


def test_an_isolated_page_draws_the_same_picture_with_threads(
    visit: Visit, engine_site: Path, linear_processor_bundle: Bundle, drawn: dict[str, Any]
):
    options = {"devices": ["cpu"], "request": REQUEST, "isolated": True}
    (facts,) = visit("drawOnEachDevice", linear_processor_bundle, webgpu="none", site=engine_site, **options)["drawn"]
    assert facts["threads"] == min(os.cpu_count() or 1, 8)
    assert drawn["cpu"]["threads"] == 1
    assert facts["data"] == drawn["cpu"]["data"]


def test_firefox_without_webgpu_draws_the_same_picture(
    site: Path, engine_site: Path, linear_processor_bundle: Bundle, drawn: dict[str, Any]
):
    if not any(shutil.which(os.environ.get("FIREFOX", name)) for name in ("firefox-esr", "firefox")):
        pytest.skip("no Firefox: apt-get install firefox-esr")
    call = {
        "site": str(site),
        "engineSite": str(engine_site),
        "bundle": str(linear_processor_bundle.path),
        "request": REQUEST,
        "isolated": True,
    }
    command = ["node", "--experimental-websocket", str(Path(__file__).parent / "run_firefox.mjs")]
    done = subprocess.run(command, input=json.dumps(call), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["ready"] == "Ready, on the processor: no WebGPU in this browser"
    assert facts["end"].startswith("Done in ")
    assert "float32 on the processor, with wasm-simd128 and " in facts["about"]
    assert facts["drawn"]["runsOn"] == "cpu"
    assert facts["drawn"]["data"] == drawn["cpu"]["data"]
