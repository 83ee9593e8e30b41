"""What compiled components are compared with: float32 throughout, without a float32 copy of the weights."""

import copy
import weakref
from collections.abc import Callable

import pytest
import torch
from torch import nn

from mlc_controlnet.capture import build_references, example_inputs
from mlc_controlnet.capture.module import wrap
from mlc_controlnet.checkpoint import Checkpoint
from mlc_controlnet.components import COMPONENTS


@pytest.mark.parametrize("name", COMPONENTS)
def test_a_reference_computes_what_the_whole_module_in_float32_computes(checkpoint: Checkpoint, name: str) -> None:
    inputs = example_inputs(checkpoint.specs[name], "float32", seed=3)
    with torch.no_grad():
        got = build_references(checkpoint)[name](*inputs)
        wanted = _copy_in_float32(wrap(checkpoint)[name])(*inputs)
    for g, w in zip(*(o if isinstance(o, tuple) else (o,) for o in (got, wanted)), strict=True):
        assert g.dtype == torch.float32
        assert g.equal(w)


def _copy_in_float32(module: nn.Module) -> nn.Module:
    return copy.deepcopy(module).float().eval()


def test_no_more_than_two_large_weights_are_float32_at_a_time(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one of the layer that runs, and the one before it where it is still to be let go of."""
    reference = build_references(checkpoint)["unet"]
    alive: weakref.WeakSet[torch.Tensor] = weakref.WeakSet()
    most = 0
    widen: Callable[[torch.Tensor], torch.Tensor] = torch.Tensor.float

    def count(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal most
        wide = widen(tensor)
        if isinstance(tensor, nn.Parameter):
            alive.add(wide)
            most = max(most, len(alive))
        return wide

    monkeypatch.setattr(torch.Tensor, "float", count)
    with torch.no_grad():
        reference(*example_inputs(checkpoint.specs["unet"], "float32"))
    assert 1 <= most <= 2


def test_the_checkpoint_keeps_its_float16_weights(checkpoint: Checkpoint) -> None:
    reference = build_references(checkpoint)["vae_decoder"]
    with torch.no_grad():
        reference(*example_inputs(checkpoint.specs["vae_decoder"], "float32"))
    assert {tensor.dtype for tensor in checkpoint.tensors().values()} == {torch.float16}
    large = [p for p in reference.parameters() if p.ndim == 4 and p.numel() > 4096]
    assert {p.dtype for p in large} == {torch.float16}
