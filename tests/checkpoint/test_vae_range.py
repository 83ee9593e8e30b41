"""A VAE whose activations exceed float16 computes the same within it."""

import copy

import pytest
import torch
from diffusers import AutoencoderKL

from mlc_controlnet.checkpoint.vae_range import SCALE, narrow_activations


@pytest.fixture
def vae() -> AutoencoderKL:
    """Its residual stream exceeds float16's largest number, as that of Stable Diffusion XL's VAE does."""
    torch.manual_seed(0)
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(16, 32),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
    )
    for name, parameter in vae.named_parameters():
        if "bias" in name and "norm" not in name:
            torch.nn.init.normal_(parameter, std=0.5)
        if name.endswith(("conv2.weight", "conv2.bias")):
            parameter.data *= 2e5
    return vae.eval().requires_grad_(False)


@torch.no_grad()
def test_it_computes_the_same(vae: AutoencoderKL) -> None:
    narrow = copy.deepcopy(vae)
    narrow_activations(narrow)
    latents, image = torch.randn(1, 4, 8, 12), torch.rand(1, 3, 16, 24)
    torch.testing.assert_close(narrow.decode(latents).sample, vae.decode(latents).sample, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(narrow.encode(image).latent_dist.mode(), vae.encode(image).latent_dist.mode())


def test_the_weights_that_it_had_are_not_written_into(vae: AutoencoderKL) -> None:
    """They may be a file's, mapped into memory: their pages are given back after each read."""
    had = dict(vae.named_parameters())
    numbers = copy.deepcopy(had)
    narrow_activations(vae)
    assert all(torch.equal(had[name], numbers[name]) for name in had)
    assert not torch.equal(vae.decoder.conv_in.weight, had["decoder.conv_in.weight"])


@torch.no_grad()
def test_activations_are_smaller_by_the_scale_and_stay_finite_in_float16(vae: AutoencoderKL) -> None:
    latents = torch.randn(1, 4, 8, 12)
    seen: list[float] = []
    for model in (vae, copy.deepcopy(vae)):
        if seen:
            narrow_activations(model)
        model.decoder.conv_norm_out.register_forward_pre_hook(
            lambda _, inputs: seen.append(inputs[0].abs().max().item())
        )
        model.decode(latents)
    assert seen[0] > 65504
    assert seen[1] == pytest.approx(SCALE * seen[0], rel=1e-3)
    wanted = vae.decode(latents).sample
    assert not vae.half().decode(latents.half()).sample.isfinite().all()
    got = model.half().decode(latents.half()).sample.float()
    assert got.isfinite().all()
    assert (got - wanted).std() < 0.01 * wanted.std()
