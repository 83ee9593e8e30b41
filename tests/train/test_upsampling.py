import copy
from pathlib import Path

import pytest
import torch
from diffusers.models.upsampling import Upsample2D

from mlc_controlnet.train.base import load_unet
from mlc_controlnet.train.upsampling import RepeatedUpsample, repeat_pixels


@pytest.mark.parametrize("size", [None, (5, 6), (6, 5)])
def test_repeating_pixels_is_nearest_upsampling(size: tuple[int, int] | None) -> None:
    """Also where a level of the UNet is one less than twice the level below."""
    torch.manual_seed(0)
    theirs = Upsample2D(4, use_conv=True)
    ours = RepeatedUpsample(theirs)
    x = torch.randn((2, 4, 3, 3), requires_grad=True)
    gradients = []
    for upsample in (theirs, ours):
        y = upsample(x, size)
        (gradient,) = torch.autograd.grad(y.square().sum(), x)
        gradients.append((y, gradient))
    assert torch.equal(gradients[0][0], gradients[1][0])
    torch.testing.assert_close(gradients[1][1], gradients[0][1])


def test_the_unet_keeps_its_weights_their_names_and_its_output(tiny_base: Path) -> None:
    unet = load_unet(str(tiny_base))
    repeated = copy.deepcopy(unet)
    repeat_pixels(repeated)
    assert any(isinstance(module, RepeatedUpsample) for module in repeated.modules())
    assert repeated.state_dict().keys() == unet.state_dict().keys()
    inputs = torch.randn(2, 4, 12, 16), torch.tensor([3, 700]), torch.randn(2, 77, 16)
    with torch.no_grad():
        assert torch.equal(repeated(*inputs).sample, unet(*inputs).sample)
