"""Count the arithmetic and the least memory traffic of a computation."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class Work:
    """The amount of work of one call.

    Attributes:
        gflop: matmuls and convolutions, two operations per multiply-add; a norm's own arithmetic if there are none.
        megabytes: inputs, weights and outputs, each moved once: no schedule can move less.
    """

    gflop: float
    megabytes: float


def count_work(module: nn.Module, inputs: Sequence[torch.Tensor], flops_per_element: int = 0) -> Work:
    """Count the work of `module(*inputs)` without computing it: only shapes and dtypes matter.

    flops_per_element: arithmetic per output element, if the module has neither matmul nor convolution.
    """
    shadow = _without_values(module)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        results = shadow(*(value.to("meta") for value in inputs))
    outputs = [results] if isinstance(results, torch.Tensor) else list(results)
    flops = counter.get_total_flops() or flops_per_element * sum(output.numel() for output in outputs)
    moved = [*inputs, *module.parameters(), *outputs]
    return Work(flops / 1e9, sum(tensor.numel() * tensor.element_size() for tensor in moved) / 1e6)


def _without_values(module: nn.Module) -> nn.Module:
    """Return a copy of `module` on torch's meta device."""
    memo: dict[int, object] = {id(p): nn.Parameter(p.to("meta"), requires_grad=False) for p in module.parameters()}
    memo |= {id(b): b.to("meta") for b in module.buffers()}
    return copy.deepcopy(module, memo)
