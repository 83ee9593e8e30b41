"""The timesteps and noise levels of a number of steps, with diffusers' rounding.

Noise levels are sigma = sqrt((1 - a) / a), a from alphas_cumprod. Twin: web/src/engine/samplers/spacing.ts.
"""

import math

import numpy as np

from mlc_controlnet.bundle.sampler_description import SamplerOptions, TrainingSchedule
from mlc_controlnet.runtime.samplers.beta_quantile import beta_quantile

KARRAS_RHO = 7.0  # arXiv 2206.00364, eq. 5
SMALLEST_SIGMA = 1e-10
TIMESTEP_SPACINGS = ("leading", "linspace", "trailing")
SIGMA_SPACINGS = ("karras", "exponential", "beta")


def model_sigmas(schedule: TrainingSchedule) -> np.ndarray:
    """Return the noise level of every timestep: float32 [N], each operation rounded to float32 as in torch."""
    alphas_cumprod = schedule.alphas_cumprod
    return np.sqrt((np.float32(1) - alphas_cumprod) / alphas_cumprod)


def whole_timesteps(spacing: str, offset: int, train_steps: int, steps: int) -> np.ndarray:
    """Return `steps` whole timesteps, descending: DDIM's and its relatives' set_timesteps."""
    if spacing == "linspace":
        return np.linspace(0, train_steps - 1, steps).round()[::-1]
    return _leading_or_trailing(spacing, offset, train_steps, steps)


def fractional_timesteps(spacing: str, offset: int, train_steps: int, steps: int) -> np.ndarray:
    """Return `steps` timesteps, descending, not rounded if they are equidistant: k-diffusion's samplers."""
    if spacing == "linspace":
        return np.linspace(0, train_steps - 1, steps).astype(np.float32)[::-1].astype(np.float64)
    return _leading_or_trailing(spacing, offset, train_steps, steps)


def solver_timesteps(spacing: str, offset: int, train_steps: int, steps: int, last_timestep: int) -> np.ndarray:
    """Return `steps` whole timesteps, descending, as DPM-Solver, UniPC and DEIS choose them: they leave 0 out."""
    if spacing == "linspace":
        return np.linspace(0, last_timestep - 1, steps + 1).round()[::-1][:-1]
    if spacing == "leading":
        ratio = last_timestep // (steps + 1)
        return (np.arange(steps + 1) * float(ratio))[::-1][:-1] + offset
    return np.arange(last_timestep, 0, -train_steps / steps).round() - 1


def consistency_timesteps(original_steps: int, train_steps: int, steps: int) -> np.ndarray:
    """Return `steps` of the timesteps that a consistency model was distilled on (LCM and TCD)."""
    ratio = train_steps // original_steps
    original = np.arange(original_steps, 0, -1) * float(ratio) - 1
    return original[np.floor(np.linspace(0, original_steps, steps, endpoint=False)).astype(np.int64)]


def spaced_sigmas(options: SamplerOptions, first: float, last: float, steps: int) -> np.ndarray:
    """Return `steps` noise levels from `first` down to `last`, or between the levels that the options set."""
    largest, smallest = options.sigma_max or first, options.sigma_min or last
    if options.sigma_spacing == "karras" and options.method in ("lms", "dpmpp_sde"):  # these two do not read them
        largest, smallest = first, last
    if options.sigma_spacing == "karras":
        begin, end = largest ** (1 / KARRAS_RHO), smallest ** (1 / KARRAS_RHO)
        return (begin + np.linspace(0, 1, steps) * (end - begin)) ** KARRAS_RHO
    if options.sigma_spacing == "beta":  # arXiv 2407.12173
        return np.array([smallest + beta_quantile(p) * (largest - smallest) for p in 1 - np.linspace(0, 1, steps)])
    return np.exp(np.linspace(math.log(largest), math.log(smallest), steps))


def timestep_of(sigma: float, log_sigmas: np.ndarray) -> float:
    """Return the timestep with the noise level `sigma`: linear in its logarithm between whole timesteps."""
    log_sigma = np.log(max(float(sigma), SMALLEST_SIGMA))
    low = int(np.clip(np.searchsorted(log_sigmas, log_sigma, side="right") - 1, 0, len(log_sigmas) - 2))
    start, end = float(log_sigmas[low]), float(log_sigmas[low + 1])
    weight = min(max((start - log_sigma) / (start - end), 0.0), 1.0)
    return float((1 - weight) * low + weight * (low + 1))


def _leading_or_trailing(spacing: str, offset: int, train_steps: int, steps: int) -> np.ndarray:
    if spacing == "leading":
        return (np.arange(steps) * float(train_steps // steps))[::-1] + offset
    return np.arange(train_steps, 0, -train_steps / steps).round() - 1
