"""samplers.json: what a bundle says of its model's training schedule and of every sampler's options.

A runtime computes a sampler's coefficients from this (see `mlc_controlnet.runtime.samplers`), for any number of steps.
Twin: web/src/engine/samplers/description.ts.
"""

import base64
import binascii
import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlc_controlnet.bundle.json_record import REMEDY, from_json
from mlc_controlnet.bundle.reader import Bundle
from mlc_controlnet.errors import UserError

PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")


@dataclass(frozen=True, eq=False)
class TrainingSchedule:
    """The noise levels that a model was trained on, both float32 [N], by timestep.

    The logarithms are stored because they decide how diffusers rounds a timestep, and libraries disagree about the last
    bit of a float32 logarithm.

    Attributes:
        alphas_cumprod: the share of the signal in the variance: x = sqrt(a) x0 + sqrt(1 - a) noise.
        log_sigmas: log(sqrt((1 - a) / a)).
    """

    alphas_cumprod: np.ndarray
    log_sigmas: np.ndarray


@dataclass(frozen=True)
class SamplerOptions:
    """One sampler: the method, and the options of diffusers' class under diffusers' names, as far as they matter.

    Attributes:
        method: a key of `runtime.samplers.schedule.METHODS`; several samplers may share one.
        schedule: index of the training schedule.
        steps_offset, ...: options that the class does not have keep their defaults and are not read.
        sigma_spacing: karras, exponential, beta or lu; empty for sigmas at the model's own timesteps.
        sigma_min, sigma_max: the ends of that spacing; 0 for the schedule's own.
        last_timestep: the number of timesteps that DPM-Solver uses, less than N if it clips lambda.
        final_alpha_cumprod: the share of the signal after the last step.
        rounds_timesteps: DPM-Solver rounds the timesteps of Karras' sigmas.
    """

    method: str
    schedule: int = 0
    timestep_spacing: str = "linspace"
    steps_offset: int = 0
    sigma_spacing: str = ""
    sigma_min: float = 0.0
    sigma_max: float = 0.0
    final_sigmas_type: str = "zero"
    interpolation_type: str = "linear"
    final_alpha_cumprod: float = 1.0
    variance_type: str = "fixed_small"
    skip_prk_steps: bool = False
    original_inference_steps: int = 50
    timestep_scaling: float = 10.0
    algorithm_type: str = "dpmsolver++"
    solver_order: int = 2
    solver_type: str = "midpoint"
    lower_order_final: bool = True
    euler_at_final: bool = False
    last_timestep: int = 1000
    rounds_timesteps: bool = True
    predict_x0: bool = True
    disable_corrector: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class SamplerDescriptions:
    """The content of samplers.json.

    Attributes:
        prediction_type: what the model's output is, one of `PREDICTION_TYPES`.
        schedules: the training schedules; they differ between samplers if only some of diffusers' classes know an
            option of the model, for example rescale_betas_zero_snr.
        samplers: sampler name -> its options.
    """

    prediction_type: str
    schedules: tuple[TrainingSchedule, ...]
    samplers: Mapping[str, SamplerOptions]


@dataclass(frozen=True)
class _RawSchedule:
    """A training schedule as the file has it: little-endian float32 in base64."""

    alphas_cumprod: str
    log_sigmas: str


@dataclass(frozen=True)
class _RawDescriptions:
    prediction_type: str
    schedules: tuple[_RawSchedule, ...]
    samplers: Mapping[str, SamplerOptions]


def descriptions_to_json(descriptions: SamplerDescriptions) -> dict[str, Any]:
    """Return the content of samplers.json. Options that have their default are left out."""
    return {
        "prediction_type": descriptions.prediction_type,
        "schedules": [
            {"alphas_cumprod": _encode(schedule.alphas_cumprod), "log_sigmas": _encode(schedule.log_sigmas)}
            for schedule in descriptions.schedules
        ],
        "samplers": {name: _changed(options) for name, options in descriptions.samplers.items()},
    }


def read_samplers(bundle: Bundle) -> SamplerDescriptions:
    """Read samplers.json of a bundle. Raises UserError if it is not sound."""
    file = bundle.manifest.samplers.file
    return descriptions_from_json(bundle.read_file(file), str(bundle.path / file))


def descriptions_from_json(data: bytes, where: str) -> SamplerDescriptions:
    """Parse samplers.json; `where` names the file in errors. Raises UserError if it is not sound."""
    try:
        raw = json.loads(data.decode())
    except ValueError as error:
        raise UserError(where, f"text that is not JSON ({error})", "descriptions of samplers", REMEDY) from None
    parsed = from_json(_RawDescriptions, raw, where)
    if parsed.prediction_type not in PREDICTION_TYPES:
        wanted = f"one of {', '.join(PREDICTION_TYPES)}"
        raise UserError(f"{where}.prediction_type", repr(parsed.prediction_type), wanted, REMEDY)
    schedules = tuple(_schedule(raw, f"{where}.schedules[{i}]") for i, raw in enumerate(parsed.schedules))
    for name, options in parsed.samplers.items():
        if not 0 <= options.schedule < len(schedules):
            got, wanted = str(options.schedule), f"0 to {len(schedules) - 1}"
            raise UserError(f"{where}.samplers.{name}.schedule", got, wanted, REMEDY)
    return SamplerDescriptions(parsed.prediction_type, schedules, parsed.samplers)


def _schedule(raw: _RawSchedule, where: str) -> TrainingSchedule:
    alphas_cumprod = _decode(raw.alphas_cumprod, f"{where}.alphas_cumprod")
    log_sigmas = _decode(raw.log_sigmas, f"{where}.log_sigmas")
    if not 2 <= len(alphas_cumprod) == len(log_sigmas):
        got = f"{len(alphas_cumprod)} and {len(log_sigmas)} numbers"
        raise UserError(where, got, "two lists of one length, 2 or more", REMEDY)
    return TrainingSchedule(alphas_cumprod, log_sigmas)


def _encode(numbers: np.ndarray) -> str:
    return base64.b64encode(np.asarray(numbers, "<f4").tobytes()).decode()


def _decode(text: str, where: str) -> np.ndarray:
    try:
        return np.frombuffer(base64.b64decode(text, validate=True), "<f4")
    except (binascii.Error, ValueError):
        raise UserError(where, "text that does not decode", "float32 numbers in base64", REMEDY) from None


def _changed(options: SamplerOptions) -> dict[str, Any]:
    values = {field.name: (getattr(options, field.name), field.default) for field in dataclasses.fields(options)}
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, (value, default) in values.items()
        if value != default
    }
