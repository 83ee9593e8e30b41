"""DPM-Solver and DPM-Solver++ (arXiv 2206.00927, 2211.01095), multistep and single-step, with their SDEs; DEIS.

Twin: web/src/engine/samplers/dpm_solver.ts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mlc_controlnet.bundle.sampler_description import SamplerOptions
from mlc_controlnet.runtime.samplers.prediction import data_prediction, noise_prediction, signal_and_noise
from mlc_controlnet.runtime.samplers.row import Plan, Row

FEW_STEPS = 15  # diffusers lowers the order of the last steps below this number
DATA_ALGORITHMS = ("dpmsolver++", "sde-dpmsolver++")


@dataclass(frozen=True)
class Weights:
    """The factors of the sample, of the estimates of x0 or noise and of its derivatives, and of fresh noise."""

    sample: float
    d0: float
    d1: float
    d2: float
    noise: float


def multistep_rows(plan: Plan, options: SamplerOptions) -> list[Row]:
    """DPM-Solver(++) multistep of order 1 to 3."""
    rows, count = [], len(plan.timesteps)
    for i in range(plan.begin, count):
        order = min(options.solver_order, i - plan.begin + 1)
        is_short = options.lower_order_final and count < FEW_STEPS
        if i == count - 1 and (options.euler_at_final or is_short or options.final_sigmas_type == "zero"):
            order = 1
        elif i == count - 2 and is_short:
            order = min(order, 2)
        weights = _solver_weights(options, plan.sigmas[i], plan.sigmas[i + 1], order)
        lambdas = [_log_snr(plan.sigmas[i + 1 - k]) for k in range(order + 1)]  # after the step, at its start, before
        outputs = _multistep_outputs(weights, lambdas)
        rows.append(_row(plan, options, i, (weights.sample,), outputs, weights.noise))
    return rows


def singlestep_rows(plan: Plan, options: SamplerOptions) -> list[Row]:
    """DPM-Solver(++) single-step of order 1 to 3: steps of growing order from one sample."""
    rows, orders = [], singlestep_orders(options, len(plan.timesteps))
    for i in range(plan.begin, len(plan.timesteps)):
        order = min(orders[i], i - plan.begin + 1)
        if order == 1:
            start = i
        weights = _solver_weights(options, plan.sigmas[i + 1 - order], plan.sigmas[i + 1], order)
        lambdas = [_log_snr(plan.sigmas[i + 1 - k]) for k in range(order + 1)]
        outputs = _singlestep_outputs(weights, lambdas, options.solver_type)
        samples = (*[0.0] * (i - start), weights.sample)
        rows.append(_row(plan, options, i, samples, outputs, weights.noise))
    return rows


def singlestep_orders(options: SamplerOptions, steps: int) -> list[int]:
    """Return the order of every row; the last ones are lower if the option says so or diffusers must."""
    order = options.solver_order
    is_lowered = options.lower_order_final or steps % order != 0 or options.final_sigmas_type == "zero"
    if order == 1:
        orders = [1] * steps
    elif order == 2:
        orders = [1, 2] * ((steps - 1) // 2) + [1] * (1 + (steps - 1) % 2) if is_lowered else [1, 2] * (steps // 2)
    elif is_lowered:
        ends = {0: [1, 2, 1], 1: [1], 2: [1, 2]}
        orders = [1, 2, 3] * ((steps - len(ends[steps % 3])) // 3) + ends[steps % 3]
    else:
        orders = [1, 2, 3] * (steps // 3)
    if options.final_sigmas_type == "zero":
        orders[-1] = 1
    return orders


def deis_rows(plan: Plan, options: SamplerOptions) -> list[Row]:
    """DEIS: arXiv 2204.13902, exponential multistep with polynomials in log(rho), of order 1 to 3."""
    rows, count = [], len(plan.timesteps)
    for i in range(plan.begin, count):
        order = min(options.solver_order, i - plan.begin + 1)
        if options.lower_order_final and count < FEW_STEPS:
            order = min(order, count - i)
        (alpha_next, sigma_next), (alpha, _) = (signal_and_noise(np.float64(plan.sigmas[k])) for k in (i + 1, i))
        if order == 1:
            h = _log_snr(plan.sigmas[i + 1]) - _log_snr(plan.sigmas[i])
            outputs = [-sigma_next * np.expm1(h)]
        else:
            known = [-_log_snr(plan.sigmas[i - age]) for age in range(order)]
            outputs = [
                alpha_next * _log_rho_integral(known, own, -_log_snr(plan.sigmas[i + 1])) for own in range(order)
            ]
        rows.append(_row(plan, options, i, (alpha_next / alpha,), outputs, 0.0))
    return rows


def _solver_weights(options: SamplerOptions, sigma_start: float, sigma_end: float, order: int) -> Weights:
    """Return the weights of one step (arXiv 2211.01095, eq. 8, 9 and appendix A); order 2 reads `solver_type`."""
    (alpha, sigma), (alpha_s, sigma_s) = (signal_and_noise(np.float64(s)) for s in (sigma_end, sigma_start))
    h = _log_snr(sigma_end) - _log_snr(sigma_start)
    nothing = np.float64(0)
    is_midpoint = order == 2 and options.solver_type == "midpoint"
    if options.algorithm_type == "dpmsolver++":
        e = np.expm1(-h)
        d1 = -0.5 * alpha * e if is_midpoint else alpha * (e / h + 1)
        return Weights(sigma / sigma_s, -alpha * e, d1, -alpha * ((e + h) / h**2 - 0.5), nothing)
    if options.algorithm_type == "dpmsolver":
        e = np.expm1(h)
        d1 = -0.5 * sigma * e if is_midpoint else -sigma * (e / h - 1)
        return Weights(alpha / alpha_s, -sigma * e, d1, -sigma * ((e - h) / h**2 - 0.5), nothing)
    if options.algorithm_type == "sde-dpmsolver++":
        e = -np.expm1(-2 * h)
        d1 = 0.5 * alpha * e if is_midpoint else alpha * (e / (-2 * h) + 1)
        d2 = alpha * ((e - 2 * h) / (2 * h) ** 2 - 0.5)
        return Weights(sigma / sigma_s * np.exp(-h), alpha * e, d1, d2, sigma * e**0.5)
    e = np.expm1(h)
    d1 = -sigma * e if is_midpoint else -2 * sigma * (e / h - 1)
    return Weights(alpha / alpha_s, -2 * sigma * e, d1, np.float64(np.nan), sigma * np.expm1(2 * h) ** 0.5)


def _multistep_outputs(weights: Weights, lambdas: Sequence[float]) -> list[float]:
    """Distribute the weights of the derivatives to the outputs, the newest first."""
    if len(lambdas) == 2:
        return [weights.d0]
    h = lambdas[0] - lambdas[1]
    r0 = (lambdas[1] - lambdas[2]) / h
    if len(lambdas) == 3:
        return [weights.d0 + weights.d1 / r0, -weights.d1 / r0]
    r1 = (lambdas[2] - lambdas[3]) / h
    newer = weights.d1 * (1 + r0 / (r0 + r1)) + weights.d2 / (r0 + r1)  # the weight of (m0 - m1) / r0
    older = -(weights.d1 * r0 + weights.d2) / (r0 + r1)  # the weight of (m1 - m2) / r1
    return [weights.d0 + newer / r0, older / r1 - newer / r0, -older / r1]


def _singlestep_outputs(weights: Weights, lambdas: Sequence[float], solver_type: str) -> list[float]:
    """Distribute the weights of the derivatives to the outputs, the newest first; they are taken at the oldest one."""
    if len(lambdas) == 2:
        return [weights.d0]
    h = lambdas[0] - lambdas[-1]
    r0 = (lambdas[1] - lambdas[-1]) / h
    if len(lambdas) == 3:
        return [weights.d1 / r0, weights.d0 - weights.d1 / r0]
    r1 = (lambdas[2] - lambdas[-1]) / h
    if solver_type == "midpoint":
        newest, middle = weights.d1 / r0, 0.0
    else:
        newest = (2 * weights.d2 - weights.d1 * r1) / (r0 - r1) / r0
        middle = (weights.d1 * r0 - 2 * weights.d2) / (r0 - r1) / r1
    return [newest, middle, weights.d0 - newest - middle]


def _log_rho_integral(log_rhos: Sequence[float], own: int, log_end: np.float64) -> np.float64:
    """Integrate the polynomial in log(rho) that is 1 at `own` and 0 at the other nodes over rho, from node 0."""
    others = [node for k, node in enumerate(log_rhos) if k != own]
    divisor = np.prod([log_rhos[own] - node for node in others])

    def antiderivative(u: float) -> np.float64:  # of (u - a) or (u - a)(u - b) times exp(u)
        if len(others) == 1:
            return np.exp(u) * (u - others[0] - 1)
        return np.exp(u) * ((u - others[0]) * (u - others[1]) - (2 * u - others[0] - others[1]) + 2)

    return (antiderivative(log_end) - antiderivative(log_rhos[0])) / divisor


def _log_snr(sigma: float) -> np.float64:
    """Return lambda = log(alpha / sigma) of the noise level."""
    return -np.log(np.float64(sigma))


def _row(
    plan: Plan,
    options: SamplerOptions,
    i: int,
    samples: Sequence[float],
    outputs: Sequence[float],
    noise: float,
) -> Row:
    alpha, sigma = signal_and_noise(np.float64(plan.sigmas[i]))
    x0 = data_prediction(plan.prediction_type, alpha, sigma)
    keeps_data = options.method != "deis" and options.algorithm_type in DATA_ALGORITHMS
    d = x0 if keeps_data else noise_prediction(plan.prediction_type, alpha, sigma)
    return Row(
        timestep=plan.timesteps[i],
        x0_sample=x0[0],
        x0_output=x0[1],
        output_sample=d[0],
        output_model=d[1],
        next_samples=tuple(samples),
        next_outputs=tuple(outputs),
        next_noises=(noise,) if noise != 0 else (),
        signal_scale=alpha,
        noise_scale=sigma,
    )
