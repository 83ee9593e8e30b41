import importlib.util
import sys
import types

import pytest
import torch

from mlc_controlnet.errors import UserError
from mlc_controlnet.train.config import LR_SCHEDULES, OptimOptions
from mlc_controlnet.train.optimizer import WeightUpdate, learning_rate, make_optimizer


@pytest.mark.parametrize("name", [name for name in LR_SCHEDULES if name != "one_cycle"])
def test_a_schedule_is_diffusers_own(name: str) -> None:
    from diffusers.optimization import get_scheduler

    options = OptimOptions(lr_scheduler=name, lr_warmup_steps=3, lr_num_cycles=2, lr_power=2.0)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    theirs = get_scheduler(name, optimizer, None, 3, 12, num_cycles=2, power=2.0)
    rate = learning_rate(options, 0.5, 12)
    for step in range(12):
        assert rate(step) == pytest.approx(theirs.get_last_lr()[0], rel=1e-9, abs=0)
        optimizer.step()
        theirs.step()


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 100])
@pytest.mark.parametrize("warmup", [0, 1, 10, 1000])
def test_one_cycle_rises_over_its_warm_up_and_ends_near_zero(steps: int, warmup: int) -> None:
    rate = learning_rate(OptimOptions(lr_scheduler="one_cycle", lr_warmup_steps=warmup), 0.5, steps)
    rates = [rate(step) for step in range(steps)]
    assert rates[0] == pytest.approx(0.5 / 25) and max(rates) <= 0.5
    if steps == 100 and warmup == 10:
        assert rates.index(max(rates)) == 9 and rates[9] == 0.5 and rates[-1] < 1e-5


def test_a_step_changes_the_weights_clears_the_gradients_and_moves_the_average() -> None:
    weight = torch.nn.Parameter(torch.ones(1))
    update = WeightUpdate([weight], OptimOptions(learning_rate=0.5, ema_decay=0.9), 10, peak_rate=0.25)
    update.set_learning_rate(0)
    weight.square().sum().backward()
    update.apply(0)
    assert weight.item() == pytest.approx(0.75, abs=0.01) and weight.grad is None
    assert update.ema is not None
    assert update.ema.values[0].item() == pytest.approx(0.1 + 0.9 * weight.item())  # the ramp's first decay is 0.1
    with update.ema.in_place():
        assert weight.item() == update.ema.values[0].item()
    assert weight.item() == pytest.approx(0.75, abs=0.01)


def test_adams_settings_arrive() -> None:
    options = OptimOptions(learning_rate=0.1, beta1=0.5, beta2=0.6, epsilon=0.7, weight_decay=0.8)
    (group,) = make_optimizer([torch.nn.Parameter(torch.zeros(1))], options).param_groups
    assert (group["lr"], group["betas"], group["eps"], group["weight_decay"]) == (0.1, (0.5, 0.6), 0.7, 0.8)


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is not None, reason="bitsandbytes is installed")
def test_eight_bits_without_bitsandbytes_say_what_to_install() -> None:
    with pytest.raises(UserError, match="pip install bitsandbytes"):
        make_optimizer([torch.nn.Parameter(torch.zeros(1))], OptimOptions(use_8bit_adam=True))


def test_eight_bits_are_those_of_bitsandbytes(monkeypatch: pytest.MonkeyPatch) -> None:
    class AdamW8bit(torch.optim.AdamW):
        pass

    package = types.ModuleType("bitsandbytes")
    package.optim = types.SimpleNamespace(AdamW8bit=AdamW8bit)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "bitsandbytes", package)
    options = OptimOptions(use_8bit_adam=True, learning_rate=0.1, beta2=0.6)
    optimizer = make_optimizer([torch.nn.Parameter(torch.zeros(1))], options)
    assert isinstance(optimizer, AdamW8bit)
    assert optimizer.param_groups[0]["lr"] == 0.1 and optimizer.param_groups[0]["betas"] == (0.9, 0.6)
