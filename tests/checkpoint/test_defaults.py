"""The settings that a bundle recommends, if the model recommends none."""

import pytest
from diffusers import DDIMScheduler, PNDMScheduler

from mlc_controlnet.checkpoint.defaults import STABLE_DIFFUSION, scheduler_of_loras, usual_defaults
from mlc_controlnet.config import LoraOption
from mlc_controlnet.export.sampler_descriptions import default_sampler, describe_samplers
from mlc_controlnet.runtime.samplers.schedule import build_schedule

PNDM = {"_class_name": "PNDMScheduler"}


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("sd-turbo", 1),
        ("sdxs-512-dreamshaper", 1),
        ("DreamShaper_8_LCM", 4),
        ("dreamshaper_8LCM", 4),
        ("realisticVisionV60B1_lightning", 4),
        ("Hyper-SD15-1step", 1),
        ("Hyper-SD15-8steps", 8),
        ("Hyper-SDXL-12steps", 12),
    ],
)
def test_the_name_of_a_distilled_model_tells_its_steps_and_that_guidance_is_in_its_weights(
    name: str, steps: int
) -> None:
    defaults = usual_defaults(name, [], {}, PNDM)
    assert (defaults.steps, defaults.guidance_scale) == (steps, 1.0)


@pytest.mark.parametrize("name", ["v1-5-pruned-emaonly", "hyperrealism_v3", "calcmix", "model-1-step", "step-4"])
def test_other_names_tell_nothing(name: str) -> None:
    assert usual_defaults(name, [], {}, PNDM) == STABLE_DIFFUSION


def test_a_distilled_lora_makes_a_distilled_model() -> None:
    loras = [LoraOption("org/lcm-lora-sdv1-5/pytorch_lora_weights.safetensors")]
    assert usual_defaults("v1-5", loras, {}, PNDM).guidance_scale == 1.0
    assert usual_defaults("v1-5", [LoraOption("/home/lcm/loras/style/a.safetensors")], {}, PNDM) == STABLE_DIFFUSION


def test_hyper_sds_cfg_lora_keeps_its_guidance() -> None:
    defaults = usual_defaults(
        "v1-5", [LoraOption("ByteDance/Hyper-SD/Hyper-SD15-8steps-CFG-lora.safetensors")], {}, PNDM
    )
    assert (defaults.steps, defaults.guidance_scale) == (8, 5.0)


TRAILING = " with trailing timesteps"


@pytest.mark.parametrize(
    ("name", "scheduler", "spacing"),
    [
        ("lcm-lora-sdv1-5", "LCMScheduler", None),
        ("TCD-SD15-LoRA", "TCDScheduler", None),
        ("Hyper-SD15-1step-lora.safetensors", "TCDScheduler", None),
        ("Hyper-SD15-4steps-lora.safetensors", "DDIMScheduler", "trailing"),
        ("Hyper-SD15-8steps-CFG-lora.safetensors", "DDIMScheduler", "trailing"),
        ("Hyper-SDXL-12steps-CFG-lora.safetensors", "DDIMScheduler", "trailing"),
        ("sdxl_lightning_4step_lora.safetensors", "EulerDiscreteScheduler", "trailing"),
    ],
)
def test_a_distilled_lora_brings_the_sampler_and_the_spacing_of_its_readme(
    name: str, scheduler: str, spacing: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    config = {**PNDM, "beta_start": 0.00085, "timestep_spacing": "leading"}
    wanted = {**config, "_class_name": scheduler, "timestep_spacing": spacing or "leading"}
    assert scheduler_of_loras([LoraOption("style"), LoraOption(name)], config) == wanted
    told = f"notice: LoRA {name}: the default sampler is diffusers' {scheduler}{TRAILING if spacing else ''}\n"
    assert capsys.readouterr().err == told
    assert scheduler_of_loras([LoraOption(name)], wanted) == wanted
    assert not capsys.readouterr().err, "nothing changes"


def test_the_spacing_reaches_the_bundles_sampler() -> None:
    """Two trailing steps of a thousand, as diffusers has them."""
    model: dict[str, object] = {**PNDM, "steps_offset": 1, "clip_sample": False, "beta_schedule": "scaled_linear"}
    config = scheduler_of_loras([LoraOption("Hyper-SD15-2steps-lora")], model)
    theirs = DDIMScheduler.from_config(PNDMScheduler.from_config(model).config, timestep_spacing="trailing")
    theirs.set_timesteps(2)
    rows = build_schedule(describe_samplers(config), default_sampler(config), 2).rows
    assert [row.timestep for row in rows] == theirs.timesteps.tolist() == [999, 499]


def test_another_lora_leaves_the_models_own_scheduler(capsys: pytest.CaptureFixture[str]) -> None:
    assert scheduler_of_loras([LoraOption("style"), LoraOption("calcmix")], PNDM) == PNDM
    assert not capsys.readouterr().err


@pytest.mark.parametrize("scheduler", ["LCMScheduler", "TCDScheduler"])
def test_a_scheduler_of_few_steps_tells_a_distilled_model(scheduler: str) -> None:
    defaults = usual_defaults("mine", [], {}, {"_class_name": scheduler})
    assert (defaults.steps, defaults.guidance_scale) == (4, 1.0)


def test_a_unet_that_reads_the_guidance_scale_gets_one() -> None:
    defaults = usual_defaults("LCM_Dreamshaper_v7", [], {"time_cond_proj_dim": 256}, {"_class_name": "LCMScheduler"})
    assert (defaults.steps, defaults.guidance_scale) == (4, 8.5)
