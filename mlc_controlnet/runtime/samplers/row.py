"""One step of a sampler as numbers, and the reader that executes it.

Every sampler here is linear in the samples, the model outputs and the noise. With the sample x and the model output m
of row i:

    m     = model(input_scale * x, timestep)
    x0    = x0_sample * x + x0_output * m
    d_i   = output_sample * x + output_model * m
    y_i   = x, or for a corrector: sum corrected_samples[k] * y_{i-k} + sum corrected_outputs[k] * d_{i-k}
    x    <- sum next_samples[k] * y_{i-k} + sum next_outputs[k] * d_{i-k} + sum next_noises[k] * z_{i-k}

where z_i is the standard normal noise of row i. Twin: web/src/engine/samplers/row.ts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlc_controlnet.bundle.sampler_description import TrainingSchedule


@dataclass(frozen=True, kw_only=True)
class Row:
    """One step: an entry of diffusers' `scheduler.timesteps`, and coefficients. Weights are by age, the newest first.

    Attributes:
        input_scale: the model sees the sample times this.
        x0_sample, x0_output: of the final latents as this step predicts them, for previews.
        output_sample, output_model: of the converted output that the history keeps.
        corrected_samples, corrected_outputs: empty, or UniPC's corrector. The first is for age 1, the second for age 0.
        next_samples, next_outputs, next_noises: of the next sample, from age 0. No noises: none is needed.
        signal_scale, noise_scale: the sample at the start of this row is, by diffusers' `add_noise`,
            signal_scale * latents + noise_scale * noise.
    """

    timestep: float
    input_scale: float = 1.0
    x0_sample: float
    x0_output: float
    output_sample: float = 0.0
    output_model: float = 1.0
    corrected_samples: tuple[float, ...] = ()
    corrected_outputs: tuple[float, ...] = ()
    next_samples: tuple[float, ...]
    next_outputs: tuple[float, ...]
    next_noises: tuple[float, ...] = ()
    signal_scale: float
    noise_scale: float


@dataclass(frozen=True)
class Schedule:
    """All steps of one sampler for one picture.

    Attributes:
        init_noise_sigma: x starts as standard normal noise times this if there is no picture to start from.
        rows: empty if a strength leaves nothing to do.
    """

    init_noise_sigma: float
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class State:
    """What a sampler remembers between rows, the newest first: samples y, converted outputs d, noises z."""

    samples: tuple[np.ndarray, ...] = ()
    outputs: tuple[np.ndarray, ...] = ()
    noises: tuple[np.ndarray, ...] = ()


@dataclass(frozen=True)
class Plan:
    """What the formulas of a sampler start from.

    Attributes:
        prediction_type: of the model's output.
        schedule: the noise levels that the model was trained on.
        timesteps: one for each step, from the noisiest. A step of a second-order sampler takes two rows.
        sigmas: float32 noise levels sqrt((1 - a) / a), one more than timesteps; empty for samplers that look up
            alphas_cumprod instead.
        begin: the first step that is executed.
        steps: the number of steps that was asked for.
        eta: the share of fresh noise in DDIM and TCD.
    """

    prediction_type: str
    schedule: TrainingSchedule
    timesteps: list[float]
    sigmas: np.ndarray
    begin: int
    steps: int
    eta: float


def advance(
    row: Row, state: State, x: np.ndarray, m: np.ndarray, draw_noise: Callable[[], np.ndarray]
) -> tuple[np.ndarray, np.ndarray, State]:
    """Take one step: return the next sample, x0 and the next state. Computes in float64 and stores float32.

    `draw_noise` returns the standard normal noise of this row; it is called only if the row or a later one needs it.
    """
    x64, m64 = x.astype(np.float64), m.astype(np.float64)
    x0 = (row.x0_sample * x64 + row.x0_output * m64).astype(np.float32)
    output = (row.output_sample * x64 + row.output_model * m64).astype(np.float32)
    outputs = (output, *state.outputs)
    y = x
    if row.corrected_outputs:
        y = _combine((row.corrected_samples, state.samples), (row.corrected_outputs, outputs))
    samples = (y, *state.samples)
    noises = (draw_noise(), *state.noises) if row.next_noises else ()
    following = _combine((row.next_samples, samples), (row.next_outputs, outputs), (row.next_noises, noises))
    return following, x0, State(samples[:MAX_AGE], outputs[:MAX_AGE], noises[:MAX_AGE])


MAX_AGE = 12  # the Runge-Kutta start of PNDM looks back so far; everything else 4 rows or less


def _combine(*terms: tuple[Sequence[float], Sequence[np.ndarray]]) -> np.ndarray:
    """Return the weighted sum of histories, float32; an entry that a weight leaves out is not read."""
    total: Any = 0.0
    for weights, history in terms:
        for weight, values in zip(weights, history, strict=False):
            if weight != 0:
                total = total + weight * values.astype(np.float64)
    return np.asarray(total, np.float32)
