import json
from pathlib import Path

import pytest

from mlc_controlnet.bench.training import measure as bench
from mlc_controlnet.bench.training.contestant import make_step, tflop_of
from mlc_controlnet.bench.training.measure import Figures, TrainBenchSettings, measure
from mlc_controlnet.cli.main import main
from mlc_controlnet.errors import UserError
from mlc_controlnet.train.config import ModelOptions


@pytest.mark.integration
def test_both_loops_take_turns_and_every_turn_is_kept(tmp_path: Path) -> None:
    raw = tmp_path / "turns.json"
    lines = list(bench.measure(TrainBenchSettings("circles", batch=1, precision="32", rounds=2, steps=1), raw))
    timed = [line for line in lines if "samples/s" in line]
    names = ["diffusers' example", "ours", "ours, latents cached"]
    assert [line[2:36].strip() for line in timed] == names
    assert all("MiB" in line and "x (" in line for line in timed)
    assert "TFLOP per sample" in lines[-3] and "%" in lines[-2]
    record = json.loads(raw.read_text())
    assert [contestant["name"] for contestant in record["contestants"]] == names
    assert all(len(contestant["turns"]) == 2 for contestant in record["contestants"])
    peaks = [contestant["peak_memory_mib"] for contestant in record["contestants"]]
    assert 0 < max(peaks) < 2 * min(peaks)  # all train the same model, each in a process of its own
    assert record["settings"]["batch"] == 1 and "thread" in record["device"]


def test_each_line_of_the_ladder_keeps_what_the_ones_above_it_switched_on() -> None:
    loops = bench.ladder(
        TrainBenchSettings("sd15", batch=8, precision="bf16", rounds=1, steps=1, options=True, inductor=True)
    )
    assert [loop.options for loop in loops] == [
        {"use_flash_attention": False},
        {"use_flash_attention": True},
        {"use_flash_attention": True, "channels_last": True},
        *[{"use_flash_attention": True, "channels_last": True, "inductor": True}] * 2,
    ]
    assert [loop.batch for loop in loops] == [8, 8, 8, 8, 32]
    assert all(loop.cached and loop.pixels == 512 and ModelOptions(**loop.options) for loop in loops)


def test_without_torch_compile_the_ladder_has_a_line_less() -> None:
    loops = bench.ladder(TrainBenchSettings("circles", batch=8, precision="32", rounds=1, steps=1, options=True))
    assert [loop.name for loop in loops] == [
        "baseline (math attention)",
        "+ flash attention",
        "+ channels-last",
        "+ batch 32",
    ]


def test_a_speed_is_the_median_of_the_turns_own_ratios() -> None:
    """The second turn fell into a slow time of the machine, for both."""
    theirs = Figures("a", 2, (0.2, 0.8, 0.2), 0.0, 0.0)
    ours = Figures("b", 2, (0.1, 0.4, 0.1), 0.0, 0.0)
    assert ours.speed_over(theirs) == (2.0, 2.0, 2.0)
    assert ours.samples_per_second == 20.0
    assert Figures("c", 8, (0.4, 1.6, 0.4), 0.0, 0.0).speed_over(theirs)[1] == 2.0


def test_work_is_counted_for_a_sample_whatever_the_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process: only a benchmark needs one per contestant."""
    monkeypatch.setattr("mlc_controlnet.train.process.keep_freed_memory", lambda: None)  # it would stay set
    settings = TrainBenchSettings("circles", batch=1, precision="32", rounds=1, steps=1)
    work = [
        tflop_of(make_step(settings.loop("cached", batch, cached=True), tmp_path / str(batch))) / batch
        for batch in (1, 2)
    ]
    assert work[0] == pytest.approx(work[1], rel=0.01)
    assert 1e-4 < work[0] < 1e-2


def test_a_contestants_own_pixels_are_those_of_its_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlc_controlnet.train.objective import Objective

    real, seen = Objective.losses, []

    def losses(self, model, batch, held_out=False):
        seen.append(batch.pixels.shape)
        return real(self, model, batch, held_out)

    monkeypatch.setattr(Objective, "losses", losses)
    monkeypatch.setattr("mlc_controlnet.train.process.keep_freed_memory", lambda: None)  # it would stay set
    settings = TrainBenchSettings("circles", batch=2, precision="32", rounds=1, steps=1, pixels=64)
    make_step(settings.loop("ours"), tmp_path)()
    assert seen == [(2, 3, 64, 64)]


@pytest.mark.parametrize(
    "changes", [{"model": "sd9"}, {"batch": 0}, {"precision": "8"}, {"rounds": 0}, {"steps": 0}, {"pixels": 100}]
)
def test_what_can_not_be_measured_is_refused(changes: dict) -> None:
    with pytest.raises(UserError, match=f"--{next(iter(changes))}"):
        TrainBenchSettings(**{"model": "circles", "batch": 1, "precision": "32", "rounds": 1, "steps": 1, **changes})


def test_the_command_refuses_a_model_it_does_not_know(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "train", "--model", "sd9"]) == 2
    assert "circles, sd15" in capsys.readouterr().err


def test_a_file_that_cannot_be_written_is_told_before_any_turn(tmp_path: Path) -> None:
    settings = TrainBenchSettings("circles", batch=1, precision="32", rounds=1, steps=1)
    with pytest.raises(UserError, match=r"--raw .*turns.json: got no folder .*none, wanted an existing folder"):
        next(measure(settings, tmp_path / "none" / "turns.json"))
