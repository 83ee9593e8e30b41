"""Read a whole model of Stable Diffusion 1.x, 2.x or XL from one file in the original layout."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers.loaders.single_file_utils import infer_diffusers_model_type

from mlc_controlnet.checkpoint import ldm_config, ldm_names
from mlc_controlnet.checkpoint.controlnet import controlnet_of
from mlc_controlnet.checkpoint.defaults import scheduler_of_xl
from mlc_controlnet.checkpoint.diffusers_folder import modern_names
from mlc_controlnet.checkpoint.ldm_config import Shapes
from mlc_controlnet.checkpoint.ldm_names import (
    CLIP_PREFIX,
    CONTROLNET_PREFIX,
    OPEN_CLIP_PREFIX,
    TURBO_CLIP_PREFIX,
    UNET_PREFIX,
    VAE_PREFIX,
    XL_CLIP_PREFIX,
    XL_OPEN_CLIP_PREFIX,
)
from mlc_controlnet.checkpoint.loaded import some
from mlc_controlnet.checkpoint.source import ModelSource, PartSource
from mlc_controlnet.checkpoint.text_encoders import without_last_layer
from mlc_controlnet.checkpoint.tokenizer import find_clip_tokenizer
from mlc_controlnet.checkpoint.weight_file import WeightFile, read_weights
from mlc_controlnet.components import TEXT_ENCODER_2
from mlc_controlnet.errors import UserError

# Tensors that a training run leaves in the model's file: averaged copies, the noise schedule, positions 0, 1, 2, ...
_LEFTOVERS = (
    "model_ema.",
    "betas",
    "alphas_cumprod",
    "sqrt_",
    "log_one_minus_alphas_cumprod",
    "posterior_",
    "lvlb_weights",
    "logvar",
    "scale_factor",
    "denoiser.",
    "embedding_manager.",
    "first_stage_model.loss.",
    "first_stage_model.model_ema.",
    "cond_stage_model.logit_scale",
    "cond_stage_model.text_projection",
    "cond_stage_model.transformer.text_model.embeddings.position_ids",
    "cond_stage_model.transformer.embeddings.position_ids",
    "conditioner.embedders.0.transformer.text_model.embeddings.position_ids",
    "conditioner.embedders.1.model.logit_scale",
    CONTROLNET_PREFIX,
)
# Empty tensors by which files of Stable Diffusion XL say that their UNet predicts v, and that its schedule ends in pure
# noise (arXiv 2305.08891). Trainers write them, and web UI and ComfyUI read them.
_PREDICTS_V, _ENDS_IN_NOISE = _MARKS = ("v_pred", "ztsnr")
# diffusers' names; it calls unknown models "v1" too.
_ACCEPTED = {"v1", "v2", "inpainting", "inpainting_v2", "xl_base", "xl_inpaint"}
_PREFIXES = (UNET_PREFIX, VAE_PREFIX, CLIP_PREFIX, OPEN_CLIP_PREFIX, XL_CLIP_PREFIX, XL_OPEN_CLIP_PREFIX)
_HEADER_PREDICTION_TYPES = {"v": "v_prediction", "v_prediction": "v_prediction", "epsilon": "epsilon"}
_REMEDY = "pass another file to --model; a ControlNet goes to --controlnet and a LoRA to --lora"
_V_PREDICTION_SIZE = 96  # latent cells: Stable Diffusion 2's model of 768 pixels predicts v, the one of 512 the noise


def read_single_file(path: Path, tokenizer: Path | None = None, prediction_type: str | None = None) -> ModelSource:
    """Parse the file's header and find out which model it is. Its weights are read later, on demand.

    Args:
        tokenizer: a folder with the tokenizer; None: CLIP's.
        prediction_type: epsilon or v_prediction; None for the file's own, or epsilon for Stable Diffusion 1.x.

    Raises:
        UserError: the file is damaged, is of another model, lacks a part, has tensors that belong to no part, or is a
            Stable Diffusion 2 that does not state what it predicts.
    """
    return model_of(read_weights(path), tokenizer, prediction_type)


def model_of(file: WeightFile, tokenizer: Path | None, prediction_type: str | None) -> ModelSource:
    """Do the same as `read_single_file`, for a file whose header is parsed."""
    groups = _split(file)
    two = XL_OPEN_CLIP_PREFIX in groups
    is_second = OPEN_CLIP_PREFIX in groups
    base = ldm_config.base_model(is_second, two)
    _check_is_whole(file, groups, is_second)
    where = str(file.path)

    def shapes(prefix: str, below: str = "") -> Shapes:
        return Shapes(groups[prefix], prefix + below, where)

    unet = ldm_config.unet_config(base, shapes(UNET_PREFIX))
    vae = ldm_config.vae_config(base, shapes(VAE_PREFIX))
    prediction = _prediction_type(file, is_second, prediction_type)
    if is_second and prediction == "v_prediction":
        unet["sample_size"] = _V_PREDICTION_SIZE
    if is_second:
        text = ldm_config.open_clip_config(base, shapes(OPEN_CLIP_PREFIX))
        read_text = partial(ldm_names.convert_open_clip, groups[OPEN_CLIP_PREFIX], text, where)
    else:
        prefix = XL_CLIP_PREFIX if two else CLIP_PREFIX
        below = "text_model." if any(key.startswith(prefix + "text_model.") for key in groups[prefix]) else ""
        text = ldm_config.clip_config(base, shapes(prefix, below))
        read_text = partial(ldm_names.convert_clip, groups[prefix])
    encoder = PartSource(where, text, read_text)
    parts = {
        "text_encoder": without_last_layer(encoder) if two else encoder,
        **({TEXT_ENCODER_2: _second_text_encoder(base, groups, where)} if two else {}),
        "unet": PartSource(where, unet, partial(ldm_names.convert_unet, groups[UNET_PREFIX], unet, where)),
        "vae": PartSource(where, vae, partial(_read_vae, groups[VAE_PREFIX], vae, where)),
    }
    if any(key.startswith(CONTROLNET_PREFIX) for key in file.tensors):  # ControlNet 1.0 was published like this
        parts["controlnet"] = controlnet_of(file)
    scheduler = {**base["scheduler"], "prediction_type": prediction}
    if _ENDS_IN_NOISE in file.tensors:
        scheduler |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    if two:
        scheduler = scheduler_of_xl(file.path.stem, scheduler)
    if "time_cond_proj_dim" in unet:
        scheduler["_class_name"] = "LCMScheduler"  # what such models are trained for (arXiv 2310.04378)
    return ModelSource(
        name=file.path.stem,
        parts=parts,
        scheduler_config=scheduler,
        read_tokenizer=partial(find_clip_tokenizer, base["pad_token"], tokenizer),
        recommended={},
        read_tokenizer_2=partial(find_clip_tokenizer, base["pad_token_2"], tokenizer) if two else None,
        zeros_for_empty_prompt=two,
    )


def _second_text_encoder(base: Mapping[str, Any], groups: Mapping[str, Any], where: str) -> PartSource:
    tensors = groups[XL_OPEN_CLIP_PREFIX]
    config = ldm_config.projected_open_clip_config(base, Shapes(tensors, XL_OPEN_CLIP_PREFIX, where))
    return PartSource(where, config, partial(ldm_names.convert_projected_open_clip, tensors, config, where))


def _read_vae(source: dict[str, torch.Tensor], config: Mapping[str, Any], where: str) -> dict[str, torch.Tensor]:
    return modern_names(ldm_names.convert_vae(source, config, where), "vae")


def _split(file: WeightFile) -> dict[str, dict[str, torch.Tensor]]:
    """Return the tensors of each part in the file, by the part's prefix, without what a training run leaves in it.

    Raises:
        UserError: names tensors that belong to no part.
    """
    groups: dict[str, dict[str, torch.Tensor]] = {}
    unknown: list[str] = []
    marks = _MARKS if any(key.startswith(XL_OPEN_CLIP_PREFIX) for key in file.tensors) else ()
    for key, tensor in file.tensors.items():
        if key.startswith(_LEFTOVERS) or key in marks:
            continue
        name = OPEN_CLIP_PREFIX + key.removeprefix(TURBO_CLIP_PREFIX) if key.startswith(TURBO_CLIP_PREFIX) else key
        for prefix in _PREFIXES:
            if name.startswith(prefix):
                groups.setdefault(prefix, {})[name] = tensor
                break
        else:
            unknown.append(key)
    if unknown:
        raise UserError(
            str(file.path),
            f"{_kind(file)}: {some(unknown)} that have no place in the model",
            "a whole model of Stable Diffusion 1.x, 2.x or XL",
            _REMEDY,
        )
    return groups


def _check_is_whole(file: WeightFile, groups: Mapping[str, object], is_second: bool) -> None:
    texts: tuple[str, ...] = (OPEN_CLIP_PREFIX if is_second else CLIP_PREFIX,)
    if XL_OPEN_CLIP_PREFIX in groups:
        texts = (XL_CLIP_PREFIX, XL_OPEN_CLIP_PREFIX)
    wanted = (UNET_PREFIX, VAE_PREFIX, *texts)
    missing = [f"{prefix}*" for prefix in wanted if prefix not in groups]
    if missing or _diffusers_kind(file) not in _ACCEPTED:
        raise UserError(
            str(file.path),
            _kind(file) + (f" without {', '.join(missing)}" if missing else ""),
            "a whole model of Stable Diffusion 1.x, 2.x or XL: UNet, autoencoder and text encoder",
            _REMEDY,
        )


def _kind(file: WeightFile) -> str:
    kind = _diffusers_kind(file)
    return "a file" if kind in _ACCEPTED else f"what diffusers calls {kind}"


def _diffusers_kind(file: WeightFile) -> str:
    base = {key: tensor for key, tensor in file.tensors.items() if not key.startswith(CONTROLNET_PREFIX)}
    kind: str = infer_diffusers_model_type(base)
    return kind


def _prediction_type(file: WeightFile, is_second: bool, stated: str | None) -> str:
    """Return what the UNet predicts. No weight shows it; files that follow Stability's ModelSpec state it in a header.

    Raises:
        UserError: a Stable Diffusion 2 file that does not state it.
    """
    if stated is not None:
        return stated
    in_header = _HEADER_PREDICTION_TYPES.get(file.metadata.get("modelspec.prediction_type", ""))
    if in_header is not None:
        return in_header
    if _PREDICTS_V in file.tensors:
        return "v_prediction"
    if not is_second:
        return "epsilon"
    raise UserError(
        str(file.path),
        "a Stable Diffusion 2 file, which does not say what its UNet predicts",
        "epsilon (the models of 512 pixels) or v_prediction (those of 768)",
        "pass --prediction-type",
    )
