"""The command itself, on its two smallest operations: against onnxruntime-web on SwiftShader, and against torch."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
CHROMIUM = Path("/usr/lib/chromium")  # Debian's package carries a Vulkan loader and SwiftShader


def bench(*arguments: str) -> list[str]:
    """The lines of the table that `bench kernels` prints."""
    driver = {"VK_ICD_FILENAMES": str(CHROMIUM / "vk_swiftshader_icd.json"), "LD_LIBRARY_PATH": str(CHROMIUM)}
    command = [sys.executable, "-m", "mlc_controlnet", "bench", "kernels", "--rounds", "1", *arguments]
    process = subprocess.run(
        command, cwd=ROOT, env=os.environ | driver, capture_output=True, text=True, check=False, timeout=300
    )
    assert process.returncode == 0, process.stderr
    assert "(2 of 2)" in process.stderr  # progress
    return process.stdout.splitlines()


@pytest.mark.skipif(
    not (CHROMIUM / "vk_swiftshader_icd.json").exists() or not (ROOT / "web/node_modules/onnxruntime-web").exists(),
    reason="needs chromium (for its SwiftShader) and `npm ci` in web/",
)
def test_an_operation_runs_against_onnxruntime_web():
    head, *lines = bench("--host", "node", "--only", "conv1x1_320_320_64_s2")
    assert head.startswith("**software GPU: SwiftShader") and "onnxruntime-web 1.30" in head
    assert re.fullmatch(r"\| convolution 1x1, 320 to 320, 32x32, stride 2 (\| [\d.]+ ){2}\| [\d.]+x .*%? \|", lines[-1])


@pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile needs a C++ compiler")
def test_an_operation_runs_against_torch_eager_and_compiled():
    head, *lines = bench("--host", "native", "--only", "layer_norm")
    assert head.startswith("**processor: ")
    assert re.fullmatch(r"\| layer norm, 4096x320 (\| [\d.]+ ){3}(\| [\d.]+x ){2}\| [\d.]+ \| \d+% \|", lines[-1])
