"""naga, the WGSL compiler of Firefox: a second front end that must accept what Chromium's Tint accepts."""

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from mlc_controlnet.bench.compilers.spirv import driver_manifest
from mlc_controlnet.errors import UserError

PROCESS = Path(__file__).with_name("naga_process.py")


def rejected_by_naga(shaders: Mapping[str, str]) -> dict[str, str]:
    """Compile WGSL, by name; return the errors of what naga rejects.

    Raises UserError if the package wgpu or Mesa is missing.
    """
    if importlib.util.find_spec("wgpu") is None:
        raise UserError("wgpu", "no such package", "naga", "pip install mlc-controlnet[compilers]")
    environment = {**os.environ, "VK_DRIVER_FILES": str(driver_manifest("lvp")), "GALLIVM_PERF": "nopt"}
    with tempfile.TemporaryDirectory() as folder:
        for name, wgsl in shaders.items():
            Path(folder, f"{name}.wgsl").write_text(wgsl, encoding="utf-8")
        command = [sys.executable, str(PROCESS), folder]
        run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if run.returncode != 0:
        raise RuntimeError(f"{PROCESS.name} exited with {run.returncode}: {run.stderr[-500:]}")
    return {file.removesuffix(".wgsl"): error for file, error in json.loads(run.stdout.splitlines()[-1]).items()}
