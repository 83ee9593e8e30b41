"""DPM-Solver++ SDE against diffusers' DPMSolverSDEScheduler, with a Brownian motion made from our noises.

diffusers needs the package torchsde for its own Brownian motion, which the comparison replaces.
"""

import importlib
import sys
import types

import numpy as np
import pytest
import torch

from mlc_controlnet.export.sampler_descriptions import describe_samplers
from mlc_controlnet.runtime.samplers.row import State, advance
from mlc_controlnet.runtime.samplers.schedule import build_schedule
from tests.runtime.samplers.diffusers_scheduler import STABLE_DIFFUSION, spacing_options

SHAPE = (1, 4, 3, 5)
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def noise(row: int) -> np.ndarray:
    return np.random.default_rng(row).standard_normal(SHAPE).astype(np.float32)


class BrownianMotion:
    """Increments over sigma: each row adds its own noise to the path."""

    def __init__(self) -> None:
        self.row = 0

    def __call__(self, sigma: torch.Tensor, sigma_next: torch.Tensor) -> torch.Tensor:
        if self.row % 2 == 0:
            self.middle = sigma_next
            return torch.from_numpy(noise(self.row)).double()
        first = torch.from_numpy(noise(self.row - 1)).double() * (sigma - self.middle) ** 0.5
        second = torch.from_numpy(noise(self.row)).double() * (self.middle - sigma_next) ** 0.5
        return (first + second) / (sigma - sigma_next) ** 0.5


@pytest.mark.parametrize("schedule_type", ["trailing", "karras", "exponential", "beta"])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("steps", [1, 2, 4, 20, 50])
def test_rows_do_what_the_brownian_scheduler_does(schedule_type, prediction, steps, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchsde", types.ModuleType("torchsde"))
    module = importlib.import_module("diffusers.schedulers.scheduling_dpmsolver_sde")
    options = {key: value for key, value in STABLE_DIFFUSION.items() if key not in ("_class_name", "clip_sample")}
    scheduler = module.DPMSolverSDEScheduler(**options, prediction_type=prediction, **spacing_options(schedule_type))
    scheduler.set_timesteps(steps)
    scheduler.sigmas = scheduler.sigmas.double()
    scheduler.noise_sampler = motion = BrownianMotion()
    config = {**STABLE_DIFFUSION, "_class_name": "DPMSolverSDEScheduler", "prediction_type": prediction}
    descriptions = describe_samplers(config, ["dpmpp_sde"])
    schedule = build_schedule(descriptions, "dpmpp_sde", steps, schedule_type=schedule_type)
    assert len(schedule.rows) == len(scheduler.timesteps) == 2 * steps - 1

    x, state = noise(1000) * np.float32(schedule.init_noise_sigma), State()
    for index, (row, timestep) in enumerate(zip(schedule.rows, scheduler.timesteps, strict=True)):
        motion.row, m, x64 = index, noise(2000 + index), torch.from_numpy(x.astype(np.float64))
        assert row.timestep == pytest.approx(float(timestep), abs=1e-3)
        np.testing.assert_allclose(row.input_scale * x, scheduler.scale_model_input(x64, timestep), rtol=1e-6)
        expected = scheduler.step(torch.from_numpy(m).double(), timestep, x64).prev_sample.numpy()
        following, _, state = advance(row, state, x, m, lambda index=index: noise(index))
        assert np.abs(following - expected).max() <= 1e-5 * max(np.abs(x).max(), np.abs(expected).max())
        x = expected.astype(np.float32)
