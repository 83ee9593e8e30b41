"""Describe a model's samplers for a bundle, as diffusers' scheduler classes configure themselves.

This module contains no sampler's formula. It builds each class from the model's configuration, as
`OtherScheduler.from_config(scheduler.config)` does, and reads the training schedule and the options from the object.
"""

import inspect
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DEISMultistepScheduler,
    DPMSolverMultistepScheduler,
    DPMSolverSinglestepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    KDPM2AncestralDiscreteScheduler,
    KDPM2DiscreteScheduler,
    LCMScheduler,
    LMSDiscreteScheduler,
    PNDMScheduler,
    TCDScheduler,
    UniPCMultistepScheduler,
)

from mlc_controlnet.bundle.sampler_description import SamplerDescriptions, SamplerOptions, TrainingSchedule
from mlc_controlnet.errors import UserError
from mlc_controlnet.runtime.samplers.schedule import build_schedule

CHECKED_STEP_COUNTS = (1, 2, 7, 20)  # a sampler is left out if it can do none of them
NONLINEAR_OPTIONS = ("clip_sample", "thresholding")  # no row can hold them
# Options that have the same name in diffusers and in a bundle.
_SAME_OPTIONS = (
    "timestep_spacing", "steps_offset", "final_sigmas_type", "interpolation_type", "variance_type", "skip_prk_steps",
    "original_inference_steps", "timestep_scaling", "algorithm_type", "solver_order", "solver_type",
    "lower_order_final", "euler_at_final", "predict_x0",
)  # fmt: skip
_SIGMA_SPACINGS = {
    "use_karras_sigmas": "karras",
    "use_lu_lambdas": "lu",
    "use_exponential_sigmas": "exponential",
    "use_beta_sigmas": "beta",
}
_SIGMA_ENDS = {"sigma_min", "sigma_max"}
_REMEDY = "change scheduler_config.json"


@dataclass(frozen=True)
class Sampler:
    """A sampler as diffusers has it.

    Attributes:
        method: a key of `runtime.samplers.schedule.METHODS`.
        scheduler_class: the class whose options it takes.
        options: set whatever the model's configuration says.
        defaults: set if the model's configuration does not mention them.
    """

    method: str
    scheduler_class: Any
    options: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)


def _dpm(method: str, scheduler_class: Any, algorithm_type: str, solver_order: int = 2) -> Sampler:
    return Sampler(method, scheduler_class, {"algorithm_type": algorithm_type, "solver_order": solver_order})


# DDIM and DDPM clip by default. Another scheduler's configuration does not mention clipping, and Stable Diffusion does
# not clip latents.
_NO_CLIPPING = {"clip_sample": False}
SAMPLERS: Mapping[str, Sampler] = MappingProxyType(
    {
        "ddim": Sampler("ddim", DDIMScheduler, defaults=_NO_CLIPPING),
        "ddpm": Sampler("ddpm", DDPMScheduler, defaults=_NO_CLIPPING),
        "pndm": Sampler("pndm", PNDMScheduler, defaults={"skip_prk_steps": True}),
        "lms": Sampler("lms", LMSDiscreteScheduler),
        "euler": Sampler("euler", EulerDiscreteScheduler),
        "euler_a": Sampler("euler_a", EulerAncestralDiscreteScheduler),
        "heun": Sampler("heun", HeunDiscreteScheduler),
        "dpm2": Sampler("dpm2", KDPM2DiscreteScheduler),
        "dpm2_a": Sampler("dpm2_a", KDPM2AncestralDiscreteScheduler),
        "dpmpp_2m": _dpm("multistep", DPMSolverMultistepScheduler, "dpmsolver++"),
        "dpmpp_2m_sde": _dpm("multistep", DPMSolverMultistepScheduler, "sde-dpmsolver++"),
        "dpmpp_2s": _dpm("singlestep", DPMSolverSinglestepScheduler, "dpmsolver++"),
        "dpmpp_2s_sde": _dpm("singlestep", DPMSolverSinglestepScheduler, "sde-dpmsolver++"),
        # DPMSolverSDEScheduler needs the package torchsde to be built. Its options are those of KDPM2.
        "dpmpp_sde": Sampler("dpmpp_sde", KDPM2DiscreteScheduler),
        "unipc": Sampler("unipc", UniPCMultistepScheduler),
        "deis": Sampler("deis", DEISMultistepScheduler),
        "lcm": Sampler("lcm", LCMScheduler),
        "tcd": Sampler("tcd", TCDScheduler),
    }
)
_BY_CLASS = {sampler.scheduler_class.__name__: name for name, sampler in reversed(list(SAMPLERS.items()))} | {
    "DPMSolverSDEScheduler": "dpmpp_sde"
}


def default_sampler(scheduler_config: Mapping[str, Any]) -> str:
    """Return the sampler of a bundle if the user names none: the model's own, else the first one that can be done."""
    names = list(describe_samplers(scheduler_config).samplers)
    own = own_sampler(scheduler_config)
    return own if own in names else names[0]


def own_sampler(scheduler_config: Mapping[str, Any]) -> str:
    """Return the name of the sampler that the model was saved with, by class: ddim, unipc, dpmpp_3m, dpm_2s..."""
    name = _BY_CLASS.get(scheduler_config.get("_class_name", "DDIMScheduler"), "ddim")
    sampler = SAMPLERS[name]
    if sampler.method not in ("multistep", "singlestep"):
        return name
    config = sampler.scheduler_class.from_config(scheduler_config).config
    family = "dpmpp" if config.algorithm_type.endswith("++") else "dpm"
    kind = "m" if sampler.method == "multistep" else "s"
    return f"{family}_{config.solver_order}{kind}" + ("_sde" if config.algorithm_type.startswith("sde") else "")


def check_samplers(scheduler_config: Mapping[str, Any]) -> dict[str, UserError]:
    """Find the samplers that the model's configuration excludes, and say why.

    Raises:
        UserError: it excludes all.
    """
    return _describe(scheduler_config)[1]


def describe_samplers(scheduler_config: Mapping[str, Any], names: Collection[str] | None = None) -> SamplerDescriptions:
    """Describe every sampler that the model's configuration allows, or those of `names`.

    Args:
        scheduler_config: diffusers' scheduler_config.json or `scheduler.config`, of any scheduler.

    Raises:
        UserError: it allows none.
    """
    return _describe(scheduler_config, names)[0]


def build_scheduler(name: str, scheduler_config: Mapping[str, Any], **options: Any) -> Any:
    """Build diffusers' scheduler for a sampler; `options` override the model's configuration.

    Args:
        name: a key of `SAMPLERS` or the model's own sampler.

    Raises:
        UserError: diffusers cannot build it.
    """
    sampler = _all_samplers(scheduler_config)[name]
    return _construct(name, sampler, sampler.scheduler_class, scheduler_config, options)


def _construct(
    name: str, sampler: Sampler, scheduler_class: Any, scheduler_config: Mapping[str, Any], options: Mapping[str, Any]
) -> Any:
    try:
        config = _known_options(scheduler_class, {**sampler.defaults, **scheduler_config})
        return scheduler_class.from_config(config, **{**sampler.options, **options})
    except (ValueError, NotImplementedError, TypeError, ImportError) as error:
        cause = " ".join(str(error).split())
        raise UserError(f"sampler {name}", cause, "a scheduler that diffusers can build", _REMEDY) from error


def _known_options(scheduler_class: Any, config: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what the class does not read: diffusers would warn of it."""
    known = {*inspect.signature(scheduler_class.__init__).parameters, "_class_name", "_use_default_values"}
    if "use_exponential_sigmas" in known:
        known |= _SIGMA_ENDS
    return {option: value for option, value in config.items() if option in known}


def _without_timesteps(scheduler_class: Any) -> Any:
    """Return the class with a constructor that chooses two timesteps.

    Some of diffusers' constructors choose all that the model was trained on, which a description does not read. KDPM2's
    take 0.14 s for that.
    """

    def set_timesteps(self: Any, num_inference_steps: int, *arguments: Any) -> None:
        scheduler_class.set_timesteps(self, min(num_inference_steps, 2), *arguments)

    members = {"set_timesteps": set_timesteps, "__module__": scheduler_class.__module__}
    return type(scheduler_class.__name__, (scheduler_class,), members)


def _describe(
    scheduler_config: Mapping[str, Any], names: Collection[str] | None = None
) -> tuple[SamplerDescriptions, dict[str, UserError]]:
    schedules: list[TrainingSchedule] = []
    samplers: dict[str, SamplerOptions] = {}
    left_out: dict[str, UserError] = {}
    prediction_type = scheduler_config.get("prediction_type", "epsilon")
    for name, sampler in _all_samplers(scheduler_config).items():
        if names is not None and name not in names:
            continue
        try:
            scheduler = _construct(name, sampler, _without_timesteps(sampler.scheduler_class), scheduler_config, {})
            _check_linear(name, scheduler)
            schedule = _training_schedule(scheduler)
            options = _options(sampler.method, scheduler, _index(schedules, schedule))
            one = SamplerDescriptions(prediction_type, (*schedules, schedule), {name: options})
            _check_some_step_count(one, name)
        except UserError as error:
            left_out[name] = error
            continue
        if options.schedule == len(schedules):
            schedules.append(schedule)
        samplers[name] = options
    if not samplers:
        raise next(iter(left_out.values()))
    return SamplerDescriptions(prediction_type, tuple(schedules), samplers), left_out


def _all_samplers(scheduler_config: Mapping[str, Any]) -> dict[str, Sampler]:
    """Return `SAMPLERS` and the model's own if it is a variant that has no place there."""
    own = own_sampler(scheduler_config)
    if own in SAMPLERS:
        return dict(SAMPLERS)
    base = SAMPLERS[_BY_CLASS[scheduler_config["_class_name"]]]
    return {**SAMPLERS, own: Sampler(base.method, base.scheduler_class)}


def _check_linear(name: str, scheduler: Any) -> None:
    known = inspect.signature(type(scheduler).__init__).parameters  # others stay in its configuration, unread
    for option in NONLINEAR_OPTIONS:
        if option in known and scheduler.config.get(option):
            got, wanted = f"{option} true in scheduler_config.json", f"{option} false"
            raise UserError(f"sampler {name}", got, wanted, f"set {option} to false")


def _check_some_step_count(descriptions: SamplerDescriptions, name: str) -> None:
    """Raise the last error if the sampler can do none of the checked numbers of steps."""
    reason: UserError | None = None
    for steps in CHECKED_STEP_COUNTS:
        try:
            build_schedule(descriptions, name, steps)
            return
        except UserError as error:
            reason = error
    assert reason is not None
    raise reason


def _training_schedule(scheduler: Any) -> TrainingSchedule:
    """Read alphas_cumprod, and the logarithms as diffusers computes them."""
    alphas_cumprod = scheduler.alphas_cumprod.to(torch.float32)
    with np.errstate(divide="ignore"):
        log_sigmas = np.log(np.array(((1 - alphas_cumprod) / alphas_cumprod) ** 0.5))
    return TrainingSchedule(alphas_cumprod.numpy(), log_sigmas)


def _index(schedules: list[TrainingSchedule], schedule: TrainingSchedule) -> int:
    """Return the place of an equal schedule, or the next free one."""
    for i, other in enumerate(schedules):
        if np.array_equal(other.alphas_cumprod, schedule.alphas_cumprod):
            return i
    return len(schedules)


def _options(method: str, scheduler: Any, schedule: int) -> SamplerOptions:
    config = scheduler.config
    known = inspect.signature(type(scheduler).__init__).parameters
    options: dict[str, Any] = {
        name: config[name] for name in _SAME_OPTIONS if name in known and config[name] is not None
    }
    for option, spacing in _SIGMA_SPACINGS.items():
        if option in known and config[option]:
            options.setdefault("sigma_spacing", spacing)
    # diffusers reads these two also where they come from another class' configuration.
    for option in sorted(_SIGMA_ENDS):
        if config.get(option) is not None:
            options[option] = float(config[option])
    if "timestep_scaling" in options:
        options["timestep_scaling"] = float(options["timestep_scaling"])
    if hasattr(scheduler, "final_alpha_cumprod"):
        options["final_alpha_cumprod"] = float(scheduler.final_alpha_cumprod)
    options["last_timestep"] = _last_timestep(scheduler)
    if method == "multistep":
        options["rounds_timesteps"] = config.beta_schedule != "squaredcos_cap_v2"
    if config.get("disable_corrector") and "disable_corrector" in known:
        options["disable_corrector"] = tuple(config.disable_corrector)
    return SamplerOptions(method=method, schedule=schedule, **options)


def _last_timestep(scheduler: Any) -> int:
    """Return the number of timesteps that are left where DPM-Solver clips lambda."""
    known = inspect.signature(type(scheduler).__init__).parameters
    clipped = 0
    if "lambda_min_clipped" in known:
        clipped = int(torch.searchsorted(torch.flip(scheduler.lambda_t, [0]), scheduler.config.lambda_min_clipped))
    return int(scheduler.config.num_train_timesteps) - clipped
