"""From a bundle's description, a sampler's name and a number of steps to the rows of a schedule.

Twin: web/src/engine/samplers/schedule.ts.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from mlc_controlnet.bundle.sampler_description import SamplerDescriptions, SamplerOptions, TrainingSchedule
from mlc_controlnet.errors import UserError
from mlc_controlnet.runtime.samplers import discrete, dpm_solver, k_diffusion, pndm, unipc
from mlc_controlnet.runtime.samplers.row import Plan, Row, Schedule
from mlc_controlnet.runtime.samplers.spacing import (
    SIGMA_SPACINGS,
    TIMESTEP_SPACINGS,
    consistency_timesteps,
    fractional_timesteps,
    model_sigmas,
    solver_timesteps,
    spaced_sigmas,
    timestep_of,
    whole_timesteps,
)

SCHEDULE_TYPES = (*TIMESTEP_SPACINGS, *SIGMA_SPACINGS)
_STEPS = "num inference steps"


@dataclass(frozen=True)
class Method:
    """The properties of a family of diffusers' scheduler classes.

    Attributes:
        rows: makes the rows of a plan.
        space: how the noise level is chosen: `whole` timesteps, those of a `distilled` model, `sigmas` between the
            chosen timesteps (k-diffusion) or between all timesteps (`solver`).
        schedule_types: which of `SCHEDULE_TYPES` the class knows.
        takes: `timesteps`, `sigmas` or both, if the class' set_timesteps takes them.
        predictions: the kinds of model output that the class knows.
    """

    rows: Callable[[Plan, SamplerOptions], list[Row]]
    space: str
    schedule_types: tuple[str, ...] = SCHEDULE_TYPES
    takes: tuple[str, ...] = ()
    predictions: tuple[str, ...] = ("epsilon", "v_prediction", "sample")


_NO_X0 = ("epsilon", "v_prediction")
_BOTH = ("timesteps", "sigmas")
_ONE = ("timesteps",)
METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "ddim": Method(discrete.ddim_rows, "whole", TIMESTEP_SPACINGS),
        "ddpm": Method(discrete.ddpm_rows, "whole", TIMESTEP_SPACINGS, _ONE),
        "pndm": Method(pndm.pndm_rows, "whole", TIMESTEP_SPACINGS, predictions=_NO_X0),
        "lcm": Method(discrete.lcm_rows, "distilled", (), _ONE),
        "tcd": Method(discrete.tcd_rows, "distilled", (), _ONE),
        "lms": Method(k_diffusion.lms_rows, "sigmas"),
        "euler": Method(k_diffusion.euler_rows, "sigmas", takes=_BOTH),
        "euler_a": Method(k_diffusion.euler_ancestral_rows, "sigmas", TIMESTEP_SPACINGS, predictions=_NO_X0),
        "heun": Method(k_diffusion.heun_rows, "sigmas", takes=_ONE),
        "dpm2": Method(k_diffusion.dpm2_rows, "sigmas", predictions=_NO_X0),
        "dpm2_a": Method(k_diffusion.dpm2_ancestral_rows, "sigmas", predictions=_NO_X0),
        "dpmpp_sde": Method(k_diffusion.dpmpp_sde_rows, "sigmas", predictions=_NO_X0),
        "multistep": Method(dpm_solver.multistep_rows, "solver", takes=_ONE),
        "singlestep": Method(dpm_solver.singlestep_rows, "solver", ("linspace", *SIGMA_SPACINGS), _ONE),
        "unipc": Method(unipc.unipc_rows, "solver"),
        "deis": Method(dpm_solver.deis_rows, "solver"),
    }
)


def build_schedule(
    descriptions: SamplerDescriptions,
    sampler: str,
    steps: int,
    *,
    timesteps: Sequence[float] | None = None,
    sigmas: Sequence[float] | None = None,
    schedule_type: str | None = None,
    eta: float = 0.0,
    strength: float = 1.0,
) -> Schedule:
    """Compute the rows of a sampler.

    Args:
        descriptions: of the bundle.
        sampler: a key of `descriptions.samplers`.
        steps: the number of steps, 1 or more; not read if `timesteps` or `sigmas` are given.
        timesteps, sigmas: in place of those that the sampler chooses, from the noisiest, as diffusers' set_timesteps
            takes them; `sigmas` include the last one.
        schedule_type: one of `SCHEDULE_TYPES`; None for the model's own.
        eta: 0 to 1, the share of fresh noise in DDIM and TCD; other samplers ignore it, as in diffusers.
        strength: 0 to 1, the share of the steps that are executed, the last ones.

    Raises UserError for what the sampler cannot do.
    """
    options = _options(descriptions, sampler, schedule_type)
    method, schedule = METHODS[options.method], descriptions.schedules[options.schedule]
    custom = _check_custom(sampler, method, options, schedule, timesteps, sigmas)
    steps = len(custom) if custom is not None else steps
    train_steps = len(schedule.alphas_cumprod)
    _check_steps(sampler, options, steps, train_steps)
    with np.errstate(all="ignore"):  # the result is checked instead
        chosen, levels = _space(method, options, schedule, steps, timesteps, sigmas)
        _check_timesteps(sampler, chosen, steps, train_steps)
        begin = max(steps - min(int(steps * strength), steps), 0)
        plan = Plan(descriptions.prediction_type, schedule, chosen, levels, begin, steps, eta)
        rows = _rows(sampler, method, options, plan)
    return Schedule(_init_noise_sigma(method, options, levels), rows)


def _options(descriptions: SamplerDescriptions, sampler: str, schedule_type: str | None) -> SamplerOptions:
    """Return the options of the sampler with the schedule type put in."""
    if sampler not in descriptions.samplers:
        wanted = f"one of {', '.join(sorted(descriptions.samplers))}"
        raise UserError("sampler", repr(sampler), wanted, "choose one of them")
    options = descriptions.samplers[sampler]
    if schedule_type is None:
        return options
    known = METHODS[options.method].schedule_types
    if schedule_type not in known:
        wanted = f"one of {', '.join(known)}" if known else f"none: {sampler} has timesteps of its own"
        raise UserError(f"schedule type of the sampler {sampler}", repr(schedule_type), wanted, "leave it out")
    if schedule_type in TIMESTEP_SPACINGS:
        return dataclasses.replace(options, timestep_spacing=schedule_type, sigma_spacing="")
    return dataclasses.replace(options, sigma_spacing=schedule_type)


def _check_custom(
    sampler: str,
    method: Method,
    options: SamplerOptions,
    schedule: TrainingSchedule,
    timesteps: Sequence[float] | None,
    sigmas: Sequence[float] | None,
) -> Sequence[float] | None:
    """Check the user's timesteps or sigmas. Returns one number for each step, None if there are neither."""
    if timesteps is not None and sigmas is not None:
        raise UserError("timesteps and sigmas", "both", "one of them", "leave one out")
    name, values = ("timesteps", timesteps) if sigmas is None else ("sigmas", sigmas)
    if values is None:
        return None
    if name not in method.takes:
        wanted = f"{' or '.join(method.takes)}" if method.takes else "a number of steps only"
        raise UserError(f"sampler {sampler}", name, wanted, f"leave the {name} out or choose another sampler")
    if name == "timesteps" and options.sigma_spacing:
        got = f"timesteps together with {options.sigma_spacing} sigmas"
        raise UserError(
            f"sampler {sampler}", got, "one of them", "choose the schedule type leading, linspace or trailing"
        )
    is_descending = all(a > b for a, b in itertools.pairwise(values))  # False for NaN
    least, train_steps = (2 if name == "sigmas" else 1), len(schedule.alphas_cumprod)
    if len(values) < least or not is_descending or not (math.isfinite(values[0]) and values[-1] >= 0):
        wanted = f"{least} or more numbers, each less than the one before, the last one 0 or more"
        raise UserError(name, _listed(values), wanted, f"correct the {name}")
    if name == "timesteps" and values[0] > train_steps - 1:
        raise UserError(name, _listed(values), f"0 to {train_steps - 1}, what the model was trained on", "correct them")
    if name == "timesteps" and method.space != "sigmas" and any(value != int(value) for value in values):
        raise UserError(name, _listed(values), f"whole numbers, for the sampler {sampler}", "round them")
    return values if name == "timesteps" else values[:-1]


def _listed(values: Sequence[float]) -> str:
    """Return for example `[999, 0.5]`, as JavaScript writes the numbers."""
    return f"[{', '.join(repr(float(value)).removesuffix('.0') for value in values)}]"


def _check_steps(sampler: str, options: SamplerOptions, steps: int, train_steps: int) -> None:
    most = options.original_inference_steps if METHODS[options.method].space == "distilled" else train_steps
    least = pndm.RUNGE_KUTTA_STEPS if options.method == "pndm" and not options.skip_prk_steps else 1
    if not least <= steps <= most:
        raise UserError(_STEPS, str(steps), f"{least} to {most} for the sampler {sampler}", "choose another number")


def _check_timesteps(sampler: str, timesteps: Sequence[float], steps: int, train_steps: int) -> None:
    """Refuse timesteps that diffusers' rounding moves out of the training range: 61 trailing steps get a 62nd at -1."""
    if not all(0 <= timestep <= train_steps - 1 for timestep in timesteps):
        got = f"{steps}, which gives the sampler {sampler} the timesteps {_listed((timesteps[0], timesteps[-1]))}"
        raise UserError(_STEPS, got, f"timesteps from 0 to {train_steps - 1}", "choose another number")


def _space(
    method: Method,
    options: SamplerOptions,
    schedule: TrainingSchedule,
    steps: int,
    timesteps: Sequence[float] | None,
    sigmas: Sequence[float] | None,
) -> tuple[list[float], np.ndarray]:
    """Choose the timestep of each step, and for samplers that use them the noise levels, float32, one more."""
    train_steps, spacing, offset = len(schedule.alphas_cumprod), options.timestep_spacing, options.steps_offset
    if method.space == "sigmas":
        return _k_diffusion_space(options, schedule, steps, timesteps, sigmas)
    if timesteps is not None:
        chosen = np.array(timesteps, np.float64)
    elif method.space == "distilled":
        chosen = consistency_timesteps(options.original_inference_steps, train_steps, steps)
    elif method.space == "whole":
        chosen = whole_timesteps(spacing, offset, train_steps, steps)
    else:
        chosen = solver_timesteps(spacing, offset, train_steps, steps, options.last_timestep)
    if options.method == "pndm":
        chosen = pndm.pndm_timesteps(chosen, train_steps, steps, options.skip_prk_steps)
    if method.space == "solver":
        return _solver_space(options, schedule, steps, chosen)
    return chosen.tolist(), np.zeros(0, np.float32)


def _k_diffusion_space(
    options: SamplerOptions,
    schedule: TrainingSchedule,
    steps: int,
    timesteps: Sequence[float] | None,
    sigmas: Sequence[float] | None,
) -> tuple[list[float], np.ndarray]:
    """Choose timesteps, and between the first and the last one's noise levels the others."""
    table, log_sigmas = model_sigmas(schedule), schedule.log_sigmas
    train_steps = len(table)
    if sigmas is not None:
        levels = np.array(sigmas, np.float32)
        return [timestep_of(sigma, log_sigmas) for sigma in levels[:-1]], levels
    if timesteps is None:
        chosen = fractional_timesteps(options.timestep_spacing, options.steps_offset, train_steps, steps)
    else:
        chosen = np.array(timesteps, np.float32).astype(np.float64)
    levels = np.interp(chosen, np.arange(train_steps), table)
    if options.interpolation_type == "log_linear":
        levels = np.exp(np.linspace(np.log(table[-1]), np.log(table[0]), steps + 1))
    if options.sigma_spacing:
        levels = spaced_sigmas(options, float(levels[0]), float(levels[-1]), steps)
        chosen = np.array([timestep_of(sigma, log_sigmas) for sigma in levels])
        if options.method in ("dpm2", "dpm2_a") and options.sigma_spacing == "karras":
            chosen = chosen.round()
    last = table[0] if options.final_sigmas_type == "sigma_min" else 0.0
    return chosen.tolist(), np.append(levels, last).astype(np.float32)


def _solver_space(
    options: SamplerOptions, schedule: TrainingSchedule, steps: int, timesteps: np.ndarray
) -> tuple[list[float], np.ndarray]:
    """Keep `timesteps`, or choose noise levels over the whole training range instead; timesteps become whole."""
    table = model_sigmas(schedule)
    levels, last = np.interp(timesteps, np.arange(len(table)), table), np.float64(table[0])
    if options.sigma_spacing:
        levels = spaced_sigmas(options, float(table[-1]), float(table[0]), steps)
        timesteps = np.array([timestep_of(sigma, schedule.log_sigmas) for sigma in levels])
        if options.sigma_spacing in ("karras", "lu") and options.rounds_timesteps:
            timesteps = timesteps.round()
        if options.method != "multistep" and options.method != "singlestep":
            last = levels[-1]
    if options.final_sigmas_type == "zero" and options.method != "deis":
        last = np.float64(0)
    return np.trunc(timesteps).tolist(), np.append(levels, last).astype(np.float32)


def _rows(sampler: str, method: Method, options: SamplerOptions, plan: Plan) -> tuple[Row, ...]:
    """Make the rows with Python's floats, and check that all are finite."""
    where = f"{plan.steps} steps of the sampler {sampler}"
    remedy = "choose another number of steps, schedule type or sampler"
    if plan.prediction_type not in method.predictions:
        wanted = f"one that predicts {' or '.join(method.predictions)}"
        raise UserError(f"sampler {sampler}", f"a model that predicts {plan.prediction_type}", wanted, remedy)
    rows = [_plain(row) for row in method.rows(plan, options)]
    for i, row in enumerate(rows):
        if row is None:
            raise UserError(f"{where}, row {i + 1}", "a division by zero", "finite coefficients", remedy)
    return tuple(row for row in rows if row is not None)


def _plain(row: Row) -> Row | None:
    """Turn numpy's numbers into Python's; None if one is not finite."""
    values: dict[str, Any] = {}
    for name, value in vars(row).items():
        values[name] = tuple(map(float, value)) if isinstance(value, tuple) else float(value)
        if not all(map(math.isfinite, values[name] if isinstance(value, tuple) else (values[name],))):
            return None
    return Row(**values)


def _init_noise_sigma(method: Method, options: SamplerOptions, sigmas: np.ndarray) -> float:
    if method.space != "sigmas":
        return 1.0
    largest = float(sigmas.max())
    return largest if options.timestep_spacing in ("linspace", "trailing") else (largest**2 + 1) ** 0.5
