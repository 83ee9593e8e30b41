"""Classifier-free guidance, against diffusers."""

import numpy as np
import pytest
import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg

from mlc_controlnet.runtime.denoising import guide

SHAPE = (1, 4, 2, 3)
NEGATIVE, POSITIVE = np.random.default_rng(7).standard_normal((2, *SHAPE)).astype(np.float32)


@pytest.mark.parametrize("rescale", [0.0, 0.25, 0.7, 1.0])
def test_guidance_is_rescaled_as_diffusers_does_it(rescale: float) -> None:
    negative, positive = torch.from_numpy(NEGATIVE).double(), torch.from_numpy(POSITIVE).double()
    wanted = rescale_noise_cfg(negative + 7.5 * (positive - negative), positive, rescale)
    np.testing.assert_allclose(guide([NEGATIVE, POSITIVE], 7.5, rescale), wanted.numpy(), rtol=1e-12)


def test_guidance_that_is_wholly_rescaled_has_the_prompts_deviation() -> None:
    assert guide([NEGATIVE, POSITIVE], 7.5).std() > 2 * POSITIVE.std()
    assert guide([NEGATIVE, POSITIVE], 7.5, 1.0).std() == pytest.approx(POSITIVE.std(), rel=1e-6)


def test_guidance_without_any_deviation_is_left_as_it_is() -> None:
    """diffusers divides by zero there."""
    flat = np.full(SHAPE, 3.0, np.float32)
    assert (guide([np.zeros_like(flat), flat], 2.0, 0.7) == 6.0).all()
