"""Check from the configurations that a model's parts fit together, before any weight is read."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mlc_controlnet.checkpoint.options import check_options, is_tiny
from mlc_controlnet.checkpoint.source import PREVIEW_VAE, PartSource, TokenizerSource
from mlc_controlnet.checkpoint.text_encoders import REFINER
from mlc_controlnet.checkpoint.vae import vae_scale_factor
from mlc_controlnet.components import CONTROLNET, INPAINTING_CHANNELS, TEXT_ENCODER_2, TIME_IDS, kind_of
from mlc_controlnet.errors import UserError

_FAMILIES = {768: "Stable Diffusion 1.x", 1024: "Stable Diffusion 2.x", 2048: "Stable Diffusion XL"}
# A UNet's input channels -> the kind of model that no pipeline of ours runs.
_OTHER_SAMPLES = {5: " (a depth model)", 7: " (an upscaler)", 8: " (an InstructPix2Pix model)"}
_BOTH_FROM_ONE = "take both from one model"


def check_belong_together(parts: Mapping[str, PartSource]) -> None:
    """Check that a build honours each part's options, and that the parts fit one another.

    Raises:
        UserError: names the first part and the number at fault.
    """
    for part, source in parts.items():
        check_options("vae" if part == PREVIEW_VAE else kind_of(part), source.config, source.where)
    unet, vae = parts["unet"], parts["vae"]
    _check_text_width(parts)
    if TEXT_ENCODER_2 in parts:
        _check_added_embedding(unet, parts[TEXT_ENCODER_2].config)
    _check_latents(unet, vae)
    if not isinstance(unet.config.get("layers_per_block", 2), int):
        got = f"layers_per_block {unet.config['layers_per_block']}"
        remedy = "use a model of Stable Diffusion 1.x, 2.x or XL"
        raise UserError(f"unet {unet.where}", got, "one number for all blocks", remedy)
    if PREVIEW_VAE in parts:
        _check_preview(parts[PREVIEW_VAE], vae.config)
    controlnets = [source for part, source in parts.items() if kind_of(part) == CONTROLNET]
    check_controlnets(controlnets, unet.config, vae.config.get("latent_channels", 4), vae_scale_factor(vae.config))


def _check_text_width(parts: Mapping[str, PartSource]) -> None:
    """Check that the UNet reads contexts as wide as the text encoders' are together."""
    text, unet = parts["text_encoder"], parts["unet"].config
    second = parts[TEXT_ENCODER_2].config if TEXT_ENCODER_2 in parts else {}
    width = text.config.get("hidden_size", 0) + second.get("hidden_size", 0)
    if width != unet.get("cross_attention_dim"):
        got = f"text width {width}" + (", with the second one's" if second else "")
        raise UserError(f"text_encoder {text.where}", got, f"{_width(unet)}, that of the unet", _BOTH_FROM_ONE)


def _check_latents(unet: PartSource, vae: PartSource) -> None:
    """Check that the VAE encodes and decodes what the UNet denoises, and that the UNet reads nothing else."""
    latents, denoised = vae.config.get("latent_channels", 4), unet.config.get("out_channels", 4)
    if denoised != latents:
        got, wanted = f"{latents} latent channels", f"{denoised}, those of the unet"
        raise UserError(f"vae {vae.where}", got, wanted, _BOTH_FROM_ONE)
    samples = {latents, INPAINTING_CHANNELS} if 2 * latents + 1 == INPAINTING_CHANNELS else {latents}
    if unet.config.get("in_channels", 4) not in samples:
        got = f"in_channels {unet.config.get('in_channels')}{_OTHER_SAMPLES.get(unet.config.get('in_channels', 4), '')}"
        wanted = f"{' or '.join(map(str, sorted(samples)))}: a text-to-image or an inpainting model"
        raise UserError(f"unet {unet.where}", got, wanted, "use such a model")
    if is_tiny(vae.config):
        encoder, decoder = len(vae.config["num_encoder_blocks"]), len(vae.config["num_decoder_blocks"])
        if encoder != decoder:
            got = f"{encoder} stages in the encoder, {decoder} in the decoder"
            raise UserError(f"vae {vae.where}", got, "as many", "check that the two belong together")


def _check_added_embedding(unet: PartSource, second: Mapping[str, Any]) -> None:
    """Check that the UNet reads the pooled output and six time ids. Stable Diffusion XL's refiner reads five."""
    pooled, each = second["projection_dim"], unet.config["addition_time_embed_dim"]
    got, wanted = unet.config["projection_class_embeddings_input_dim"], pooled + TIME_IDS * (each or 0)
    if got != wanted:
        raise UserError(
            f"unet {unet.where}: projection_class_embeddings_input_dim",
            f"{got}" + (f": {REFINER}" if got == pooled + (TIME_IDS - 1) * (each or 0) else ""),
            f"{wanted}: {pooled} of the pooled output and {TIME_IDS} x {each} of the time ids",
            "use Stable Diffusion XL's base model",
        )


def _check_preview(preview: PartSource, vae: Mapping[str, Any]) -> None:
    for what, got, wanted in (
        ("latent channels", preview.config["latent_channels"], vae["latent_channels"]),
        ("pixels on a side of a latent cell", vae_scale_factor(preview.config), vae_scale_factor(vae)),
    ):
        if got != wanted:
            where, remedy = f"preview_vae {preview.where}", "pass the tiny autoencoder of this family to --preview-vae"
            raise UserError(where, f"{got} {what}", f"{wanted}, those of the model's VAE", remedy)


def check_vocabulary(tokenizer: TokenizerSource, rows: int, part: str = "text_encoder") -> None:
    """Check that every id of the tokenizer is below `rows`, the number of rows of the text encoder's table.

    Raises:
        UserError: the tokenizer belongs to another model.
    """
    vocabulary = json.loads(tokenizer.json)
    largest = max((*vocabulary["model"]["vocab"].values(), *(t["id"] for t in vocabulary.get("added_tokens", ()))))
    if largest >= rows:
        raise UserError(
            part.replace("text_encoder", "tokenizer"),
            f"ids up to {largest}",
            f"at most {rows - 1}, the text encoder's last row",
            "take both from one model, or pass --tokenizer",
        )


def check_controlnets(
    controlnets: Sequence[PartSource], unet: Mapping[str, Any], latent_channels: int, scale_factor: int
) -> None:
    """Check that ControlNets fit a base model.

    Args:
        unet: the base model's cross_attention_dim, block_out_channels and layers_per_block.
        scale_factor: pixels per side of a latent cell.

    Raises:
        UserError: names every ControlNet that does not.
    """
    found = (
        (source, next(_differences(source.config, unet, latent_channels, scale_factor), None)) for source in controlnets
    )
    misfits = [(source.where, *difference) for source, difference in found if difference is not None]
    if not misfits:
        return
    (where, what, got, wanted), *others = misfits
    more = "".join(f"; {other}: {its} {value}, not {base}" for other, its, value, base in others)
    family = _FAMILIES.get(unet.get("cross_attention_dim", 0), "this model")
    raise UserError(
        f"controlnet {where}",
        f"{what} {got}",
        f"{wanted}, as the base model has{more}",
        f"take {'ControlNets that were' if others else 'a ControlNet that was'} trained for {family}",
    )


def _differences(
    config: Mapping[str, Any], unet: Mapping[str, Any], latent_channels: int, scale_factor: int
) -> Iterator[tuple[str, object, object]]:
    """Yield what differs between ControlNet and base model: a name, the ControlNet's value, the base model's."""
    reads_text = config.get("cross_attention_dim") is not None  # a ControlNet without transformers does not
    if reads_text and config.get("cross_attention_dim") != unet.get("cross_attention_dim"):
        yield "text width", _width(config), _width(unet)
    for key, what in (("block_out_channels", "channels"), ("layers_per_block", "layers per block")):
        got, wanted = config.get(key), unet.get(key)
        got, wanted = (list(v) if isinstance(v, list | tuple) else v for v in (got, wanted))
        if got != wanted:
            yield what, got, wanted
    if config.get("in_channels", 4) != latent_channels:
        yield "input channels", config.get("in_channels", 4), latent_channels
    shrinks = 2 ** (len(config["conditioning_embedding_out_channels"]) - 1)
    if shrinks != scale_factor:
        yield "a control image that shrinks by", shrinks, scale_factor


def _width(config: Mapping[str, Any]) -> str:
    width = config.get("cross_attention_dim")
    return f"{width} ({_FAMILIES[width]})" if width in _FAMILIES else str(width)
