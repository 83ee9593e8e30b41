"""The shapes of a model's components, from the configurations of its parts and the sizes of pictures."""

import dataclasses
from collections.abc import Mapping, Sequence

from mlc_controlnet.checkpoint.options import is_tiny
from mlc_controlnet.checkpoint.source import PartSource
from mlc_controlnet.checkpoint.vae import vae_scale_factor
from mlc_controlnet.components import TEXT_ENCODER_2, ModelShape
from mlc_controlnet.errors import UserError


def model_shapes(
    parts: Mapping[str, PartSource],
    sizes: Sequence[tuple[int | None, int | None]],
    prompt_chunks: int,
    cached_branch: int | None,
    vae_tile: tuple[int, int] | None,
) -> list[ModelShape]:
    """List every size with every number of chunks; the first is the first size, with one chunk.

    Args:
        sizes: height and width of pictures in pixels; None: what the model was trained on. A size given twice is one.
        prompt_chunks: the largest number of chunks of a prompt.
        cached_branch: the skip connection of DeepCache, if there is a shallow UNet.
        vae_tile: height and width of the VAE's tiles in pixels, if they are not the first size's.

    Raises:
        UserError: the UNet cannot halve a size as often as it needs to, or there is no such skip connection or tile.
    """
    shapes = [
        dataclasses.replace(_model_shape(parts, *size), cached_branch=cached_branch, vae_tile=vae_tile)
        for size in sizes
    ]
    skips = len(shapes[0].residuals) - 1
    if cached_branch is not None and not 0 <= cached_branch < skips:
        wanted = f"0 to {skips - 1}, one of the UNet's skip connections"
        raise UserError("--deepcache", str(cached_branch), wanted, "leave the number out for 0")
    _check_tile(shapes[0])
    counts = range(1, prompt_chunks + 1)
    return list(dict.fromkeys(dataclasses.replace(shape, chunks=count) for shape in shapes for count in counts))


def _check_tile(shape: ModelShape) -> None:
    multiple = shape.vae_scale_factor
    for pixels in shape.vae_tile or ():
        if pixels <= 0 or pixels % multiple:
            wanted = f"positive multiples of {multiple}"
            raise UserError("--vae-tiling", f"a side of {pixels} pixels", wanted, "512x512 is usual")


def _model_shape(parts: Mapping[str, PartSource], height: int | None, width: int | None) -> ModelShape:
    unet, vae, text = (parts[part].config for part in ("unet", "vae", "text_encoder"))
    factor = vae_scale_factor(vae)
    trained = unet.get("sample_size") or 64
    rows, columns = trained if isinstance(trained, list | tuple) else (trained, trained)
    second = parts[TEXT_ENCODER_2].config if TEXT_ENCODER_2 in parts else None
    shape = ModelShape(
        height=rows * factor if height is None else height,
        width=columns * factor if width is None else width,
        tokens=text["max_position_embeddings"],
        text_width=unet["cross_attention_dim"],
        latent_channels=vae["latent_channels"],
        sample_channels=unet["in_channels"],
        unet_channels=tuple(unet["block_out_channels"]),
        layers_per_block=unet["layers_per_block"],
        vae_scale_factor=factor,
        text_layers=text["num_hidden_layers"],
        encodes_to_moments=not is_tiny(vae),
        guidance_embedding=unet.get("time_cond_proj_dim") is not None,
        text_width_2=0 if second is None else second["hidden_size"],
        text_layers_2=0 if second is None else second["num_hidden_layers"] - 1,
        pooled_width=0 if second is None else second["projection_dim"],
    )
    multiple = factor * 2 ** (len(shape.unet_channels) - 1)
    for axis, pixels in (("height", shape.height), ("width", shape.width)):
        if pixels <= 0 or pixels % multiple:
            below = max(pixels // multiple, 1) * multiple
            remedy = f"pass --{axis} {below} or {below + multiple}"
            raise UserError(axis, f"{pixels} pixels", f"a positive multiple of {multiple}", remedy)
    return shape
