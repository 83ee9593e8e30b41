"""The settings that a bundle recommends, if the model recommends none."""

import pytest

from mlc_controlnet.checkpoint.defaults import STABLE_DIFFUSION, scheduler_of_loras, usual_defaults
from mlc_controlnet.config import LoraOption

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
        ("Hyper-SD15-8steps-CFG", 8),
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


@pytest.mark.parametrize(
    ("name", "scheduler"), [("lcm-lora-sdv1-5", "LCMScheduler"), ("TCD-SD15-LoRA", "TCDScheduler")]
)
def test_a_distilled_lora_brings_the_scheduler_that_it_was_trained_for(
    name: str, scheduler: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = {**PNDM, "beta_start": 0.00085}
    assert scheduler_of_loras([LoraOption("style"), LoraOption(name)], config) == {**config, "_class_name": scheduler}
    assert capsys.readouterr().err == f"notice: LoRA {name}: the default sampler is {scheduler[:3].lower()}\n"


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
