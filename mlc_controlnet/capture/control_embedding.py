"""The control embedding: the control image -> what the ControlNet adds to its sample at every step."""

import torch
from diffusers import ControlNetModel
from torch import nn

from mlc_controlnet.checkpoint.union_controlnet import FUSER


class ControlEmbedding(nn.Module):
    """The ControlNet's convolutions that read the control image (arXiv 2302.05543, eq. 10). It runs once per picture.

    Some ControlNets were trained on pictures in BGR order; their configuration says so. A union ControlNet has further
    layers, which tell its control type.
    """

    def __init__(self, model: ControlNetModel) -> None:
        super().__init__()
        self.model = model.controlnet_cond_embedding
        self.fuser = getattr(model, FUSER, nn.Identity())
        self.reads_bgr = model.config.controlnet_conditioning_channel_order == "bgr"

    def forward(self, control_image: torch.Tensor) -> torch.Tensor:
        """[B, 3, H, W] float32 RGB, 0..1 -> [B, C, h, w]."""
        x = control_image.to(self.model.conv_in.weight.dtype)
        return self.fuser(self.model(torch.flip(x, dims=[1]) if self.reads_bgr else x))
