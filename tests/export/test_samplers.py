import pytest
import torch
from diffusers import DDPMScheduler, PNDMScheduler

from mlc_controlnet.errors import UserError
from mlc_controlnet.export.samplers import SAMPLERS, build_sampler_tables, check_samplers, default_sampler
from mlc_controlnet.train.circles.architecture import build_scheduler

STABLE_DIFFUSION = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
}
CONFIGS = {
    "circles": build_scheduler().config,
    "sd15": PNDMScheduler(**STABLE_DIFFUSION, set_alpha_to_one=False, skip_prk_steps=True, steps_offset=1).config,
    "sd21": DDPMScheduler(**STABLE_DIFFUSION, prediction_type="v_prediction", clip_sample=False).config,
    "leading_sample": DDPMScheduler(
        **STABLE_DIFFUSION, prediction_type="sample", timestep_spacing="leading", clip_sample=False
    ).config,
    "linspace_linear": DDPMScheduler(beta_schedule="linear", timestep_spacing="linspace", clip_sample=False).config,
}


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("steps", [1, 4, 20, 50])
def test_a_table_does_what_scheduler_step_does(config, sampler, steps):
    """A whole trajectory with random model outputs, 1e-5 of the sample's scale at every step."""
    table = build_sampler_tables(CONFIGS[config], [steps])[sampler][steps]
    scheduler = SAMPLERS[sampler](CONFIGS[config])
    scheduler.set_timesteps(steps)
    noise = torch.Generator().manual_seed(steps)
    x = torch.randn(1, 4, 6, 9, generator=noise, dtype=torch.float64) * float(scheduler.init_noise_sigma)
    assert table.init_noise_sigma == pytest.approx(float(scheduler.init_noise_sigma), rel=1e-7)
    assert [row.timestep for row in table.rows] == scheduler.timesteps.tolist()

    x0_before = torch.zeros_like(x)
    for row, timestep in zip(table.rows, scheduler.timesteps, strict=True):
        scale = x.abs().max()
        torch.testing.assert_close(
            x * row.model_input_scale, scheduler.scale_model_input(x, timestep), rtol=0, atol=1e-5
        )
        m = torch.randn(x.shape, generator=noise, dtype=torch.float64)
        x0 = row.x0_sample * x + row.x0_output * m
        by_table = row.next_sample * x + row.next_x0 * x0 + row.next_previous_x0 * x0_before
        x = scheduler.step(m, timestep, x).prev_sample.double()
        assert (by_table - x).abs().max() <= 1e-5 * scale
        x0_before = x0


def test_all_three_samplers_end_at_the_models_x0():
    """The last row drops the sample: what remains is the prediction."""
    for tables in build_sampler_tables(CONFIGS["circles"], [20]).values():
        last = tables[20].rows[-1]
        assert (last.next_sample, last.next_x0, last.next_previous_x0) == pytest.approx((0, 1, 0), abs=1e-6)


def test_the_second_order_sampler_looks_back_and_the_others_do_not():
    tables = build_sampler_tables(CONFIGS["circles"], [20])
    looks_back = {name: any(row.next_previous_x0 for row in table[20].rows) for name, table in tables.items()}
    assert looks_back == {"ddim": False, "euler": False, "dpmpp_2m": True}


@pytest.mark.parametrize(
    ("changes", "left_out", "reason"),
    [
        ({"clip_sample": True}, ["ddim"], "clip_sample true"),
        ({"thresholding": True}, ["ddim", "dpmpp_2m"], "thresholding true"),
        # The noise that a UNet predicts at zero signal says nothing about x0: 1 / 0.
        ({"prediction_type": "epsilon"}, ["ddim"], "a step that is nan away from a linear one"),
    ],
)
def test_a_sampler_that_no_table_can_hold_is_left_out_and_the_others_are_not(changes, left_out, reason):
    as_saved = {key: value for key, value in CONFIGS["circles"].items() if key != "_use_default_values"}
    config = {**as_saved, **changes}
    errors = check_samplers(config)
    assert list(errors) == left_out
    assert all(reason in error.got for error in errors.values())
    rest = [name for name in SAMPLERS if name not in left_out]
    assert list(build_sampler_tables(config, [4])) == rest
    assert default_sampler(config) == rest[0]


def test_a_number_of_steps_that_no_table_can_hold_is_left_out_alone():
    """1000 steps include timestep 999, which has no signal; 500 steps do not."""
    config = {**CONFIGS["circles"], "prediction_type": "epsilon", "timestep_spacing": "leading"}
    assert list(build_sampler_tables(config, [500, 1000])["ddim"]) == [500]


def test_a_configuration_that_no_sampler_can_use_is_refused():
    with pytest.raises(UserError, match="sampler ddim: got unheard_of is not implemented"):
        check_samplers({**CONFIGS["circles"], "beta_schedule": "unheard_of"})


def test_a_configuration_that_does_not_speak_of_clipping_is_not_clipped():
    silent = {key: value for key, value in CONFIGS["circles"].items() if key != "clip_sample"}
    assert build_sampler_tables(silent, [4]) == build_sampler_tables(CONFIGS["circles"], [4])


def test_a_number_of_steps_that_diffusers_rounds_out_of_range_has_no_table():
    """61 trailing steps get a 62nd at timestep -1; 1000 steps with steps_offset 1 start at timestep 1000."""
    assert 61 not in build_sampler_tables(CONFIGS["circles"], [60, 61])["ddim"]
    leading = {**CONFIGS["sd15"], "timestep_spacing": "leading"}
    assert list(build_sampler_tables(leading, [500, 1000])["ddim"]) == [500]
