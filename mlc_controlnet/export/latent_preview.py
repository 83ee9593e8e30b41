"""A linear map from latents to colours, cheap enough to show a preview after every step."""

import copy

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, AutoencoderTiny

from mlc_controlnet.bundle.manifest import LatentPreview

# SIZE is in pixels. The fit has C + 1 unknowns per colour, and these pictures have 1536 cells. Twice as many pictures
# of twice the size reduce the error on other pictures by a twentieth, and take the encoder eight times as long.
PICTURES, SIZE = 24, 64


@torch.no_grad()
def fit_latent_preview(vae: AutoencoderKL | AutoencoderTiny) -> LatentPreview:
    """Fit scaled latents to the mean colour (0..1) of the pixels under each cell, by least squares.

    The pictures are smooth random colour fields, so that the fit covers the whole RGB cube.
    """
    vae = copy.deepcopy(vae).float()
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand((PICTURES, 3, 3, 3), generator=generator)
    spread = ((coarse - 0.5) * 2.0 + 0.5).clamp(0, 1)  # reach the faces of the cube, which hold saturated colours
    pictures = F.interpolate(spread, size=(SIZE, SIZE), mode="bilinear", align_corners=True)  # [N, 3, H, W]
    encoded = vae.encode(pictures * 2 - 1)
    mean = encoded.latents if isinstance(vae, AutoencoderTiny) else encoded.latent_dist.mean
    latents = mean * vae.config.scaling_factor  # [N, C, h, w]
    colors = F.adaptive_avg_pool2d(pictures, latents.shape[-2:])  # [N, 3, h, w]
    x = latents.permute(0, 2, 3, 1).flatten(0, 2)  # [N h w, C]
    x = torch.cat([x, torch.ones(len(x), 1)], dim=1)
    y = colors.permute(0, 2, 3, 1).flatten(0, 2)  # [N h w, 3]
    solution = torch.linalg.lstsq(x.double(), y.double()).solution.T  # [3, C + 1]
    weight, bias = solution[:, :-1], solution[:, -1]
    return LatentPreview(
        weight=tuple(tuple(round(v, 6) for v in row) for row in weight.tolist()),
        bias=tuple(round(v, 6) for v in bias.tolist()),
    )
