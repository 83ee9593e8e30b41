"""Samplers that look the noise level up by whole timesteps: DDIM, DDPM, LCM and TCD.

Twin: web/src/engine/samplers/discrete.ts.
"""

from collections.abc import Callable

import numpy as np

from mlc_controlnet.bundle.sampler_description import SamplerOptions
from mlc_controlnet.runtime.samplers.prediction import Pair, data_prediction, noise_prediction, weighted
from mlc_controlnet.runtime.samplers.row import Plan, Row

SIGMA_DATA = 0.5  # of the boundary condition of a consistency model (arXiv 2303.01469, appendix C)
SMALLEST_VARIANCE = 1e-20


def ddim_rows(plan: Plan, options: SamplerOptions) -> list[Row]:
    """DDIM: arXiv 2010.02502, eq. 12 and 16, with eta."""
    stride = len(plan.schedule.alphas_cumprod) // plan.steps

    def following(i: int, x0: Pair, eps: Pair) -> tuple[Pair, float]:
        a = signal_share(plan, plan.timesteps[i], options)
        a_next = signal_share(plan, plan.timesteps[i] - stride, options)
        deviation = plan.eta * ((1 - a_next) / (1 - a) * (1 - a / a_next)) ** 0.5
        return weighted((a_next**0.5, x0), ((1 - a_next - deviation**2) ** 0.5, eps)), deviation

    return _rows(plan, options, following)


def ddpm_rows(plan: Plan, options: SamplerOptions) -> list[Row]:
    """DDPM: arXiv 2006.11239, eq. 7, with the variances of section 3.2."""

    def following(i: int, x0: Pair, eps: Pair) -> tuple[Pair, float]:
        a = signal_share(plan, plan.timesteps[i], options)
        is_last = i + 1 == len(plan.timesteps)
        a_next = np.float64(1) if is_last else signal_share(plan, plan.timesteps[i + 1], options)
        alpha, beta = a / a_next, 1 - a / a_next
        x_next = weighted((a_next**0.5 * beta / (1 - a), x0), (alpha**0.5 * (1 - a_next) / (1 - a), (1.0, 0.0)))
        if plan.timesteps[i] == 0:
            return x_next, 0.0
        return x_next, _deviation(options.variance_type, (1 - a_next) / (1 - a) * beta, beta)

    return _rows(plan, options, following)


def lcm_rows(plan: Plan, options: SamplerOptions) -> list[Row]:
    """LCM: arXiv 2310.04378, multistep consistency sampling."""
    rows = []
    for i in range(plan.begin, len(plan.timesteps)):
        timestep = plan.timesteps[i]
        a = signal_share(plan, timestep, options)
        scaled = timestep * options.timestep_scaling
        skip = SIGMA_DATA**2 / (scaled**2 + SIGMA_DATA**2)
        out = scaled / (scaled**2 + SIGMA_DATA**2) ** 0.5
        x0 = data_prediction(plan.prediction_type, a**0.5, (1 - a) ** 0.5)
        consistent = weighted((out, x0), (skip, (1.0, 0.0)))
        x_next, noise = consistent, 0.0
        if i != plan.steps - 1:
            a_next = signal_share(plan, plan.timesteps[min(i + 1, len(plan.timesteps) - 1)], options)
            x_next, noise = weighted((a_next**0.5, consistent)), (1 - a_next) ** 0.5
        rows.append(_row(timestep, a, consistent, x_next, noise))
    return rows


def tcd_rows(plan: Plan, options: SamplerOptions) -> list[Row]:
    """TCD: arXiv 2402.19159, algorithm 4; its gamma is eta here, as in diffusers."""

    def following(i: int, x0: Pair, eps: Pair) -> tuple[Pair, float]:
        is_last = i + 1 == len(plan.timesteps)
        next_timestep = 0.0 if is_last else plan.timesteps[i + 1]
        a_next = signal_share(plan, next_timestep, options)
        # In float32, as diffusers does: 0.7 * 10 is 7 there.
        s = np.floor(np.float32(1 - plan.eta) * np.float32(next_timestep))
        a_s = signal_share(plan, s, options)
        at_s = weighted((a_s**0.5, x0), ((1 - a_s) ** 0.5, eps))
        if plan.eta == 0 or i == plan.steps - 1:
            return at_s, 0.0
        return weighted(((a_next / a_s) ** 0.5, at_s)), (1 - a_next / a_s) ** 0.5

    return _rows(plan, options, following)


def signal_share(plan: Plan, timestep: float, options: SamplerOptions) -> np.float64:
    """Return alphas_cumprod at a timestep; before timestep 0, what is left after the last step; NaN after the end."""
    if timestep < 0:
        return np.float64(options.final_alpha_cumprod)
    if timestep >= len(plan.schedule.alphas_cumprod):
        return np.float64(np.nan)
    return np.float64(plan.schedule.alphas_cumprod[int(timestep)])


def _rows(plan: Plan, options: SamplerOptions, following: Callable[[int, Pair, Pair], tuple[Pair, float]]) -> list[Row]:
    """Make rows of a sampler without memory; `following` returns the next sample and the weight of the noise."""
    rows = []
    for i in range(plan.begin, len(plan.timesteps)):
        a = signal_share(plan, plan.timesteps[i], options)
        x0 = data_prediction(plan.prediction_type, a**0.5, (1 - a) ** 0.5)
        eps = noise_prediction(plan.prediction_type, a**0.5, (1 - a) ** 0.5)
        rows.append(_row(plan.timesteps[i], a, x0, *following(i, x0, eps)))
    return rows


def _row(timestep: float, a: np.float64, x0: Pair, x_next: Pair, noise: float) -> Row:
    return Row(
        timestep=timestep,
        x0_sample=x0[0],
        x0_output=x0[1],
        next_samples=(x_next[0],),
        next_outputs=(x_next[1],),
        next_noises=(noise,) if noise != 0 else (),
        signal_scale=a**0.5,
        noise_scale=(1 - a) ** 0.5,
    )


def _deviation(variance_type: str, small: float, large: float) -> float:
    """Return the standard deviation of DDPM's noise from its smallest and its largest variance."""
    if variance_type == "fixed_large":
        return large**0.5
    if variance_type == "fixed_large_log":
        return np.log(large) ** 0.5  # not a number, as in diffusers
    return np.float64(max(small, SMALLEST_VARIANCE)) ** 0.5
