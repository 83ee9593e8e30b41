"""Do a model's parts belong together? Their configurations tell, before a weight is read."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from mlc_controlnet.checkpoint.source import PartSource, TokenizerSource
from mlc_controlnet.errors import UserError

_FAMILIES = {768: "Stable Diffusion 1.x", 1024: "Stable Diffusion 2.x", 2048: "Stable Diffusion XL"}
# Options of diffusers' UNet and ControlNet under which they take inputs that no component has.
_OTHER_INPUTS = ("class_embed_type", "num_class_embeds", "addition_embed_type", "encoder_hid_dim_type")


def check_belong_together(parts: Mapping[str, PartSource]) -> None:
    """Raises UserError that names the first part which does not fit the UNet, and the number it differs in."""
    unet, vae, text = (parts[part].config for part in ("unet", "vae", "text_encoder"))
    for part in ("unet", "controlnet"):
        if part in parts:
            _check_inputs(parts[part], part)
    if text.get("hidden_size") != unet.get("cross_attention_dim"):
        raise UserError(
            f"text_encoder {parts['text_encoder'].where}",
            f"text width {text.get('hidden_size')}",
            f"{_width(unet)}, that of the unet",
            "take both from one model",
        )
    if unet.get("out_channels", 4) != vae.get("latent_channels"):
        raise UserError(
            f"vae {parts['vae'].where}",
            f"{vae.get('latent_channels')} latent channels",
            f"{unet.get('out_channels', 4)}, those of the unet",
            "take both from one model",
        )
    if "controlnet" in parts:
        _check_controlnet(parts["controlnet"], unet, vae)


def check_vocabulary(tokenizer: TokenizerSource, rows: int) -> None:
    """Raises UserError where the tokenizer knows ids beyond the text encoder's table: it is another model's."""
    vocabulary = json.loads(tokenizer.json)
    largest = max((*vocabulary["model"]["vocab"].values(), *(t["id"] for t in vocabulary.get("added_tokens", ()))))
    if largest >= rows:
        raise UserError(
            "tokenizer",
            f"ids up to {largest}",
            f"at most {rows - 1}, the text encoder's last row",
            "take both from one model, or pass --tokenizer",
        )


def _check_controlnet(controlnet: PartSource, unet: Mapping[str, Any], vae: Mapping[str, Any]) -> None:
    config = controlnet.config
    for what, got, wanted in _differences(config, unet, vae):
        raise UserError(
            f"controlnet {controlnet.where}",
            f"{what} {got}",
            f"{wanted}, as the base model has",
            f"take a ControlNet that was trained for {_FAMILIES.get(unet.get('cross_attention_dim', 0), 'this model')}",
        )


def _differences(
    config: Mapping[str, Any], unet: Mapping[str, Any], vae: Mapping[str, Any]
) -> Iterator[tuple[str, object, object]]:
    """What must be equal for the residuals to fit: name, the ControlNet's value, the base model's."""
    if config.get("cross_attention_dim") != unet.get("cross_attention_dim"):
        yield "text width", _width(config), _width(unet)
    for key, what in (("block_out_channels", "channels"), ("layers_per_block", "layers per block")):
        got, wanted = config.get(key), unet.get(key)
        got, wanted = (list(v) if isinstance(v, list | tuple) else v for v in (got, wanted))
        if got != wanted:
            yield what, got, wanted
    if config.get("in_channels", 4) != vae.get("latent_channels"):
        yield "input channels", config.get("in_channels", 4), vae.get("latent_channels")
    if config.get("conditioning_channels", 3) != 3:
        yield "control image channels", config.get("conditioning_channels"), 3


def _check_inputs(source: PartSource, part: str) -> None:
    for option in _OTHER_INPUTS:
        if source.config.get(option) is not None:
            raise UserError(
                f"{part} {source.where}",
                f"{option} {source.config[option]!r}",
                "none: a model of Stable Diffusion 1.x or 2.x",
                "take such a model",
            )


def _width(config: Mapping[str, Any]) -> str:
    width = config.get("cross_attention_dim")
    return f"{width} ({_FAMILIES[width]})" if width in _FAMILIES else str(width)
