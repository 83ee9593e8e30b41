import pytest
import torch
from diffusers import DDIMScheduler

from mlc_controlnet.train.diffusion import denoising_loss


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_a_model_that_knows_the_answer_has_no_loss(prediction_type: str) -> None:
    """With x_0 = 0 the noise is x_t / sqrt(1 - abar_t), so both targets can be computed from x_t."""
    torch.manual_seed(0)
    scheduler = DDIMScheduler(prediction_type=prediction_type)

    def perfect(x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        abar = scheduler.alphas_cumprod[t].view(-1, 1, 1, 1)
        eps = x_t / (1 - abar).sqrt()
        return eps if prediction_type == "epsilon" else abar.sqrt() * eps

    assert denoising_loss(scheduler, torch.zeros(8, 4, 6, 8), perfect).item() < 1e-8


def test_a_model_that_says_nothing_has_the_noises_variance_as_loss() -> None:
    torch.manual_seed(0)
    loss = denoising_loss(DDIMScheduler(), torch.randn(64, 4, 8, 8), lambda x_t, t: torch.zeros_like(x_t))
    assert loss.item() == pytest.approx(1.0, abs=0.05)
