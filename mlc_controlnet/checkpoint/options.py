"""The effect on a build of every option of a model's configuration files.

diffusers reads each option of config.json or scheduler_config.json when it builds a part or when it runs it. A build
must do the same with every option, or refuse the model: an option that is not read gives wrong pictures without a
word. `OPTIONS` therefore holds a verdict for every option of the classes that a build accepts, and a test compares the
table with the signatures of these classes.

A verdict speaks of what the compiled components compute. The components run the modules that diffusers and
transformers build (see `mlc_controlnet.capture`), so most options are honoured by the module itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeAlias

from mlc_controlnet.config import PREDICTION_TYPES
from mlc_controlnet.errors import UserError


@dataclass(frozen=True)
class Honoured:
    """The option has the effect that it has in diffusers.

    Attributes:
        by: the part that reads it.
    """

    by: str


@dataclass(frozen=True)
class Irrelevant:
    """The option does not change what the components compute.

    Attributes:
        because: the proof.
    """

    because: str


@dataclass(frozen=True)
class Limited:
    """A model with another value than `values` is refused.

    Attributes:
        because: the work that another value would need.
    """

    values: tuple[object, ...]
    because: str


_REMEDY = "use a model of Stable Diffusion 1.x, 2.x or XL"
Verdict: TypeAlias = Honoured | Irrelevant | Limited

_MODULE = Honoured("the module that is built with it")
_WIDTHS = Honoured("the module that is built with it, and the components' shapes")
_DROPOUT = Irrelevant("components run in eval mode")
_NOT_READ = Irrelevant("the class keeps it and does not read it")
_OUTPUTS = Irrelevant("it selects which outputs the class returns; the component returns the last hidden state")
_TOKENS = Irrelevant("the tokenizer adds and pads; it also tells where the pooled output is")
_INITIAL = Irrelevant("the file holds all weights")
_NO_CLASSES = Limited((None,), "an input for classes")
_NO_HIDDEN_PROJECTION = Limited((None,), "a projection of the context or of pictures")
_TIME_IDS = Honoured("the module that is built with it; `check_belong_together` compares it with the pooled output")
_WITHOUT_TEXT = Irrelevant("it is read together with an addition_embed_type that is refused")
_UPCAST = Irrelevant("it keeps scores from overflowing float16; here they are float32, whose runs no score overflows")

_DOWN_BLOCKS = ("DownBlock2D", "CrossAttnDownBlock2D")
_UP_BLOCKS = ("UpBlock2D", "CrossAttnUpBlock2D")
_MID_BLOCKS = ("UNetMidBlock2DCrossAttn", "UNetMidBlock2D", None)
_BLOCKS = "other residuals than a ControlNet has"

# The options that UNet and ControlNet share: a ControlNet is a copy of the UNet's encoder.
_ENCODER: Mapping[str, Verdict] = {
    "in_channels": Honoured("the module that is built with it; `check_belong_together` compares it with the VAE"),
    "flip_sin_to_cos": _MODULE,
    "freq_shift": _MODULE,
    "down_block_types": Limited(_DOWN_BLOCKS, _BLOCKS),
    "mid_block_type": Limited(_MID_BLOCKS, _BLOCKS),
    "only_cross_attention": _MODULE,
    "block_out_channels": _WIDTHS,
    "layers_per_block": _WIDTHS,
    "downsample_padding": _MODULE,
    "mid_block_scale_factor": _MODULE,
    "act_fn": _MODULE,
    "norm_num_groups": _MODULE,
    "norm_eps": _MODULE,
    "cross_attention_dim": _WIDTHS,
    "transformer_layers_per_block": _MODULE,
    "encoder_hid_dim": _NO_HIDDEN_PROJECTION,
    "encoder_hid_dim_type": _NO_HIDDEN_PROJECTION,
    "attention_head_dim": _MODULE,
    "num_attention_heads": _MODULE,
    "use_linear_projection": _MODULE,
    "class_embed_type": _NO_CLASSES,
    "addition_embed_type": Limited((None, "text_time"), "an input for another added embedding"),
    "addition_embed_type_num_heads": _WITHOUT_TEXT,
    "addition_time_embed_dim": _TIME_IDS,
    "num_class_embeds": _NO_CLASSES,
    "upcast_attention": _UPCAST,
    "resnet_time_scale_shift": Limited(("default", "scale_shift"), "another kind of block"),
    "projection_class_embeddings_input_dim": _TIME_IDS,
}

_UNET: Mapping[str, Verdict] = {
    **_ENCODER,
    "sample_size": Honoured("the default size of pictures"),
    "out_channels": Honoured("the module that is built with it; `check_belong_together` compares it with the VAE"),
    "center_input_sample": _MODULE,
    "up_block_types": Limited(_UP_BLOCKS, _BLOCKS),
    "dropout": _DROPOUT,
    "reverse_transformer_layers_per_block": _MODULE,
    "num_attention_heads": Limited((None,), "a diffusers that accepts it"),
    "dual_cross_attention": Limited((False,), "two contexts"),
    "resnet_skip_time_act": _MODULE,
    "resnet_out_scale_factor": _MODULE,
    "time_embedding_type": Limited(("positional",), "another embedding of the timestep"),
    "time_embedding_dim": _MODULE,
    "time_embedding_act_fn": _MODULE,
    "timestep_post_act": _MODULE,
    "time_cond_proj_dim": Honoured("the module that is built with it, and the UNet's input guidance_scale"),
    "conv_in_kernel": _MODULE,
    "conv_out_kernel": _MODULE,
    "attention_type": Limited(("default",), "the inputs of GLIGEN"),
    "class_embeddings_concat": Limited((False,), "an input for classes"),
    "mid_block_only_cross_attention": _MODULE,
    "cross_attention_norm": _MODULE,
}

_CONTROLNET: Mapping[str, Verdict] = {
    **_ENCODER,
    "conditioning_channels": Limited((3,), "a control image that is not RGB"),
    "controlnet_conditioning_channel_order": Limited(("rgb", "bgr"), "another order of channels"),
    "conditioning_embedding_out_channels": Honoured(
        "the module that is built with it; `check_belong_together` compares their number with the VAE"
    ),
    "global_pool_conditions": _WIDTHS,
}

_FIRST_WIDTH = Irrelevant("it is the first width of the ControlNet, without which diffusers' class does not run")

# ControlNetUnionModel: see `union_controlnet.py`.
_UNION: Mapping[str, Verdict] = {
    **{option: verdict for option, verdict in _CONTROLNET.items() if option != "mid_block_type"},
    "controlnet_conditioning_channel_order": Limited(("rgb",), "a class of diffusers that accepts it"),
    "num_control_type": Irrelevant("it is the number of types to choose from; a build chooses one"),
    "num_trans_channel": _FIRST_WIDTH,
    "num_proj_channel": _FIRST_WIDTH,
    "num_trans_head": Irrelevant("every token attends to itself alone"),
    "num_trans_layer": _MODULE,
}

_VAE: Mapping[str, Verdict] = {
    "in_channels": Limited((3,), "pictures that are not RGB"),
    "out_channels": Limited((3,), "pictures that are not RGB"),
    "down_block_types": _MODULE,
    "up_block_types": _MODULE,
    "block_out_channels": _WIDTHS,
    "layers_per_block": _MODULE,
    "act_fn": _MODULE,
    "latent_channels": _WIDTHS,
    "norm_num_groups": _MODULE,
    "sample_size": Irrelevant("it is the size of tiles, and no component works in tiles"),
    "scaling_factor": Honoured("the decoder component and, for the encoder's output, the pipeline"),
    "shift_factor": Limited((None, 0, 0.0), "a shift of the latents, as Stable Diffusion 3 has"),
    "latents_mean": Limited((None,), "another normalization of the latents"),
    "latents_std": Limited((None,), "another normalization of the latents"),
    # diffusers reads it for Stable Diffusion XL alone, whose activations `checkpoint.vae_range` then keeps small.
    "force_upcast": Irrelevant("it is advice on the dtype; the build measures the decoder's error in each dtype"),
    "use_quant_conv": _MODULE,
    "use_post_quant_conv": _MODULE,
    "mid_block_add_attention": _MODULE,
}

_ROUND_TRIP = Irrelevant("it is read by the class's round trip through bytes, which no pipeline calls")

# AutoencoderTiny, which takes the VAE's place.
_TINY_VAE: Mapping[str, Verdict] = {
    "in_channels": Limited((3,), "pictures that are not RGB"),
    "out_channels": Limited((3,), "pictures that are not RGB"),
    "encoder_block_out_channels": _MODULE,
    "decoder_block_out_channels": _MODULE,
    "act_fn": _MODULE,
    "upsample_fn": Limited(("nearest",), "another interpolation in the decoder"),
    "latent_channels": _WIDTHS,
    "upsampling_scaling_factor": Limited((2,), "latent cells of another size than the encoder's"),
    "num_encoder_blocks": _WIDTHS,
    "num_decoder_blocks": _WIDTHS,
    "latent_magnitude": _ROUND_TRIP,
    "latent_shift": _ROUND_TRIP,
    "force_upcast": _VAE["force_upcast"],
    "scaling_factor": _VAE["scaling_factor"],
    "shift_factor": _VAE["shift_factor"],
}

_TEXT_ENCODER: Mapping[str, Verdict] = {
    "vocab_size": _WIDTHS,
    "hidden_size": _WIDTHS,
    "intermediate_size": _MODULE,
    "projection_dim": Irrelevant("no projection of this text encoder is read"),
    "num_hidden_layers": Honoured("the module that is built with it; surplus layers of the file are dropped"),
    "num_attention_heads": _MODULE,
    "max_position_embeddings": _WIDTHS,
    "hidden_act": _MODULE,
    "layer_norm_eps": _MODULE,
    "attention_dropout": _DROPOUT,
    "initializer_range": _INITIAL,
    "initializer_factor": _INITIAL,
    "pad_token_id": _TOKENS,
    "bos_token_id": _TOKENS,
    "eos_token_id": _TOKENS,
    "transformers_version": _NOT_READ,
    "architectures": _NOT_READ,
    "output_hidden_states": _OUTPUTS,
    "return_dict": _OUTPUTS,
    "dtype": Irrelevant("a bundle stores every weight in float16"),
    "chunk_size_feed_forward": _NOT_READ,
    "is_encoder_decoder": _NOT_READ,
    "id2label": _NOT_READ,
    "label2id": _NOT_READ,
    "problem_type": _NOT_READ,
}

# The second one of Stable Diffusion XL, whose pooled output is read.
_TEXT_ENCODER_2: Mapping[str, Verdict] = {**_TEXT_ENCODER, "projection_dim": _WIDTHS}

_DESCRIBED = Honoured("diffusers' scheduler, from which the samplers are described")
_WITH_CLIPPING = Irrelevant("it is read together with thresholding or clip_sample")
_NO_FLOW = "a flow-matching model"

# A bundle has every sampler (see `export.samplers`), and the scheduler that the model names is the default. The others
# take over the options that they know, as in diffusers.
_SCHEDULER: Mapping[str, Verdict] = {
    "num_train_timesteps": _DESCRIBED,
    "beta_start": _DESCRIBED,
    "beta_end": _DESCRIBED,
    "beta_schedule": _DESCRIBED,
    "trained_betas": _DESCRIBED,
    "prediction_type": Limited((*PREDICTION_TYPES, "sample"), _NO_FLOW),
    "rescale_betas_zero_snr": _DESCRIBED,
    "timestep_spacing": _DESCRIBED,
    "steps_offset": _DESCRIBED,
    "set_alpha_to_one": _DESCRIBED,
    "final_sigmas_type": _DESCRIBED,
    "clip_sample": Honoured("the description of samplers: one that clips is left out"),
    "thresholding": Honoured("the description of samplers: one with thresholds is left out"),
    "clip_sample_range": _WITH_CLIPPING,
    "dynamic_thresholding_ratio": _WITH_CLIPPING,
    "sample_max_value": _WITH_CLIPPING,
    "interpolation_type": _DESCRIBED,
    "use_karras_sigmas": _DESCRIBED,
    "use_exponential_sigmas": _DESCRIBED,
    "use_beta_sigmas": _DESCRIBED,
    "use_lu_lambdas": _DESCRIBED,
    "sigma_min": _DESCRIBED,
    "sigma_max": _DESCRIBED,
    "timestep_type": Limited(("discrete",), "timesteps that are logarithms of sigmas"),
    "algorithm_type": _DESCRIBED,
    "solver_order": _DESCRIBED,
    "solver_type": _DESCRIBED,
    "lower_order_final": _DESCRIBED,
    "euler_at_final": _DESCRIBED,
    "lambda_min_clipped": _DESCRIBED,
    "variance_type": Limited(
        (None, "fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log"), "a UNet that predicts variances"
    ),
    "use_flow_sigmas": Limited((False,), _NO_FLOW),
    "flow_shift": Irrelevant("it is read together with use_flow_sigmas, which is refused"),
    "use_dynamic_shifting": Limited((False,), _NO_FLOW),
    "time_shift_type": Irrelevant("it is read together with use_dynamic_shifting, which is refused"),
    "shift_terminal": Limited((None,), _NO_FLOW),
    "skip_prk_steps": _DESCRIBED,
    "predict_x0": _DESCRIBED,
    "disable_corrector": _DESCRIBED,
    "solver_p": Limited((None,), "a solver in place of UniPC's predictor"),
    "original_inference_steps": _DESCRIBED,
    "timestep_scaling": _DESCRIBED,
}

TINY_VAE = "AutoencoderTiny"
UNION_CLASS = "ControlNetUnionModel"
_UNION_CLASSES = (UNION_CLASS, "ControlNetModel_Union")  # diffusers' and the original code's

# Part, or the class that takes the place of its usual one -> option -> verdict.
OPTIONS: Mapping[str, Mapping[str, Verdict]] = MappingProxyType(
    {
        "unet": _UNET,
        "controlnet": _CONTROLNET,
        UNION_CLASS: _UNION,
        "vae": _VAE,
        TINY_VAE: _TINY_VAE,
        "text_encoder": _TEXT_ENCODER,
        "text_encoder_2": _TEXT_ENCODER_2,
        "scheduler": _SCHEDULER,
    }
)

# Part -> the key of its configuration that names the kind of model, and the names that a build accepts.
# A configuration without the key is accepted: the first releases of diffusers did not write it.
CLASSES: Mapping[str, tuple[str, tuple[str, ...]]] = MappingProxyType(
    {
        "unet": ("_class_name", ("UNet2DConditionModel",)),
        "controlnet": ("_class_name", ("ControlNetModel", *_UNION_CLASSES)),
        "vae": ("_class_name", ("AutoencoderKL", TINY_VAE)),
        "text_encoder": ("model_type", ("clip_text_model",)),
        "text_encoder_2": ("model_type", ("clip_text_model",)),
        # Models that denoise by a schedule of betas. Each of these schedulers can take another's place.
        "scheduler": (
            "_class_name",
            (
                "DDIMScheduler",
                "DDPMScheduler",
                "DEISMultistepScheduler",
                "DPMSolverMultistepScheduler",
                "DPMSolverSDEScheduler",
                "DPMSolverSinglestepScheduler",
                "EulerAncestralDiscreteScheduler",
                "EulerDiscreteScheduler",
                "HeunDiscreteScheduler",
                "KDPM2AncestralDiscreteScheduler",
                "KDPM2DiscreteScheduler",
                "LCMScheduler",
                "LMSDiscreteScheduler",
                "PNDMScheduler",
                "TCDScheduler",
                "UniPCMultistepScheduler",
            ),
        ),
    }
)


def is_tiny(config: Mapping[str, Any]) -> bool:
    """Return whether the configuration is of a tiny autoencoder (github.com/madebyollin/taesd)."""
    return config.get("_class_name") == TINY_VAE


def is_union(config: Mapping[str, Any]) -> bool:
    """Return whether the configuration is of a ControlNet for many kinds of control image, as union and promax are.

    Some of them have the class name of a plain ControlNet.
    """
    return config.get("_class_name") in _UNION_CLASSES or "num_control_type" in config


def options_of(part: str, config: Mapping[str, Any]) -> Mapping[str, Verdict]:
    """Return the verdicts on the options of a configuration of this part."""
    if is_tiny(config):
        return OPTIONS[TINY_VAE]
    return OPTIONS[UNION_CLASS if part == "controlnet" and is_union(config) else part]


def check_class(part: str, config: Mapping[str, Any], where: str) -> None:
    """Refuse the configuration of a class that a build does not accept.

    Args:
        part: a key of `CLASSES`.
        where: the file or folder, for the error.

    Raises:
        UserError: names the class.
    """
    key, names = CLASSES[part]
    name = config.get(key, names[0])
    if name not in names:
        wanted = names[0] if len(names) == 1 else f"one of {', '.join(names)}"
        raise UserError(f"{part} {where}: {key}", repr(name), wanted, _REMEDY)


def check_options(part: str, config: Mapping[str, Any], where: str) -> None:
    """Refuse a configuration with an option that a build cannot honour.

    Args:
        part: a key of `CLASSES`.
        where: the file or folder, for the error.

    Raises:
        UserError: names the first such option.
    """
    for option, verdict in options_of(part, config).items():
        if not isinstance(verdict, Limited) or option not in config:
            continue
        value = config[option]
        for item in value if isinstance(value, list | tuple) else (value,):
            if item not in verdict.values:
                wanted = " or ".join("null" if allowed is None else repr(allowed) for allowed in verdict.values)
                got = f"{item!r}, which needs {verdict.because}"
                raise UserError(f"{part} {where}: {option}", got, wanted, _REMEDY)
