"""The loop of the three stages that train the bundled model.

`trainer.Trainer` trains a ControlNet on data from files, on any number of processes, and can be stopped and resumed. A
stage here minimizes any loss on one process in minutes: the autoencoder and the text-to-image model have objectives of
their own, and their data fits into memory. Both turn gradients into weights by the same `WeightUpdate`. A stage that
takes hours keeps checkpoints, if it is given `Checkpointing`.
"""

import json
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from mlc_controlnet.errors import UserError
from mlc_controlnet.train import checkpoints
from mlc_controlnet.train.config import OptimOptions
from mlc_controlnet.train.optimizer import WeightUpdate
from mlc_controlnet.train.randomness import seed_of

GENERATORS = "generators.safetensors"  # in a checkpoint: their states


@dataclass(frozen=True)
class LoopConfig:
    """The settings of one stage of training.

    Attributes:
        steps: optimizer steps.
        optim: how weights follow from gradients, see `OptimOptions`.
        log_every: steps between lines of progress.
    """

    steps: int
    optim: OptimOptions
    log_every: int = 100


class Stopped(Exception):
    """The run was asked to stop; its step is saved."""


@dataclass(frozen=True)
class Checkpointing:
    """How a stage survives a kill.

    Before every step torch's random numbers are seeded from `seed`, the stage and the step; those of `generators` are
    saved with the step instead. So a stage that was killed and resumed ends with the weights of one that never stopped,
    bit for bit on the same number of threads, if `loss_of_step` takes nothing random from elsewhere.

    Attributes:
        folder: where the checkpoints are.
        seed: of each step's random numbers, unless there are generators.
        generators: what `loss_of_step` draws its random numbers from, which go on from those of the step before.
        every_seconds: time between checkpoints: what a kill can lose.
        asked_to_stop: set by another thread or a signal; the stage then saves its step and raises `Stopped`.
        show: draws what the model has learned after a number of steps, with the averaged weights; None: nothing.
        show_every_seconds: time between two calls of `show`.
    """

    folder: Path
    seed: int = 0
    generators: Sequence[torch.Generator] = ()
    every_seconds: float = 180.0
    asked_to_stop: threading.Event = field(default_factory=threading.Event)
    show: Callable[[int], None] | None = None
    show_every_seconds: float = 900.0


def one_cycle(steps: int, learning_rate: float, log_every: int = 100, **optim: Any) -> LoopConfig:
    """Return a stage whose learning rate rises over the first tenth of its steps and then falls to zero.

    Args:
        optim: other options of `OptimOptions`; beta2 is 0.95 and there is no weight decay unless they say so.
    """
    options = {"lr_scheduler": "one_cycle", "lr_warmup_steps": steps // 10, "beta2": 0.95, "weight_decay": 0.0, **optim}
    return LoopConfig(steps, OptimOptions(learning_rate=learning_rate, **options), log_every)


def train(
    name: str,
    parameters: Iterable[torch.nn.Parameter],
    loss_of_step: Callable[[int], torch.Tensor],
    config: LoopConfig,
    log: Callable[[str], None] = print,
    checkpointing: Checkpointing | None = None,
) -> None:
    """Minimize `loss_of_step(step)`, a scalar, over `parameters`. At the end they have the averaged weights.

    Raises:
        FloatingPointError: the loss became NaN or infinite; the message names the step.
        Stopped: `checkpointing.asked_to_stop` was set.
        UserError: the newest checkpoint belongs to another model, or the disk is full.
    """
    update = WeightUpdate(parameters, config.optim, config.steps)
    keeper = None if checkpointing is None else _Keeper(checkpointing, update)
    first = 0 if keeper is None else keeper.resume()
    if first:
        log(f"{name}: resumed after step {first}")
    started, running, counted = time.monotonic(), 0.0, 0
    for step in range(first, config.steps):
        if checkpointing is not None and not checkpointing.generators:
            torch.manual_seed(seed_of(checkpointing.seed, name, step))
        update.set_learning_rate(step)
        loss = loss_of_step(step)
        if not torch.isfinite(loss):
            raise FloatingPointError(f"{name}: the loss is {loss.item()} at step {step}; lower the learning rate")
        loss.backward()
        if config.optim.max_grad_norm:
            torch.nn.utils.clip_grad_norm_(update.weights, config.optim.max_grad_norm)
        update.apply(step)
        running, counted = running + loss.item(), counted + 1
        if (step + 1) % config.log_every == 0:
            pace = (time.monotonic() - started) / (step + 1 - first)
            left = pace * (config.steps - step - 1)
            log(
                f"{name}: step {step + 1}/{config.steps}, loss {running / counted:.4f}, "
                f"{pace * 1e3:.0f} ms/step, {left / 60:.1f} min left"
            )
            running, counted = 0.0, 0
        if keeper is not None:
            keeper.after(step + 1, is_last=step + 1 == config.steps)
    if update.ema is not None:
        update.ema.write_to_weights()


class _Keeper:
    """Saves and restores weights, their average and the optimizer's state."""

    def __init__(self, options: Checkpointing, update: WeightUpdate) -> None:
        self._options, self._update = options, update
        self._saved = self._shown = time.monotonic()

    def resume(self) -> int:
        """Restore the newest checkpoint, and return the number of steps that it has done; 0 if there is none."""
        newest = checkpoints.newest(self._options.folder)
        if newest is None:
            return 0
        stored = load_file(newest / "weights.safetensors")
        ours = self._tensors()
        if {name: t.shape for name, t in stored.items()} != {name: t.shape for name, t in ours.items()}:
            remedy = "start with another folder, or delete the stage's checkpoints"
            raise UserError(str(newest), "weights of another shape", "those of this recipe", remedy)
        for name, tensor in ours.items():
            tensor.copy_(stored[name])
        checkpoints.read_optimizer(newest, self._update.optimizer)
        if self._options.generators:
            states = load_file(newest / GENERATORS)
            for i, generator in enumerate(self._options.generators):
                generator.set_state(states[str(i)])
        steps: int = json.loads((newest / "state.json").read_text(encoding="utf-8"))["steps"]
        return steps

    def after(self, steps: int, is_last: bool) -> None:
        """Save and show what is due after so many steps."""
        now, stops = time.monotonic(), self._options.asked_to_stop.is_set()
        if stops or is_last or now - self._saved >= self._options.every_seconds:
            checkpoints.save(self._options.folder, steps, lambda folder: self._write(folder, steps), limit=2)
            self._saved = time.monotonic()
        if stops and not is_last:
            raise Stopped(f"stopped after step {steps}; the same command goes on from there")
        show = self._options.show
        if show is not None and (is_last or now - self._shown >= self._options.show_every_seconds):
            self._show(show, steps)
            self._shown = time.monotonic()

    def _show(self, show: Callable[[int], None], steps: int) -> None:
        if self._update.ema is None:
            show(steps)
            return
        with self._update.ema.in_place():
            show(steps)

    def _write(self, folder: Path, steps: int) -> None:
        save_file({name: t.contiguous().cpu() for name, t in self._tensors().items()}, folder / "weights.safetensors")
        checkpoints.write_optimizer(folder, self._update.optimizer)
        if self._options.generators:
            states = {str(i): generator.get_state() for i, generator in enumerate(self._options.generators)}
            save_file(states, folder / GENERATORS)
        (folder / "state.json").write_text(json.dumps({"steps": steps}), encoding="utf-8")

    def _tensors(self) -> dict[str, torch.Tensor]:
        """The weights, and their average if there is one, by their place."""
        tensors = {f"weight.{i}": weight.detach() for i, weight in enumerate(self._update.weights)}
        if self._update.ema is not None:
            tensors |= {f"average.{i}": value for i, value in enumerate(self._update.ema.values)}
        return tensors
