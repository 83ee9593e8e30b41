"""Every sampler's rows do what `scheduler.step` of its class does, to 1e-5 of the sample's scale."""

import contextlib
import copy
import functools
import itertools
import json
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from mlc_controlnet.bundle.sampler_description import SamplerDescriptions
from mlc_controlnet.errors import UserError
from mlc_controlnet.export.sampler_descriptions import (
    SAMPLERS,
    build_scheduler,
    describe_samplers,
    own_sampler,
)
from mlc_controlnet.runtime.samplers.row import Schedule, State, advance
from mlc_controlnet.runtime.samplers.schedule import METHODS, build_schedule
from tests.runtime.samplers.diffusers_scheduler import STABLE_DIFFUSION, set_timesteps, spacing_options, steps_of

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")

SHAPE = (1, 4, 3, 5)
STEP_COUNTS = (1, 2, 4, 20, 50)
PREDICTIONS = ("epsilon", "v_prediction", "sample")
TOLERANCE = 1e-5


@functools.cache
def description(name: str, config: str) -> SamplerDescriptions:
    return describe_samplers(json.loads(config), [name])


def describe(name: str, config: dict[str, Any]) -> SamplerDescriptions:
    return description(name, json.dumps(config))


@functools.cache
def built(name: str, config: str, options: str) -> Any:
    return build_scheduler(name, json.loads(config), **json.loads(options))


def scheduler_of(name: str, config: dict[str, Any], **options: Any) -> Any:
    """A fresh scheduler. KDPM2 takes 0.15 s to build, so that copies are used."""
    return copy.deepcopy(built(name, json.dumps(config), json.dumps(options)))


def check(
    name: str,
    config: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    *,
    steps: int,
    begin: int = 0,
    diffusers_options: dict[str, Any] | None = None,
    chosen: dict[str, Any] | None = None,
    **options: Any,
) -> Schedule:
    """Compare a whole run, row by row. Both get diffusers' samples, so an error does not hide behind another one."""
    schedule = build_schedule(describe(name, config), name, steps, **options)
    scheduler = scheduler_of(name, config, **(diffusers_options or {}))
    set_timesteps(scheduler, monkeypatch, **(chosen or {"num_inference_steps": steps}))
    assert schedule.init_noise_sigma == pytest.approx(float(scheduler.init_noise_sigma), rel=1e-6)
    assert len(schedule.rows) == len(scheduler.timesteps) - begin
    levels = getattr(scheduler, "sigmas", None)
    uses_sigmas = name in SAMPLERS and METHODS[SAMPLERS[name].method].space == "sigmas"

    def draw(row: int, what: str) -> np.ndarray:
        seed = zlib.crc32(f"{name} {steps} {row} {what}".encode())
        scale = (float(levels[row]) ** 2 + 1) ** 0.5 if what == "x" and uses_sigmas else 1.0
        return (np.random.default_rng(seed).standard_normal(SHAPE) * scale).astype(np.float32)

    state = State()
    for index, timestep, x, scaled, m, expected in steps_of(
        scheduler, begin, draw, monkeypatch, eta=options.get("eta", 0.0)
    ):
        row = schedule.rows[index - begin]
        assert row.timestep == pytest.approx(float(timestep), abs=1e-3)
        np.testing.assert_allclose(row.input_scale * x, scaled, rtol=1e-6, atol=1e-6)
        following, _, state = advance(row, state, x, m, functools.partial(draw, index, "noise"))
        error = np.abs(following - expected).max()
        scale = max(np.abs(x).max(), np.abs(expected).max())
        assert error <= TOLERANCE * scale, f"row {index} of {len(scheduler.timesteps)}: {error / scale:.1e}"
    return schedule


KNOWN = [
    (name, schedule_type, prediction)
    for name, sampler in SAMPLERS.items()
    if name != "dpmpp_sde"
    for schedule_type in (*METHODS[sampler.method].schedule_types, None)
    for prediction in METHODS[sampler.method].predictions
]


@pytest.mark.parametrize(("name", "schedule_type", "prediction"), KNOWN)
def test_rows_do_what_scheduler_step_does(name, schedule_type, prediction, monkeypatch):
    config = {**STABLE_DIFFUSION, "prediction_type": prediction}
    options = {} if schedule_type is None else spacing_options(schedule_type)
    for steps in STEP_COUNTS:
        check(name, config, monkeypatch, steps=steps, schedule_type=schedule_type, diffusers_options=options)


@pytest.mark.parametrize("name", [name for name in SAMPLERS if name != "dpmpp_sde"])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_a_picture_that_starts_later_runs_as_after_set_begin_index(name, prediction, monkeypatch):
    config = {**STABLE_DIFFUSION, "prediction_type": prediction}
    for steps, strength in ((20, 0.5), (20, 0.79), (7, 0.99), (50, 0.06), (4, 0.25), (3, 0.9)):
        order = type(scheduler_of(name, config)).order
        begin = (steps - int(steps * strength)) * order
        schedule = check(name, config, monkeypatch, steps=steps, strength=strength, begin=begin)
        assert len(schedule.rows) >= 1


@pytest.mark.parametrize("name", ["ddim", "tcd"])
@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("eta", [0.3, 0.7, 1.0])
def test_eta_mixes_in_noise_as_diffusers_does(name, prediction, eta, monkeypatch):
    config = {**STABLE_DIFFUSION, "prediction_type": prediction}
    for steps in STEP_COUNTS:
        schedule = check(name, config, monkeypatch, steps=steps, eta=eta)
        assert steps == 1 or all(row.next_noises for row in schedule.rows[:-1])


ZERO_SNR = {**STABLE_DIFFUSION, "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}


@pytest.mark.parametrize("name", [name for name in SAMPLERS if name != "dpmpp_sde"])
def test_a_model_with_zero_terminal_snr_draws_from_pure_noise(name, monkeypatch):
    for steps in STEP_COUNTS:
        check(name, {**ZERO_SNR, "prediction_type": "v_prediction"}, monkeypatch, steps=steps)


def variants() -> Iterator[tuple[str, dict[str, Any]]]:
    """Options of the solvers' own classes, besides those that the other tests set."""
    at_minimum, at_zero = {"final_sigmas_type": "sigma_min"}, {"final_sigmas_type": "zero"}
    for algorithm, order, solver in itertools.product(
        ("dpmsolver++", "dpmsolver", "sde-dpmsolver++", "sde-dpmsolver"), (1, 2, 3), ("midpoint", "heun")
    ):
        options = {"algorithm_type": algorithm, "solver_order": order, "solver_type": solver}
        if (order, algorithm) != (3, "sde-dpmsolver"):
            yield "DPMSolverMultistepScheduler", {**options, **at_minimum}
            yield "DPMSolverMultistepScheduler", {**options, **at_minimum, "lower_order_final": False}
        if "++" in algorithm:
            yield "DPMSolverMultistepScheduler", {**options, "use_lu_lambdas": True, "euler_at_final": True}
            yield "DPMSolverMultistepScheduler", {**options, "lambda_min_clipped": -4.1}
            yield "DPMSolverSinglestepScheduler", {**options, "lambda_min_clipped": -4.1}
        if algorithm != "sde-dpmsolver":
            yield "DPMSolverSinglestepScheduler", {**options, **at_minimum}
    for solver, order, predict_x0 in itertools.product(("bh1", "bh2"), (1, 2, 3, 4), (True, False)):
        options = {"solver_type": solver, "solver_order": order, "predict_x0": predict_x0}
        yield "UniPCMultistepScheduler", {**options, **at_minimum, "disable_corrector": [0, 3]}
        yield "UniPCMultistepScheduler", {**options, **at_minimum, "lower_order_final": False}
        yield (
            "UniPCMultistepScheduler",
            {**options, **(at_zero if solver == "bh2" and predict_x0 else at_minimum), "use_karras_sigmas": True},
        )
    for order in (1, 2, 3):
        yield "DEISMultistepScheduler", {"solver_order": order}
        yield "DEISMultistepScheduler", {"solver_order": order, "lower_order_final": False, "use_karras_sigmas": True}
    yield "DPMSolverMultistepScheduler", {"beta_schedule": "squaredcos_cap_v2", "use_karras_sigmas": True}
    yield "DDPMScheduler", {"variance_type": "fixed_large"}
    yield "DDPMScheduler", {"variance_type": "fixed_small_log"}
    yield "DDIMScheduler", {"set_alpha_to_one": False}
    yield "PNDMScheduler", {"set_alpha_to_one": True, "skip_prk_steps": True}
    yield "EulerDiscreteScheduler", {"interpolation_type": "log_linear"}
    yield "EulerDiscreteScheduler", at_minimum
    for spacing in ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"):
        yield "EulerDiscreteScheduler", {spacing: True, "sigma_min": 0.1, "sigma_max": 9.0}
        yield "UniPCMultistepScheduler", {spacing: True, "sigma_min": 0.1, "sigma_max": 9.0, **at_minimum}
    yield "LCMScheduler", {"original_inference_steps": 100, "timestep_scaling": 3.0}
    yield "TCDScheduler", {"original_inference_steps": 100}


@pytest.mark.parametrize(("scheduler_class", "options"), variants())
def test_a_model_draws_with_the_options_of_its_own_class(scheduler_class, options, monkeypatch):
    config = {**STABLE_DIFFUSION, "_class_name": scheduler_class, "prediction_type": "v_prediction", **options}
    name = own_sampler(config)
    for steps in (1, 4, 20):
        check(name, config, monkeypatch, steps=steps)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("steps", [4, 5, 20, 50])
@pytest.mark.parametrize("strength", [1.0, 0.75])
def test_pndm_starts_with_runge_kutta_if_the_model_says_so(prediction, steps, strength, monkeypatch):
    config = {**STABLE_DIFFUSION, "_class_name": "PNDMScheduler", "prediction_type": prediction}
    config |= {"skip_prk_steps": False}
    check("pndm", config, monkeypatch, steps=steps, strength=strength, begin=steps - int(steps * strength))


TIMESTEPS = {
    "ddpm": [999, 700, 350, 10],
    "lcm": [999, 759, 499, 259],
    "tcd": [999, 759, 499, 259],
    "euler": [999, 850.5, 600, 100],
    "heun": [999, 850, 600, 100],
    "dpmpp_2m": [999, 845, 730, 587, 443, 310, 193, 116, 53, 13],  # AYS, arXiv 2404.14507
    "dpmpp_2m_sde": [999, 845, 730, 587, 443, 310, 193, 116, 53, 13],
    "dpmpp_2s": [999, 845, 730, 587, 443],
}


@pytest.mark.parametrize("name", TIMESTEPS)
def test_the_users_timesteps_replace_the_samplers(name, monkeypatch):
    timesteps = TIMESTEPS[name]
    schedule = check(
        name, STABLE_DIFFUSION, monkeypatch, steps=20, timesteps=timesteps, chosen={"timesteps": timesteps}
    )
    assert [row.timestep for row in schedule.rows][:1] == timesteps[:1]


def test_the_users_sigmas_replace_the_samplers(monkeypatch):
    sigmas = [14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.38, 0.234, 0.113, 0.0]
    schedule = check("euler", STABLE_DIFFUSION, monkeypatch, steps=20, sigmas=sigmas, chosen={"sigmas": sigmas})
    assert len(schedule.rows) == 10


@pytest.mark.parametrize("name", [name for name in SAMPLERS if name != "dpmpp_sde"])
@pytest.mark.parametrize(
    "config", [STABLE_DIFFUSION, {**ZERO_SNR, "prediction_type": "v_prediction"}], ids=["", "zero"]
)
def test_a_picture_is_noised_as_add_noise_does(name, config):
    """At the start of img2img, and between the steps of inpainting, where the scheduler is one step further."""
    rng = np.random.default_rng(5)
    picture, noise = (torch.from_numpy(rng.standard_normal(SHAPE)) for _ in range(2))
    for steps, strength in ((20, 1.0), (9, 0.7)):
        scheduler = scheduler_of(name, config)
        scheduler.set_timesteps(steps)
        begin = (steps - int(steps * strength)) * scheduler.order
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(begin)
        rows = build_schedule(describe(name, config), name, steps, strength=strength).rows
        for index, row in enumerate(rows):
            if index and hasattr(scheduler, "_step_index"):
                scheduler._step_index = begin + index
            timestep = scheduler.timesteps[begin + index : begin + index + 1]
            expected = scheduler.add_noise(picture, noise, timestep)
            ours = row.signal_scale * picture + row.noise_scale * noise
            np.testing.assert_allclose(ours, expected, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("name", [name for name in SAMPLERS if name != "dpmpp_sde"])
def test_every_step_count_from_1_to_150_has_diffusers_timesteps_or_an_error(name):
    """diffusers' rounding moves the timesteps of a few counts out of the training range."""
    descriptions = describe(name, STABLE_DIFFUSION)
    method = METHODS[SAMPLERS[name].method]
    for schedule_type in (None, *method.schedule_types):
        options = {} if schedule_type is None else spacing_options(schedule_type)
        scheduler = scheduler_of(name, STABLE_DIFFUSION, **options)
        # KDPM2's set_timesteps is a loop in Python.
        counts = range(1, 151, 15 if name in ("dpm2", "dpm2_a") else 1)
        for steps in counts if schedule_type is None else (3, 7, 13, 61, 64, 110, 150):
            try:
                schedule = build_schedule(descriptions, name, steps, schedule_type=schedule_type)
            except UserError as error:
                assert error.subject == "num inference steps"
                with contextlib.suppress(ValueError):  # of diffusers
                    scheduler.set_timesteps(steps)
                    assert not 0 <= min(scheduler.timesteps) <= max(scheduler.timesteps) <= 999
                continue
            scheduler.set_timesteps(steps)
            ours = [row.timestep for row in schedule.rows]
            np.testing.assert_allclose(ours, scheduler.timesteps.numpy(), atol=2e-3, rtol=0)
