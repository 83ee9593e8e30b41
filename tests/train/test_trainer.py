"""Runs from end to end, on a base of a few thousand weights."""

import argparse
import errno
import itertools
import json
import os
import shlex
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import ControlNetModel, StableDiffusionControlNetPipeline
from PIL import Image
from torch.optim.optimizer import register_optimizer_step_pre_hook

from mlc_controlnet.cli import build
from mlc_controlnet.errors import UserError
from mlc_controlnet.files import locked
from mlc_controlnet.train import image_log
from mlc_controlnet.train.config import TrainConfig
from mlc_controlnet.train.metrics import Metrics, read_metrics
from mlc_controlnet.train.process import make_accelerator
from mlc_controlnet.train.trainer import LOCK_NAME, Trainer, train
from tests.train.conftest import same_weights, weights_below, write_set

MakeConfig = Callable[..., TrainConfig]


def quiet(line: str) -> None:
    pass


def scalars(config: TrainConfig) -> list[dict[str, float]]:
    return [json.loads(line) for line in (Path(config.out) / "metrics.jsonl").read_text().splitlines()]


def test_a_run_ends_in_a_controlnet_that_diffusers_reads(make_config: MakeConfig) -> None:
    folder = train(make_config(), quiet)
    controlnet = ControlNetModel.from_pretrained(folder)
    assert controlnet.controlnet_mid_block.weight.any()


def test_the_last_line_is_a_command_that_builds_the_result(make_config: MakeConfig, tmp_path: Path) -> None:
    lines: list[str] = []
    config = make_config(out=str(tmp_path / "my run #2"), trainer__max_steps=1)
    folder = train(config, lines.append)
    command = lines[-1].partition("python -m mlc_controlnet ")[2]
    name, *arguments = shlex.split(command, comments=True)
    parser = argparse.ArgumentParser()
    build.add_arguments(parser)
    options = parser.parse_args(arguments)
    assert (name, options.model, options.controlnet) == ("build", config.model.base, [str(folder)])


def test_without_tensorboard_the_figures_are_in_a_file_alone(make_config: MakeConfig) -> None:
    config = make_config(log__tensorboard=False)
    train(config, quiet)
    assert scalars(config) and not (Path(config.out) / "logs").exists()


def test_the_base_is_not_changed_by_a_run(make_config: MakeConfig, tiny_base: Path) -> None:
    before = (tiny_base / "unet" / "diffusion_pytorch_model.safetensors").read_bytes()
    train(make_config(), quiet)
    assert (tiny_base / "unet" / "diffusion_pytorch_model.safetensors").read_bytes() == before


def test_one_batch_can_be_learned_by_heart(make_config: MakeConfig) -> None:
    """The same samples, noise and timesteps in every step: without learning, the loss would not move."""
    config = make_config(trainer__max_steps=40, optim__learning_rate=3e-2)
    trainer = Trainer(config, make_accelerator("32"), quiet)
    batches, asked_to_stop = itertools.repeat(next(iter(trainer.stream))), threading.Event()
    losses = [trainer.take_step(batches, asked_to_stop)[0] for _ in range(40)]
    assert losses[-1] < 0.6 * losses[0]


def test_the_held_out_loss_is_reported_as_often_as_asked_for(make_config: MakeConfig) -> None:
    config = make_config(data__held_out=2, log__held_out_every=2)
    train(config, quiet)
    assert [entry["step"] for entry in scalars(config) if "held_out_loss" in entry] == [2, 4]


def test_a_line_of_progress_has_loss_rate_speed_and_memory(make_config: MakeConfig) -> None:
    lines: list[str] = []
    config = make_config(log__every=2)
    train(config, lines.append)
    assert sum(line.startswith("step 2/4, loss ") for line in lines) == 1
    assert "samples/s" in lines[-3] and "MiB" in lines[-3]
    wanted = {
        "step",
        "loss",
        "learning_rate",
        "samples_per_second",
        "seconds_per_step",
        "peak_memory_mib",
        "bad_samples",
    }
    assert all(set(entry) == wanted for entry in scalars(config))


def test_twice_the_same_run_gives_the_same_weights_bit_for_bit(make_config: MakeConfig, tmp_path: Path) -> None:
    first, second = train(make_config(), quiet), train(make_config(out=str(tmp_path / "again")), quiet)
    assert same_weights(first, second)


def test_another_seed_gives_other_weights(make_config: MakeConfig, tmp_path: Path) -> None:
    first = train(make_config(), quiet)
    second = train(make_config(out=str(tmp_path / "again"), trainer__seed=1), quiet)
    assert not same_weights(first, second)


@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_in_two_halves_equals_a_run_in_one(
    make_config: MakeConfig, tmp_path: Path, ema_decay: float, workers: int
) -> None:
    """Across the end of an epoch, with dropped prompts and a schedule: parameter for parameter, bit for bit."""
    options = {
        "optim__ema_decay": ema_decay,
        "optim__lr_scheduler": "constant_with_warmup",
        "optim__lr_warmup_steps": 5,
        "data__proportion_empty_prompts": 0.5,
        "data__workers": workers,
    }
    whole = train(make_config(trainer__max_steps=12, out=str(tmp_path / "whole"), **options), quiet)
    train(make_config(trainer__max_steps=6, **options), quiet)
    halves = train(make_config(trainer__max_steps=12, **options), quiet)
    assert same_weights(whole, halves)


def test_the_place_in_the_set_is_right_after_a_second_resume_with_another_batch_size(make_config: MakeConfig) -> None:
    """Two steps of two samples and one of four are eight samples, not three steps of four."""
    train(make_config(trainer__max_steps=2), quiet)
    config = make_config(trainer__max_steps=3, trainer__batch_size=4)
    train(config, quiet)
    state = Path(config.out) / "checkpoints" / "step-00000003" / "state.json"
    assert json.loads(state.read_text())["samples"] == 8
    trainer = Trainer(config, make_accelerator("32"), quiet)
    trainer.run(threading.Event())
    assert trainer.stream.taken == 2


def test_a_run_that_goes_on_with_another_set_says_so(make_config: MakeConfig, tmp_path: Path) -> None:
    lines: list[str] = []
    config = make_config(trainer__max_steps=1)
    train(config, quiet)
    moved = shutil.copytree(config.data.path, tmp_path / "moved")
    train(make_config(trainer__max_steps=2, data__path=str(moved)), lines.append)
    assert not any("data.path" in line for line in lines)
    index = moved / "prompt.json"
    rows = index.read_text().splitlines()
    index.write_text("\n".join([*rows[:-1], rows[-1].replace(json.loads(rows[-1])["prompt"], "another prompt")]))
    train(make_config(trainer__max_steps=3, data__path=str(moved)), lines.append)
    index.write_text("\n".join(rows[:-1]))
    train(make_config(trainer__max_steps=4, data__path=str(moved)), lines.append)
    notices = [line for line in lines if "data.path" in line]
    assert len(notices) == 2 and all(line.startswith("notice: ") for line in notices)
    assert f"{len(rows)} other samples than before" in notices[0]
    assert f"{len(rows) - 1} samples, where it had {len(rows)} before" in notices[1]


def test_accumulated_batches_equal_one_large_batch(make_config: MakeConfig, tmp_path: Path) -> None:
    large = train(make_config(trainer__batch_size=4, out=str(tmp_path / "large")), quiet)
    small = train(make_config(trainer__batch_size=2, trainer__gradient_accumulation_steps=2), quiet)
    ours, theirs = weights_below(small), weights_below(large)
    assert max((ours[name] - theirs[name]).abs().max().item() for name in ours) < 1e-5


def test_epochs_count_every_sample(make_config: MakeConfig) -> None:
    lines: list[str] = []
    train(make_config(trainer__max_steps=None, trainer__epochs=3), lines.append)  # 10 samples, 2 a batch
    assert any(line.startswith("step 15/15,") for line in lines)


def test_checkpoints_are_kept_up_to_the_limit(make_config: MakeConfig) -> None:
    config = make_config(trainer__max_steps=5, trainer__checkpoint_every=1, trainer__checkpoints_limit=2)
    train(config, quiet)
    kept = sorted(path.name for path in (Path(config.out) / "checkpoints").iterdir())
    assert kept == ["step-00000004", "step-00000005"]


def test_a_run_that_may_not_resume_starts_anew(make_config: MakeConfig, tmp_path: Path) -> None:
    whole = train(make_config(out=str(tmp_path / "whole")), quiet)
    train(make_config(trainer__max_steps=6), quiet)
    config = make_config(trainer__resume=False)
    assert same_weights(whole, train(config, quiet))
    assert [path.name for path in (Path(config.out) / "checkpoints").iterdir()] == ["step-00000004"]
    assert [path.name for path in (Path(config.out) / "checkpoints-1").iterdir()] == ["step-00000006"]
    assert max(read_metrics(Path(config.out))) == 4


def test_a_checkpoint_of_another_model_is_refused(make_config: MakeConfig) -> None:
    train(make_config(trainer__max_steps=2), quiet)
    with pytest.raises(UserError, match=r"weights that are not the .* of this run.*trainer\.resume"):
        train(make_config(model__hint_channels=1), quiet)


def test_an_average_that_begins_in_the_middle_begins_with_the_weights_of_then(make_config: MakeConfig) -> None:
    train(make_config(trainer__max_steps=6, optim__learning_rate=0.1), quiet)
    before = weights_below(Path(make_config().out) / "checkpoints" / "step-00000006" / "controlnet")
    averaged = weights_below(
        train(make_config(trainer__max_steps=7, optim__learning_rate=0.0, optim__ema_decay=0.999), quiet)
    )
    assert all(torch.allclose(before[name], averaged[name], atol=1e-6) for name in before)


def test_bad_samples_are_named_counted_and_skipped(make_config: MakeConfig, tmp_path: Path) -> None:
    folder = write_set(tmp_path / "set", 6)
    (folder / "target" / "1.png").write_bytes(b"no picture")
    (folder / "source" / "3.png").unlink()
    lines: list[str] = []
    config = make_config(data__path=str(folder), trainer__max_steps=6)  # two epochs
    train(config, lines.append)
    skipped = [line for line in lines if line.startswith("skipped: ")]
    assert len(skipped) == 2
    assert any("target/1.png: picture: a file that is not an image" in line for line in skipped)
    assert any("target/3.png: No such file or directory: 3.png" in line for line in skipped)
    assert scalars(config)[-1]["bad_samples"] == 2


def test_too_many_bad_samples_stop_the_run(make_config: MakeConfig, tmp_path: Path) -> None:
    folder = write_set(tmp_path / "set", 6)
    for number in range(3):
        (folder / "target" / f"{number}.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"data: got 3 samples that cannot be read.*data\.max_bad_samples"):
        train(make_config(data__path=str(folder), data__max_bad_samples=2), quiet)


def test_a_loss_that_is_not_finite_stops_with_step_and_samples_and_keeps_the_checkpoint(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlc_controlnet.train.objective import Objective

    real = Objective.losses
    calls = 0

    def losses(self, model, batch, held_out=False):
        nonlocal calls
        calls += 1
        return real(self, model, batch, held_out) * (float("nan") if calls == 4 else 1.0)

    monkeypatch.setattr(Objective, "losses", losses)
    config = make_config(trainer__checkpoint_every=1, trainer__max_steps=10)
    with pytest.raises(UserError, match=r"loss of step 4: got nan on target/\d\.png, target/\d\.png.*step-00000003"):
        train(config, quiet)
    assert (Path(config.out) / "checkpoints" / "step-00000003" / "state.json").is_file()


def test_a_gradient_that_is_not_finite_stops_the_run_before_it_is_in_the_weights(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlc_controlnet.train.objective import Objective

    real = Objective.losses

    def losses(self, model, batch, held_out=False):
        losses = real(self, model, batch, held_out)
        losses.register_hook(lambda gradient: gradient * float("inf"))
        return losses

    train(make_config(trainer__max_steps=3), quiet)
    monkeypatch.setattr(Objective, "losses", losses)
    config = make_config(trainer__checkpoint_every=1, trainer__max_steps=10)
    with pytest.raises(UserError, match=r"gradient of step 4: got (nan|inf) on target/\d\.png.*step-00000003"):
        train(config, quiet)


def test_grids_of_pictures_are_written_and_sent_to_tensorboard(make_config: MakeConfig) -> None:
    config = make_config(log__image_every=2, log__images=3, log__image_steps=2, log__tensorboard=True)
    train(config, quiet)
    grids = sorted((Path(config.out) / "image_log" / "train").iterdir())
    assert [grid.name for grid in grids] == ["00000002.png", "00000004.png"]
    assert Image.open(grids[0]).size[0] == 4 * 32 + 3 * image_log.GAP

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(Path(config.out) / "logs"))
    board.Reload()
    assert "train" in board.Tags()["images"] and "loss" in board.Tags()["scalars"]


def test_drawing_pictures_does_not_change_the_run(make_config: MakeConfig, tmp_path: Path) -> None:
    seen = train(make_config(log__image_every=1, log__image_steps=2, data__held_out=2, log__held_out_every=1), quiet)
    blind = train(make_config(out=str(tmp_path / "blind"), data__held_out=2), quiet)
    assert same_weights(seen, blind)


def test_cached_latents_give_the_run_without_a_cache(make_config: MakeConfig, tmp_path: Path) -> None:
    options = {"data__proportion_empty_prompts": 0.3, "trainer__max_steps": 8}
    plain = weights_below(train(make_config(**options), quiet))
    lines: list[str] = []
    for number in range(2):
        folder = train(
            make_config(out=str(tmp_path / f"{number}"), data__cache=str(tmp_path / "cache"), **options), lines.append
        )
        cached = weights_below(folder)
        assert max((plain[name] - cached[name]).abs().max().item() for name in plain) < 1e-5
    assert sum(line.startswith("cache: ") for line in lines) == 1  # computed once


def test_a_cache_of_another_set_is_computed_anew(make_config: MakeConfig, tmp_path: Path) -> None:
    lines: list[str] = []
    train(make_config(data__cache=str(tmp_path / "cache")), lines.append)
    other = write_set(tmp_path / "other", 5)
    train(
        make_config(out=str(tmp_path / "b"), data__path=str(other), data__cache=str(tmp_path / "cache")), lines.append
    )
    assert [line for line in lines if line.startswith("cache: ")] == [
        f"cache: latents and text states of {count} samples to {tmp_path / 'cache'}" for count in (10, 5)
    ]


def test_a_cache_serves_another_memory_order_too(make_config: MakeConfig, tmp_path: Path) -> None:
    lines: list[str] = []
    for number, channels_last in enumerate((False, True)):
        out = str(tmp_path / f"{number}")
        train(
            make_config(out=out, data__cache=str(tmp_path / "cache"), model__channels_last=channels_last), lines.append
        )
    assert sum(line.startswith("cache: ") for line in lines) == 1


def test_bad_samples_are_named_with_a_cache_too(make_config: MakeConfig, tmp_path: Path) -> None:
    folder = write_set(tmp_path / "set", 6)
    (folder / "target" / "1.png").write_bytes(b"no picture")
    lines: list[str] = []
    config = make_config(data__path=str(folder), trainer__max_steps=3, data__cache=str(tmp_path / "cache"))
    train(config, lines.append)
    assert [line for line in lines if "skipped: target/1.png: picture: a file that is not an image" in line]
    assert not np.isnan(scalars(config)[-1]["loss"])


def test_half_precision_on_a_processor_says_what_to_take(make_config: MakeConfig) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(UserError, match="bf16"):
        train(make_config(trainer__precision="fp16"), quiet)


def test_gradients_are_clipped_to_the_norm(make_config: MakeConfig, tmp_path: Path) -> None:
    norms: list[float] = []

    def note(optimizer, arguments, options) -> None:
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        norms.append(torch.nn.utils.get_total_norm(gradients).item())

    handle = register_optimizer_step_pre_hook(note)
    try:
        train(make_config(out=str(tmp_path / "free"), optim__max_grad_norm=0.0), quiet)
        free = norms.copy()
        norms.clear()
        train(make_config(optim__max_grad_norm=1e-3), quiet)
    finally:
        handle.remove()
    assert len(free) == len(norms) == 4
    assert min(free) > 1e-2 and max(norms) < 1.001e-3


def test_a_scaled_rate_is_multiplied_by_all_samples_of_a_step(make_config: MakeConfig) -> None:
    config = make_config(optim__scale_lr=True, trainer__gradient_accumulation_steps=3, optim__learning_rate=1e-4)
    train(config, quiet)
    assert scalars(config)[-1]["learning_rate"] == pytest.approx(1e-4 * 2 * 3)


def test_pictures_are_drawn_with_the_steps_and_the_guidance_asked_for(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    real = StableDiffusionControlNetPipeline.__call__

    def call(self, **options):
        seen.append((options["num_inference_steps"], options["guidance_scale"], len(options["prompt"])))
        return real(self, **options)

    monkeypatch.setattr(StableDiffusionControlNetPipeline, "__call__", call)
    train(
        make_config(log__image_every=4, log__image_steps=3, log__guidance_scale=2.5, log__images=2),
        quiet,
    )
    assert seen == [(3, 2.5, 2)]


def test_what_is_held_out_may_be_a_set_of_its_own(make_config: MakeConfig, tmp_path: Path) -> None:
    """All ten samples are trained on then: five steps an epoch, and the other set's first two are held out."""
    other = write_set(tmp_path / "other", 3)
    lines: list[str] = []
    options = {"data__held_out_path": str(other), "data__held_out": 2, "trainer__max_steps": None, "trainer__epochs": 1}
    train(make_config(**options), lines.append)
    assert any(line.startswith("step 5/5, held-out loss") for line in lines)


def test_fields_of_a_set_may_have_other_names(make_config: MakeConfig, tmp_path: Path, tiny_set: Path) -> None:
    renamed = write_set(tmp_path / "renamed", 10)
    names = {"source": "hint", "target": "image", "prompt": "caption"}
    rows = [json.loads(line) for line in (renamed / "prompt.json").read_text().splitlines()]
    lines = [json.dumps({names[key]: value for key, value in row.items()}) for row in rows]
    (renamed / "prompt.json").write_text("\n".join(lines))
    usual = train(make_config(out=str(tmp_path / "usual")), quiet)
    keys = {
        f"data__{key}": name
        for key, name in zip(("control_key", "image_key", "prompt_key"), names.values(), strict=True)
    }
    assert same_weights(usual, train(make_config(data__path=str(renamed), **keys), quiet))


def test_machines_that_do_not_see_the_same_checkpoint_do_not_begin(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each would go on from another step and wait for the others for ever."""
    monkeypatch.setattr("mlc_controlnet.train.trainer.gather_object", lambda own: [*own, "step-00000004"])
    with pytest.raises(UserError, match=r"out: got newest checkpoints none, step-00000004.*a disk that they share"):
        train(make_config(), quiet)


def test_a_full_disk_is_an_error_wherever_it_is_met(make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checkpoints say so themselves; here it is the log."""

    def full(self, step, values):
        raise OSError(errno.ENOSPC, "No space left on device")

    config = make_config(log__every=3, trainer__checkpoint_every=1)
    monkeypatch.setattr(Metrics, "scalars", full)
    with pytest.raises(UserError, match=r"No space left on device.*make room"):
        train(config, quiet)
    monkeypatch.undo()
    lines: list[str] = []
    train(config, lines.append)
    assert any(line.startswith("resuming from") and line.endswith("step-00000002") for line in lines)


def test_two_runs_do_not_share_a_folder(make_config: MakeConfig) -> None:
    """Each would delete the checkpoint that the other one is writing."""
    config = make_config(trainer__max_steps=1)
    out, (told, tell), (wait, let_go) = Path(config.out), os.pipe(), os.pipe()
    out.mkdir()
    other = os.fork()
    if other == 0:
        with locked(out / LOCK_NAME, wait=False):
            os.write(tell, b"!")
            os.read(wait, 1)
        os._exit(0)
    os.read(told, 1)
    with pytest.raises(UserError, match=r"out: got .*out, where another run is training"):
        train(config, quiet)
    assert [path.name for path in out.iterdir()] == [LOCK_NAME]
    os.write(let_go, b"!")
    os.waitpid(other, 0)
    train(config, quiet)


def test_a_damaged_checkpoint_is_named(make_config: MakeConfig) -> None:
    config = make_config(trainer__max_steps=1)
    train(config, quiet)
    (checkpoint,) = (Path(config.out) / "checkpoints").iterdir()
    for name in ("weights.safetensors", "optimizer.safetensors", "state.json"):
        whole = (checkpoint / name).read_bytes()
        (checkpoint / name).write_bytes(whole[:-9])
        with pytest.raises(UserError, match=rf"{checkpoint.name}: got a damaged checkpoint .*delete it to resume"):
            train(config, quiet)
        (checkpoint / name).write_bytes(whole)
    train(config, quiet)
