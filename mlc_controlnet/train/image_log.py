"""Draws grids of control image, generation, target and prompt, with one row per sample."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from mlc_controlnet.files import whole_file
from mlc_controlnet.train.base import Base
from mlc_controlnet.train.controlled_unet import ControlledUNet
from mlc_controlnet.train.data.samples import Sample

COLUMNS = ("control image", "generation", "target", "prompt")
GAP = 4  # pixels
SMALLEST_LETTER, LARGEST_LETTER = 10, 24  # pixels


def generate(
    base: Base, model: ControlledUNet, samples: Sequence[Sample], steps: int, guidance: float, seed: int
) -> np.ndarray:
    """Draw a picture for each sample's control image and prompt.  # [N, H, W, 3] uint8

    Args:
        steps: DDIM steps.
        guidance: scale of classifier-free guidance; 1: none.
        seed: the same seed gives the same noise, so that grids of different training steps can be compared.
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
    """Draw four columns with their names above them: control image, generation, target, prompt."""
    height, width = pictures.shape[1:3]
    font, line = _font(width)
    heading = line + GAP
    grid = Image.new("RGB", (4 * width + 3 * GAP, heading + len(samples) * (height + GAP)), "white")
    pen = ImageDraw.Draw(grid)
    for column, name in enumerate(COLUMNS):
        pen.text((column * (width + GAP), 0), _lines(name, font, width, 1)[0], font=font, fill="gray")
    for row, (sample, picture) in enumerate(zip(samples, pictures, strict=True)):
        top = heading + row * (height + GAP)
        cells = (_control_picture(sample.control), picture, _to_uint8((sample.pixels + 1) / 2))
        for column, cell in enumerate(cells):
            grid.paste(Image.fromarray(cell), (column * (width + GAP), top))
        for number, text in enumerate(_lines(sample.prompt, font, width, height // line)):
            pen.text((3 * (width + GAP), top + number * line), text, font=font, fill="black")
    return grid


def cut_grid(grid: Image.Image, height: int, width: int) -> list[tuple[Image.Image, Image.Image, Image.Image]]:
    """Cut a grid of `draw_grid` into control image, generation and target of each row, each of height x width."""
    heading = _font(width)[1] + GAP
    rows = (grid.height - heading) // (height + GAP)
    tops = [heading + row * (height + GAP) for row in range(rows)]
    lefts = [column * (width + GAP) for column in range(3)]
    cells = [[grid.crop((left, top, left + width, top + height)) for left in lefts] for top in tops]
    return [(control, generation, target) for control, generation, target in cells]


def _font(width: int) -> tuple[ImageFont.FreeTypeFont, int]:
    """Return the font for cells of `width` pixels, and the height of a line."""
    font = ImageFont.load_default(min(max(SMALLEST_LETTER, width // 10), LARGEST_LETTER))
    assert isinstance(font, ImageFont.FreeTypeFont)  # because a size is given
    return font, round(1.25 * font.size)


def _lines(text: str, font: ImageFont.FreeTypeFont, width: int, count: int) -> list[str]:
    """Break `text` into at most `count` lines of `width` pixels; a longer text ends in dots."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    kept = lines[: max(count, 1)]
    if len(kept) < len(lines):
        kept[-1] += "..."
    for number, shown in enumerate(kept):
        if font.getlength(shown) > width:
            while shown and font.getlength(f"{shown}...") > width:
                shown = shown[:-1]
            kept[number] = f"{shown.removesuffix('...')}..."
    return kept


def write_png(grid: Image.Image, path: Path) -> None:
    """Write the grid to `path`, whole or not at all, and create missing folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as partial:
        grid.save(partial, format="PNG")


def _control_picture(control: torch.Tensor) -> np.ndarray:
    image = _to_uint8(control)  # [H, W, C]
    return np.repeat(image, 3, axis=-1) if image.shape[-1] == 1 else np.ascontiguousarray(image[..., :3])


def _to_uint8(image: torch.Tensor) -> np.ndarray:
    """[C, H, W] in 0..1 -> [H, W, C] uint8."""
    return np.rint(image.clamp(0, 1).permute(1, 2, 0).numpy() * 255).astype(np.uint8)
