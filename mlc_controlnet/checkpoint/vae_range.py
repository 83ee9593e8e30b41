"""Keep the activations of Stable Diffusion XL's VAE within float16, without a change of what it computes.

Its configuration says `force_upcast`: between the residual blocks, activations exceed float16's 65504. But only group
norms read them, and a norm removes their scale. So everything that is added up between the blocks can be SCALE times
as large, if each norm's epsilon is SCALE^2 times as large:

    norm(x, eps) = norm(s x, s^2 eps)

SCALE is a power of two. It is in the weights, and changes none of their digits. diffusers runs this VAE in float32.
"""

import torch
from diffusers import AutoencoderKL
from diffusers.models.attention_processor import Attention
from diffusers.models.downsampling import Downsample2D
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.upsampling import Upsample2D
from torch import nn

SCALE = 2.0**-5  # activations may be 32 times as large as float16's largest number


@torch.no_grad()
def narrow_activations(vae: AutoencoderKL) -> None:
    """Give both halves other weights and epsilons. The tensors that they had stay as they are: a file's are mapped."""
    for half in (vae.encoder, vae.decoder):
        _scale(half.conv_in)
        half.conv_norm_out.eps *= SCALE**2
        for module in half.modules():
            if isinstance(module, ResnetBlock2D):
                for norm, conv in ((module.norm1, module.conv1), (module.norm2, module.conv2)):
                    norm.eps *= SCALE**2
                    _scale(conv)
                if module.conv_shortcut is not None:
                    _scale_bias(module.conv_shortcut)
            elif isinstance(module, Attention):
                module.group_norm.eps *= SCALE**2
                _scale(module.to_out[0])
            elif isinstance(module, Upsample2D | Downsample2D) and module.conv is not None:
                _scale_bias(module.conv)


def _scale(layer: nn.Module) -> None:
    layer.weight = _scaled(layer.weight)
    _scale_bias(layer)


def _scale_bias(layer: nn.Module) -> None:
    """Scale what a layer adds to an input that is scaled already."""
    if layer.bias is not None:
        layer.bias = _scaled(layer.bias)


def _scaled(weight: nn.Parameter) -> nn.Parameter:
    return nn.Parameter(weight * SCALE, requires_grad=weight.requires_grad)
