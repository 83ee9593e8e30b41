"""The settings that a bundle recommends: the model's own, or the usual ones of its kind."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlc_controlnet.checkpoint.json_file import read_json
from mlc_controlnet.checkpoint.text_encoders import is_xl
from mlc_controlnet.config import Defaults, LoraOption
from mlc_controlnet.errors import UserError, print_notice

STABLE_DIFFUSION = Defaults(steps=20, guidance_scale=7.5, conditioning_scale=1.0)
# Distilled models need few steps. Guidance is distilled into their weights, or their UNet reads its scale: 8.5 is the
# default of diffusers' pipeline for latent consistency models.
STABLE_DIFFUSION_XL = Defaults(steps=20, guidance_scale=5.0, conditioning_scale=1.0)  # of diffusers' pipeline
FEW_STEPS = Defaults(steps=4, guidance_scale=1.0, conditioning_scale=1.0)
READS_GUIDANCE = Defaults(steps=4, guidance_scale=8.5, conditioning_scale=1.0)
KEEPS_GUIDANCE = 5.0  # of Hyper-SD's LoRAs with CFG in their names, made for 5 to 8
_SCHEDULERS_OF_FEW_STEPS = ("LCMScheduler", "TCDScheduler")
# A pattern in a LoRA's name -> the changes to the scheduler's configuration that its publisher's README makes (that of
# diffusers for LCM and TCD, ByteDance/Hyper-SD, ByteDance/SDXL-Lightning); the first that is found.
_RECIPES: Mapping[str, Mapping[str, str]] = {
    r"(?<![a-z])lcm(?![a-z])": {"_class_name": "LCMScheduler"},
    r"(?<![a-z])tcd(?![a-z])": {"_class_name": "TCDScheduler"},
    r"hyper[-_ ]?sd.*(?<!\d)1[-_ ]?steps?(?![a-z])": {"_class_name": "TCDScheduler"},
    r"hyper[-_ ]?sd": {"_class_name": "DDIMScheduler", "timestep_spacing": "trailing"},
    r"lightning": {"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "trailing"},
}
# The same of a whole model of Stable Diffusion XL in one file (stabilityai/sdxl-turbo has it in a folder too).
_XL_RECIPES = {**_RECIPES, "turbo": {"_class_name": "EulerAncestralDiscreteScheduler", "timestep_spacing": "trailing"}}
# No file says that a model or a LoRA is distilled, but its name does. Many names hold a part of these words.
_WORDS = r"sdxs|turbo|lightning|hyper[-_ ]?sd|(?<![a-z])(?:lcm|tcd|pcm)(?![a-z])"
_ONE_STEP = r"sdxs|sd[-_ ]?turbo"
_STEPS = r"(?<!\d)([1-9]|1[0-6])[-_ ]?steps?(?![a-z])"
_GUIDED = r"hyper[-_ ]?sd.*(?<![a-z])cfg(?![a-z])"

# The keys of generation_config.json.
_KEYS = {
    "steps": "num_inference_steps",
    "guidance_scale": "guidance_scale",
    "conditioning_scale": "controlnet_conditioning_scale",
}


def usual_defaults(
    name: str, loras: Sequence[LoraOption], unet: Mapping[str, Any], scheduler: Mapping[str, Any]
) -> Defaults:
    """Return the usual settings of a model's kind.

    Args:
        name: the model's.
        unet, scheduler: their configurations.
    """
    if unet.get("time_cond_proj_dim") is not None:
        return READS_GUIDANCE
    for text in (name.lower(), *map(_name_of, loras)):
        if re.search(_WORDS, text):
            stated = re.search(_STEPS, text)
            usual = 1 if re.search(_ONE_STEP, text) else FEW_STEPS.steps
            guidance = KEEPS_GUIDANCE if re.search(_GUIDED, text) else FEW_STEPS.guidance_scale
            steps = usual if stated is None else int(stated[1])
            return dataclasses.replace(FEW_STEPS, steps=steps, guidance_scale=guidance)
    is_of_few_steps = scheduler.get("_class_name") in _SCHEDULERS_OF_FEW_STEPS
    return FEW_STEPS if is_of_few_steps else STABLE_DIFFUSION_XL if is_xl(unet) else STABLE_DIFFUSION


def scheduler_of_loras(loras: Sequence[LoraOption], scheduler: Mapping[str, Any]) -> dict[str, Any]:
    """Return the scheduler's configuration with the class and the spacing that a distilled LoRA was trained for.

    This is diffusers' `LCMScheduler.from_config(pipe.scheduler.config)`, which an LCM-LoRA needs, and for Hyper-SD
    `DDIMScheduler.from_config(pipe.scheduler.config, timestep_spacing="trailing")`. A LoRA of another name changes
    nothing.
    """
    for lora in loras:
        for pattern, changes in _RECIPES.items():
            if re.search(pattern, _name_of(lora)) is None:
                continue
            if not changes.items() <= scheduler.items():
                spacing = changes.get("timestep_spacing")
                told = changes["_class_name"] + (f" with {spacing} timesteps" if spacing else "")
                print_notice(f"LoRA {lora.file}: the default sampler is diffusers' {told}")
            return {**scheduler, **changes}
    return dict(scheduler)


def scheduler_of_xl(name: str, scheduler: Mapping[str, Any]) -> dict[str, Any]:
    """Return the scheduler's configuration that a distilled Stable Diffusion XL in one file was trained for.

    A name that tells no distillation changes nothing.
    """
    found = (changes for pattern, changes in _XL_RECIPES.items() if re.search(pattern, name.lower()))
    return {**scheduler, **next(found, {})}


def _name_of(lora: LoraOption) -> str:
    """Return the names of a LoRA's file and of its folder or repository: a file's own name often says nothing."""
    return "/".join(Path(lora.file).parts[-2:]).lower()


def read_recommended(folder: Path) -> dict[str, float]:
    """Read the settings in the model's `generation_config.json`, by their names in `Defaults`.

    Raises:
        UserError: one is not a number.
    """
    file = folder / "generation_config.json"
    stated: dict[str, Any] = read_json(file) if file.is_file() else {}
    recommended = {name: stated[key] for name, key in _KEYS.items() if stated.get(key) is not None}
    for name, value in recommended.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UserError(f"{file}: {_KEYS[name]}", repr(value), "a number", "correct it")
    return {name: int(value) if name == "steps" else float(value) for name, value in recommended.items()}
