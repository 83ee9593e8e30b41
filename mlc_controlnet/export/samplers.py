"""Read sampler tables off diffusers' own scheduler objects, by probing them.

No scheduler's formula is written here. Every scheduler is fed numbers of our choice and its answers give the
coefficients of `mlc_controlnet.bundle.sampler_table`; random numbers fed beside them prove that the scheduler is
linear and nothing more.
"""

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
# Options under which a scheduler's step is no linear function of sample and model output.
NONLINEAR_OPTIONS = ("clip_sample", "thresholding")
LINEARITY_TOLERANCE = 1e-4  # of the largest number; the float32 inside the schedulers leaves 1e-6
WITNESSES = 4  # random columns beside the probes


def _ddim(config: Mapping[str, Any]) -> DDIMScheduler:
    # DDIMScheduler clips unless its configuration says otherwise; one saved by another scheduler says nothing, and
    # latents are never clipped.
    return DDIMScheduler.from_config({"clip_sample": False, **config})


def _euler(config: Mapping[str, Any]) -> EulerDiscreteScheduler:
    return EulerDiscreteScheduler.from_config(config)


def _dpmpp_2m(config: Mapping[str, Any]) -> DPMSolverMultistepScheduler:
    return DPMSolverMultistepScheduler.from_config(config, algorithm_type="dpmsolver++", solver_order=2)


SAMPLERS: Mapping[str, Callable[[Mapping[str, Any]], Scheduler]] = MappingProxyType(
    {"ddim": _ddim, "euler": _euler, "dpmpp_2m": _dpmpp_2m}
)


def build_sampler_tables(
    scheduler_config: Mapping[str, Any], step_counts: Iterable[int] = STEP_COUNTS
) -> dict[str, dict[int, SamplerTable]]:
    """Tables of every sampler for every number of steps that the model's scheduler configuration allows.

    `scheduler_config` is diffusers' scheduler_config.json or `scheduler.config`, of any scheduler.

    Raises UserError for a configuration that clips or thresholds, and for one whose steps are not linear.
    """
    refuse_nonlinear(scheduler_config)
    counts = list(step_counts)
    tables: dict[str, dict[int, SamplerTable]] = {}
    for name, build in SAMPLERS.items():
        tables[name] = {}
        for steps in counts:
            scheduler = build(scheduler_config)
            scheduler.set_timesteps(steps)
            if _has_sound_timesteps(scheduler):
                tables[name][steps] = probe(scheduler, name)
    return tables


def refuse_nonlinear(scheduler_config: Mapping[str, Any]) -> None:
    """Raise UserError, by name, for options that make a step nonlinear."""
    for option in NONLINEAR_OPTIONS:
        if scheduler_config.get(option):
            raise UserError(
                f"scheduler_config.json: {option}", "true", "false", f"no table can hold {option}: set it to false"
            )


def _has_sound_timesteps(scheduler: Scheduler) -> bool:
    """False where diffusers' rounding leaves the timesteps that the model was trained on, or repeats one.

    Seen: 1000 leading steps with steps_offset 1 start at 1000; 61 trailing steps get a 62nd at -1; 1000 linspaced
    steps of DPM-Solver++ repeat 500, which divides by a step of length zero.
    """
    timesteps = scheduler.timesteps
    inside = (timesteps >= 0) & (timesteps <= scheduler.config.num_train_timesteps - 1)
    return bool(inside.all()) and len(set(timesteps.tolist())) == len(timesteps)


@torch.no_grad()
def probe(scheduler: Scheduler, name: str) -> SamplerTable:
    """Read one table off `scheduler`, whose timesteps are set.

    Columns of the probed tensors: two banks of three take turns, and random witnesses. At step i the bank i % 2 gets
    (x, m) = (1, 0), (0, 1), (0, 0), so its first two columns give the coefficients of the sample and of the model
    output. The other bank gets zeros there and m = 1 in its third column: that column's x0 is all that the next step
    sees of this one, and gives the coefficient of the previous x0.

    Raises UserError where the witnesses contradict the coefficients, or a coefficient is not finite.
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
    """x0 and the next sample, in float64."""
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
    """The row must explain what the scheduler did with random numbers."""
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
