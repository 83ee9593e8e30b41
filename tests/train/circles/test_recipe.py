"""The recipe from nothing to a model that a build takes, with four steps a stage."""

import threading
from pathlib import Path

import pytest

from mlc_controlnet.checkpoint import load_checkpoint
from mlc_controlnet.train.circles.loop import Stopped, one_cycle
from mlc_controlnet.train.circles.recipe import Recipe, train_circles, write_model

pytestmark = pytest.mark.integration

FOUR_STEPS = one_cycle(4, 1e-4, log_every=1)
TINY = Recipe(examples=32, batch=4, vae_small=FOUR_STEPS, vae_full=FOUR_STEPS, base=FOUR_STEPS, controlnet=FOUR_STEPS)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The folder of a whole run, and what it said."""
    out = tmp_path_factory.mktemp("recipe")
    said: list[str] = []
    write_model(train_circles(out, TINY, said.append), out / "model")
    return out, said


def test_every_stage_trains(run: tuple[Path, list[str]]) -> None:
    _, said = run
    assert sum("step 4/4" in line for line in said) == 4


def test_the_result_is_a_model_that_a_build_takes(run: tuple[Path, list[str]]) -> None:
    out, _ = run
    checkpoint = load_checkpoint(out / "model", None, None)
    assert checkpoint.specs["vae_decoder"].outputs[0].shape == (1, 3, 128, 128)
    assert checkpoint.defaults.steps == 20


def test_a_stopped_run_goes_on_to_the_same_weights(run: tuple[Path, list[str]], tmp_path: Path) -> None:
    asked = threading.Event()

    def stop_in_the_middle(line: str) -> None:
        if "step 2/4" in line:
            asked.set()

    for _ in range(4):  # two parts of the autoencoder, text to image, the ControlNet
        asked.clear()
        with pytest.raises(Stopped, match="stopped after step 2; the same command goes on"):
            train_circles(tmp_path, TINY, stop_in_the_middle, asked)
    train_circles(tmp_path, TINY, lambda line: None)
    for part in ("vae", "unet", "controlnet"):
        file = Path(part) / "diffusion_pytorch_model.safetensors"
        assert (run[0] / file).read_bytes() == (tmp_path / file).read_bytes(), part
    assert not list((tmp_path / "checkpoints").iterdir())


def test_a_run_stops_between_its_stages_too(run: tuple[Path, list[str]]) -> None:
    asked = threading.Event()
    asked.set()
    with pytest.raises(Stopped, match="between two stages"):
        train_circles(run[0], TINY, lambda line: None, asked)


def test_a_second_start_goes_on_after_the_last_finished_stage(run: tuple[Path, list[str]]) -> None:
    out, _ = run
    said: list[str] = []
    train_circles(out, TINY, said.append)
    assert not any("step" in line for line in said if not line.startswith("recipe"))
