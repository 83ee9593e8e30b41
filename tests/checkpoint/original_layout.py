"""diffusers' names -> the names of the original Stable Diffusion and ControlNet code, to write files as they are
published: tables of where each block went, the other way round than the loading code goes.
"""

import re
from collections.abc import Mapping

import torch

Tensors = dict[str, torch.Tensor]

_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_UNET = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
    "controlnet_mid_block": "middle_block_out.0",
    "controlnet_cond_embedding.conv_in": "input_hint_block.0",
    "controlnet_cond_embedding.conv_out": "input_hint_block.14",
}
for level in range(4):  # two blocks and, but for the coarsest level, a downsampling each
    for block in range(2):
        _UNET[f"down_blocks.{level}.resnets.{block}"] = f"input_blocks.{1 + 3 * level + block}.0"
        _UNET[f"down_blocks.{level}.attentions.{block}"] = f"input_blocks.{1 + 3 * level + block}.1"
    _UNET[f"down_blocks.{level}.downsamplers.0.conv"] = f"input_blocks.{3 + 3 * level}.0.op"
    for block in range(3):  # three blocks, and in the last one the upsampling
        _UNET[f"up_blocks.{level}.resnets.{block}"] = f"output_blocks.{3 * level + block}.0"
        _UNET[f"up_blocks.{level}.attentions.{block}"] = f"output_blocks.{3 * level + block}.1"
    # The first level has no attention in front of it.
    _UNET[f"up_blocks.{level}.upsamplers.0.conv"] = f"output_blocks.{3 * level + 2}.{1 if level == 0 else 2}.conv"
for number in range(12):
    _UNET[f"controlnet_down_blocks.{number}"] = f"zero_convs.{number}.0"
for number in range(6):
    _UNET[f"controlnet_cond_embedding.blocks.{number}"] = f"input_hint_block.{2 * number + 2}"

_VAE = {
    "encoder.conv_norm_out": "encoder.norm_out",
    "decoder.conv_norm_out": "decoder.norm_out",
}
for half in ("encoder", "decoder"):
    _VAE[f"{half}.mid_block.resnets.0"] = f"{half}.mid.block_1"
    _VAE[f"{half}.mid_block.resnets.1"] = f"{half}.mid.block_2"
    _VAE[f"{half}.mid_block.attentions.0"] = f"{half}.mid.attn_1"
for level in range(4):
    for block in range(3):
        _VAE[f"encoder.down_blocks.{level}.resnets.{block}"] = f"encoder.down.{level}.block.{block}"
        _VAE[f"decoder.up_blocks.{level}.resnets.{block}"] = f"decoder.up.{3 - level}.block.{block}"
    _VAE[f"encoder.down_blocks.{level}.downsamplers.0.conv"] = f"encoder.down.{level}.downsample.conv"
    _VAE[f"decoder.up_blocks.{level}.upsamplers.0.conv"] = f"decoder.up.{3 - level}.upsample.conv"
_VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}

_OPEN_CLIP = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm.weight": "ln_final.weight",
    "final_layer_norm.bias": "ln_final.bias",
}
_OPEN_CLIP_LAYER = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}


def original_unet(weights: Mapping[str, torch.Tensor]) -> Tensors:
    """Of a UNet or a ControlNet, without a prefix."""
    return {_rename(key, _UNET, {**_RESNET}): tensor for key, tensor in weights.items()}


def original_xl_unet(weights: Mapping[str, torch.Tensor], layers: int = 2) -> Tensors:
    """The same for Stable Diffusion XL: three levels of `layers` blocks, whose attentions are in the coarser two."""
    blocks = {name: target for name, target in _UNET.items() if "down_blocks." not in name and "up_blocks." not in name}
    blocks |= {"add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2"}
    for level in range(3):
        first = 1 + (layers + 1) * level
        for block in range(layers):
            blocks[f"down_blocks.{level}.resnets.{block}"] = f"input_blocks.{first + block}.0"
            blocks[f"down_blocks.{level}.attentions.{block}"] = f"input_blocks.{first + block}.1"
        blocks[f"down_blocks.{level}.downsamplers.0.conv"] = f"input_blocks.{first + layers}.0.op"
        for block in range(layers + 1):
            blocks[f"up_blocks.{level}.resnets.{block}"] = f"output_blocks.{(layers + 1) * level + block}.0"
            blocks[f"up_blocks.{level}.attentions.{block}"] = f"output_blocks.{(layers + 1) * level + block}.1"
        blocks[f"up_blocks.{level}.upsamplers.0.conv"] = f"output_blocks.{(layers + 1) * level + layers}.2.conv"
    blocks |= {f"controlnet_down_blocks.{number}": f"zero_convs.{number}.0" for number in range(9)}
    return {_rename(key, blocks, _RESNET): tensor for key, tensor in weights.items()}


def original_xl(unet: Tensors, vae: Tensors, text: Tensors, text_2: Tensors) -> Tensors:
    """A whole model of Stable Diffusion XL as one file holds it: both text encoders are embedders of a conditioner."""
    projection = text_2["text_projection.weight"]
    second = {key.removeprefix("text_model."): tensor for key, tensor in text_2.items() if "text_projection" not in key}
    names = original_open_clip(second, unread_layers=0)
    first = {key.removeprefix("text_model."): tensor for key, tensor in text.items()}
    return {
        **{f"model.diffusion_model.{key}": tensor for key, tensor in original_xl_unet(unet).items()},
        **{f"first_stage_model.{key}": tensor for key, tensor in original_vae(vae).items()},
        **{f"conditioner.embedders.0.transformer.text_model.{key}": tensor for key, tensor in first.items()},
        **{f"conditioner.embedders.1.model.{key}": tensor for key, tensor in names.items()},
        "conditioner.embedders.1.model.text_projection": projection.T,
        "conditioner.embedders.0.transformer.text_model.embeddings.position_ids": torch.arange(77)[None],
        "denoiser.sigmas": torch.zeros(1000),
    }


def original_vae(weights: Mapping[str, torch.Tensor]) -> Tensors:
    """The attention's linear layers are 1x1 convolutions there."""
    renamed = {}
    for key, tensor in weights.items():
        name = _rename(key, _VAE, {**_VAE_ATTENTION, "conv_shortcut": "nin_shortcut"})
        renamed[name] = tensor[:, :, None, None] if ".attn_1." in name and tensor.ndim == 2 else tensor
    return renamed


def original_open_clip(weights: Mapping[str, torch.Tensor], unread_layers: int = 1) -> Tensors:
    """With a last layer that Stable Diffusion 2 never reads, and the projections of q, k and v as one."""
    layers = 1 + max(int(match[1]) for key in weights if (match := re.match(r"encoder\.layers\.(\d+)\.", key)))
    result = {name: weights[key] for key, name in _OPEN_CLIP.items()}
    width = result["ln_final.weight"].shape[0]
    result["text_projection"] = torch.zeros(width, width)
    result["logit_scale"] = torch.zeros(())
    for layer in range(layers + unread_layers):
        source = f"encoder.layers.{min(layer, layers - 1)}."
        target = f"transformer.resblocks.{layer}."
        for leaf in ("weight", "bias"):
            for name, original in _OPEN_CLIP_LAYER.items():
                result[f"{target}{original}.{leaf}"] = weights[f"{source}{name}.{leaf}"].clone()
            stacked = [weights[f"{source}self_attn.{name}_proj.{leaf}"] for name in "qkv"]
            result[f"{target}attn.in_proj_{leaf}"] = torch.cat(stacked)
    return result


def original_model(unet: Tensors, vae: Tensors, text: Tensors, is_second: bool) -> Tensors:
    """A whole model as one file holds it, with what training left there."""
    if is_second:
        named = {f"cond_stage_model.model.{key}": tensor for key, tensor in original_open_clip(text).items()}
    else:
        named = {f"cond_stage_model.transformer.text_model.{key}": tensor for key, tensor in text.items()}
        named["cond_stage_model.transformer.text_model.embeddings.position_ids"] = torch.arange(77)[None]
    return {
        **{f"model.diffusion_model.{key}": tensor for key, tensor in original_unet(unet).items()},
        **{f"first_stage_model.{key}": tensor for key, tensor in original_vae(vae).items()},
        **named,
        "betas": torch.zeros(1000),
        "model_ema.decay": torch.zeros(()),
        "model_ema.num_updates": torch.zeros((), dtype=torch.int32),
    }


def _rename(key: str, blocks: Mapping[str, str], leaves: Mapping[str, str]) -> str:
    block = max((name for name in blocks if key.startswith(f"{name}.")), key=len, default=None)
    if block is None:
        return key
    rest = key[len(block) + 1 :]
    if ".attentions." not in key or ".mid_block.attentions." in key:  # a transformer keeps its inner names
        leaf = next((name for name in leaves if rest.startswith(f"{name}.")), None)
        rest = rest if leaf is None else leaves[leaf] + rest[len(leaf) :]
    return f"{blocks[block]}.{rest}"
