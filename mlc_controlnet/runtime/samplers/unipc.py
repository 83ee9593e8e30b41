"""UniPC: arXiv 2302.04867, a multistep predictor and a corrector that uses the next step's model output.

Twin: web/src/engine/samplers/unipc.ts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mlc_controlnet.bundle.sampler_description import SamplerOptions
from mlc_controlnet.runtime.samplers.prediction import data_prediction, noise_prediction, signal_and_noise
from mlc_controlnet.runtime.samplers.row import Plan, Row


@dataclass(frozen=True)
class Step:
    """One step between two noise levels as predictor and corrector share it (section 3.1 and algorithms 5 to 8).

    Attributes:
        sample: the weight of the sample at the start.
        output: the weight of the output at the start, m0.
        correction: the weight of the sum of rho_k * (m_k - m0) / r_k.
        ratios: r_k of the outputs before m0, and 1 for the one at the end.
        targets: the right-hand sides of the equations for rho_k.
    """

    sample: float
    output: float
    correction: float
    ratios: list[float]
    targets: list[float]


def unipc_rows(plan: Plan, options: SamplerOptions) -> list[Row]:
    """Make the rows: each corrects its sample by the step that led to it, and then predicts the next one."""
    rows, count, order = [], len(plan.timesteps), 0
    for i in range(plan.begin, count):
        corrected_samples: tuple[float, ...] = ()
        corrected_outputs: tuple[float, ...] = ()
        if i > plan.begin and i - 1 not in options.disable_corrector:
            step = _step(plan, options, i - 1, order)
            corrected_samples, corrected_outputs = (step.sample,), _corrector(step)
        remaining = count - i if options.lower_order_final else options.solver_order
        order = min(options.solver_order, remaining, i - plan.begin + 1)
        step = _step(plan, options, i, order)
        rows.append(_row(plan, options, i, (corrected_samples, corrected_outputs), step))
    return rows


def solve(matrix: Sequence[Sequence[float]], right: Sequence[float]) -> list[float]:
    """Solve a small system of linear equations by elimination with pivots."""
    rows, size = [[*row, value] for row, value in zip(matrix, right, strict=True)], len(right)
    for k in range(size):
        pivot = max(range(k, size), key=lambda i: abs(rows[i][k]))
        rows[k], rows[pivot] = rows[pivot], rows[k]
        for i in range(size):
            if i != k:
                factor = rows[i][k] / rows[k][k]
                rows[i] = [a - factor * b for a, b in zip(rows[i], rows[k], strict=True)]
    return [rows[k][size] / rows[k][k] for k in range(size)]


def _step(plan: Plan, options: SamplerOptions, i: int, order: int) -> Step:
    """Describe the step from noise level i to the next one."""
    (alpha, sigma), (alpha_s, sigma_s) = (signal_and_noise(np.float64(plan.sigmas[k])) for k in (i + 1, i))
    h = _log_snr(plan, i + 1) - _log_snr(plan, i)
    ratios = [(_log_snr(plan, i - k) - _log_snr(plan, i)) / h for k in range(1, order)]
    hh = -h if options.predict_x0 else h
    phi_1 = np.expm1(hh)
    b_h = hh if options.solver_type == "bh1" else phi_1
    targets, phi, factorial = [], phi_1 / hh - 1, 1
    for k in range(1, order + 1):
        targets.append(phi * factorial / b_h)
        factorial *= k + 1
        phi = phi / hh - 1 / factorial
    level = alpha if options.predict_x0 else sigma
    sample = sigma / sigma_s if options.predict_x0 else alpha / alpha_s
    return Step(sample, -level * phi_1, -level * b_h, [*ratios, np.float64(1)], targets)


def _predictor(step: Step) -> tuple[float, ...]:
    """Return the weights of the outputs from age 0."""
    ratios = step.ratios[:-1]
    rhos = [np.float64(0.5)] if len(ratios) == 1 else _rhos(ratios, step.targets[:-1])
    return _distribute(step, ratios, rhos)


def _corrector(step: Step) -> tuple[float, ...]:
    """Return the weights of the outputs from age 0: the output at the step's end, then those that led to it."""
    rhos = [np.float64(0.5)] if len(step.ratios) == 1 else _rhos(step.ratios, step.targets)
    newest = step.correction * rhos[-1]
    at_start, *older = _distribute(step, step.ratios[:-1], rhos[:-1])
    return newest, at_start - newest, *older


def _rhos(ratios: Sequence[float], targets: Sequence[float]) -> list[float]:
    return solve([[ratio**k for ratio in ratios] for k in range(len(ratios))], targets)


def _distribute(step: Step, ratios: Sequence[float], rhos: Sequence[float]) -> tuple[float, ...]:
    """Return the weights of m0 and of the outputs before it."""
    older = [step.correction * rho / ratio for rho, ratio in zip(rhos, ratios, strict=True)]
    return step.output - sum(older), *older


def _log_snr(plan: Plan, i: int) -> np.float64:
    return -np.log(np.float64(plan.sigmas[i]))


def _row(
    plan: Plan, options: SamplerOptions, i: int, corrected: tuple[tuple[float, ...], tuple[float, ...]], step: Step
) -> Row:
    alpha, sigma = signal_and_noise(np.float64(plan.sigmas[i]))
    x0 = data_prediction(plan.prediction_type, alpha, sigma)
    d = x0 if options.predict_x0 else noise_prediction(plan.prediction_type, alpha, sigma)
    return Row(
        timestep=plan.timesteps[i],
        x0_sample=x0[0],
        x0_output=x0[1],
        output_sample=d[0],
        output_model=d[1],
        corrected_samples=corrected[0],
        corrected_outputs=corrected[1],
        next_samples=(step.sample,),
        next_outputs=_predictor(step),
        signal_scale=alpha,
        noise_scale=sigma,
    )
