import io
import json
import shutil
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image

from mlc_controlnet.cli.main import main
from mlc_controlnet.errors import UserError
from mlc_controlnet.train import image_log
from mlc_controlnet.train.config_file import from_tree
from mlc_controlnet.train.data.samples import Sample
from mlc_controlnet.train.metrics import Metrics
from mlc_controlnet.train.plot import MOST_PICTURES, draw_run, read_run

HEIGHT, WIDTH = 24, 32
GREY = 100  # of the first generation; each step's is one brighter


def make_run(folder: Path, steps: int = 40, grids_every: int = 10, held_out: bool = True) -> Path:
    """What a run leaves: a loss every second step, a held-out one every tenth, grids of two samples."""
    (folder / "image_log" / "train").mkdir(parents=True)
    data = {"path": "set", "height": HEIGHT, "width": WIDTH}
    (folder / "config.yaml").write_text(from_tree({"data": data, "trainer": {"max_steps": steps}}).to_yaml())
    with (folder / "metrics.jsonl").open("w") as file:
        for step in range(2, steps + 1, 2):
            file.write(json.dumps({"step": step, "loss": 1 / step, "learning_rate": 1e-3}) + "\n")
            if held_out and step % 10 == 0:
                file.write(json.dumps({"step": step, "held_out_loss": 2 / step}) + "\n")
    sample = Sample("k", 0, torch.full((3, HEIGHT, WIDTH), -1.0), torch.ones(3, HEIGHT, WIDTH), "a prompt")
    for number, step in enumerate(range(grids_every, steps + 1, grids_every)):
        pictures = np.stack([np.full((HEIGHT, WIDTH, 3), grey, np.uint8) for grey in (GREY + number, 0)])
        image_log.write_png(
            image_log.draw_grid([sample] * 2, pictures), folder / "image_log" / "train" / f"{step:08d}.png"
        )
    return folder


def test_a_run_has_both_losses_and_the_first_samples_generations(tmp_path: Path) -> None:
    run = read_run(make_run(tmp_path))
    assert run.losses[40] == 1 / 40 and len(run.losses) == 20
    assert run.held_out == {step: 2 / step for step in (10, 20, 30, 40)}
    assert {step: picture.getpixel((5, 5))[0] for step, picture in run.generations.items()} == {
        10: GREY,
        20: GREY + 1,
        30: GREY + 2,
        40: GREY + 3,
    }
    assert run.sample is not None
    control, target = run.sample
    assert control.size == target.size == (WIDTH, HEIGHT)
    assert control.getextrema() == ((255, 255),) * 3 and target.getextrema() == ((0, 0),) * 3


def test_of_many_grids_as_many_as_there_is_room_for_are_shown_evenly_up_to_the_last(tmp_path: Path) -> None:
    steps = list(read_run(make_run(tmp_path, steps=50, grids_every=2)).generations)
    assert steps[-1] == 50 and len(steps) <= MOST_PICTURES
    assert {after - before for before, after in pairwise(steps)} == {6}


def test_a_run_that_ends_just_behind_a_grid_has_its_pictures_apart(tmp_path: Path) -> None:
    make_run(tmp_path, steps=42)
    grids = tmp_path / "image_log" / "train"
    shutil.copy(grids / "00000040.png", grids / "00000042.png")
    run = read_run(tmp_path)
    assert list(run.generations) == [10, 20, 30, 42]
    assert draw_run(run, "light", "png")


def test_where_a_killed_run_went_on_its_later_figures_count(tmp_path: Path) -> None:
    make_run(tmp_path, steps=40)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 42, "lo')  # killed in the middle of a line, and resumed at step 20
    Metrics(tmp_path, speaks=True, tensorboard=False, log=print).scalars(22, {"loss": 9.0})
    run = read_run(tmp_path)
    assert max(run.losses) == 22 and run.losses[22] == 9.0 and run.losses[20] == 1 / 20
    assert max(run.held_out) == max(run.generations) == 20


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_plot_names_its_curves_and_the_steps_of_its_pictures(tmp_path: Path, theme: str) -> None:
    run = read_run(make_run(tmp_path))
    drawn = draw_run(run, theme, "svg")
    words = list(ElementTree.fromstring(drawn).itertext())
    for word in ("training loss", "held-out loss", "control", "target", "10", "40"):
        assert word in words, word
    assert drawn.count(b"data:image/png") == 6
    assert drawn == draw_run(run, theme, "svg")


def test_a_picture_stands_below_its_step(tmp_path: Path) -> None:
    """The axis begins at 0 and ends half a picture behind the last step; its margins are a tenth of the width."""
    plot = Image.open(io.BytesIO(draw_run(read_run(make_run(tmp_path)), "light", "png"))).convert("RGB")
    for number, step in enumerate((10, 20, 30, 40)):
        column = round(plot.width * (0.1 + 0.8 * step / 45))
        greys = {plot.getpixel((column, row))[0] for row in range(plot.height - 90, plot.height)}
        assert GREY + number in greys


def test_a_run_without_pictures_and_held_out_samples_has_its_losses_drawn(tmp_path: Path) -> None:
    run = read_run(make_run(tmp_path, grids_every=100, held_out=False))
    words = list(ElementTree.fromstring(draw_run(run, "dark", "svg")).itertext())
    assert "training loss" in words and "held-out loss" not in words and "control" not in words


def test_the_command_writes_where_it_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "run")
    assert main(["train", "plot", str(run)]) == 0
    assert capsys.readouterr().out.strip() == str(run / "curve.png")
    assert Image.open(run / "curve.png").width > 1000
    assert main(["train", "plot", str(run), "--output", str(tmp_path / "new" / "c.svg"), "--theme", "dark"]) == 0
    assert (tmp_path / "new" / "c.svg").read_bytes().startswith(b"<?xml")
    assert main(["train", "plot", str(run), "--output", str(tmp_path / "c.jpg")]) == 2
    assert ".png or .svg" in capsys.readouterr().err


def test_a_folder_without_a_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"metrics\.jsonl: got no such file.*out"):
        read_run(tmp_path)
    (tmp_path / "metrics.jsonl").write_text("")
    with pytest.raises(UserError, match="without a loss yet"):
        read_run(tmp_path)
