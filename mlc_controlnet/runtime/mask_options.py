"""The checks of the options for pictures that a drawing starts from. Imports no numpy, as `request.py` asks.

Twin: web/src/engine/mask_options.ts.
"""

from typing import Any

from mlc_controlnet.errors import UserError, check_one_of

FILL, ORIGINAL, LATENT_NOISE, LATENT_NOTHING = MASKED_CONTENTS = ("fill", "original", "latent noise", "latent nothing")
MAX_MASK_BLUR = 256  # pixels: sd-webui's slider ends at 64


def check_strength(subject: str, value: Any) -> float:
    """Return `value` as a float if it is a number from 0 to 1; raise UserError otherwise.

    strength: the share of the steps that run on the noised picture. 0 keeps the picture, 1 starts from noise alone.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise UserError(subject, repr(value), "a number from 0 to 1", "0 keeps the picture, 1 draws a new one")
    return float(value)


def check_mask_blur(subject: str, value: Any) -> float:
    """Return `value` as a float if it is a number from 0 to MAX_MASK_BLUR; raise UserError otherwise.

    mask_blur: the standard deviation, in pixels of the mask, of the Gaussian that softens the mask's edge.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MAX_MASK_BLUR:
        wanted = f"a number of pixels from 0 to {MAX_MASK_BLUR}"
        raise UserError(subject, repr(value), wanted, "4 softens an edge, 0 leaves it sharp")
    return float(value)


def check_padding_mask_crop(subject: str, value: Any) -> int | None:
    """Return `value` if it is None or an integer of 0 or more; raise UserError otherwise.

    padding_mask_crop: None draws the whole picture. A number draws only the part around the mask, with this many
    pixels of the picture on each side, at the model's full size, and pastes it back.
    """
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
        wanted = "an integer of 0 or more pixels"
        raise UserError(subject, repr(value), wanted, "32 is usual; leave it out to draw the whole picture")
    return value


def check_masked_content(subject: str, value: Any) -> str:
    """Return `value` if it is one of MASKED_CONTENTS; raise UserError otherwise.

    masked_content: what the part that the mask selects starts from, see `masked_content.py`.
    """
    check_one_of(subject, value, MASKED_CONTENTS)
    return str(value)
