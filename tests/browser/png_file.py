"""Pictures as files that a visitor chooses."""

import base64
import io

import numpy as np
from PIL import Image


def png_file(picture: np.ndarray) -> dict[str, str]:
    """A PNG of `picture` ([H, W], [H, W, 3] or [H, W, 4]) as scenarios.mjs takes it."""
    data = io.BytesIO()
    Image.fromarray(picture).save(data, "PNG")
    return {"name": "drawing.png", "mimeType": "image/png", "base64": base64.b64encode(data.getvalue()).decode()}
