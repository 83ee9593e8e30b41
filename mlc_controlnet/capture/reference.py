"""The components in torch and float32. Compiled components are compared with them.

A checkpoint's weights are float16. Each layer is widened while it runs, so that only the largest layer, and not the
whole model, is in memory twice.
"""

import copy
from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import nn

from mlc_controlnet.capture.module import wrap
from mlc_controlnet.checkpoint import Checkpoint, give_back

# These layers hold nearly all weights. The other weights, of norms and embeddings, are widened at once.
_WIDENED_IN_TURN = (nn.Conv2d, nn.Linear)
_SMALL = 4096  # elements; modules ask some small weights, for example conv_in's, for the dtype to compute in


Layer: TypeAlias = nn.Conv2d | nn.Linear


def widen_while_it_runs(layer: Layer) -> None:
    """Widen a layer's weight before it runs, and put the stored one back after it."""
    stored = layer.weight

    def before(_layer: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        assert inputs[0].dtype == torch.float32, "a module asked a weight of its own for the dtype to compute in"
        layer.weight = _widen(stored)

    def after(_layer: nn.Module, _inputs: tuple[torch.Tensor, ...], _output: torch.Tensor) -> None:
        layer.weight = stored

    layer.register_forward_pre_hook(before)
    layer.register_forward_hook(after)


def build_references(
    checkpoint: Checkpoint, prepare: Callable[[Layer], None] = widen_while_it_runs
) -> dict[str, nn.Module]:
    """Make a module for each component to build. Its inputs and outputs are float32, and token ids are int32.

    Args:
        prepare: makes a layer, whose weight is float16, take and return float32.
    """
    return {name: _widened(module.eval(), prepare) for name, module in wrap(checkpoint).items()}


def _widened(module: nn.Module, prepare: Callable[[Layer], None]) -> nn.Module:
    in_turn = [layer for layer in module.modules() if isinstance(layer, _WIDENED_IN_TURN)]
    shared = {id(layer.weight) for layer in in_turn if layer.weight.numel() > _SMALL}
    weights = {id(p): p if id(p) in shared else _widen(p) for p in module.parameters()}
    copied = copy.deepcopy(module, weights)
    for layer in copied.modules():
        if isinstance(layer, _WIDENED_IN_TURN) and layer.weight.dtype != torch.float32:
            prepare(layer)
    return copied


def _widen(weight: torch.Tensor) -> nn.Parameter:
    wide = nn.Parameter(weight.float(), requires_grad=False)
    give_back(weight)
    return wide
