"""The loop that every stage shares: AdamW, a one-cycle learning rate, one line of progress every `log_every` steps."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class LoopConfig:
    """How one stage trains: steps, learning rate, averaging."""

    steps: int
    max_lr: float
    beta2: float = 0.95
    weight_decay: float = 0.0
    warmup_share: float = 0.1  # of all steps
    max_grad_norm: float = 1.0
    ema_decay: float = 0.0  # 0: keep the last weights
    log_every: int = 100  # steps


def train(
    name: str,
    parameters: Iterable[torch.nn.Parameter],
    loss_of_step: Callable[[int], torch.Tensor],
    config: LoopConfig,
    log: Callable[[str], None] = print,
) -> None:
    """Minimise `loss_of_step(step)` (a scalar) over `parameters`; they hold the averaged weights at the end.

    Raises:
        FloatingPointError: the loss became NaN or infinite, with the step's number.
    """
    weights = list(parameters)
    optimizer = torch.optim.AdamW(
        weights, lr=config.max_lr, betas=(0.9, config.beta2), weight_decay=config.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=config.max_lr,
        total_steps=config.steps,
        pct_start=max(config.warmup_share, 2 / config.steps),  # a warm-up of a single step divides by zero
        cycle_momentum=False,
    )
    averaged = [w.detach().clone() for w in weights] if config.ema_decay else None
    started, running = time.monotonic(), 0.0
    for step in range(config.steps):
        loss = loss_of_step(step)
        if not torch.isfinite(loss):
            raise FloatingPointError(f"{name}: the loss is {loss.item()} at step {step}; lower the learning rate")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, config.max_grad_norm)
        optimizer.step()
        schedule.step()
        if averaged is not None:
            # The average must not remember the random start, so its horizon grows with the steps taken.
            decay = min(config.ema_decay, (1 + step) / (10 + step))
            torch._foreach_lerp_(averaged, [w.detach() for w in weights], 1 - decay)
        running += loss.item()
        if (step + 1) % config.log_every == 0:
            elapsed = time.monotonic() - started
            left = elapsed / (step + 1) * (config.steps - step - 1)
            log(
                f"{name}: step {step + 1}/{config.steps}, loss {running / config.log_every:.4f}, "
                f"{elapsed / (step + 1) * 1e3:.0f} ms a step, {left / 60:.1f} min left"
            )
            running = 0.0
    if averaged is not None:
        with torch.no_grad():
            torch._foreach_copy_(weights, averaged)
