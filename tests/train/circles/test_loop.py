import pytest
import torch

from mlc_controlnet.train.circles.loop import LoopConfig, one_cycle, train


def fit(config: LoopConfig) -> float:
    weight = torch.nn.Parameter(torch.tensor([5.0]))
    train("square", [weight], lambda step: (weight - 2.0).square().sum(), config, print)
    return weight.item()


@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
def test_the_loss_is_minimised(ema_decay: float) -> None:
    assert fit(one_cycle(400, 0.1, ema_decay=ema_decay)) == pytest.approx(2.0, abs=0.05)


def test_averaged_weights_lag_behind_the_last_ones() -> None:
    config = one_cycle(20, 0.1)
    assert fit(one_cycle(20, 0.1, ema_decay=0.99)) > fit(config) > 2.0


def test_progress_tells_step_loss_and_time_left() -> None:
    lines: list[str] = []
    weight = torch.nn.Parameter(torch.ones(1))
    train("s", [weight], lambda step: weight.square().sum(), one_cycle(4, 0.1, log_every=2), lines.append)
    assert len(lines) == 2
    assert "step 4/4" in lines[-1] and "min left" in lines[-1]


def test_a_nan_stops_the_training_with_its_step() -> None:
    weight = torch.nn.Parameter(torch.ones(1))
    with pytest.raises(FloatingPointError, match="step 3"):
        train(
            "s", [weight], lambda step: weight.sum() * (float("nan") if step == 3 else 1.0), one_cycle(10, 0.1), print
        )
