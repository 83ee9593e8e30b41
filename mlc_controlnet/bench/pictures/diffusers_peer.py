"""Draw the same picture with diffusers in eager torch, the reference that native bundles are compared with."""

from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import StableDiffusionControlNetPipeline
from PIL import Image

from mlc_controlnet.errors import UserError


def load_peer(model: Path) -> Callable[[str, Image.Image, int, float], None]:
    """Return a function (prompt, control image, steps, guidance scale) that draws one picture.

    model: a folder in diffusers' layout. Raises UserError if it is not one.
    """
    if not (model / "model_index.json").is_file():
        raise UserError(str(model), "no model_index.json", "a model in diffusers' layout", "pass the model's folder")
    pipeline = StableDiffusionControlNetPipeline.from_pretrained(
        model, dtype=torch.float32, local_files_only=True, safety_checker=None, requires_safety_checker=False
    )
    pipeline.set_progress_bar_config(disable=True)

    def draw(prompt: str, control_image: Image.Image, steps: int, guidance_scale: float) -> None:
        pipeline(prompt, image=control_image, num_inference_steps=steps, guidance_scale=guidance_scale)

    return draw


def describe_peer() -> str:
    """Return for example `diffusers 0.42.1 in torch 2.13.0 eager, float32, 2 threads`."""
    import diffusers

    versions = f"diffusers {diffusers.__version__} in torch {torch.__version__}"
    return f"{versions} eager, float32, {torch.get_num_threads()} threads"
