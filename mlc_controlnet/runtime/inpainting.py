"""The picture that a drawing starts from, the mask of the part that is repainted, and the way back into the picture.

The semantics are those of diffusers' StableDiffusionControlNetImg2ImgPipeline and
StableDiffusionControlNetInpaintPipeline, for UNets of four and of nine channels. Twin: web/src/engine/inpainting.ts.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from mlc_controlnet.bundle.manifest import Manifest
from mlc_controlnet.components import VAE_ENCODER
from mlc_controlnet.errors import UserError
from mlc_controlnet.images.prepare import PreparedImage, cover, prepare_image, read_picture
from mlc_controlnet.notices import Notice
from mlc_controlnet.runtime.crop import Crop, cut_out, put_back
from mlc_controlnet.runtime.latents import check_latents
from mlc_controlnet.runtime.mask_options import ORIGINAL
from mlc_controlnet.runtime.masked_content import fill
from mlc_controlnet.runtime.masks import blur_mask, crop_around

IMAGE, MASK_IMAGE = "image", "mask image"  # their names in error messages and notices
MASK_THRESHOLD = 128  # the darkest grey that counts as white: 0.5 of 255, rounded up


@dataclass(frozen=True)
class InitImage:
    """The picture that a drawing starts from, as the VAE encoder reads it, or its latents."""

    array: np.ndarray  # float32 [1, 3, H, W] in -1..1; [1, C, h, w] if it is latent
    notices: tuple[str, ...] = ()  # how it was changed to fit
    is_latent: bool = False


@dataclass(frozen=True)
class Inpainting:
    """A picture and a mask in the form that a denoising loop reads, and what `paste` needs afterwards."""

    array: np.ndarray  # float32 [1, 3, H, W] in -1..1: the picture, or its part around the mask, to start from
    masked_image: np.ndarray  # float32 [1, 3, H, W] in -1..1; 0 where the model repaints: for nine channels
    mask: np.ndarray  # float32 [1, 1, h, w]: 1 where the model repaints, otherwise 0
    original: Image.Image  # RGB: the whole picture, of H x W, or of its own size if there is a crop
    overlay_mask: Image.Image  # L, of the same size: the share of the drawn picture in the result, 255 for all of it
    crop: Crop | None  # the part of `original` that is drawn; None: all of it
    notices: tuple[str, ...]  # how the two pictures were changed to fit


def prepare_init_image(image: Image.Image | np.ndarray | None, manifest: Manifest) -> InitImage | None:
    """Fit the picture of an img2img request to the model, as a control image is; return None if there is none.

    Latents, float32 [1, C, h, w] as `output_type` "latent" returns them, are taken as they are, as in diffusers.

    Raises UserError if the bundle has no VAE encoder, or `image` is neither a picture nor latents of the size.
    """
    if image is None:
        return None
    if isinstance(image, np.ndarray):
        return InitImage(check_latents(IMAGE, image, manifest, "pass latents of this size, or a picture"), (), True)
    _check_encoder(IMAGE, manifest)
    model = manifest.model
    prepared = prepare_image(image, model.height, model.width, IMAGE)
    return InitImage(2 * prepared.array - 1, prepared.notices)


def prepare_inpainting(
    image: Image.Image | np.ndarray | None,
    mask_image: Image.Image | None,
    manifest: Manifest,
    mask_blur: float = 0.0,
    padding_mask_crop: int | None = None,
    masked_content: str = ORIGINAL,
) -> Inpainting | None:
    """Select the part of `image` that `mask_image` shows in white; return None if there is no mask.

    Both pictures are scaled and cropped as a control image is. With `padding_mask_crop`, only the part of the picture
    around the mask is drawn, at the model's size. The mask is softened first; from its middle grey on it counts as
    white, and a latent cell takes the mask of its upper left pixel.

    mask_blur, padding_mask_crop, masked_content: see `mask_options`. Other content than the original is filled with
    the colours around it before the VAE encodes it.

    Raises UserError if an inpainting model lacks a picture or a mask, there is a mask without a picture, the bundle has
    no VAE encoder, or one of the two is not a picture; with `padding_mask_crop` also if the mask is black everywhere,
    or its aspect ratio is not the picture's.
    """
    check_given(image, mask_image, manifest)
    if mask_image is None:
        return None
    if isinstance(image, np.ndarray):
        raise UserError(IMAGE, "latents beside a mask image", "a picture", "decode them, or leave the mask out")
    height, width = manifest.model.height, manifest.model.width
    if padding_mask_crop is None:
        original = prepare_image(image, height, width, IMAGE)
        mask = _soften(read_picture(mask_image, height, width, MASK_IMAGE, channels=1), mask_blur)
        mask = cover(mask, height, width, MASK_IMAGE)
        crop, drawn, selected = None, original, mask
        notices = (*original.notices, *mask.notices)
    else:
        original = read_picture(image, height, width, IMAGE)
        mask = _soften(_fit_mask(mask_image, original.picture), mask_blur)
        crop = crop_around(np.asarray(mask.picture), height, width, padding_mask_crop)
        if crop is None:
            raise UserError(MASK_IMAGE, "black everywhere", "white where the model repaints", "paint the part in white")
        drawn = PreparedImage(cut_out(original.picture, crop, height, width))
        selected = PreparedImage(cut_out(mask.picture, crop, height, width))
        notices = (*original.notices, *mask.notices, *_notice_of_size(crop, height, width))
    repainted = np.asarray(selected.picture) >= MASK_THRESHOLD  # [H, W]
    factor = manifest.model.vae_scale_factor
    start = drawn if masked_content == ORIGINAL else PreparedImage(fill(drawn.picture, selected.picture))
    return Inpainting(
        array=2 * start.array - 1,
        masked_image=np.where(repainted, np.float32(0), 2 * drawn.array - 1),
        mask=repainted[::factor, ::factor][None, None].astype(np.float32),
        original=original.picture,
        overlay_mask=mask.picture,
        crop=crop,
        notices=notices,
    )


def paste(picture: Image.Image, inpainting: Inpainting) -> Image.Image:
    """Paste a drawn picture, RGB of H x W, through the softened mask into the original, which keeps its size.

    Where the mask is black, the result has the original's pixels. This is diffusers' VaeImageProcessor.apply_overlay.
    """
    crop = inpainting.crop
    if crop is None:
        return Image.composite(picture, inpainting.original, inpainting.overlay_mask)
    result = inpainting.original.copy()
    result.paste(put_back(picture, crop), crop.box, inpainting.overlay_mask.crop(crop.box))
    return result


def check_given(image: Image.Image | np.ndarray | None, mask_image: Image.Image | None, manifest: Manifest) -> None:
    """Raise UserError if one of the two is missing that the other or the model needs, or the bundle cannot read them.

    `prepare_inpainting` asks, too; who loads a bundle for this request asks before that.
    """
    both = "a picture and a mask that is white where the model repaints"
    given = ((IMAGE, image), (MASK_IMAGE, mask_image))
    for subject, picture in given:
        if picture is not None:
            _check_encoder(subject, manifest)
    for subject, picture in given:
        if picture is None and (manifest.inpaints or mask_image is not None):
            raise UserError(subject, "none", both, "pass both, and a control image")


def _check_encoder(subject: str, manifest: Manifest) -> None:
    if VAE_ENCODER not in manifest.components:
        wanted = f"none: the bundle of {manifest.model.name} has no VAE encoder"
        raise UserError(subject, "one", wanted, "leave it out, or build the bundle again with the encoder")


def _fit_mask(mask_image: Image.Image, picture: Image.Image) -> PreparedImage:
    """Scale a mask to the size of its picture. Raises UserError if more than a rounding would be cropped."""
    mask = read_picture(mask_image, picture.height, picture.width, MASK_IMAGE, channels=1)
    width, height = mask.picture.size
    if abs(width * picture.height - height * picture.width) >= max(picture.size):
        wanted = f"{picture.width}x{picture.height}, the size of the picture"
        raise UserError(MASK_IMAGE, f"{width}x{height} pixels", wanted, "draw the mask over the picture")
    return cover(mask, picture.height, picture.width, MASK_IMAGE)


def _soften(mask: PreparedImage, mask_blur: float) -> PreparedImage:
    return PreparedImage(Image.fromarray(blur_mask(np.asarray(mask.picture), mask_blur)), mask.notices)


def _notice_of_size(crop: Crop, height: int, width: int) -> tuple[str, ...]:
    """Say that a part larger than the model's size loses detail."""
    if crop.height <= height and crop.width <= width:
        return ()
    part, drawn = f"{crop.width}x{crop.height}", f"{width}x{height}"
    text = f"{IMAGE}: the part around the mask, {part}, is drawn at {drawn} and enlarged"
    return (Notice(text, "part-enlarged", {"subject": IMAGE, "part": part, "drawn": drawn}),)
