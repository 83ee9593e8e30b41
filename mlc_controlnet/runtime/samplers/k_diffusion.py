"""Samplers of k-diffusion, whose sample is x0 + sigma * noise: Euler, Heun, LMS, DPM2, their ancestral kin, DPM++ SDE.

The equation is dx / dsigma = (x - x0) / sigma (arXiv 2206.00364, eq. 4). Twin: web/src/engine/samplers/k_diffusion.ts.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mlc_controlnet.bundle.sampler_description import SamplerOptions
from mlc_controlnet.runtime.samplers.prediction import Pair, denoised, derivative, weighted
from mlc_controlnet.runtime.samplers.row import Plan, Row
from mlc_controlnet.runtime.samplers.spacing import timestep_of

LMS_ORDER = 4
_X: Pair = (1.0, 0.0)


def euler_rows(plan: Plan, options: SamplerOptions) -> list[Row]:
    """Euler: arXiv 2206.00364, algorithm 2 without churn."""
    rows = []
    for i in range(plan.begin, len(plan.timesteps)):
        sigma, sigma_next = _sigma(plan, i), _sigma(plan, i + 1)
        x_next = weighted((1.0, _X), (sigma_next - sigma, derivative(plan.prediction_type, sigma)))
        rows.append(_row(plan, plan.timesteps[i], sigma, sigma, (x_next[0],), (x_next[1],)))
    return rows


def euler_ancestral_rows(plan: Plan, options: SamplerOptions) -> list[Row]:
    """Euler ancestral: a step to a lower noise level, and fresh noise."""
    rows = []
    for i in range(plan.begin, len(plan.timesteps)):
        sigma = _sigma(plan, i)
        down, up = _ancestral(sigma, _sigma(plan, i + 1))
        x_next = weighted((1.0, _X), (down - sigma, derivative(plan.prediction_type, sigma)))
        rows.append(_row(plan, plan.timesteps[i], sigma, sigma, (x_next[0],), (x_next[1],), _noise(up)))
    return rows


def lms_rows(plan: Plan, options: SamplerOptions) -> list[Row]:
    """Linear multistep of order 4. As in diffusers, a picture that starts later lacks the first rows' derivatives."""
    rows = []
    for i in range(plan.begin, len(plan.timesteps)):
        sigma, order = _sigma(plan, i), min(i + 1, LMS_ORDER)
        known = [_sigma(plan, i - age) for age in range(order)]
        weights = [_lagrange_integral(known, age, sigma, _sigma(plan, i + 1)) for age in range(order)]
        d = derivative(plan.prediction_type, sigma)
        weights = weights[: i + 1 - plan.begin]
        rows.append(_row(plan, plan.timesteps[i], sigma, sigma, (1.0,), weights, output=d))
    return rows


def heun_rows(plan: Plan, options: SamplerOptions) -> list[Row]:
    """Heun: an Euler step, then again with the mean of the derivatives at its ends (arXiv 2206.00364, algorithm 1)."""
    rows = []
    for i in range(plan.begin, len(plan.timesteps)):
        sigma, sigma_next = _sigma(plan, i), _sigma(plan, i + 1)
        d, dt = derivative(plan.prediction_type, sigma), sigma_next - sigma
        rows.append(_row(plan, plan.timesteps[i], sigma, sigma, (1.0,), (dt,), output=d))
        if i + 1 < len(plan.timesteps):
            d = derivative(plan.prediction_type, sigma_next)
            second = _row(plan, plan.timesteps[i + 1], sigma_next, sigma_next, (0.0, 1.0), (dt / 2, dt / 2), output=d)
            rows.append(second)
    return rows


def dpm2_rows(plan: Plan, options: SamplerOptions) -> list[Row]:
    """DPM-Solver-2: the midpoint method in log(sigma) (arXiv 2206.00927, algorithm 1)."""
    rows = []
    for i in range(plan.begin, len(plan.timesteps)):
        sigma, sigma_next = _sigma(plan, i), _sigma(plan, i + 1)
        rows += _midpoint_rows(plan, i, (sigma * sigma_next) ** 0.5, sigma_next, 0.0)
    return rows


def dpm2_ancestral_rows(plan: Plan, options: SamplerOptions) -> list[Row]:
    """DPM-Solver-2 with ancestral noise."""
    rows = []
    for i in range(plan.begin, len(plan.timesteps)):
        sigma = _sigma(plan, i)
        down, up = _ancestral(sigma, _sigma(plan, i + 1))
        is_last = i + 1 == len(plan.timesteps)
        rows += _midpoint_rows(plan, i, np.float64(0) if is_last else (sigma * down) ** 0.5, down, up)
    return rows


def dpmpp_sde_rows(plan: Plan, options: SamplerOptions) -> list[Row]:
    """DPM-Solver++ SDE: two ancestral steps, to the midpoint and from the start again with the midpoint's x0.

    diffusers draws both noises as increments of one Brownian motion over sigma. The second one contains the first.
    """
    rows = []
    for i in range(plan.begin, len(plan.timesteps)):
        sigma, sigma_next = _sigma(plan, i), _sigma(plan, i + 1)
        timestep, x0 = plan.timesteps[i], denoised(plan.prediction_type, sigma)
        if sigma_next == 0:
            rows.append(_row(plan, timestep, sigma, sigma, (0.0,), (1.0,), output=x0))
            continue
        middle = (sigma * sigma_next) ** 0.5
        down, up = _ancestral(sigma, middle)
        rows.append(_row(plan, timestep, sigma, sigma, (down / sigma,), (1 - down / sigma,), _noise(up), output=x0))
        timestep, x0 = timestep_of(middle, plan.schedule.log_sigmas), denoised(plan.prediction_type, middle)
        down, up = _ancestral(sigma, sigma_next)
        share = (middle - sigma_next) / (sigma - sigma_next)  # of the second half in the Brownian motion's variance
        samples, noises = (0.0, down / sigma), (up * share**0.5, up * (1 - share) ** 0.5)
        second = _row(plan, timestep, middle, sigma_next, samples, (1 - down / sigma,), noises, output=x0)
        rows.append(second)
    return rows


def _midpoint_rows(plan: Plan, i: int, middle: np.float64, target: np.float64, up: float) -> list[Row]:
    """Step to the noise level `middle`, then from the start to `target` with the derivative there."""
    sigma, d = _sigma(plan, i), derivative(plan.prediction_type, _sigma(plan, i))
    first = _row(plan, plan.timesteps[i], sigma, sigma, (1.0,), (middle - sigma,), output=d)
    if i + 1 == len(plan.timesteps):
        return [first]
    timestep, d = timestep_of(middle, plan.schedule.log_sigmas), derivative(plan.prediction_type, middle)
    noised_as = _sigma(plan, i + 1)
    samples, outputs = (0.0, 1.0), (target - sigma,)
    return [first, _row(plan, timestep, middle, noised_as, samples, outputs, _noise(up), output=d)]


def _sigma(plan: Plan, i: int) -> np.float64:
    return np.float64(plan.sigmas[i])


def _ancestral(sigma: np.float64, sigma_next: np.float64) -> tuple[np.float64, np.float64]:
    """Return the lower noise level that the deterministic part goes to, and the noise that restores `sigma_next`."""
    return sigma_next**2 / sigma, sigma_next * (1 - (sigma_next / sigma) ** 2) ** 0.5


def _noise(weight: float) -> tuple[float, ...]:
    return (weight,) if weight != 0 else ()


def _lagrange_integral(nodes: Sequence[np.float64], own: int, begin: np.float64, end: np.float64) -> np.float64:
    """Integrate the polynomial that is 1 at node `own` and 0 at the others, exactly up to degree 3 (Gauss-Legendre)."""
    center, half = (begin + end) / 2, (end - begin) / 2
    total = np.float64(0)
    for point in (center - half / 3**0.5, center + half / 3**0.5):
        value = np.float64(1)
        for k, node in enumerate(nodes):
            if k != own:
                value *= (point - node) / (nodes[own] - node)
        total += half * value
    return total


def _row(
    plan: Plan,
    timestep: float,
    sigma: np.float64,
    noised_as: np.float64,
    samples: Sequence[float],
    outputs: Sequence[float],
    noises: Sequence[float] = (),
    output: Any = (0.0, 1.0),
) -> Row:
    """Make a row whose model input has the noise level `sigma`; `noised_as` is diffusers' level in `add_noise`."""
    x0 = denoised(plan.prediction_type, sigma)
    return Row(
        timestep=timestep,
        input_scale=1 / (sigma**2 + 1) ** 0.5,
        x0_sample=x0[0],
        x0_output=x0[1],
        output_sample=output[0],
        output_model=output[1],
        next_samples=tuple(samples),
        next_outputs=tuple(outputs),
        next_noises=tuple(noises),
        signal_scale=1.0,
        noise_scale=noised_as,
    )
