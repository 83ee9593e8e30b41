"""The pictures that a calibration draws: prompts of the user's, and control images."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from mlc_controlnet.checkpoint import Checkpoint
from mlc_controlnet.config import CalibrationOption
from mlc_controlnet.errors import UserError, print_notice
from mlc_controlnet.images.read import read_image
from mlc_controlnet.train.circles.drawing import draw_source, random_circle

SEED = 0


@dataclass(frozen=True)
class Picture:
    """What is drawn, with one ControlNet: `controlnet` is its name, None of a model without any."""

    prompt: str
    controlnet: str | None = None
    control_image: Image.Image | None = None


def choose_pictures(option: CalibrationOption, checkpoint: Checkpoint) -> list[Picture]:
    """Return a picture for each prompt, and more if that leaves a ControlNet out; the ControlNets take turns.

    Without control images of the user's, each picture has the outline of a circle, with a notice.

    Raises:
        UserError: there are more or fewer control images than ControlNets, or one cannot be read.
    """
    names = list(checkpoint.controlnets)
    images = [read_image(path, "--calibrate-image") for path in option.control_images]
    if images and len(images) != len(names):
        wanted = f"{len(names)}, one for each ControlNet ({', '.join(names)})" if names else "none: no ControlNet"
        raise UserError("--calibrate-image", f"{len(images)} of them", wanted, "pass it so often, in their order")
    if not names:
        return [Picture(prompt) for prompt in option.prompts]
    if not images:
        print_notice("--calibrate: outlines of circles are the control images; pass your own with --calibrate-image")
    rng = np.random.default_rng(SEED)
    pictures = []
    for number in range(max(len(option.prompts), len(names))):
        place = number % len(names)
        image = images[place] if images else outline(rng, checkpoint.shape.width, checkpoint.shape.height)
        pictures.append(Picture(option.prompts[number % len(option.prompts)], names[place], image))
    return pictures


def held_out(pictures: Sequence[Picture]) -> list[Picture]:
    """Return a picture for each ControlNet, to be drawn with noise that calibration has not seen."""
    return list({picture.controlnet: picture for picture in pictures}.values())


def outline(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """Draw a circle in white on black, in a picture of this size in pixels."""
    side = min(width, height)
    picture = Image.new("RGB", (width, height))
    picture.paste(Image.fromarray(draw_source(random_circle(rng, side), side)))
    return picture
