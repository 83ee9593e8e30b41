from pathlib import Path

import pytest

from mlc_controlnet.__main__ import main
from mlc_controlnet.bench import train as bench
from mlc_controlnet.errors import UserError

QUICK = bench.Settings("circles", batch=1, precision="32", rounds=1, steps=1, options=True, inductor=False)


def test_both_loops_and_every_option_are_timed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "LARGE_BATCH", 2)
    monkeypatch.setattr(bench, "_memory_alone", lambda settings, name: 7.0)  # a process each takes seconds
    lines = list(bench.measure(QUICK))
    timed = [line for line in lines if "samples/s" in line]
    names = ["diffusers' example", "ours  ", "ours, latents cached", "baseline", "+ flash", "+ channels", "+ batch 2"]
    assert [line.strip().startswith(name.strip()) for line, name in zip(timed, names, strict=True)] == [True] * 7
    assert all(float(line.split("samples/s")[0].split()[-1]) > 0 for line in timed)
    assert "TFLOP a sample" in lines[-2] and "%" in lines[-1]


def test_memory_is_that_of_a_process_which_trains(tmp_path: Path) -> None:
    assert bench._measure_memory(QUICK, bench.CACHED) > 100


def test_work_is_counted_for_a_sample_whatever_the_batch() -> None:
    one = bench.tflop_per_sample(QUICK)
    two = bench.tflop_per_sample(bench.Settings("circles", 2, "32", 1, 1, False, False))
    assert one == pytest.approx(two, rel=0.01)
    assert 1e-4 < one < 1e-2


@pytest.mark.parametrize("settings", [("sd9", 1, "32", 1, 1), ("circles", 0, "32", 1, 1), ("circles", 1, "8", 1, 1)])
def test_what_can_not_be_measured_is_refused(settings: tuple) -> None:
    with pytest.raises(UserError):
        bench.Settings(*settings, options=False, inductor=False)


def test_the_command_refuses_a_model_it_does_not_know(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "train", "--model", "sd9"]) == 2
    assert "circles, sd15" in capsys.readouterr().err
