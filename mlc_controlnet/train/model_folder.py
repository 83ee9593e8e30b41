"""Writes a finished model as the bundled ones are kept: diffusers' layout in float16."""

import copy
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from diffusers import ControlNetModel, StableDiffusionControlNetPipeline


def save_pipeline(
    pipeline: StableDiffusionControlNetPipeline,
    folder: Path,
    steps: int,
    guidance_scale: float,
    controlnets: Mapping[str, ControlNetModel] | None = None,
) -> None:
    """Write a pipeline into `folder`, with the settings that it recommends.

    Several ControlNets are written as diffusers writes them, in controlnet, controlnet_1 and so on, and each
    configuration has its name where diffusers notes what a ControlNet was loaded from: a build names them so.
    diffusers' pipeline takes the first one, or those that its caller loads.

    Args:
        folder: exists and is empty; see `files.whole_folder`.
        steps: DDIM steps of a picture.
        guidance_scale: scale of classifier-free guidance.
        controlnets: by what their control images show, the pipeline's own first; None: the pipeline's, unnamed.
    """
    recommended = {
        "num_inference_steps": steps,
        "guidance_scale": guidance_scale,
        "controlnet_conditioning_scale": 1.0,
    }
    copy.deepcopy(pipeline).to(torch.float16).save_pretrained(folder)
    names: dict[Path, str] = {}
    for i, (name, controlnet) in enumerate((controlnets or {}).items()):
        own = folder / (f"controlnet_{i}" if i else "controlnet")
        copy.deepcopy(controlnet).to(torch.float16).save_pretrained(own)
        names[own / "config.json"] = name
    for file in [*folder.rglob("*config.json"), *folder.glob("model_index.json")]:
        _clean_config(file, names.get(file))
    (folder / "generation_config.json").write_text(json.dumps(recommended, indent=1) + "\n", encoding="utf-8")


def _clean_config(file: Path, name: str | None) -> None:
    """Put `name` in the place of the path that a part was loaded from, and name float32 as the dtype to load it in.

    diffusers loads its parts in float32 unless the caller names a dtype. transformers loads the text encoder in the
    dtype that its configuration names, and a pipeline runs only if all its parts have one dtype.
    """
    config = json.loads(file.read_text(encoding="utf-8"))
    config.pop("_name_or_path", None)
    if name is not None:
        config["_name_or_path"] = name
    if "dtype" in config:
        config["dtype"] = "float32"
    file.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
