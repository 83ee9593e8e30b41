"""Reads the base model that a ControlNet is trained for, and makes the ControlNet that training starts from."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    DDIMScheduler,
    StableDiffusionControlNetPipeline,
    UNet2DConditionModel,
)
from tokenizers import Tokenizer
from transformers import CLIPTextModel, CLIPTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

from mlc_controlnet.checkpoint.compatibility import check_belong_together, check_vocabulary
from mlc_controlnet.checkpoint.controlnet import read_controlnet
from mlc_controlnet.checkpoint.diffusers_folder import read_model_folder, read_part_folder
from mlc_controlnet.checkpoint.loaded import some
from mlc_controlnet.checkpoint.locate import find_model, find_weights
from mlc_controlnet.checkpoint.modules import build_empty
from mlc_controlnet.checkpoint.options import check_class, check_options, is_tiny
from mlc_controlnet.checkpoint.single_file import read_single_file
from mlc_controlnet.checkpoint.source import ModelSource, PartSource
from mlc_controlnet.checkpoint.text_encoders import is_xl
from mlc_controlnet.errors import UserError
from mlc_controlnet.train.config import ModelOptions


@dataclass(frozen=True)
class Base:
    """A Stable Diffusion model in float32. None of its weights is trainable."""

    tokenizer: PreTrainedTokenizerBase
    text_encoder: CLIPTextModel
    vae: AutoencoderKL
    unet: UNet2DConditionModel
    scheduler: DDIMScheduler

    def pipeline(self, unet: UNet2DConditionModel, controlnet: ControlNetModel) -> StableDiffusionControlNetPipeline:
        """Return diffusers' pipeline of this model with another UNet and a ControlNet. The parts are not copied."""
        return StableDiffusionControlNetPipeline(
            vae=self.vae,
            text_encoder=self.text_encoder,
            tokenizer=self.tokenizer,
            unet=unet,
            controlnet=controlnet,
            scheduler=self.scheduler,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )


def find_base(name: str) -> Path:
    """Return the folder or file of a path, of a bundled model's name or of a hub id, in this order.

    Raises:
        UserError: there is no such model.
    """
    return find_model(name, exact=True)


def load_base(path: Path, prediction_type: str | None = None, tokenizer: Path | None = None) -> Base:
    """Read every part of a folder in diffusers' layout or of an original file.

    The scheduler becomes DDIM with the model's noise schedule: training needs only the schedule, and DDIM draws the
    pictures of the image log.

    Args:
        prediction_type: epsilon or v_prediction; None for the one in the model's scheduler configuration.
        tokenizer: a folder with the tokenizer, for a file, which contains none; None: CLIP's.

    Raises:
        UserError: a part is missing or damaged, the parts do not fit one another, an option of them is not supported,
            or the model is for inpainting.
    """
    transformers_logging.disable_progress_bar()  # it would break the lines that the run prints
    base = _read_folder(path) if path.is_dir() else _read_file(path, prediction_type, tokenizer)
    if prediction_type is not None:
        base.scheduler.register_to_config(prediction_type=prediction_type)
    for part in (base.text_encoder, base.vae, base.unet):
        part.requires_grad_(False).eval()
    return base


def load_base_of(options: ModelOptions) -> Base:
    """Read the base model that a configuration names; the errors are those of `load_base`."""
    tokenizer = None if options.tokenizer is None else Path(options.tokenizer)
    return load_base(find_base(options.base), options.prediction_type, tokenizer)


def _read_folder(folder: Path) -> Base:
    source = read_model_folder(folder)
    _check(source)
    try:
        tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
    except (OSError, ValueError) as error:
        got = f"a tokenizer that cannot be read ({str(error).splitlines()[0]})"
        raise UserError(str(folder), got, "a whole model", "save it again") from error
    return _base(source, tokenizer)


def _read_file(path: Path, prediction_type: str | None, tokenizer: Path | None) -> Base:
    source = read_single_file(path, tokenizer, prediction_type)
    _check(source)
    vocabulary = source.read_tokenizer()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(vocabulary.json.decode()), **vocabulary.special_tokens
    )
    return _base(source, tokenizer)


def _check(source: ModelSource) -> None:
    """Refuse a model that training would read wrongly, before any weights are read."""
    if is_xl(source.parts["unet"].config):
        got = "Stable Diffusion XL, whose UNet also reads a pooled output and sizes of pictures"
        remedy = "train with diffusers' train_controlnet_sdxl.py, and build the result"
        raise UserError(f"unet {source.parts['unet'].where}", got, "a model of Stable Diffusion 1.x or 2.x", remedy)
    parts = {part: source.parts[part] for part in ("text_encoder", "vae", "unet")}
    check_belong_together(parts)
    check_class("scheduler", source.scheduler_config, source.name)
    check_options("scheduler", source.scheduler_config, source.name)
    check_vocabulary(source.read_tokenizer(), parts["text_encoder"].config["vocab_size"])
    _check_inputs(parts["unet"])
    if is_tiny(parts["vae"].config):
        got, wanted = "a tiny autoencoder, which has no posterior", "the VAE that the UNet was trained with"
        raise UserError(f"vae {parts['vae'].where}", got, wanted, "put the model's AutoencoderKL into its vae folder")


def _check_inputs(unet: PartSource) -> None:
    """Refuse a UNet that reads more than the noisy latents: a ControlNet copies its first convolution, and training
    knows no guidance scale.
    """
    if unet.config.get("time_cond_proj_dim") is not None:
        got, remedy = (
            "one that reads the guidance scale (time_cond_proj_dim)",
            "train on the model it was distilled from",
        )
        raise UserError(f"unet {unet.where}", got, "a UNet without a guidance embedding", remedy)
    got, wanted = unet.config["in_channels"], unet.config["out_channels"]
    if got != wanted:
        raise UserError(
            f"unet {unet.where}",
            f"{got} input channels, as inpainting models have",
            f"{wanted}, the channels of a latent",
            "train on the text-to-image model that it was made from: the ControlNet fits both",
        )


def _base(source: ModelSource, tokenizer: PreTrainedTokenizerBase) -> Base:
    # A tokenizer that states no length has 1e30. No prompt may be longer than the text encoder's positions.
    positions = source.parts["text_encoder"].config["max_position_embeddings"]
    tokenizer.model_max_length = min(tokenizer.model_max_length, positions)
    return Base(
        tokenizer=tokenizer,
        text_encoder=_build(source.parts["text_encoder"], "text_encoder"),
        vae=_build(source.parts["vae"], "vae"),
        unet=_build(source.parts["unet"], "unet"),
        scheduler=_scheduler(source.scheduler_config),
    )


def _scheduler(config: Mapping[str, Any]) -> DDIMScheduler:
    return DDIMScheduler.from_config(dict(config), clip_sample=False)


def _build(source: PartSource, part: str) -> Any:
    """Build the part's module in float32. Its weights are copies, because the source's are mapped from the file."""
    module = build_empty(source, part).eval()
    weights = {name: tensor.to(torch.float32, copy=True) for name, tensor in source.read().items()}
    if not_finite := [name for name, tensor in weights.items() if not tensor.isfinite().all()]:
        got = f"NaN or infinity in {some(not_finite)}"
        raise UserError(f"{part} {source.where}", got, "finite numbers", "copy or download the model again")
    try:
        module.load_state_dict(weights, assign=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            source.where, f"weights that do not fit ({reason})", f"a whole {part}", "save it again"
        ) from error
    for name, buffer in module.named_buffers():
        owner, _, leaf = name.rpartition(".")
        assert leaf == "position_ids", f"{part}.{name} is in no file and has no known value"
        positions = torch.arange(buffer.shape[-1]).expand(buffer.shape)
        module.get_submodule(owner).register_buffer(leaf, positions, persistent=False)
    return module


def load_unet(name: str) -> UNet2DConditionModel:
    """Read a UNet in float32 from its own folder or from a model's folder, file or hub id.

    Raises:
        UserError: there is no such UNet, an option of it is not supported, or it is one for inpainting.
    """
    source = _unet_source(name)
    check_options("unet", source.config, source.where)
    _check_inputs(source)
    return _build(source, "unet")


def _unet_source(name: str) -> PartSource:
    if (Path(name) / "config.json").is_file():
        return read_part_folder(Path(name), "unet")
    path = find_base(name)
    if path.is_dir():
        return read_part_folder(path / "unet", "unet")
    # A UNet is the same for every prediction type; "epsilon" only keeps the reader from asking for one.
    return read_single_file(path, None, "epsilon").parts["unet"]


def load_controlnet(name: str) -> ControlNetModel:
    """Read a ControlNet in float32: a folder in diffusers' layout, a file in diffusers' or the original one, a hub id.

    Raises:
        UserError: there is no such ControlNet, or an option of it is not supported.
    """
    source = read_controlnet(find_weights(name, "model.controlnet", exact=True))
    # Training also accepts control images of 1 or 4 channels, for diffusers; a build accepts only 3.
    trained = {option: value for option, value in source.config.items() if option != "conditioning_channels"}
    check_options("controlnet", trained, source.where)
    return _build(source, "controlnet")


def new_controlnet(unet: UNet2DConditionModel, hint_channels: int, hint_widths: tuple[int, ...]) -> ControlNetModel:
    """Make a trainable copy of the UNet's encoder with zero convolutions (arXiv 2302.05543, section 3.1).

    Raises:
        UserError: the UNet has no middle block, and diffusers makes no ControlNet without one.
    """
    if unet.config.mid_block_type is None:
        remedy = "start from a ControlNet with a middle block"
        raise UserError("unet", "no middle block (mid_block_type null)", "a middle block to copy", remedy)
    return ControlNetModel.from_unet(
        unet, conditioning_embedding_out_channels=hint_widths, conditioning_channels=hint_channels
    )


def start_controlnet(base: Base, options: ModelOptions) -> ControlNetModel:
    """Make the ControlNet that training starts from: `options.controlnet`, or a copy of an encoder.

    Raises:
        UserError: it does not fit the base model.
    """
    if options.controlnet is not None:
        controlnet = load_controlnet(options.controlnet)
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
    layers, factor = len(controlnet.config.conditioning_embedding_out_channels), len(base.vae.config.block_out_channels)
    if layers != factor:
        wanted = f"{factor}: the VAE shrinks pictures {2 ** (factor - 1)} times"
        raise UserError("model.hint_widths", f"{layers} widths", wanted, "set as many")
    if controlnet.config.conditioning_channels != options.hint_channels:
        got = f"a ControlNet for {controlnet.config.conditioning_channels} channels"
        raise UserError("model.hint_channels", f"{options.hint_channels} with {got}", "the same", "set hint_channels")
    return controlnet
