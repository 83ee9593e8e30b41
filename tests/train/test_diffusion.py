import pytest
import torch
from diffusers import DDIMScheduler

from mlc_controlnet.train.diffusion import denoising_loss, min_snr_weight, target_of


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


def test_min_snr_weights_are_those_of_the_paper() -> None:
    """min(snr, 5) / snr for noise and min(snr, 5) / (snr + 1) for v, section 3.4 of arXiv 2303.09556."""
    noise, velocity = DDIMScheduler(), DDIMScheduler(prediction_type="v_prediction")
    t = torch.tensor([0, 300, 999])
    snr = noise.alphas_cumprod[t] / (1 - noise.alphas_cumprod[t])
    assert snr[0] > 5 > snr[1]
    torch.testing.assert_close(min_snr_weight(noise, t, 5.0), torch.minimum(snr, torch.tensor(5.0)) / snr)
    torch.testing.assert_close(min_snr_weight(velocity, t, 5.0), torch.minimum(snr, torch.tensor(5.0)) / (snr + 1))


def test_min_snr_weights_are_finite_where_there_is_no_signal() -> None:
    last = torch.tensor([999])
    for prediction_type, weight in (("epsilon", 1.0), ("v_prediction", 0.0)):
        scheduler = DDIMScheduler(prediction_type=prediction_type, rescale_betas_zero_snr=True)
        assert min_snr_weight(scheduler, last, 5.0).item() == weight


def test_the_velocity_is_the_one_that_leads_back_to_the_sample() -> None:
    """x_0 = sqrt(abar) x_t - sqrt(1 - abar) v."""
    scheduler = DDIMScheduler(prediction_type="v_prediction")
    x_0, noise, t = torch.randn(4, 4, 6, 8), torch.randn(4, 4, 6, 8), torch.tensor([0, 10, 500, 999])
    x_t, v = scheduler.add_noise(x_0, noise, t), target_of(scheduler, x_0, noise, t)
    abar = scheduler.alphas_cumprod[t].view(-1, 1, 1, 1)
    torch.testing.assert_close(abar.sqrt() * x_t - (1 - abar).sqrt() * v, x_0, rtol=1e-4, atol=1e-4)
