"""The page's code on Mesa's software adapter, which has float16; skipped where Mesa is missing."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tvm import tirx

from mlc_controlnet.bench.compilers.spirv import driver_manifest
from mlc_controlnet.errors import UserError
from mlc_controlnet.kernels.tunable_kernels import tunable_of
from mlc_controlnet.locations import WEB
from mlc_controlnet.tuning.browser.work import describe_work, output_of, problem_of, read_answer
from mlc_controlnet.tuning.reference import make_reference
from mlc_controlnet.tuning.shader import compile_shader
from tests.tuning.operations import LLVM, WEBGPU, make_linear

SMALL = {"threads_y": 8, "threads_x": 8, "rows": 2, "columns": 4, "slices": 1, "step": 16}  # compiles quickly


def run_on_webgpu(work: dict[str, Any]) -> dict[str, Any]:
    try:
        driver = driver_manifest("lvp")
    except UserError as error:
        pytest.skip(str(error))
    environment = {**os.environ, "VK_ICD_FILENAMES": str(driver), "LP_NATIVE_VECTOR_WIDTH": "128"}
    command = ["node", str(Path(__file__).parent / "measure_on_dawn.mjs"), str(WEB)]
    process = subprocess.run(
        command, input=json.dumps(work), env=environment, capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr
    answer: dict[str, Any] = json.loads(process.stdout)
    assert answer.pop("features") == ["shader-f16", "timestamp-query"]
    return answer


def test_kernels_of_float16_are_right_and_are_timed_in_turns() -> None:
    lowered = make_linear(64, columns=128, dtype="float16")
    (function,) = (one for _, one in lowered.functions_items() if isinstance(one, tirx.PrimFunc))
    tunable = tunable_of(function, WEBGPU)
    assert tunable is not None
    reference = make_reference(function, LLVM)
    assert 1 < sum(count for _, count in reference.known) < 64 * 128
    shaders = [compile_shader(tunable.schedule(SMALL), WEBGPU)] * 2
    answer = read_answer(run_on_webgpu(describe_work(shaders, reference.known, 3, 1e6)), len(shaders))
    for kernel in answer.kernels:
        assert problem_of(kernel) == "" and len(kernel.seconds) == 3
        output = output_of(kernel, reference.known, reference.arguments[-1])
        assert reference.decibels(output) > 60
