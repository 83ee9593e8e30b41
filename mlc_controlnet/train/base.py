"""The model to be controlled, and the ControlNet that starts as a copy of its encoder."""

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

from mlc_controlnet.checkpoint.controlnet import read_controlnet
from mlc_controlnet.checkpoint.diffusers_folder import read_model_folder, read_part_folder
from mlc_controlnet.checkpoint.locate import find_model, find_weights
from mlc_controlnet.checkpoint.modules import build_empty
from mlc_controlnet.checkpoint.single_file import read_single_file
from mlc_controlnet.checkpoint.source import ModelSource, PartSource
from mlc_controlnet.errors import UserError
from mlc_controlnet.train.config import ModelOptions


@dataclass(frozen=True)
class Base:
    """A Stable Diffusion model in float32, nothing of it trainable."""

    tokenizer: PreTrainedTokenizerBase
    text_encoder: CLIPTextModel
    vae: AutoencoderKL
    unet: UNet2DConditionModel
    scheduler: DDIMScheduler

    def pipeline(self, unet: UNet2DConditionModel, controlnet: ControlNetModel) -> StableDiffusionControlNetPipeline:
        """diffusers' pipeline of this model, with the UNet and the ControlNet as they are trained so far."""
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
    """The folder or file of a bundled model's name, a path or a hub id. Raises UserError where there is no model."""
    return find_model(name, exact=True)


def load_base(path: Path, prediction_type: str | None = None, tokenizer: Path | None = None) -> Base:
    """Read every part of a folder in diffusers' layout or of an original file.

    The scheduler becomes DDIM with the model's noise schedule: training needs the schedule alone, and DDIM draws the
    image log.

    Args:
        prediction_type: in the place of the model's own.
        tokenizer: a folder, for a file, which has none of its own; None: CLIP's.

    Raises:
        UserError: a part is missing or damaged.
    """
    transformers_logging.disable_progress_bar()  # of files that are read and written, in the middle of the run's lines
    base = _read_folder(path) if path.is_dir() else _read_file(path, prediction_type, tokenizer)
    if prediction_type is not None:
        base.scheduler.register_to_config(prediction_type=prediction_type)
    for part in (base.text_encoder, base.vae, base.unet):
        part.requires_grad_(False).eval()
    return base


def load_base_of(options: ModelOptions) -> Base:
    """The base that a config names. Raises UserError where there is none."""
    tokenizer = None if options.tokenizer is None else Path(options.tokenizer)
    return load_base(find_base(options.base), options.prediction_type, tokenizer)


def _read_folder(folder: Path) -> Base:
    source = read_model_folder(folder)
    try:
        tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
    except (OSError, ValueError) as error:
        got = f"a tokenizer that can not be read ({str(error).splitlines()[0]})"
        raise UserError(str(folder), got, "a whole model", "save it again") from error
    return _base(source, tokenizer)


def _read_file(path: Path, prediction_type: str | None, tokenizer: Path | None) -> Base:
    source = read_single_file(path, tokenizer, prediction_type)
    vocabulary = source.read_tokenizer()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(vocabulary.json.decode()),
        model_max_length=source.parts["text_encoder"].config["max_position_embeddings"],
        **vocabulary.special_tokens,
    )
    return _base(source, tokenizer)


def _base(source: ModelSource, tokenizer: PreTrainedTokenizerBase) -> Base:
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
    """The part's module in float32, with weights of its own: what is read is mapped from the file."""
    module = build_empty(source, part).eval()
    weights = {name: tensor.to(torch.float32, copy=True) for name, tensor in source.read().items()}
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
    """A UNet in float32 from its own folder or from a model's: bundled, folder, original file or hub id.

    Raises UserError where there is none.
    """
    if (Path(name) / "config.json").is_file():
        return _build(read_part_folder(Path(name), "unet"), "unet")
    path = find_base(name)
    if path.is_dir():
        return _build(read_part_folder(path / "unet", "unet"), "unet")
    # What the model predicts does not matter to its UNet.
    return _build(read_single_file(path, None, "epsilon").parts["unet"], "unet")


def load_controlnet(name: str) -> ControlNetModel:
    """A ControlNet in float32: a folder in diffusers' layout, a file in diffusers' or the original one, a hub id.

    Raises UserError where there is none.
    """
    return _build(read_controlnet(find_weights(name, "model.controlnet", exact=True)), "controlnet")


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
