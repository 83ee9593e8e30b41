"""The recipe from archives to a judged model, with a few steps a stage."""

import dataclasses
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from mlc_controlnet.checkpoint import load_checkpoint
from mlc_controlnet.errors import UserError
from mlc_controlnet.train.circles.loop import Stopped, one_cycle
from mlc_controlnet.train.circles.recipe import load_model
from mlc_controlnet.train.doodle import recipe as doodle
from mlc_controlnet.train.doodle.architecture import Sizes
from mlc_controlnet.train.doodle.artworks import Split
from mlc_controlnet.train.doodle.autoencoder import DecoderConfig, VaeConfig
from mlc_controlnet.train.doodle.denoiser import DenoiserConfig
from mlc_controlnet.train.doodle.recipe import Recipe, Run

pytestmark = pytest.mark.integration

THREE_STEPS = one_cycle(3, 1e-3, log_every=1, ema_decay=0.5)
TINY = Recipe(
    variants=2,
    sizes=Sizes(vae=(8, 8, 8, 8), unet=(8, 8, 16), text=16, text_layers=1, vocabulary=600, hint=(4, 4, 4, 4)),
    vae=VaeConfig(THREE_STEPS, THREE_STEPS, batch=4),
    scribbles=DenoiserConfig(THREE_STEPS, batch=4),
    restart=DenoiserConfig(THREE_STEPS, batch=4),
    decoder=DecoderConfig(THREE_STEPS, batch=4, redrawn=4, last=1),
    colors=DenoiserConfig(THREE_STEPS, batch=4),
    judge=THREE_STEPS,
    judge_batch=4,
)


@pytest.fixture(scope="module", autouse=True)
def one_thing_and_one_picture_are_held_out() -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(doodle, "keep_freed_memory", lambda: None)
        patch.setattr(doodle.artworks, "split", lambda *_: Split([1, 2, 3, 6, 7], [0, 4], [5]))
        patch.setattr(doodle, "STEPS", 2)
        yield


@pytest.fixture(scope="module")
def finished(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The folder of a whole run, and what it said."""
    out = tmp_path_factory.mktemp("doodle")
    said: list[str] = []
    run = Run(out, TINY, said.append, archives=shapes)
    run.judge(run.train())
    return out, said


def test_every_stage_trains_and_shows_what_it_learned(finished: tuple[Path, list[str]]) -> None:
    out, said = finished
    stages = [line.split(":")[0] for line in said if "step 3/3" in line]
    assert stages == ["vae crops", "vae whole", "scribbles", "restart", "decoder", "colors", "judge"]
    assert (out / "scribbles-000003.png").is_file() and (out / "reconstruction.png").is_file()


def test_the_model_is_one_that_a_build_takes_with_both_controlnets(finished: tuple[Path, list[str]]) -> None:
    out, _ = finished
    checkpoint = load_checkpoint(out / "doodle", None, None)
    assert checkpoint.specs["vae_decoder"].outputs[0].shape == (1, 3, 128, 128)
    assert checkpoint.shape.latent_channels == 8 and checkpoint.shape.tokens == 32
    assert load_checkpoint(out / "doodle").controlnets == {"scribble": "scribble", "color": "color"}


def test_the_last_stage_of_the_autoencoder_leaves_the_encoder_as_it_is(finished: tuple[Path, list[str]]) -> None:
    before, after = (
        load_file(finished[0] / name / "diffusion_pytorch_model.safetensors") for name in ("vae", "decoder")
    )
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"decoder", "post_quant_conv"}


def test_the_model_follows_its_lines_at_conditioning_scale_one(finished: tuple[Path, list[str]]) -> None:
    """Residuals are linear in the zero convolutions, and nothing else changes after the restart."""
    folders = finished[0] / "restart" / "controlnet", finished[0] / "doodle" / "controlnet"
    trained, written = (load_file(folder / "diffusion_pytorch_model.safetensors") for folder in folders)
    for name, tensor in trained.items():
        is_output = name.startswith(("controlnet_down_blocks.", "controlnet_mid_block."))
        expected = tensor * doodle.LINES_SCALE if is_output else tensor
        torch.testing.assert_close(written[name].float(), expected, rtol=1e-3, atol=1e-6)
        assert tensor.any() or not is_output


def test_a_saved_model_draws_a_doodle(finished: tuple[Path, list[str]]) -> None:
    pipeline = load_model(finished[0] / "doodle")
    pipeline.set_progress_bar_config(disable=True)
    scribble = torch.zeros(1, 3, 128, 128)
    drawn = pipeline("red disc", scribble, num_inference_steps=1, output_type="np").images
    assert drawn.shape == (1, 128, 128, 3) and np.isfinite(drawn).all()


def test_the_model_names_the_authors_of_its_drawings(finished: tuple[Path, list[str]]) -> None:
    credits = (finished[0] / "doodle" / "CREDITS.md").read_text(encoding="utf-8")
    assert "- @shapes/glossy 1.0.0: this test, CC0-1.0" in credits and "- names 1.0.0" in credits


def test_judging_writes_figures_and_a_sheet(finished: tuple[Path, list[str]]) -> None:
    out, said = finished
    assert sum("edge recall" in line for line in said) == 4  # things and pictures, with and without the control
    assert (out / "quality.json").is_file() and (out / "sheet.png").is_file()


def test_a_second_start_trains_nothing(finished: tuple[Path, list[str]], shapes: Path) -> None:
    said: list[str] = []
    Run(finished[0], TINY, said.append, archives=shapes).train()
    assert not any("step" in line for line in said)


def test_a_folder_of_another_recipe_is_refused(finished: tuple[Path, list[str]], shapes: Path) -> None:
    with pytest.raises(UserError, match=r"a run whose seed differ"):
        Run(finished[0], dataclasses.replace(TINY, seed=1), archives=shapes)


def test_a_stopped_run_goes_on_to_the_same_weights(
    finished: tuple[Path, list[str]], shapes: Path, tmp_path: Path
) -> None:
    whole = finished[0]
    asked = threading.Event()

    def stop_in_the_middle(line: str) -> None:
        if "step 2/3" in line:
            asked.set()

    for _ in range(6):  # two parts of the autoencoder, the model twice, the decoder, the colours
        asked.clear()
        with pytest.raises(Stopped):
            Run(tmp_path, TINY, stop_in_the_middle, shapes, asked).train()
    Run(tmp_path, TINY, lambda line: None, shapes).train()
    for part in ("vae", "scribbles/unet", "restart/unet", "restart/controlnet", "decoder", "colors"):
        file = Path(part) / "diffusion_pytorch_model.safetensors"
        assert (whole / file).read_bytes() == (tmp_path / file).read_bytes(), part


def test_a_shortened_recipe_keeps_its_proportions() -> None:
    short = Recipe().shortened(0.1)
    assert short.scribbles.loop.steps == Recipe().scribbles.loop.steps // 10
    assert short.scribbles.loop.optim.learning_rate == Recipe().scribbles.loop.optim.learning_rate
    assert 1 - short.scribbles.loop.optim.ema_decay == pytest.approx(10 * (1 - Recipe().scribbles.loop.optim.ema_decay))
