"""Grids to look at: control image, generation, target, prompt; a row a sample."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from mlc_controlnet.train.base import Base
from mlc_controlnet.train.control import ControlledUNet
from mlc_controlnet.train.samples import Sample


def generate(
    base: Base, model: ControlledUNet, samples: Sequence[Sample], steps: int, guidance: float, seed: int
) -> np.ndarray:
    """Draw a picture for each sample's control image and prompt.  # [N, H, W, 3] uint8

    steps: of DDIM. guidance: classifier-free, 1 for none. The same seed gives the same noise every time, so that grids
    of different steps can be compared.
    """
    device = next(model.controlnet.parameters()).device
    pipeline = base.pipeline(model.unet, model.controlnet)
    pipeline.set_progress_bar_config(disable=True)
    model.controlnet.eval()
    pictures = pipeline(
        prompt=[s.prompt for s in samples],
        image=torch.stack([s.control for s in samples]).to(device),
        num_inference_steps=steps,
        guidance_scale=guidance,
        generator=[torch.Generator().manual_seed(seed + number) for number in range(len(samples))],
        output_type="np",
    ).images
    model.controlnet.train()
    return np.rint(np.nan_to_num(pictures) * 255).astype(np.uint8)


def draw_grid(samples: Sequence[Sample], pictures: np.ndarray) -> Image.Image:
    """Four columns: control image, generation, target, prompt."""
    height, width = pictures.shape[1:3]
    grid = Image.new("RGB", (4 * width, len(samples) * height), "white")
    pen = ImageDraw.Draw(grid)
    letters = max(8, width // 7)  # a letter of Pillow's own font is about six pixels wide
    for row, (sample, picture) in enumerate(zip(samples, pictures, strict=True)):
        cells = (_control_picture(sample.control), picture, _to_uint8((sample.pixels + 1) / 2))
        for column, cell in enumerate(cells):
            grid.paste(Image.fromarray(cell), (column * width, row * height))
        pen.multiline_text((3 * width + 4, row * height + 4), textwrap.fill(sample.prompt, letters), fill="black")
    return grid


def write_png(grid: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    grid.save(partial, format="PNG")
    partial.replace(path)


def _control_picture(control: torch.Tensor) -> np.ndarray:
    image = _to_uint8(control)  # [H, W, C]
    return np.repeat(image, 3, axis=-1) if image.shape[-1] == 1 else np.ascontiguousarray(image[..., :3])


def _to_uint8(image: torch.Tensor) -> np.ndarray:
    """[C, H, W] in 0..1 -> [H, W, C] uint8."""
    return np.rint(image.clamp(0, 1).permute(1, 2, 0).numpy() * 255).astype(np.uint8)
