"""The further inputs of an inpainting model: a picture, and a mask that is white where the model repaints it.

The semantics are those of diffusers' StableDiffusionControlNetInpaintPipeline with strength 1 and a UNet of nine
channels. Twin: web/src/engine/inpainting.ts.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from mlc_controlnet.bundle.manifest import Manifest
from mlc_controlnet.errors import UserError
from mlc_controlnet.images.prepare import prepare_image

IMAGE, MASK_IMAGE = "image", "mask image"  # their names in error messages and notices
MASK_THRESHOLD = 128  # the darkest grey that counts as white: 0.5 of 255, rounded up


@dataclass(frozen=True)
class Inpainting:
    """A picture and a mask in the form that an inpainting UNet reads."""

    masked_image: np.ndarray  # float32 [1, 3, H, W] in -1..1; 0 where the model repaints
    mask: np.ndarray  # float32 [1, 1, h, w]: 1 where the model repaints, otherwise 0
    notices: tuple[str, ...]  # how the two pictures were changed to fit


def prepare_inpainting(
    image: Image.Image | None, mask_image: Image.Image | None, manifest: Manifest
) -> Inpainting | None:
    """Erase the part of `image` that `mask_image` selects; return None for a model that does not inpaint.

    Both pictures are scaled and cropped as a control image is. A latent cell takes the mask of its upper left pixel.

    Raises UserError if an inpainting model lacks one of the two, another model gets one, or one is not a picture.
    """
    model = manifest.model
    given = ((IMAGE, image), (MASK_IMAGE, mask_image))
    if not manifest.inpaints:
        for subject, picture in given:
            if picture is not None:
                remedy = "leave it out, or build a bundle of an inpainting model"
                raise UserError(subject, "one", f"none: {model.name} is not an inpainting model", remedy)
        return None
    for subject, picture in given:
        if picture is None:
            remedy = "pass both, and a control image"
            raise UserError(subject, "none", "a picture and a mask that is white where the model repaints", remedy)
    whole = prepare_image(image, model.height, model.width, IMAGE)
    mask = prepare_image(mask_image, model.height, model.width, MASK_IMAGE)
    repainted = np.asarray(mask.picture.convert("L")) >= MASK_THRESHOLD  # [H, W]
    masked_image = np.where(repainted, np.float32(0), 2 * whole.array - 1)  # [1, 3, H, W]
    cells = repainted[:: model.vae_scale_factor, :: model.vae_scale_factor]  # [h, w]
    return Inpainting(masked_image, cells[None, None].astype(np.float32), (*whole.notices, *mask.notices))
