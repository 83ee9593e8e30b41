"""The loop of the three stages that train the bundled model.

`trainer.Trainer` trains a ControlNet on data from files, on any number of processes, and can be stopped and resumed. A
stage here minimizes any loss on one process in minutes: the autoencoder and the text-to-image model have objectives of
their own, and their data fits into memory. Both turn gradients into weights by the same `WeightUpdate`.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch

from mlc_controlnet.train.config import OptimOptions
from mlc_controlnet.train.optimizer import WeightUpdate


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
) -> None:
    """Minimize `loss_of_step(step)`, a scalar, over `parameters`. At the end they have the averaged weights.

    Raises:
        FloatingPointError: the loss became NaN or infinite; the message names the step.
    """
    update = WeightUpdate(parameters, config.optim, config.steps)
    started, running = time.monotonic(), 0.0
    for step in range(config.steps):
        update.set_learning_rate(step)
        loss = loss_of_step(step)
        if not torch.isfinite(loss):
            raise FloatingPointError(f"{name}: the loss is {loss.item()} at step {step}; lower the learning rate")
        loss.backward()
        if config.optim.max_grad_norm:
            torch.nn.utils.clip_grad_norm_(update.weights, config.optim.max_grad_norm)
        update.apply(step)
        running += loss.item()
        if (step + 1) % config.log_every == 0:
            elapsed = time.monotonic() - started
            left = elapsed / (step + 1) * (config.steps - step - 1)
            log(
                f"{name}: step {step + 1}/{config.steps}, loss {running / config.log_every:.4f}, "
                f"{elapsed / (step + 1) * 1e3:.0f} ms/step, {left / 60:.1f} min left"
            )
            running = 0.0
    if update.ema is not None:
        update.ema.write_to_weights()
