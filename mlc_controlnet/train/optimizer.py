"""AdamW and the learning rate's course."""

from collections.abc import Callable, Sequence

import torch
from diffusers.optimization import get_scheduler

from mlc_controlnet.errors import UserError
from mlc_controlnet.train.config import OptimOptions


def make_optimizer(weights: Sequence[torch.nn.Parameter], options: OptimOptions) -> torch.optim.Optimizer:
    """AdamW, one fused kernel where the device has it, or bitsandbytes' with 8-bit state.

    Raises UserError where 8 bits are asked for and bitsandbytes is not installed.
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


def learning_rate_factor(options: OptimOptions, peak_rate: float, steps: int) -> Callable[[int], float]:
    """Step (from 0) -> share of the learning rate: diffusers' schedules as functions, so that none has a state."""
    probe = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=peak_rate)
    schedule = get_scheduler(
        options.lr_scheduler,
        probe,
        num_warmup_steps=options.lr_warmup_steps,
        num_training_steps=steps,
        num_cycles=options.lr_num_cycles,
        power=options.lr_power,
    )
    factor: Callable[[int], float] = schedule.lr_lambdas[0]
    return factor
