"""Read sampler tables from diffusers' own scheduler objects, by probing them.

This module contains no scheduler's formula. It feeds chosen numbers to each scheduler, and the answers are the
coefficients of `mlc_controlnet.bundle.sampler_table`. It feeds random numbers together with them, which prove that the
scheduler's step is linear.
"""

import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, TypeAlias

import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler

from mlc_controlnet.bundle.sampler_table import SamplerRow, SamplerTable
from mlc_controlnet.errors import UserError

Scheduler: TypeAlias = DDIMScheduler | EulerDiscreteScheduler | DPMSolverMultistepScheduler

STEP_COUNTS = (*range(1, 101), 125, 150, 200, 250, 500, 1000)
CHECKED_STEP_COUNTS = (1, 2, 7, 20)  # enough to see whether a table can hold a sampler, in a fraction of a second
# With these options a scheduler's step is not a linear function of the sample and the model output.
NONLINEAR_OPTIONS = ("clip_sample", "thresholding")
LINEARITY_TOLERANCE = 1e-4  # of the largest number; the float32 inside the schedulers leaves 1e-6
WITNESSES = 4  # random columns, together with the probes
_REMEDY = "change scheduler_config.json"


def _ddim(config: Mapping[str, Any]) -> DDIMScheduler:
    # DDIMScheduler clips by default. Another scheduler's configuration does not mention clipping, and Stable Diffusion
    # does not clip latents.
    return DDIMScheduler.from_config({"clip_sample": False, **config})


def _euler(config: Mapping[str, Any]) -> EulerDiscreteScheduler:
    return EulerDiscreteScheduler.from_config(config)


def _dpmpp_2m(config: Mapping[str, Any]) -> DPMSolverMultistepScheduler:
    return DPMSolverMultistepScheduler.from_config(config, algorithm_type="dpmsolver++", solver_order=2)


SAMPLERS: Mapping[str, Callable[[Mapping[str, Any]], Scheduler]] = MappingProxyType(
    {"ddim": _ddim, "euler": _euler, "dpmpp_2m": _dpmpp_2m}
)


def check_samplers(scheduler_config: Mapping[str, Any]) -> dict[str, UserError]:
    """Find the samplers that no table can hold under this configuration, and say why. It takes a few steps of each.

    Raises:
        UserError: no table can hold any of the samplers.
    """
    left_out: dict[str, UserError] = {}
    for name in SAMPLERS:
        tables, error = _tables_of(name, scheduler_config, CHECKED_STEP_COUNTS)
        if not tables:
            left_out[name] = error or _no_step_count(name)
    if len(left_out) == len(SAMPLERS):
        raise next(iter(left_out.values()))
    return left_out


def default_sampler(scheduler_config: Mapping[str, Any]) -> str:
    """Return the sampler of a bundle if the user names none: the first one in `SAMPLERS` that a table can hold."""
    left_out = check_samplers(scheduler_config)
    return next(name for name in SAMPLERS if name not in left_out)


def build_sampler_tables(
    scheduler_config: Mapping[str, Any], step_counts: Iterable[int] = STEP_COUNTS
) -> dict[str, dict[int, SamplerTable]]:
    """Read the tables of every sampler, for every number of steps that the scheduler configuration allows.

    A sampler is left out if no table can hold it, for example because it clips.

    Args:
        scheduler_config: diffusers' scheduler_config.json or `scheduler.config`, of any scheduler.

    Raises:
        UserError: no sampler is left.
    """
    left_out = check_samplers(scheduler_config)
    counts = tuple(step_counts)
    tables = {name: _tables_of(name, scheduler_config, counts)[0] for name in SAMPLERS if name not in left_out}
    return {name: by_steps for name, by_steps in tables.items() if by_steps}


def _tables_of(
    name: str, scheduler_config: Mapping[str, Any], step_counts: Iterable[int]
) -> tuple[dict[int, SamplerTable], UserError | None]:
    """Return the tables of one sampler, and the last reason why it has none for a number of steps."""
    tables: dict[int, SamplerTable] = {}
    reason: UserError | None = None
    for steps in step_counts:
        try:
            scheduler = _set_up(name, scheduler_config, steps)
            if _has_sound_timesteps(scheduler):
                tables[steps] = probe(scheduler, name)
        except UserError as error:
            reason = error
    return tables, reason


def _set_up(name: str, scheduler_config: Mapping[str, Any], steps: int) -> Scheduler:
    try:
        scheduler = SAMPLERS[name](scheduler_config)
        scheduler.set_timesteps(steps)
    except (ValueError, NotImplementedError, TypeError, ImportError) as error:
        cause = " ".join(str(error).split())
        raise UserError(f"sampler {name}", cause, "a scheduler that diffusers can build", _REMEDY) from error
    known = inspect.signature(type(scheduler).__init__).parameters  # others stay in its configuration, unread
    for option in NONLINEAR_OPTIONS:
        if option in known and scheduler.config.get(option):
            got, wanted = f"{option} true in scheduler_config.json", f"{option} false: no table can hold it"
            raise UserError(f"sampler {name}", got, wanted, f"set {option} to false")
    return scheduler


def _no_step_count(name: str) -> UserError:
    got = "timesteps that the model was not trained on, for every number of steps"
    return UserError(f"sampler {name}", got, "timesteps from 0 to num_train_timesteps - 1", _REMEDY)


def _has_sound_timesteps(scheduler: Scheduler) -> bool:
    """Return False if diffusers' rounding leaves the timesteps that the model was trained on, or repeats one.

    Examples: 1000 leading steps with steps_offset 1 start at 1000; 61 trailing steps get a 62nd at -1; 1000 linspaced
    steps of DPM-Solver++ repeat 500, which divides by a step of length zero.
    """
    timesteps = scheduler.timesteps
    inside = (timesteps >= 0) & (timesteps <= scheduler.config.num_train_timesteps - 1)
    return bool(inside.all()) and len(set(timesteps.tolist())) == len(timesteps)


@torch.no_grad()
def probe(scheduler: Scheduler, name: str) -> SamplerTable:
    """Read one table from `scheduler`, whose timesteps are set.

    The probed tensors have two banks of three columns, which take turns, and random witnesses. At step i the bank
    i % 2 gets (x, m) = (1, 0), (0, 1), (0, 0): its first two columns give the coefficients of the sample and of the
    model output. The other bank gets zeros, and m = 1 in its third column. The next step sees only the x0 of that
    column, which gives the coefficient of the previous x0.

    Raises:
        UserError: the witnesses contradict the coefficients, or a coefficient is not finite.
    """
    noise = torch.Generator().manual_seed(0)
    rows: list[SamplerRow] = []
    x0_before = torch.zeros(6 + WITNESSES, dtype=torch.float64)
    for i, timestep in enumerate(scheduler.timesteps):
        bank, other = 3 * (i % 2), 3 * ((i + 1) % 2)
        x = torch.zeros(6 + WITNESSES, dtype=torch.float64)
        m = torch.zeros_like(x)
        x[bank] = 1
        m[bank + 1] = 1
        m[other + 2] = 1
        x[6:] = torch.randn(WITNESSES, generator=noise, dtype=torch.float64)
        m[6:] = torch.randn(WITNESSES, generator=noise, dtype=torch.float64)
        scale = scheduler.scale_model_input(torch.ones(1, dtype=torch.float64), timestep)
        x0, following = _step(scheduler, m, timestep, x)
        x0_sample, x0_output = x0[bank].item(), x0[bank + 1].item()
        next_x0 = following[bank + 1].item() / x0_output if x0_output else math.nan
        row = SamplerRow(
            timestep=float(timestep),
            model_input_scale=scale.item(),
            x0_sample=x0_sample,
            x0_output=x0_output,
            next_sample=following[bank].item() - next_x0 * x0_sample,
            next_x0=next_x0,
            next_previous_x0=following[bank + 2].item() / x0_before[bank + 2].item() if i else 0.0,
        )
        _check_witnesses(row, x[6:], m[6:], x0_before[6:], x0[6:], following[6:], name)
        rows.append(row)
        x0_before = x0
    return SamplerTable(float(scheduler.init_noise_sigma), tuple(rows))


def _step(
    scheduler: Scheduler, m: torch.Tensor, timestep: torch.Tensor, x: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute x0 and the next sample, in float64."""
    output = scheduler.step(m, timestep, x)
    if isinstance(scheduler, DPMSolverMultistepScheduler):  # returns no x0, but keeps it
        return scheduler.model_outputs[-1].double(), output.prev_sample.double()
    return output.pred_original_sample.double(), output.prev_sample.double()


def _check_witnesses(
    row: SamplerRow,
    x: torch.Tensor,
    m: torch.Tensor,
    x0_before: torch.Tensor,
    x0: torch.Tensor,
    following: torch.Tensor,
    name: str,
) -> None:
    """Check that the row explains what the scheduler did with random numbers."""
    x0_by_row = row.x0_sample * x + row.x0_output * m
    following_by_row = row.next_sample * x + row.next_x0 * x0_by_row + row.next_previous_x0 * x0_before
    for by_row, seen in ((x0_by_row, x0), (following_by_row, following)):
        error = (by_row - seen).abs().max().item()
        if not error <= LINEARITY_TOLERANCE * max(1.0, x.abs().max().item(), seen.abs().max().item()):
            raise UserError(
                f"sampler {name} at timestep {row.timestep:g}",
                f"a step that is {error:.1e} away from a linear one",
                "a step that is linear in sample and model output",
                "remove the options that make it nonlinear, noisy or infinite from scheduler_config.json",
            )
