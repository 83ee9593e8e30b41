import numpy as np
import pytest
import torch

from mlc_controlnet.errors import UserError
from mlc_controlnet.runtime.latents import blend_latents, first_step, upscale_latents
from mlc_controlnet.runtime.option_checks import UPSCALE_MODES


@pytest.fixture
def latents():
    return np.random.default_rng(1).standard_normal((1, 4, 6, 9)).astype(np.float32)


@pytest.mark.parametrize("size", [(12, 18), (9, 13), (6, 9), (7, 40), (64, 96), (4, 5)])
@pytest.mark.parametrize("mode", UPSCALE_MODES)
def test_latents_grow_as_in_torch(latents, mode, size):
    theirs = torch.nn.functional.interpolate(torch.from_numpy(latents), size=size, mode=mode).numpy()
    ours = upscale_latents(latents, *size, mode)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, theirs, atol=2e-5)


@pytest.mark.parametrize("count", range(1, 40))
@pytest.mark.parametrize("length", [1, 8, 25, 61, 100])
@pytest.mark.parametrize("mode", ["nearest", "nearest-exact"])
def test_the_nearest_cell_is_that_of_torch(mode, count, length):
    cells = np.arange(count, dtype=np.float32).reshape(1, 1, count, 1)
    theirs = torch.nn.functional.interpolate(torch.from_numpy(cells), size=(length, 1), mode=mode).numpy()
    np.testing.assert_array_equal(upscale_latents(cells, length, 1, mode), theirs)


def test_an_unknown_mode_is_refused(latents):
    with pytest.raises(UserError, match=r"latent upscale mode: got 'lanczos', wanted one of bilinear, nearest,"):
        upscale_latents(latents, 12, 18, "lanczos")


def test_the_mask_chooses_between_the_drawn_and_the_kept_latents(latents):
    kept, mask = -2 * latents, np.zeros((1, 1, 6, 9), np.float32)
    mask[..., 4:] = 1
    blended = blend_latents(latents, kept, mask)
    assert blended.dtype == np.float32
    np.testing.assert_array_equal(blended[..., :4], kept[..., :4])
    np.testing.assert_array_equal(blended[..., 4:], latents[..., 4:])


def test_strength_leaves_out_the_first_steps_as_in_diffusers():
    for steps in (1, 2, 20, 50, 150):
        for strength in np.linspace(0, 1, 101).tolist():
            ran = min(int(steps * strength), steps)  # StableDiffusionImg2ImgPipeline.get_timesteps
            assert first_step(steps, strength) == max(steps - ran, 0)
    assert first_step(20, 0.0) == 20
    assert first_step(20, 1.0) == 0
