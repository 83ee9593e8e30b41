"""Turns gradients into weights: AdamW, the schedule of its learning rate, and the average of the weights.

Every training of this project goes through `WeightUpdate`: the run of `trainer.py` and the stages of `circles/`.
"""

from collections.abc import Callable, Iterable, Sequence

import torch
from diffusers.optimization import get_scheduler

from mlc_controlnet.errors import UserError
from mlc_controlnet.train.config import OptimOptions
from mlc_controlnet.train.ema import EMA


class WeightUpdate:
    """The effect of a step on the gradients and the weights.

    A step is `set_learning_rate`, then a backward pass, then `apply`. What depends on the run is between them:
    accumulation, gradients of other processes, clipping.

    Args:
        steps: optimizer steps of the whole run, which the learning rate's schedule ends with.
        peak_rate: the learning rate at the schedule's top; None: the one in `options`.

    Attributes:
        weights: the trained parameters.
        optimizer: may be replaced by a wrapper of it, such as accelerate's.
        ema: the average of the weights; None if `options.ema_decay` is 0.

    Raises:
        UserError: 8-bit AdamW is asked for and bitsandbytes is not installed.
    """

    def __init__(
        self,
        weights: Iterable[torch.nn.Parameter],
        options: OptimOptions,
        steps: int,
        peak_rate: float | None = None,
    ) -> None:
        self.weights = list(weights)
        self.optimizer = make_optimizer(self.weights, options)
        self.ema = EMA(self.weights, options.ema_decay) if options.ema_decay else None
        self._rate = learning_rate(options, options.learning_rate if peak_rate is None else peak_rate, steps)

    def set_learning_rate(self, step: int) -> None:
        """Set the learning rate of step number `step` (from 0)."""
        rate = self._rate(step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def apply(self, step: int) -> None:
        """Change the weights by their gradients, clear the gradients, and update the average."""
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.ema is not None:
            self.ema.update(step)


def make_optimizer(weights: Sequence[torch.nn.Parameter], options: OptimOptions) -> torch.optim.Optimizer:
    """Make AdamW, as one fused kernel if the device has it, or bitsandbytes' AdamW with 8-bit state.

    Raises:
        UserError: 8 bits are asked for and bitsandbytes is not installed.
    """
    settings = {
        "lr": options.learning_rate,
        "betas": (options.beta1, options.beta2),
        "eps": options.epsilon,
        "weight_decay": options.weight_decay,
    }
    if options.use_8bit_adam:
        try:
            import bitsandbytes
        except ImportError as error:
            remedy = "pip install bitsandbytes, or set optim.use_8bit_adam to false"
            raise UserError("optim.use_8bit_adam", "no bitsandbytes", "the package", remedy) from error
        return bitsandbytes.optim.AdamW8bit(weights, **settings)
    return torch.optim.AdamW(weights, fused=weights[0].device.type in ("cpu", "cuda"), **settings)


def learning_rate(options: OptimOptions, peak_rate: float, steps: int) -> Callable[[int], float]:
    """Return the schedule as a function of the step (from 0), so that no schedule has a state to save.

    The schedules are diffusers', and torch's `OneCycleLR`. `steps` is the number of steps of the whole run.
    """
    probe = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=peak_rate)
    if options.lr_scheduler == "one_cycle":
        return _one_cycle(probe, options, peak_rate, steps)
    schedule = get_scheduler(
        options.lr_scheduler,
        probe,
        num_warmup_steps=options.lr_warmup_steps,
        num_training_steps=steps,
        num_cycles=options.lr_num_cycles,
        power=options.lr_power,
    )
    factor: Callable[[int], float] = schedule.lr_lambdas[0]
    return lambda step: peak_rate * factor(step)


def _one_cycle(
    probe: torch.optim.Optimizer, options: OptimOptions, peak_rate: float, steps: int
) -> Callable[[int], float]:
    total = max(steps, 3)
    warmup = min(max(options.lr_warmup_steps, 2), total - 1)  # with a warm-up of one step, OneCycleLR divides by zero
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        probe, max_lr=peak_rate, total_steps=total, pct_start=warmup / total, cycle_momentum=False
    )
    rates = []
    for _ in range(total):
        rates.append(schedule.get_last_lr()[0])
        probe.step()
        if len(rates) < total:
            schedule.step()
    return rates.__getitem__
