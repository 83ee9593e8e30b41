"""PNDM: arXiv 2202.09778, with or without its Runge-Kutta start.

Twin: web/src/engine/samplers/pndm.ts.
"""

from collections.abc import Sequence

import numpy as np

from mlc_controlnet.bundle.sampler_description import SamplerOptions
from mlc_controlnet.runtime.samplers.discrete import signal_share
from mlc_controlnet.runtime.samplers.prediction import Pair, data_prediction
from mlc_controlnet.runtime.samplers.row import Plan, Row

RUNGE_KUTTA_STEPS = 4  # the last timesteps that its start uses
RUNGE_KUTTA_ROWS = 12  # three steps of four evaluations
# Adams-Bashforth, the newest first, by the number of outputs that are known (arXiv 2202.09778, eq. 12)
MULTISTEP = ((1.0,), (3 / 2, -1 / 2), (23 / 12, -16 / 12, 5 / 12), (55 / 24, -59 / 24, 37 / 24, -9 / 24))
RUNGE_KUTTA = (1 / 6, 1 / 3, 1 / 3, 1 / 6)


def pndm_timesteps(timesteps: np.ndarray, train_steps: int, steps: int, skip_prk_steps: bool) -> np.ndarray:
    """Return the timesteps of the rows: the second is evaluated twice, or the first three become twelve rows.

    timesteps: whole, descending, at least `RUNGE_KUTTA_STEPS` for the Runge-Kutta start.
    """
    if skip_prk_steps:
        return np.concatenate([timesteps[:1], timesteps[1:2], timesteps[1:]])
    half = train_steps // steps // 2
    doubled = np.repeat(timesteps[:RUNGE_KUTTA_STEPS][::-1], 2) + np.tile([0, half], RUNGE_KUTTA_STEPS)
    return np.concatenate([np.repeat(doubled[:-1], 2)[1:-1][::-1], timesteps[3:]])


def pndm_rows(plan: Plan, options: SamplerOptions) -> list[Row]:
    """Make the rows. As in diffusers, a picture that starts later begins with the formulas of the first rows."""
    stride = len(plan.schedule.alphas_cumprod) // plan.steps
    timesteps = plan.timesteps[plan.begin :]
    runge_kutta = 0 if options.skip_prk_steps else RUNGE_KUTTA_ROWS
    rows: list[Row] = []
    kept: list[int] = []  # the rows whose outputs the multistep formula uses
    for i, timestep in enumerate(timesteps):
        if i < runge_kutta:
            stage, first = i % 4, i - i % 4
            if stage == 0:
                kept.append(i)
            weights = list(RUNGE_KUTTA) if stage == 3 else [1.0]
            target = timestep - (0 if stage % 2 else stride // 2)
            rows.append(_row(plan, options, timestep, plan.timesteps[first], target, stage, weights))
        elif options.skip_prk_steps and i == 1:  # the second evaluation of the first step
            rows.append(_row(plan, options, timestep, timestep + stride, timestep, 1, (1 / 2, 1 / 2)))
        else:
            kept = [*kept[-3:], i]
            weights = [0.0] * (i - kept[0] + 1)
            for row, weight in zip(reversed(kept), MULTISTEP[len(kept) - 1], strict=True):
                weights[i - row] = weight
            rows.append(_row(plan, options, timestep, timestep, timestep - stride, 0, weights))
    return rows


def _row(
    plan: Plan,
    options: SamplerOptions,
    timestep: float,
    start: float,
    target: float,
    age: int,
    weights: Sequence[float],
) -> Row:
    """Step from `start` to `target` (eq. 11), with the sample of `age` rows ago and the weighted outputs."""
    a, a_start, a_target = (signal_share(plan, t, options) for t in (timestep, start, target))
    denominator = a_start * (1 - a_target) ** 0.5 + (a_start * (1 - a_start) * a_target) ** 0.5
    of_sample, of_eps = (a_target / a_start) ** 0.5, -(a_target - a_start) / denominator
    of_output = of_eps
    if plan.prediction_type == "v_prediction":
        of_sample, of_output = of_sample + of_eps * (1 - a_start) ** 0.5, of_eps * a_start**0.5
    x0: Pair = data_prediction(plan.prediction_type, a**0.5, (1 - a) ** 0.5)
    return Row(
        timestep=timestep,
        x0_sample=x0[0],
        x0_output=x0[1],
        next_samples=(*[0.0] * age, of_sample),
        next_outputs=tuple(of_output * weight for weight in weights),
        signal_scale=a**0.5,
        noise_scale=(1 - a) ** 0.5,
    )
