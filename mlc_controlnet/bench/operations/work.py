"""How much a computation is: arithmetic, and memory that it has to move."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class Work:
    """Attributes:
    gflop: products of matrices and windows, two operations a multiply-add; a norm's own where there are none.
    megabytes: inputs, weights and outputs, each moved once: no schedule can move less.
    """

    gflop: float
    megabytes: float


def count_work(module: nn.Module, inputs: Sequence[torch.Tensor], flops_an_element: int = 0) -> Work:
    """Count without computing: the module and its inputs are taken for their shapes and dtypes."""
    shadow = _without_values(module)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        results = shadow(*(value.to("meta") for value in inputs))
    outputs = [results] if isinstance(results, torch.Tensor) else list(results)
    flops = counter.get_total_flops() or flops_an_element * sum(output.numel() for output in outputs)
    moved = [*inputs, *module.parameters(), *outputs]
    return Work(flops / 1e9, sum(tensor.numel() * tensor.element_size() for tensor in moved) / 1e6)


def _without_values(module: nn.Module) -> nn.Module:
    """The same module on the device that computes nothing."""
    import copy

    memo: dict[int, object] = {id(p): nn.Parameter(p.to("meta"), requires_grad=False) for p in module.parameters()}
    memo |= {id(b): b.to("meta") for b in module.buffers()}
    return copy.deepcopy(module, memo)
