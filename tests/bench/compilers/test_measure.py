"""A chip whose compiler is missing, or that nobody knows, costs one line: the other chips are judged."""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from mlc_controlnet.bench.compilers import amd, spirv
from mlc_controlnet.bench.compilers import measure as measuring
from mlc_controlnet.bench.compilers.chips import Chip
from mlc_controlnet.bench.compilers.judgement import Judgement
from mlc_controlnet.bench.compilers.measure import JudgeSettings, measure
from mlc_controlnet.bench.compilers.nvidia import Toolkit
from mlc_controlnet.cli.main import main
from mlc_controlnet.errors import UserError

ROW = Judgement("matmul", "matmul", 1e9, 1.0, (), {})
CUDA = Toolkit(Path("nvcc"), Path("nvdisasm"), (), "13.0")


@pytest.fixture(autouse=True)
def _only_amd(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with Mesa 25 and no nvcc; what the compilers say is made up."""

    def judge(_only: tuple[str, ...], _dtype: str, chips: Sequence[Chip]) -> Iterator[tuple[Chip, Judgement]]:
        yield from ((chip, ROW) for chip in chips)

    def no_nvcc() -> None:
        raise UserError("nvcc", "no such program", "NVIDIA's compiler", "pip install mlc-controlnet[compilers]")

    monkeypatch.setattr(measuring, "judge_operations", judge)
    monkeypatch.setattr(measuring, "mesa_version", lambda _chip: "25.0.7")
    monkeypatch.setattr(measuring, "find_toolkit", no_nvcc)


def test_rows_of_other_chips_are_made_and_each_missing_one_is_a_line() -> None:
    missing: list[UserError] = []
    settings = JudgeSettings((), False, False, ("float16",), ("sm_89", "navi31", "navi99", "navi21"), "")
    figures = measure(settings, lambda *_: None, missing.append)
    assert [(one.chip, one.rows) for one in figures] == [("navi31", (ROW,)), ("navi21", (ROW,))]
    assert [error.subject for error in missing] == ["nvcc", "--chip"]
    assert "navi99" in missing[1].got and "sm_90" in missing[1].wanted and "acm-g10" in missing[1].wanted


@pytest.mark.parametrize(
    ("answer", "told"),
    [  # what radv_process.py answers over Debian 12's own Mesa
        ("""print('{"device": "RADV NAVI21", "mesa": [22, 3, 6]}')""", "Mesa: got 22.3.6, wanted 25 or newer; "),
        ("import sys; sys.exit('radv: Unknown family: navi31')", "RADV: got radv: Unknown family: navi31, wanted Mesa"),
    ],
)
def test_a_mesa_older_than_25_costs_a_line_that_names_its_package(
    answer: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = tmp_path / "radv_process.py"
    process.write_text(answer)
    monkeypatch.setattr(amd, "PROCESS", process)
    monkeypatch.setattr(amd, "check_programs", lambda: None)
    monkeypatch.setattr(amd, "driver_manifest", lambda driver: tmp_path / f"{driver}_icd.json")
    monkeypatch.setattr(measuring, "mesa_version", amd.mesa_version)
    monkeypatch.setattr(measuring, "find_toolkit", lambda: CUDA)
    missing: list[UserError] = []
    settings = JudgeSettings((), False, False, ("float16",), ("navi31", "sm_89"), "")
    figures = measure(settings, lambda *_: None, missing.append)
    assert [(one.chip, one.rows) for one in figures] == [("sm_89", (ROW,))]
    (error,) = missing
    assert str(error).startswith(told) and "install mesa-vulkan-drivers" in str(error) and "\n" not in str(error)


def test_a_program_that_only_amds_chips_need_costs_nvidias_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(UserError, match=r"spirv-as: got no such program.*apt install spirv-tools"):
        spirv.check_programs()
    monkeypatch.setattr(measuring, "mesa_version", amd.mesa_version)
    monkeypatch.setattr(measuring, "find_toolkit", lambda: CUDA)
    missing: list[UserError] = []
    figures = measure(
        JudgeSettings((), False, False, ("float16",), ("navi31", "sm_89"), ""), lambda *_: None, missing.append
    )
    assert [one.chip for one in figures] == ["sm_89"] and [error.subject for error in missing] == ["spirv-as"]


def test_the_peer_has_no_source_for_nvidias_chips() -> None:
    missing: list[UserError] = []
    settings = JudgeSettings((), False, True, ("float16",), ("sm_89",), "")
    assert measure(settings, lambda *_: None, missing.append) == []
    assert missing[0].subject == "--peer" and missing[0].got == "sm_89"


def test_the_command_ends_with_a_line_for_each_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "compilers", "--chip", "navi99", "--chip", "sm_89", "--chip", "navi31"]) == 2
    told = capsys.readouterr()
    assert told.out.count("matmul on Radeon Pro W7900") == 1
    errors = [line for line in told.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 2 and "navi99" in errors[0] and "[compilers]" in errors[1]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--weights", "palette6"], "--weights: got palette6, wanted a step, whose weights they are; add --step"),
        (["--step", "--weights", "mixed"], "--weights: got 'mixed', wanted one of float16, int8, palette6, "),
        (["--step", "--weights", "unet=int8"], "--weights: got 'unet=int8', wanted one of float16, "),
        (["--step", "--peer", "--weights", "int8"], "--weights: got int8, wanted float16 with --peer; "),
        (["--step", "--weights", "int8", "--chip", "acm-g10"], "--weights: got --chip acm-g10, wanted chips that "),
    ],
)
def test_weights_that_no_step_has_are_refused_in_a_line(
    options: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "compilers", *options]) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert error.startswith(f"error: {told}")
