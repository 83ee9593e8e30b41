"""The configurations of published distilled models, at their real widths and without weights."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from diffusers import ControlNetModel

from mlc_controlnet.checkpoint.compatibility import check_belong_together
from mlc_controlnet.checkpoint.ldm_config import base_model
from mlc_controlnet.checkpoint.model_shapes import _model_shape
from mlc_controlnet.checkpoint.modules import build_empty, with_defaults
from mlc_controlnet.checkpoint.options import check_class, check_options
from mlc_controlnet.checkpoint.source import PartSource
from mlc_controlnet.components import component_specs
from mlc_controlnet.export.sampler_descriptions import default_sampler

SD15 = {**base_model(is_second=False)["unet"], "cross_attention_dim": 768, "block_out_channels": [320, 640, 1280, 1280]}
SD21 = {
    **base_model(is_second=True)["unet"],
    "cross_attention_dim": 1024,
    "block_out_channels": [320, 640, 1280, 1280],
    "attention_head_dim": [5, 10, 20, 20],
}
# github.com/Nota-NetsPresso/BK-SDM, src/unet_config
BK_SMALL = {**SD15, "layers_per_block": 1, "mid_block_type": None}
BK_TINY = {
    **BK_SMALL,
    "block_out_channels": [320, 640, 1280],
    "down_block_types": ["CrossAttnDownBlock2D"] * 3,
    "up_block_types": ["CrossAttnUpBlock2D"] * 3,
}
# A finest level without attention, as in SDXS (arXiv 2403.16627).
SDXS = {
    **BK_TINY,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
}
LCM = {**SD15, "time_cond_proj_dim": 256}
MODELS: dict[str, Mapping[str, Any]] = {"sd-turbo": SD21, "small": BK_SMALL, "tiny": BK_TINY, "sdxs": SDXS, "lcm": LCM}
NOT_OF_A_CONTROLNET = ("up_block_types", "sample_size", "time_cond_proj_dim")


def source(part: str, config: Mapping[str, Any]) -> PartSource:
    return PartSource(part, with_defaults(part, config, part), dict)


@pytest.mark.parametrize("name", MODELS)
def test_its_controlnet_returns_the_residuals_that_the_build_expects(name: str) -> None:
    unet = MODELS[name]
    kept = {key: value for key, value in unet.items() if key not in NOT_OF_A_CONTROLNET}
    text = {"hidden_size": unet["cross_attention_dim"], "num_hidden_layers": 1, "intermediate_size": 8}
    parts = {
        "text_encoder": source("text_encoder", {**text, "num_attention_heads": 1}),
        "unet": source("unet", unet),
        "vae": source("vae", {"_class_name": "AutoencoderTiny"}),
        "controlnet": source("controlnet", kept),
    }
    check_belong_together(parts)
    shape = _model_shape(parts, 512, 768)
    specs = component_specs(shape)
    assert shape.latent == (1, 4, 64, 96)
    assert ("guidance_scale" in [spec.name for spec in specs["unet"].inputs]) == (name == "lcm")
    controlnet = build_empty(parts["controlnet"], "controlnet")
    assert isinstance(controlnet, ControlNetModel)
    sample, context, image = (
        torch.empty(size, device="meta") for size in (shape.latent, (1, 77, shape.text_width), (1, 3, 512, 768))
    )
    timestep = torch.empty(1, device="meta")
    down, mid = controlnet(sample, timestep, context, image, return_dict=False)
    residuals = shape.residuals
    assert [tuple(residual.shape) for residual in (*down, mid)] == [spec.shape for spec in residuals]
    output = build_empty(parts["unet"], "unet")(
        sample,
        timestep,
        context,
        timestep_cond=torch.empty(1, 256, device="meta") if name == "lcm" else None,
        down_block_additional_residuals=tuple(down),
        mid_block_additional_residual=mid,
    ).sample
    assert tuple(output.shape) == shape.latent


# scheduler_config.json, without what diffusers does not read.
SCHEDULERS: dict[str, Mapping[str, Any]] = {
    "euler": {  # stabilityai/sd-turbo
        "_class_name": "EulerDiscreteScheduler",
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "interpolation_type": "linear",
        "num_train_timesteps": 1000,
        "prediction_type": "epsilon",
        "set_alpha_to_one": False,
        "skip_prk_steps": True,
        "steps_offset": 1,
        "timestep_spacing": "trailing",
        "trained_betas": None,
        "use_karras_sigmas": False,
    },
    "lcm": {  # SimianLuo/LCM_Dreamshaper_v7
        "_class_name": "LCMScheduler",
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "clip_sample": False,
        "clip_sample_range": 1.0,
        "dynamic_thresholding_ratio": 0.995,
        "num_train_timesteps": 1000,
        "original_inference_steps": 50,
        "prediction_type": "epsilon",
        "rescale_betas_zero_snr": False,
        "sample_max_value": 1.0,
        "set_alpha_to_one": True,
        "steps_offset": 0,
        "thresholding": False,
        "timestep_spacing": "leading",
        "trained_betas": None,
    },
}


@pytest.mark.parametrize("sampler", SCHEDULERS)
def test_its_own_scheduler_is_the_default_sampler(sampler: str) -> None:
    config = SCHEDULERS[sampler]
    check_class("scheduler", config, "here")
    check_options("scheduler", config, "here")
    assert default_sampler(config) == sampler
