import importlib.util
import sys
import types

import pytest
import torch

from mlc_controlnet.errors import UserError
from mlc_controlnet.train.config import LR_SCHEDULES, OptimOptions
from mlc_controlnet.train.optimizer import learning_rate_factor, make_optimizer


@pytest.mark.parametrize("name", LR_SCHEDULES)
def test_a_schedule_is_diffusers_own(name: str) -> None:
    from diffusers.optimization import get_scheduler

    options = OptimOptions(lr_scheduler=name, lr_warmup_steps=3, lr_num_cycles=2, lr_power=2.0)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    theirs = get_scheduler(name, optimizer, None, 3, 12, num_cycles=2, power=2.0)
    factor = learning_rate_factor(options, 0.5, 12)
    for step in range(12):
        assert 0.5 * factor(step) == pytest.approx(theirs.get_last_lr()[0], rel=1e-9, abs=0)
        optimizer.step()
        theirs.step()


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
