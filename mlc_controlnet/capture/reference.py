"""What each component computes, in torch and float32: what compiled components are compared with.

A checkpoint's weights are float16. They are widened layer by layer, while a layer runs, so that the largest layer is
in memory twice and not the whole model: 59 MB instead of 3.4 GB for the UNet of Stable Diffusion 1.5.
"""

import copy

import torch
from torch import nn

from mlc_controlnet.capture.module import wrap
from mlc_controlnet.checkpoint import Checkpoint

# Nearly all weights lie in these; what else there is, norms and embeddings, is widened at once.
_WIDENED_IN_TURN = (nn.Conv2d, nn.Linear)
_SMALL = 4096  # elements; a module may ask a small weight, conv_in's for example, which dtype it computes in


def build_references(checkpoint: Checkpoint) -> dict[str, nn.Module]:
    """A module for each component to be built, which takes and gives float32 (and int32 token ids)."""
    return {name: _widened(module.eval()) for name, module in wrap(checkpoint).items()}


def _widened(module: nn.Module) -> nn.Module:
    in_turn = [layer for layer in module.modules() if isinstance(layer, _WIDENED_IN_TURN)]
    shared = {id(layer.weight) for layer in in_turn if layer.weight.numel() > _SMALL}
    weights = {id(p): p if id(p) in shared else _widen(p) for p in module.parameters()}
    copied = copy.deepcopy(module, weights)
    for layer in copied.modules():
        if isinstance(layer, _WIDENED_IN_TURN) and layer.weight.dtype != torch.float32:
            _widen_while_it_runs(layer)
    return copied


def _widen_while_it_runs(layer: nn.Conv2d | nn.Linear) -> None:
    stored = layer.weight

    def before(_layer: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        assert inputs[0].dtype == torch.float32, "a module asked a weight of its own for the dtype to compute in"
        layer.weight = _widen(stored)

    def after(_layer: nn.Module, _inputs: tuple[torch.Tensor, ...], _output: torch.Tensor) -> None:
        layer.weight = stored

    layer.register_forward_pre_hook(before)
    layer.register_forward_hook(after)


def _widen(weight: torch.Tensor) -> nn.Parameter:
    return nn.Parameter(weight.float(), requires_grad=False)
