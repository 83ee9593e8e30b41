"""Contact sheets: what a model draws beside the scribbles that it gets."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mlc_controlnet.train.doodle.quality import Case

GAP, LINE = 6, 12  # pixels
COLUMNS = 8


def contact_sheet(cases: Sequence[Case], drawn: Sequence[np.ndarray], columns: int = COLUMNS) -> Image.Image:
    """Draw rows of scribble and picture, side by side with the name of the thing below.

    drawn: [H, W, 3] uint8 each.
    """
    height, width = drawn[0].shape[:2]
    cell = (2 * width + GAP, height + LINE + GAP)
    rows = -(-len(cases) // columns)
    sheet = Image.new("RGB", (columns * cell[0], rows * cell[1]), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(LINE - 2)
    for place, (case, picture) in enumerate(zip(cases, drawn, strict=True)):
        left, top = (place % columns) * cell[0], (place // columns) * cell[1]
        sheet.paste(Image.fromarray(255 - case.scribble), (left, top))
        sheet.paste(Image.fromarray(picture), (left + width, top))
        text = case.caption
        while text and pen.textlength(text, font) > 2 * width:
            text = text[:-1]
        pen.text((left, top + height), text, font=font, fill="black")
    return sheet


def reconstruction_sheet(pictures: np.ndarray, decoded: np.ndarray) -> Image.Image:
    """Draw a row of pictures and below it what the autoencoder made of them.  # both [B, H, W, 3] uint8"""
    return Image.fromarray(np.concatenate([np.concatenate(list(row), axis=1) for row in (pictures, decoded)]))
