"""Contests on the smallest operations: against onnxruntime-web on SwiftShader, and against torch."""

import json
import re
import shutil
from pathlib import Path

import pytest
import tvm

from mlc_controlnet.bench.operations import native_contest
from mlc_controlnet.bench.operations.case_files import CaseFiles
from mlc_controlnet.bench.operations.cases import Cases, Computation, operation_cases
from mlc_controlnet.bench.operations.figures import KERNELS, MODEL, OURS, Figures
from mlc_controlnet.bench.operations.measure import (
    OURS_IN_FLOAT16,
    PEER,
    ContestSettings,
    make_rows,
    measure_on_browser_processor,
    measure_on_webgpu,
)
from mlc_controlnet.bench.operations.native_contest import (
    NativeRules,
    Prepared,
    prepare_cases,
    run_case,
    run_native_contest,
)
from mlc_controlnet.bench.operations.onnx_runtimes import ONNXRUNTIME, OPENVINO
from mlc_controlnet.bench.operations.operations import matmul
from mlc_controlnet.bench.operations.torch_peers import COMPILED, EAGER
from mlc_controlnet.bench.operations.turns import CaseOutcome
from mlc_controlnet.bench.operations.web_contest import check_node
from mlc_controlnet.bench.operations.work import Work
from mlc_controlnet.bench.own_process import ProcessFailed
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
    "threads": None,
    "model": "",
    "components": (),
    "command": "",
}


@pytest.fixture
def on_swiftshader(monkeypatch: pytest.MonkeyPatch) -> None:
    if not (CHROMIUM / "vk_swiftshader_icd.json").exists() or not (ROOT / "web/node_modules/onnxruntime-web").exists():
        pytest.skip("needs chromium (for its SwiftShader) and `npm ci` in web/")
    monkeypatch.setenv("VK_ICD_FILENAMES", str(CHROMIUM / "vk_swiftshader_icd.json"))
    monkeypatch.setenv("LD_LIBRARY_PATH", str(CHROMIUM))
    # Node ends only after V8 has optimized all of onnxruntime's wasm, which takes far longer than this contest.
    monkeypatch.setattr("mlc_controlnet.bench.operations.web_contest.NODE", ("node", "--liftoff-only"))
    monkeypatch.setattr("mlc_controlnet.bench.operations.operations.LARGE_MATMUL_REDUCED", matmul(64, 64, 64, 64))


@pytest.mark.integration
@pytest.mark.usefixtures("on_swiftshader")
def test_an_operation_runs_against_onnxruntime_web(tmp_path: Path) -> None:
    log: list[str] = []
    figures = measure_on_webgpu(ContestSettings(**SETTINGS), tmp_path, log.append)
    assert figures.device.kind == "software GPU" and figures.device.name.startswith("SwiftShader")
    assert log[-1].endswith("(2 of 2)")
    assert [row.name for row in figures.rows] == ["matmul_64_64_64", "group_norm_silu_1280_8"]
    for row in figures.rows:
        assert row.ours_db >= 60
        assert set(row.times) == {OURS, PEER}
        assert all(len(times.wall_ms) == 2 and min(times.wall_ms) > 0 for times in row.times.values())


@pytest.mark.integration
@pytest.mark.slow
@pytest.mark.usefixtures("on_swiftshader")
def test_packed_weights_take_turns_with_those_in_float16(random_model: Path, tmp_path: Path) -> None:
    model = {"subject": MODEL, "model": str(random_model), "components": ("control_embedding",), "only": ()}
    settings = ContestSettings(**SETTINGS | model, weights=("float16", "int8"))
    _, packed = measure_on_webgpu(settings, tmp_path, lambda _: None).rows
    assert packed.name == "control_embedding_int8"
    assert set(packed.times) == {OURS, OURS_IN_FLOAT16}
    assert 35 <= packed.ours_db < 80  # above what weights of 8 bits must have, below what those in float16 have


@pytest.mark.integration
@pytest.mark.skipif(
    not CHROMIUM.exists() or not (ROOT / "web/node_modules/onnxruntime-web").exists(),
    reason="needs chromium and `npm ci` in web/",
)
def test_an_operation_runs_on_a_browsers_processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlc_controlnet.bench.operations.operations.LARGE_MATMUL_REDUCED", matmul(64, 64, 64, 64))
    monkeypatch.setattr("mlc_controlnet.bench.operations.measure.PROCESSOR_TURN_MS", 1.0)
    log: list[str] = []
    on_processor = SETTINGS | {"host": "chromium", "cpu": "wasm-relaxed-simd", "threads": 2}
    figures = measure_on_browser_processor(ContestSettings(**on_processor), tmp_path, log.append)
    assert json.loads((tmp_path / "job.json").read_bytes())["threads"] == 2
    assert figures.device.kind == "processor" and figures.device.short_names[1] == "Chromium"
    assert figures.file_name == "kernels-wasm-relaxed-simd-on-2-threads-chromium-float32.json"
    assert "compiling 2 cases for wasm-relaxed-simd" in log
    for row in figures.rows:
        assert row.ours_db >= 60 and row.note == ""  # which would say that the peer is wrong
        assert all(len(times.wall_ms) == 2 and min(times.wall_ms) > 0 for times in row.times.values())


@pytest.mark.integration
@pytest.mark.skipif(
    shutil.which("node") is None or not (ROOT / "web/node_modules/onnxruntime-web").exists(),
    reason="needs Node and `npm ci` in web/",
)
def test_a_node_without_an_instruction_set_is_told_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    without = tmp_path / "without.mjs"  # as Node 20 lacks relaxed SIMD
    without.write_text("WebAssembly.validate = () => false;")
    monkeypatch.setattr("mlc_controlnet.bench.operations.web_contest.NODE", ("node", "--import", without.as_uri()))
    assert main(["bench", "kernels", "--host", "node", "--cpu", "wasm-relaxed-simd"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.fullmatch(
        r"error: --cpu wasm-relaxed-simd: got Node \d+\.\d+\.\d+, which lacks WebAssembly's relaxed SIMD, "
        r"wanted a Node that has it: 22\.12 or newer; update Node, or pass --cpu wasm-simd128 or --host chromium",
        line,
    )
    monkeypatch.undo()
    check_node("wasm-simd128")  # which every Node has that can run the contest


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """A small product, for the oldest instruction set of this processor; in this process, which has compiled before."""
    folder = tmp_path_factory.mktemp("contest")
    return prepare_cases(_small_product, _rules((), host_instruction_sets()[-1]), folder)


def _small_product() -> Cases:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mlc_controlnet.bench.operations.operations.LARGE_MATMUL_REDUCED", matmul(64, 96, 32, 64))
        cases = operation_cases(("layer_norm",), reduced=True, dtype="float32")
    return Cases(cases.cases[:1], tvm.IRModule({cases.cases[0].name: cases.module[cases.cases[0].name]}))


def _rules(peers: tuple[str, ...], instruction_set: str | None = None) -> NativeRules:
    return NativeRules("llvm", "float32", 2, peers, instruction_set)


@pytest.mark.parametrize(
    "peers",
    [
        (EAGER, ONNXRUNTIME, OPENVINO),
        pytest.param(
            (COMPILED,),
            marks=[
                pytest.mark.slow,
                pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile needs a C++ compiler"),
            ],
        ),
    ],
    ids=["eager and of ONNX files", "compiled"],
)
def test_a_product_runs_against_native_peers(prepared: Prepared, peers: tuple[str, ...]) -> None:
    assert prepared.library.name == f"bench-float32-{host_instruction_sets()[-1]}.so"
    (case,) = prepared.cases
    assert case.name == "matmul_64_96_32" and case.work.gflop == pytest.approx(2 * 64 * 96 * 32 / 1e9)
    files = CaseFiles(prepared.library.parent, case.name)
    outcome = run_case(files, prepared.library, _rules(peers), threads=1)
    assert outcome.failures == ()
    assert outcome.ours_db > 80
    assert list(outcome.times) == [OURS, *peers]
    for name in peers:
        times = outcome.times[name]
        assert len(times.wall_ms) == len(times.ours_wall_ms) == 2 and min(times.wall_ms + times.ours_wall_ms) > 0
    peaks = {name: times.peak_memory_mib for name, times in outcome.times.items()}
    assert all(20 < peak < 1000 for peak in peaks.values())
    assert not any(peaks[OURS] > peaks[name] for name in peers if name in (EAGER, COMPILED))  # it has no torch in it


def test_a_case_that_ours_did_not_run_is_left_out_and_the_others_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases = tuple(Computation(name, name, Work(1.0, 1.0), False) for name in ("matmul", "unet", "vae_decoder"))
    timed = CaseOutcome({OURS: timing(4.0), EAGER: timing(2.0)}, 100.0, ("OpenVINO was ended by SIGSEGV",))

    def run(files: CaseFiles, *_: object) -> CaseOutcome:
        if files.name == fails:
            raise ProcessFailed(OURS, "was ended by SIGKILL")
        return timed

    monkeypatch.setattr(native_contest.OwnProcess, "call", lambda *_: Prepared(tmp_path / "none.so", cases))
    monkeypatch.setattr(native_contest, "run_case", run)
    log: list[str] = []
    fails = "unet"
    outcome = run_native_contest(_small_product, _rules((EAGER,)), tmp_path, log.append)
    assert [case.name for case in outcome.cases] == ["matmul", "vae_decoder"]
    assert "matmul: OpenVINO was ended by SIGSEGV" in log
    assert "unet: left out, ours was ended by SIGKILL (2 of 3)" in log
    assert log[-1] == "vae_decoder: ours 5.00 ms, torch eager 3.00 ms (3 of 3)"
    threads = tvm.get_global_func("runtime.NumThreads")()
    assert outcome.device.endswith(f"torch on cpu, {threads} thread{'' if threads == 1 else 's'} each")
    assert outcome.copy_gigabytes_per_second > 0
    fails = "matmul"  # without it there is no reference rate
    with pytest.raises(ProcessFailed):
        run_native_contest(_small_product, _rules((EAGER,)), tmp_path, log.append)


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
        ({"weights": ("mixed",)}, "--weights: got .mixed"),
        ({"weights": ("float16",)}, "--weights.*float16 alone"),
        ({"weights": ("float16", "int8"), "host": "native"}, "--weights.*with --host native"),
        ({"weights": ("int8",), "cpu": "wasm-relaxed-simd"}, "--weights.*with --cpu wasm-relaxed-simd"),
        ({"cpu": "x86-64-v3"}, "--cpu"),
        ({"cpu": "wasm-simd128", "host": "chromium", "gpu": True}, "--cpu"),
        ({"cpu": "wasm-simd128", "dtype": "float16"}, "--cpu"),
        ({"cpu": "wasm-simd128", "host": "native"}, "--cpu"),
        ({"threads": 2}, "--threads"),
        ({"threads": 2, "host": "native", "cpu": host_instruction_sets()[-1]}, "--threads"),
        ({"threads": 2, "cpu": "wasm-simd128"}, "--threads"),
        ({"threads": 0, "host": "chromium", "cpu": "wasm-simd128"}, "--threads"),
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
