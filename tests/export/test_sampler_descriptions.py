import pytest

from mlc_controlnet.errors import UserError
from mlc_controlnet.export.sampler_descriptions import (
    SAMPLERS,
    check_samplers,
    default_sampler,
    describe_samplers,
    own_sampler,
)
from mlc_controlnet.runtime.samplers.schedule import build_schedule
from mlc_controlnet.train.circles.architecture import build_scheduler

STABLE_DIFFUSION = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
}
CIRCLES = {key: value for key, value in build_scheduler().config.items() if key != "_use_default_values"}
CIRCLES |= {"_class_name": "DDIMScheduler"}
SD15 = {
    "_class_name": "PNDMScheduler",
    **STABLE_DIFFUSION,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "clip_sample": False,
}
SD21 = {"_class_name": "DDPMScheduler", **STABLE_DIFFUSION, "prediction_type": "v_prediction", "clip_sample": False}


@pytest.mark.parametrize(("config", "default"), [(CIRCLES, "ddim"), (SD15, "pndm"), (SD21, "ddpm")])
def test_a_model_has_every_sampler_and_draws_with_its_own(config, default):
    descriptions = describe_samplers(config)
    assert list(descriptions.samplers) == list(SAMPLERS)
    assert default_sampler(config) == default
    for name in SAMPLERS:
        assert build_schedule(descriptions, name, 4).rows


@pytest.mark.parametrize(
    ("scheduler_class", "options", "name"),
    [
        ("LCMScheduler", {}, "lcm"),
        ("TCDScheduler", {}, "tcd"),
        ("EulerAncestralDiscreteScheduler", {}, "euler_a"),
        ("DPMSolverSDEScheduler", {}, "dpmpp_sde"),
        ("DPMSolverMultistepScheduler", {}, "dpmpp_2m"),
        ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}, "dpmpp_2m_sde"),
        ("DPMSolverMultistepScheduler", {"solver_order": 3}, "dpmpp_3m"),
        ("DPMSolverSinglestepScheduler", {}, "dpmpp_2s"),
        (
            "DPMSolverSinglestepScheduler",
            {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min", "solver_order": 1},
            "dpm_1s",
        ),
    ],
)
def test_a_saved_class_and_its_options_name_the_default(scheduler_class, options, name):
    config = {"_class_name": scheduler_class, **STABLE_DIFFUSION, **options}
    assert own_sampler(config) == name
    assert default_sampler(config) == name
    assert name in describe_samplers(config, [name]).samplers


def test_other_samplers_take_the_options_that_they_know():
    config = {"_class_name": "UniPCMultistepScheduler", **STABLE_DIFFUSION}
    config |= {"use_karras_sigmas": True, "timestep_spacing": "trailing", "clip_sample": False}
    samplers = describe_samplers(config).samplers
    assert samplers["unipc"].sigma_spacing == samplers["heun"].sigma_spacing == "karras"
    assert samplers["ddim"].sigma_spacing == ""
    assert samplers["ddim"].timestep_spacing == "trailing"


def test_training_schedules_that_are_equal_are_stored_once():
    """Only some of diffusers' classes know zero-terminal SNR, and some of these avoid the zero."""
    assert len(describe_samplers(SD15).schedules) == 1
    circles = describe_samplers(CIRCLES)
    last = [schedule.alphas_cumprod[-1] for schedule in circles.schedules]
    assert last == [0, pytest.approx(0.00466, rel=1e-3), 2**-24]
    assert [circles.samplers[name].schedule for name in ("ddim", "heun", "euler")] == [0, 1, 2]


@pytest.mark.parametrize(
    ("changes", "left_out", "reason"),
    [
        ({"clip_sample": True}, ["ddim", "ddpm", "heun", "lcm", "tcd"], "clip_sample true"),
        # The noise that a UNet predicts at zero signal says nothing about x0: 1 / 0.
        ({"prediction_type": "epsilon"}, ["ddim", "ddpm", "lcm", "tcd"], "a division by zero"),
        ({"prediction_type": "sample"}, ["pndm", "euler_a", "dpm2", "dpm2_a", "dpmpp_sde"], "that predicts sample"),
    ],
)
def test_a_sampler_that_the_model_excludes_is_left_out_and_the_others_are_not(changes, left_out, reason):
    errors = check_samplers({**CIRCLES, **changes})
    assert [name for name in errors if reason in errors[name].got] == left_out
    described = describe_samplers({**CIRCLES, **changes}).samplers
    assert list(described) == [name for name in SAMPLERS if name not in errors]


def test_thresholds_exclude_the_classes_that_know_them():
    assert {"ddim", "dpmpp_2m", "unipc", "deis"} <= check_samplers({**CIRCLES, "thresholding": True}).keys()
    assert default_sampler({**CIRCLES, "thresholding": True}) == "pndm"


def test_a_configuration_that_no_sampler_can_use_is_refused():
    with pytest.raises(UserError, match="sampler ddim: got unheard_of is not implemented"):
        check_samplers({**CIRCLES, "beta_schedule": "unheard_of"})


def test_a_configuration_that_does_not_speak_of_clipping_is_not_clipped():
    silent = {key: value for key, value in CIRCLES.items() if key != "clip_sample"}
    assert describe_samplers(silent).samplers == describe_samplers(CIRCLES).samplers
