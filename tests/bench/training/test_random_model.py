import torch
from torch import nn

from mlc_controlnet.bench.training.contestant import HINT_WIDTHS
from mlc_controlnet.bench.training.random_model import random_stable_diffusion
from mlc_controlnet.train.base import new_controlnet


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_the_random_model_has_as_many_weights_as_stable_diffusion_1_5() -> None:
    """The published models' counts; on the meta device, where weights take no memory."""
    with torch.device("meta"):
        base = random_stable_diffusion()
        controlnet = new_controlnet(base.unet, 3, HINT_WIDTHS["sd15"])
    counts = [count(part) for part in (base.unet, base.vae, base.text_encoder, controlnet)]
    assert counts == [859_520_964, 83_653_863, 123_060_480, 361_279_120]
    assert not any(p.requires_grad for p in base.unet.parameters())
