"""The model to be controlled, and the ControlNet that starts as a copy of its encoder."""

from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, ControlNetModel, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer
from transformers.utils import logging as transformers_logging

import mlc_controlnet
from mlc_controlnet.errors import UserError
from mlc_controlnet.train.config import ModelOptions

BUNDLED_MODELS = Path(mlc_controlnet.__file__).parent / "models"


@dataclass(frozen=True)
class Base:
    """A Stable Diffusion model in float32, nothing of it trainable."""

    tokenizer: CLIPTokenizer
    text_encoder: CLIPTextModel
    vae: AutoencoderKL
    unet: UNet2DConditionModel
    scheduler: DDIMScheduler


def find_base(name: str) -> Path:
    """The folder of a bundled model's name or of a path. Raises UserError where there is no model."""
    for folder in (BUNDLED_MODELS / name, Path(name)):
        if (folder / "unet" / "config.json").is_file():
            return folder
    got = f"{name!r}, which has no unet/config.json" if Path(name).exists() else f"{name!r}, which does not exist"
    raise UserError("base", got, "a bundled model (circles) or a folder in diffusers' layout", "pass one of these")


def load_base(folder: Path, prediction_type: str | None = None) -> Base:
    """Read every part below `folder`; nothing is downloaded.

    The scheduler becomes DDIM with the folder's noise schedule: training needs the schedule alone, and DDIM draws the
    image log. prediction_type: in the place of the folder's own.
    Raises UserError where a part is missing or damaged.
    """
    transformers_logging.disable_progress_bar()
    overrides = {} if prediction_type is None else {"prediction_type": prediction_type}
    try:
        base = Base(
            tokenizer=CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True),
            text_encoder=CLIPTextModel.from_pretrained(
                folder / "text_encoder", dtype=torch.float32, local_files_only=True
            ),
            vae=_load(AutoencoderKL, folder / "vae"),
            unet=_load(UNet2DConditionModel, folder / "unet"),
            scheduler=DDIMScheduler.from_config(
                DDIMScheduler.load_config(folder / "scheduler", local_files_only=True), clip_sample=False, **overrides
            ),
        )
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            str(folder), f"a part that can not be read ({reason})", "a whole model", "save it again"
        ) from error
    for part in (base.text_encoder, base.vae, base.unet):
        part.requires_grad_(False).eval()
    return base


def load_unet(name: str) -> UNet2DConditionModel:
    """A UNet from its own folder or its model's, or a bundled model's. Raises UserError where there is none."""
    bundled = BUNDLED_MODELS / name
    path = bundled if bundled.is_dir() else Path(name)
    for folder in (path / "unet", path):
        if (folder / "config.json").is_file():
            return _load(UNet2DConditionModel, folder)
    raise UserError(str(path), "no unet/config.json", "a UNet or a model in diffusers' layout", "pass its folder")


def load_controlnet(folder: Path) -> ControlNetModel:
    """A ControlNet in diffusers' layout. Raises UserError where there is none."""
    if not (folder / "config.json").is_file():
        wanted = "a ControlNet in diffusers' layout"
        raise UserError(str(folder), "no config.json", wanted, "pass what train add-control wrote, or a trained one")
    return _load(ControlNetModel, folder)


def new_controlnet(unet: UNet2DConditionModel, hint_channels: int, hint_widths: tuple[int, ...]) -> ControlNetModel:
    """A trainable copy of the UNet's encoder with zero convolutions (arXiv 2302.05543, section 3.1)."""
    return ControlNetModel.from_unet(
        unet, conditioning_embedding_out_channels=hint_widths, conditioning_channels=hint_channels
    )


def start_controlnet(base: Base, options: ModelOptions) -> ControlNetModel:
    """What training starts from: `options.controlnet`, or a copy of an encoder.

    Raises UserError where it does not fit the base.
    """
    if options.controlnet is not None:
        controlnet = load_controlnet(Path(options.controlnet))
        subject = f"model.controlnet {options.controlnet}"
    else:
        source = options.from_pretrained_unet
        unet = base.unet if source is None else load_unet(source)
        controlnet = new_controlnet(unet, options.hint_channels, options.hint_widths)
        subject = f"model.from_pretrained_unet {source}"
    for name in ("block_out_channels", "cross_attention_dim", "layers_per_block", "in_channels"):
        got, wanted = controlnet.config[name], base.unet.config[name]
        if (list(got) if isinstance(got, (list, tuple)) else got) != (
            list(wanted) if isinstance(wanted, (list, tuple)) else wanted
        ):
            raise UserError(subject, f"{name} {got}", f"{wanted}, as the base has it", "take one of the same family")
    if controlnet.config.conditioning_channels != options.hint_channels:
        got = f"a ControlNet for {controlnet.config.conditioning_channels} channels"
        raise UserError("model.hint_channels", f"{options.hint_channels} with {got}", "the same", "set hint_channels")
    return controlnet


def _load(kind: type, folder: Path) -> torch.nn.Module:
    try:
        return kind.from_pretrained(folder, torch_dtype=torch.float32, local_files_only=True)  # type: ignore[attr-defined]
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            str(folder), f"weights that can not be read ({reason})", "a whole part", "save it again"
        ) from error
