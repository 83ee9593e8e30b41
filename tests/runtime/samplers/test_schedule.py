"""What a user may ask of a sampler, and what a schedule promises besides its agreement with diffusers."""

import numpy as np
import pytest

from mlc_controlnet.bundle.sampler_description import SamplerDescriptions, SamplerOptions, TrainingSchedule
from mlc_controlnet.errors import UserError
from mlc_controlnet.runtime.samplers.row import Row, State, advance
from mlc_controlnet.runtime.samplers.schedule import METHODS, build_schedule

BETAS = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
ALPHAS_CUMPROD = np.cumprod(1 - BETAS).astype(np.float32)
LOG_SIGMAS = np.log(np.sqrt((1 - ALPHAS_CUMPROD) / ALPHAS_CUMPROD)).astype(np.float32)


def descriptions(prediction_type: str = "epsilon", **options) -> SamplerDescriptions:
    schedule = TrainingSchedule(ALPHAS_CUMPROD, LOG_SIGMAS)
    samplers = {method: SamplerOptions(method, skip_prk_steps=True, **options) for method in METHODS}
    return SamplerDescriptions(prediction_type, (schedule,), samplers)


@pytest.mark.parametrize(
    ("sampler", "steps", "options", "error"),
    [
        ("magic", 20, {}, "sampler: got 'magic', wanted one of ddim, ddpm"),
        ("ddim", 0, {}, "num inference steps: got 0, wanted 1 to 1000 for the sampler ddim"),
        ("ddim", 1001, {}, "num inference steps: got 1001, wanted 1 to 1000"),
        ("lcm", 51, {}, "num inference steps: got 51, wanted 1 to 50 for the sampler lcm"),
        ("ddim", 61, {"schedule_type": "trailing"}, "timesteps [999, -1], wanted timesteps from 0 to 999"),
        (
            "ddim",
            20,
            {"schedule_type": "karras"},
            "schedule type of the sampler ddim: got 'karras', wanted one",
        ),
        ("lcm", 4, {"schedule_type": "leading"}, "wanted none: lcm has timesteps of its own"),
        ("ddim", 20, {"timesteps": [999, 1]}, "sampler ddim: got timesteps, wanted a number of steps only"),
        ("heun", 20, {"sigmas": [9, 1, 0]}, "sampler heun: got sigmas, wanted timesteps"),
        ("euler", 20, {"timesteps": [9], "sigmas": [9, 0]}, "timesteps and sigmas: got both"),
        ("euler", 20, {"timesteps": [9, 9]}, "timesteps: got [9, 9], wanted 1 or more numbers, each less"),
        ("euler", 20, {"timesteps": []}, "timesteps: got []"),
        ("euler", 20, {"timesteps": [float("nan")]}, "timesteps: got [nan]"),
        ("euler", 20, {"sigmas": [9]}, "sigmas: got [9], wanted 2 or more numbers"),
        ("euler", 20, {"timesteps": [1000, 5]}, "timesteps: got [1000, 5], wanted 0 to 999"),
        ("euler", 20, {"timesteps": [9], "schedule_type": "karras"}, "got timesteps together with karras sigmas"),
        ("lcm", 20, {"timesteps": [9.5]}, "wanted whole numbers, for the sampler lcm"),
        ("multistep", 1000, {}, "row 501: got a division by zero"),
    ],
)
def test_what_a_sampler_cannot_do_is_one_message(sampler, steps, options, error):
    with pytest.raises(UserError) as raised:
        build_schedule(descriptions(), sampler, steps, **options)
    assert error in str(raised.value)


def test_a_sampler_that_diffusers_lacks_for_models_that_predict_the_data_is_refused():
    with pytest.raises(UserError, match="sampler euler_a: got a model that predicts sample, wanted one that"):
        build_schedule(descriptions("sample"), "euler_a", 20)


@pytest.mark.parametrize("sampler", METHODS)
def test_the_last_row_ends_at_x0(sampler):
    """Feed what a perfect model returns: the picture comes out. Three samplers stop at the lowest noise level."""
    rng = np.random.default_rng(1)
    picture, noise = rng.standard_normal((2, 1, 4, 3, 5)).astype(np.float32)
    schedule, state = build_schedule(descriptions(), sampler, 12), State()
    x = (schedule.rows[0].signal_scale * picture + schedule.rows[0].noise_scale * noise).astype(np.float32)
    for row in schedule.rows:
        eps = (x * row.x0_sample - picture) / -row.x0_output  # what a perfect model returns
        fresh = rng.standard_normal(x.shape).astype(np.float32)
        x, x0, state = advance(row, state, x, eps, lambda fresh=fresh: fresh)
        np.testing.assert_allclose(x0, picture, atol=2e-5)
    np.testing.assert_allclose(x, picture, atol=0.2 if sampler in ("pndm", "tcd", "deis") else 2e-4)


@pytest.mark.parametrize("sampler", METHODS)
@pytest.mark.parametrize(("strength", "steps"), [(1.0, 10), (0.5, 5), (0.25, 2), (0.09, 0), (0.0, 0)])
def test_a_strength_leaves_the_last_steps(sampler, strength, steps):
    rows = build_schedule(descriptions(), sampler, 10, strength=strength).rows
    whole = build_schedule(descriptions(), sampler, 10).rows
    assert [row.timestep for row in rows] == [row.timestep for row in whole[len(whole) - len(rows) :]]
    doubled = {"heun", "dpm2", "dpm2_a", "dpmpp_sde"}
    assert len(rows) == (max(2 * steps - 1, 0) if sampler in doubled else steps + (sampler == "pndm"))


@pytest.mark.parametrize("sampler", METHODS)
@pytest.mark.parametrize("strength", [1.0, 0.6])
def test_no_row_reads_history_from_before_the_first(sampler, strength):
    for index, row in enumerate(build_schedule(descriptions(), sampler, 9, strength=strength).rows):
        assert max(len(row.next_samples), len(row.next_outputs), len(row.next_noises)) <= index + 1
        assert len(row.corrected_samples) <= index
        assert len(row.corrected_outputs) <= index + 1


def test_noise_is_drawn_only_where_it_is_needed():
    def refuse() -> np.ndarray:
        raise AssertionError("drawn")

    x = np.ones((1, 4, 2, 2), np.float32)
    for row in build_schedule(descriptions(), "ddim", 4).rows:
        advance(row, State(), x, x, refuse)
    drawn = [bool(row.next_noises) for row in build_schedule(descriptions(), "euler_a", 4).rows]
    assert drawn == [True, True, True, False]


def test_a_row_reads_its_history_newest_first():
    row = Row(
        timestep=1.0,
        x0_sample=2.0,
        x0_output=3.0,
        output_sample=5.0,
        output_model=7.0,
        next_samples=(0.0, 10.0),
        next_outputs=(1.0, 100.0),
        next_noises=(1000.0, 10000.0),
        signal_scale=1.0,
        noise_scale=0.0,
    )
    one = np.ones(1, np.float32)
    state = State((2 * one,), (3 * one,), (4 * one,))
    x, x0, state = advance(row, state, one, one, lambda: 5 * one)
    assert (x0, x) == (5.0, 10 * 2 + 12 + 100 * 3 + 1000 * 5 + 10000 * 4)
    assert [history[0] for history in (state.samples, state.outputs, state.noises)] == [1.0, 12.0, 5.0]
