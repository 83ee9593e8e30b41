"""Trains a ControlNet, on one process or many: `python -m mlc_controlnet train --config ...`.

A run writes to its folder `out`: config.yaml, checkpoints/step-.../, image_log/, metrics.jsonl, logs/ for TensorBoard,
and at the end controlnet/, the result in diffusers' layout.
"""

import math
import shlex
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn

from mlc_controlnet.errors import FULL_DISK, UserError
from mlc_controlnet.files import locked
from mlc_controlnet.train import checkpoints, image_log
from mlc_controlnet.train.base import Base, load_base_of, start_controlnet
from mlc_controlnet.train.circles.data_set import generate_circles
from mlc_controlnet.train.config import TrainConfig
from mlc_controlnet.train.controlled_unet import ControlledUNet
from mlc_controlnet.train.data.cache import ConditionCache, open_cache, read_cache
from mlc_controlnet.train.data.loader import Data, open_data
from mlc_controlnet.train.data.rows import RowSet, RowStream
from mlc_controlnet.train.data.samples import BadSamples, Batch, collate
from mlc_controlnet.train.data.shards import ShardStream
from mlc_controlnet.train.metrics import Metrics, Stopwatch, peak_memory_mib
from mlc_controlnet.train.objective import Objective, encode_pictures, encode_prompts
from mlc_controlnet.train.optimizer import WeightUpdate
from mlc_controlnet.train.process import (
    FROZEN_DTYPES,
    ctrl_c_asks,
    disconnect_at_exit,
    set_up_process,
    termination,
)
from mlc_controlnet.train.randomness import seed_of
from mlc_controlnet.train.result import RunState, write_result

BUILT_CHANNELS = 3  # the channels of the control images that a bundle accepts
LEFT_BEHIND = ("checkpoints", "metrics.jsonl", "image_log", "logs")  # not to be mixed with another run's
LOCK_NAME = ".lock"


def train(config: TrainConfig, log: Callable[[str], None] = print) -> Path | None:
    """Start or resume a run. Return the folder of the result, or None if SIGTERM ended the run early.

    Ctrl-C ends it early, too: its step is saved, and then KeyboardInterrupt is raised.

    Raises:
        UserError: there is no data, the base model does not fit, a loss is not finite, the disk is full, or another run
            has the same `out`.
    """
    accelerator = set_up_process(config.trainer)
    try:
        with _alone_in(Path(config.out), accelerator.is_main_process), termination() as asked_to_stop:
            trainer = Trainer(config, accelerator, log)
            result = trainer.run(asked_to_stop)
    except OSError as error:
        if error.errno not in FULL_DISK:
            raise
        remedy = "make room and start again: the run resumes from its newest checkpoint"
        raise UserError(config.out, str(error), "a disk that takes it", remedy) from error
    disconnect_at_exit(accelerator)
    if trainer.is_interrupted:
        raise KeyboardInterrupt
    return result


@contextmanager
def _alone_in(out: Path, is_main_process: bool) -> Iterator[None]:
    """Keep other runs out of the folder of a run: they would delete what this one is writing."""
    if not is_main_process:
        yield
        return
    out.mkdir(parents=True, exist_ok=True)
    with locked(out / LOCK_NAME, wait=False) as is_ours:
        if not is_ours:
            remedy = "wait for it, or choose another with --output"
            raise UserError("out", f"{out}, where another run is training", "a folder for each run", remedy)
        yield


class Trainer:
    """One run, in one of its processes.

    Args:
        base: the base model; None: the one that the configuration names.
    """

    def __init__(
        self, config: TrainConfig, accelerator: Accelerator, log: Callable[[str], None], base: Base | None = None
    ) -> None:
        self.config, self.accelerator, self.log = config, accelerator, log
        self.out = Path(config.out)
        self.checkpoints = self.out / "checkpoints"
        self.metrics = self._open_folder()
        self.data = open_data(config)

        torch.manual_seed(config.trainer.seed)  # the layers that embed the control image start at random
        self.base = load_base_of(config.model) if base is None else base
        controlnet = start_controlnet(self.base, config.model)
        self.model = ControlledUNet(controlnet, self.base.unet, config.model)
        self._place()

        rows, cache = self._open_cache(self.data)
        self.data = replace(self.data, rows=rows)
        self.objective = Objective(self.base, config, accelerator.device, cache)
        self.batch_samples = config.trainer.batch_size * accelerator.num_processes
        self.step_samples = self.batch_samples * config.trainer.gradient_accumulation_steps
        self.steps = self._count_steps()
        self.stream = self.data.stream(config, accelerator.process_index, accelerator.num_processes)

        peak_rate = config.optim.learning_rate * (self.step_samples if config.optim.scale_lr else 1)
        weights = [p for _, p in self.model.trainable()]
        self.update = WeightUpdate(weights, config.optim, self.steps, peak_rate)
        self.state = RunState(self.model, self.update.optimizer, self.update.ema, accelerator.scaler)
        self.wrapped, self.update.optimizer = accelerator.prepare(self.model, self.update.optimizer)
        self.bad = BadSamples(config.data.max_bad_samples)
        self.is_interrupted = False  # whether Ctrl-C ended the run early
        self.step = 0
        self.samples = 0  # taken so far; a run may go on with batches of another size or with other processes

    def _open_folder(self) -> Metrics:
        """Prepare the run's folder, and its data if they are generated. Say what the run is."""
        config, is_main_process = self.config, self.accelerator.is_main_process
        self.out.mkdir(parents=True, exist_ok=True)
        if is_main_process and not config.trainer.resume:
            for name in LEFT_BEHIND:
                aside = checkpoints.set_aside(self.out / name)
                if aside is not None:
                    self.log(f"notice: an earlier run's {name} is now {aside}")
        metrics = Metrics(self.out, is_main_process, config.log.tensorboard, self.log)
        metrics.log(config.to_yaml())
        if config.model.hint_channels != BUILT_CHANNELS:
            channels = config.model.hint_channels
            metrics.log(f"notice: diffusers runs a ControlNet for {channels} channels, a build takes only three")
        if is_main_process:
            if config.data.format == "fill50k" and config.data.generate_circles:
                generate_circles(Path(config.data.path), config.data.generate_circles, config.trainer.seed, self.log)
            (self.out / "config.yaml").write_text(config.to_yaml(), encoding="utf-8")
            checkpoints.clean(self.checkpoints)
        self.accelerator.wait_for_everyone()
        return metrics

    def run(self, asked_to_stop: threading.Event) -> Path | None:
        """Take every step, and save, report and draw when they are due. Return as `train` does."""
        self._resume()
        with ctrl_c_asks(asked_to_stop, self.accelerator.num_processes == 1) as pressed:
            is_over = self._take_steps(asked_to_stop)
        if not is_over:
            self.is_interrupted = pressed.is_set()
            signal_name = "Ctrl-C" if self.is_interrupted else "SIGTERM"
            self.metrics.log(f"stopped by {signal_name} after step {self.step}; start again to resume")
        folder = self._finish() if is_over else None
        self.metrics.close()
        return folder

    def _take_steps(self, asked_to_stop: threading.Event) -> bool:
        """Take every step that is left. Return False if the run was asked to stop before the last one."""
        log, trainer = self.config.log, self.config.trainer
        watch, losses = Stopwatch(), []
        batches = iter(self.stream)
        while self.step < self.steps:
            with watch.step(self.step_samples):
                loss, stop = self.take_step(batches, asked_to_stop)
            losses.append(loss)
            last = stop or self.step == self.steps
            if self.step % log.every == 0 or last:
                self._report(losses, watch)
                losses = []
            if self.step % trainer.checkpoint_every == 0 or last:
                self._save()
            if self.data.held_out and (self.step % log.held_out_every == 0 or last):
                self._report_held_out()
            if log.image_every and (self.step % log.image_every == 0 or self.step == self.steps):
                self._draw()
            if stop and self.step < self.steps:
                return False
        return True

    def take_step(self, batches: Iterator[Batch], asked_to_stop: threading.Event) -> tuple[float, bool]:
        """Take one optimizer step. Return the mean loss over all processes, and whether any was asked to stop."""
        accelerator, config = self.accelerator, self.config
        self.update.set_learning_rate(self.step)
        torch.manual_seed(seed_of(config.trainer.seed, "step", self.step, accelerator.process_index))  # dropout
        accumulate = config.trainer.gradient_accumulation_steps
        total, keys = torch.zeros((), device=accelerator.device), []
        for micro in range(accumulate):
            batch = next(batches)
            self._note_problems(batch)
            keys += batch.keys
            waits = accelerator.no_sync(self.wrapped) if micro < accumulate - 1 else nullcontext()
            with waits:
                loss = self.objective.losses(self.wrapped, batch).mean() / accumulate
                accelerator.backward(loss)
            total += loss.detach()
        finite = torch.isfinite(total)
        news = torch.stack(
            [
                torch.where(finite, total, 0.0),
                1.0 - finite.float(),
                torch.tensor(float(asked_to_stop.is_set()), device=accelerator.device),
                torch.tensor(float(self.bad.too_many), device=accelerator.device),
            ]
        )
        mean_loss, broken, stop, too_bad = accelerator.reduce(news, "sum").tolist()
        if broken:
            self._stop_on_nan("loss", total.item(), keys)
        if too_bad:
            raise self.bad.error(checkpoints.newest(self.checkpoints))
        if config.optim.max_grad_norm:
            norm = float(accelerator.clip_grad_norm_(self.update.weights, config.optim.max_grad_norm))
            if accelerator.scaler is None and not math.isfinite(norm):  # a GradScaler skips such a step itself
                self._stop_on_nan("gradient", norm, keys)  # before it reaches the weights and a checkpoint
        self.update.apply(self.step)
        self.step += 1
        self.samples += self.step_samples
        return mean_loss / accelerator.num_processes, bool(stop)

    def _note_problems(self, batch: Batch) -> None:
        for problem in self.bad.add(batch):
            self.log(f"skipped: {problem} ({len(self.bad.names)} so far)")  # each process names its own samples

    def _stop_on_nan(self, what: str, value: float, keys: list[str]) -> None:
        before = checkpoints.newest(self.checkpoints)
        kept = f"the last checkpoint is {before}" if before else "there is no checkpoint yet"
        raise UserError(
            f"{what} of step {self.step + 1}",
            f"{value} on {', '.join(keys)}"
            if not math.isfinite(value)
            else "a value that is not finite, on another process",
            "a finite number",
            f"look at these samples, lower optim.learning_rate or raise trainer.precision ({kept})",
        )

    def _report(self, losses: list[float], watch: Stopwatch) -> None:
        figures = {
            "loss": float(np.mean(losses)),
            "learning_rate": self.update.optimizer.param_groups[0]["lr"],
            **watch.read(),
            "peak_memory_mib": peak_memory_mib(self.accelerator.device),
            "bad_samples": float(len(self.bad.names)),
        }
        left = figures["seconds_per_step"] * (self.steps - self.step)
        self.metrics.log(
            f"step {self.step}/{self.steps}, loss {figures['loss']:.4f}, rate {figures['learning_rate']:.2e}, "
            f"{figures['samples_per_second']:.2f} samples/s, {figures['seconds_per_step']:.3f} s/step, "
            f"{figures['peak_memory_mib']:.0f} MiB, {left / 60:.1f} min left"
        )
        self.metrics.scalars(self.step, figures)

    @torch.no_grad()
    def held_out_loss(self) -> float:
        """Return the mean loss of the held-out samples, with the same noise and timesteps every time.

        If the run averages its weights, the average is measured.
        """
        size, samples = self.config.trainer.batch_size, self.data.held_out
        batches = [collate(samples[start : start + size]) for start in range(0, len(samples), size)]
        with self._averaged():
            losses = [self.objective.losses(self.model, batch, held_out=True) for batch in batches]
        return float(torch.cat(losses).mean())

    def _report_held_out(self) -> None:
        if self.accelerator.is_main_process:
            loss = self.held_out_loss()
            self.metrics.log(f"step {self.step}/{self.steps}, held-out loss {loss:.4f}")
            self.metrics.scalars(self.step, {"held_out_loss": loss})
        self.accelerator.wait_for_everyone()

    def _draw(self) -> None:
        log = self.config.log
        if self.accelerator.is_main_process and self.data.shown:
            with torch.no_grad(), self._averaged(), self.accelerator.autocast():
                pictures = image_log.generate(
                    self.base,
                    self.model,
                    self.data.shown,
                    log.image_steps,
                    log.guidance_scale,
                    self.config.trainer.seed,
                )
            grid = image_log.draw_grid(self.data.shown, pictures)
            path = self.out / "image_log" / "train" / f"{self.step:08d}.png"
            image_log.write_png(grid, path)
            self.metrics.picture(self.step, "train", np.asarray(grid))
            self.metrics.log(f"step {self.step}/{self.steps}, pictures in {path}")
        self.accelerator.wait_for_everyone()

    def _save(self) -> None:
        places = gather_object([self.stream.state()])
        if self.accelerator.is_main_process:
            path = checkpoints.save(
                self.checkpoints,
                self.step,
                lambda folder: self.state.write(folder, self.step, self.samples, places),
                self.config.trainer.checkpoints_limit,
            )
            self.metrics.log(f"step {self.step}/{self.steps}, checkpoint {path}")
        self.accelerator.wait_for_everyone()

    def _resume(self) -> None:
        checkpoint = checkpoints.newest(self.checkpoints)
        found = gather_object([checkpoint.name if checkpoint else "none"])
        if len(set(found)) > 1:
            remedy = "give every machine the same out, on a disk that they share"
            raise UserError("out", f"newest checkpoints {', '.join(found)}, by process", "the same for all", remedy)
        if checkpoint is None:
            return
        about = self.state.read(checkpoint)
        self.step, self.samples = about["step"], about["samples"]
        if isinstance(self.stream, RowStream):  # its place is the number of samples, for any number of processes
            self.stream.taken = self.samples // self.batch_samples
            if difference := self.stream.difference(about["data"][0]):
                self.metrics.log(f"notice: data.path has {difference}; the run goes on with what is there now")
        elif isinstance(self.stream, ShardStream):
            world = self.accelerator.num_processes
            if len(about["data"]) != world:
                wanted = f"{len(about['data'])}, as before: each process has its own shards"
                raise UserError("processes", str(world), wanted, "start as many, or set trainer.resume to false")
            self.stream.restore(about["data"][self.accelerator.process_index])
        self.metrics.log(f"resuming from {checkpoint}")

    def _finish(self) -> Path:
        folder = self.out / "controlnet"
        if self.accelerator.is_main_process:
            with self._averaged():
                write_result(self.out, self.base, self.model, not self.config.model.sd_locked)
            base = self.config.model.base if self.config.model.sd_locked else self.out / "model"
            command = shlex.join(["build", "--target", "webgpu", "--model", str(base), "--controlnet", str(folder)])
            self.metrics.log(f"{folder}: build it with python -m mlc_controlnet {command}")
        self.accelerator.wait_for_everyone()
        return folder

    def _averaged(self) -> AbstractContextManager[None]:
        return nullcontext() if self.update.ema is None else self.update.ema.in_place()

    def _place(self) -> None:
        """Move the parts to the device. Frozen parts get the run's precision."""
        device, dtype = self.accelerator.device, FROZEN_DTYPES[self.config.trainer.precision]
        for part in (self.base.text_encoder, self.base.vae):
            nn.Module.to(part, device, dtype)
        nn.Module.to(self.base.unet, device, dtype if self.config.model.sd_locked else torch.float32)
        nn.Module.to(self.model.controlnet, device)
        if self.config.model.channels_last or device.type == "cpu":  # the VAE is faster there in this order
            nn.Module.to(self.base.vae, memory_format=torch.channels_last)

    def _open_cache(self, data: Data) -> tuple[RowSet | None, ConditionCache | None]:
        """Return the rows to train on and the cache, which the first process computes for all."""
        if self.config.data.cache is None or data.rows is None:
            return data.rows, None
        folder, device = Path(self.config.data.cache), self.accelerator.device
        if self.accelerator.is_main_process:
            with torch.no_grad():
                open_cache(
                    folder,
                    data.rows,
                    (self.base.vae, self.base.text_encoder),
                    lambda pixels: encode_pictures(self.base, pixels.to(device)),
                    lambda prompts: encode_prompts(self.base, prompts, device),
                    self.config.data.workers,
                    self.metrics.log,
                )
        self.accelerator.wait_for_everyone()
        cache = read_cache(folder)
        return RowSet(data.rows.directory, data.rows.rows, data.rows.options, cache.problems), cache

    def _count_steps(self) -> int:
        if self.config.trainer.max_steps is not None:
            return self.config.trainer.max_steps
        assert self.data.rows is not None and self.config.trainer.epochs is not None
        return math.ceil(self.config.trainer.epochs * len(self.data.rows) / self.step_samples)
