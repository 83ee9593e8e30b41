"""Writes a finished model as the bundled ones are kept: diffusers' layout in float16."""

import copy
import json
from pathlib import Path

import torch
from diffusers import ModelMixin, StableDiffusionControlNetPipeline


def save_pipeline(pipeline: StableDiffusionControlNetPipeline, folder: Path, steps: int, guidance_scale: float) -> None:
    """Write a pipeline into `folder`, with the settings that it recommends.

    Args:
        folder: exists and is empty; see `files.whole_folder`.
        steps: DDIM steps of a picture.
        guidance_scale: scale of classifier-free guidance.
    """
    recommended = {
        "num_inference_steps": steps,
        "guidance_scale": guidance_scale,
        "controlnet_conditioning_scale": 1.0,
    }
    copy.deepcopy(pipeline).to(torch.float16).save_pretrained(folder)
    _clean_configs(folder)
    (folder / "generation_config.json").write_text(json.dumps(recommended, indent=1) + "\n", encoding="utf-8")


def save_part(part: ModelMixin, folder: Path) -> None:
    """Write one more part of a model, such as a second ControlNet, into `folder`."""
    copy.deepcopy(part).to(torch.float16).save_pretrained(folder)
    _clean_configs(folder)


def _clean_configs(folder: Path) -> None:
    """Remove the path that a part was loaded from, and name float32 as the dtype to load it in.

    diffusers loads its parts in float32 unless the caller names a dtype. transformers loads the text encoder in the
    dtype that its configuration names, and a pipeline runs only if all its parts have one dtype.
    """
    for file in [*folder.rglob("*config.json"), *folder.glob("model_index.json")]:
        config = json.loads(file.read_text(encoding="utf-8"))
        config.pop("_name_or_path", None)
        if "dtype" in config:
            config["dtype"] = "float32"
        file.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
