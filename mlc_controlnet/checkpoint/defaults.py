"""The settings that a bundle recommends: the model's own, or the usual ones of its kind."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlc_controlnet.checkpoint.json_file import read_json
from mlc_controlnet.config import Defaults
from mlc_controlnet.errors import UserError

STABLE_DIFFUSION = Defaults(steps=20, guidance_scale=7.5, conditioning_scale=1.0)
# Distilled models need few steps. Guidance is distilled into their weights, or their UNet reads its scale: 8.5 is the
# default of diffusers' pipeline for latent consistency models.
FEW_STEPS = Defaults(steps=4, guidance_scale=1.0, conditioning_scale=1.0)
READS_GUIDANCE = Defaults(steps=4, guidance_scale=8.5, conditioning_scale=1.0)
_SCHEDULERS_OF_FEW_STEPS = ("LCMScheduler", "TCDScheduler")
# No file says that a model or a LoRA is distilled, but its name does. Many names hold a part of these words.
_WORDS = r"sdxs|turbo|lightning|hyper[-_ ]?sd|(?<![a-z])(?:lcm|tcd|pcm)(?![a-z])"
_ONE_STEP = r"sdxs|sd[-_ ]?turbo"
_STEPS = r"(?<!\d)([1-8])[-_ ]?steps?(?![a-z])"

# The keys of generation_config.json.
_KEYS = {
    "steps": "num_inference_steps",
    "guidance_scale": "guidance_scale",
    "conditioning_scale": "controlnet_conditioning_scale",
}


def usual_defaults(names: Sequence[str], unet: Mapping[str, Any], scheduler: Mapping[str, Any]) -> Defaults:
    """Return the usual settings of a model's kind.

    Args:
        names: the name of the model and those of its LoRAs.
        unet, scheduler: their configurations.
    """
    if unet.get("time_cond_proj_dim") is not None:
        return READS_GUIDANCE
    for name in map(str.lower, names):
        if re.search(_WORDS, name):
            stated = re.search(_STEPS, name)
            usual = 1 if re.search(_ONE_STEP, name) else FEW_STEPS.steps
            return dataclasses.replace(FEW_STEPS, steps=usual if stated is None else int(stated[1]))
    return FEW_STEPS if scheduler.get("_class_name") in _SCHEDULERS_OF_FEW_STEPS else STABLE_DIFFUSION


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
