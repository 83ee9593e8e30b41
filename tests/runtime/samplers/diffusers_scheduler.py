"""diffusers' schedulers with injected noise and float64 coefficients, to compare rows with."""

import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

STABLE_DIFFUSION = {
    "_class_name": "DDIMScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "clip_sample": False,
    "steps_offset": 1,
}
# What a schedule type is for diffusers.
SIGMA_OPTIONS = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas")


def spacing_options(schedule_type: str) -> dict[str, Any]:
    flags = {option: option == f"use_{schedule_type}_sigmas" for option in SIGMA_OPTIONS}
    return flags if any(flags.values()) else {**flags, "timestep_spacing": schedule_type}


def set_timesteps(scheduler: Any, monkeypatch: Any, **options: Any) -> None:
    """Call set_timesteps, and let the scheduler compute in float64 with the float32 numbers that it has.

    Otherwise the comparison would measure how float32 cancels in diffusers' formulas.
    """
    from_numpy = torch.from_numpy

    def wide(array: np.ndarray) -> torch.Tensor:
        tensor = from_numpy(array)
        return tensor.double() if tensor.is_floating_point() else tensor

    with monkeypatch.context() as patch:
        patch.setattr(torch, "from_numpy", wide)
        scheduler.set_timesteps(**options)
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()


def steps_of(
    scheduler: Any, begin: int, draw: Callable[[int, str], np.ndarray], monkeypatch: Any, eta: float = 0.0
) -> Iterator[tuple[int, Any, np.ndarray, np.ndarray, np.ndarray]]:
    """Run the rows from `begin`: yields the row, its timestep, the sample, the model output and the next sample."""
    module = sys.modules[type(scheduler).__module__]
    row = begin
    if hasattr(module, "randn_tensor"):
        monkeypatch.setattr(
            module, "randn_tensor", lambda *args, **kwargs: torch.from_numpy(draw(row, "noise")).double()
        )
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(begin)
    options = {"eta": eta} if "eta" in scheduler.step.__code__.co_varnames else {}
    x = draw(begin, "x")
    for row in range(begin, len(scheduler.timesteps)):
        timestep = scheduler.timesteps[row]
        m = draw(row, "m")
        x64 = torch.from_numpy(x.astype(np.float64))
        scaled = scheduler.scale_model_input(x64, timestep).numpy()
        result = scheduler.step(torch.from_numpy(m.astype(np.float64)), timestep, x64, **options)
        following = result.prev_sample.double().numpy()
        yield row, timestep, x, scaled, m, following
        x = following.astype(np.float32)
