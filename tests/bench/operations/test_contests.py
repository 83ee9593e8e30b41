"""Contests on the smallest operations: against onnxruntime-web on SwiftShader, and against torch."""

import shutil
from pathlib import Path

import pytest
import torch
import tvm

from mlc_controlnet.bench.operations.cases import operation_cases
from mlc_controlnet.bench.operations.figures import KERNELS, OURS, Figures
from mlc_controlnet.bench.operations.measure import PEER, ContestSettings, make_rows, measure_on_webgpu
from mlc_controlnet.bench.operations.native_contest import COMPILED, EAGER, run_native_contest
from mlc_controlnet.bench.operations.onnx_runtimes import ONNXRUNTIME, OPENVINO
from mlc_controlnet.bench.operations.operations import matmul
from mlc_controlnet.cli.main import main
from mlc_controlnet.errors import UserError
from mlc_controlnet.instruction_sets import host_instruction_sets
from tests.bench.made_up_figures import made_up_figures, timing
from tests.conftest import ROOT

CHROMIUM = Path("/usr/lib/chromium")  # Debian's package has a Vulkan loader and SwiftShader
SETTINGS = {
    "subject": KERNELS,
    "host": "node",
    "gpu": False,
    "target": "llvm",
    "dtype": "float32",
    "rounds": 2,
    "only": ("group_norm_silu_1280_8",),
    "peers": (),
    "cpu": None,
    "model": "",
    "components": (),
    "command": "",
}


@pytest.mark.integration
@pytest.mark.skipif(
    not (CHROMIUM / "vk_swiftshader_icd.json").exists() or not (ROOT / "web/node_modules/onnxruntime-web").exists(),
    reason="needs chromium (for its SwiftShader) and `npm ci` in web/",
)
def test_an_operation_runs_against_onnxruntime_web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VK_ICD_FILENAMES", str(CHROMIUM / "vk_swiftshader_icd.json"))
    monkeypatch.setenv("LD_LIBRARY_PATH", str(CHROMIUM))
    # Node ends only after V8 has optimized all of onnxruntime's wasm, which takes far longer than this contest.
    monkeypatch.setattr("mlc_controlnet.bench.operations.webgpu_contest.NODE", ("node", "--liftoff-only"))
    monkeypatch.setattr("mlc_controlnet.bench.operations.operations.LARGE_MATMUL_REDUCED", matmul(64, 64, 64, 64))
    log: list[str] = []
    figures = measure_on_webgpu(ContestSettings(**SETTINGS), tmp_path, log.append)
    assert figures.device.kind == "software GPU" and figures.device.name.startswith("SwiftShader")
    assert log[-1].endswith("(2 of 2)")
    assert [row.name for row in figures.rows] == ["matmul_64_64_64", "group_norm_silu_1280_8"]
    for row in figures.rows:
        assert row.ours_db >= 60
        assert set(row.times) == {OURS, PEER}
        assert all(len(times.wall_ms) == 2 and min(times.wall_ms) > 0 for times in row.times.values())


@pytest.mark.parametrize(
    "peers",
    [
        (EAGER,),
        # Both stay in the process: a library that a later test ran in it crashed, in one of three whole runs.
        pytest.param((EAGER, ONNXRUNTIME, OPENVINO), marks=pytest.mark.slow),
        pytest.param(
            (EAGER, COMPILED),
            marks=[
                pytest.mark.slow,
                pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile needs a C++ compiler"),
            ],
        ),
    ],
    ids=["torch", "of ONNX files", "compiled"],
)
def test_an_operation_runs_against_native_peers(tmp_path: Path, peers: tuple[str, ...]) -> None:
    cases = operation_cases(("layer_norm",), reduced=True, dtype="float32")
    log: list[str] = []
    least = host_instruction_sets()[-1]
    outcome = run_native_contest(cases, "llvm", "float32", 2, tmp_path, log.append, peers, least)
    assert [file.name for file in tmp_path.glob("*.so")] == [f"bench-float32-{least}.so"]
    assert log[-1].endswith("(2 of 2)")
    assert min(outcome.ours_db) > 80
    assert outcome.copy_gigabytes_per_second > 0
    threads = tvm.get_global_func("runtime.NumThreads")()
    assert torch.get_num_threads() == threads
    assert outcome.device.endswith(f"{threads} thread each" if threads == 1 else f"{threads} threads each")
    for times in outcome.times:
        assert list(times) == [OURS, *peers]
        assert all(len(of_one.wall_ms) == 2 and min(of_one.wall_ms) > 0 for of_one in times.values())


def test_the_fastest_large_matmul_gives_the_reference_rate() -> None:
    cases = operation_cases(("layer_norm",), reduced=True, dtype="float32").cases
    times = [{OURS: timing(4.0), PEER: timing(2.0)}, {OURS: timing(1.0), PEER: timing(1.0)}]
    rows = make_rows(cases, times, [100.0, 100.0], ["", ""], copy_rate=10.0)
    assert rows[0].reference.gflops == pytest.approx(1000 * 2 * 512**3 / 1e9 / 2.0)
    assert rows[1].reference == rows[0].reference


@pytest.mark.parametrize(
    ("change", "option"),
    [
        ({"rounds": 0}, "--rounds"),
        ({"dtype": "int8"}, "--dtype"),
        ({"target": "abacus"}, "--target"),
        ({"components": ("brain",)}, "--component"),
        ({"peers": (EAGER,)}, "--peer"),
        ({"cpu": "x86-64-v3"}, "--cpu"),
        ({"cpu": "abacus", "host": "native"}, "--cpu"),
        ({"cpu": "x86-64-v3", "host": "native", "target": "cuda"}, "--cpu"),
    ],
)
def test_settings_that_nothing_can_measure_are_refused_before_any_work(change: dict, option: str) -> None:
    with pytest.raises(UserError, match=option):
        ContestSettings(**(SETTINGS | change))


def test_figures_keep_the_whole_command_that_produced_them(monkeypatch: pytest.MonkeyPatch) -> None:
    commands = []

    def measure(settings: ContestSettings, folder: Path, log: object) -> Figures:
        commands.append(settings.command)
        return made_up_figures()

    monkeypatch.setattr("mlc_controlnet.bench.operations.measure.measure_natively", measure)
    assert main(["bench", "kernels", "--host", "native", "--only", "layer norm", "--rounds", "3"]) == 0
    assert commands == [
        "python -m mlc_controlnet bench kernels --host native --only 'layer norm' --rounds 3",
    ]
