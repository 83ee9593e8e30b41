"""The operations that matter for the speed of Stable Diffusion 1.5, as torch modules with the model's shapes.

A software adapter would take seconds per call, so there an operation has fewer pixels or tokens, often a sixteenth, and
the same channels.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Operation:
    """One row of the benchmark.

    Attributes:
        name: name of the function in the compiled library.
        make: builds the module with random weights.
        size: height and width in pixels, or tokens, in Stable Diffusion 1.5.
        reduced_size: the same on a software adapter.
        shapes: size -> shapes of the inputs.
        title: size -> description for readers.
        flops_per_element: arithmetic per output element, for operations without matmul or convolution, such as norms.
    """

    name: str
    make: Callable[[], nn.Module]
    size: int
    reduced_size: int
    shapes: Callable[[int], tuple[Shape, ...]]
    title: Callable[[int], str]
    flops_per_element: int = 0

    def size_on(self, software: bool) -> int:
        """Return the size to measure on a software adapter or on a real device."""
        return self.reduced_size if software else self.size


class GroupNormSilu(nn.Module):
    """Group norm with 32 groups, then silu, as in diffusers' ResnetBlock2D."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(32, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, C, h, w]"""
        return F.silu(self.norm(x))


class UpsampledConvolution(nn.Module):
    """Nearest-neighbour upsampling by 2, then a 3x3 convolution, as in diffusers' Upsample2D."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, C, h, w] -> [B, C, 2 h, 2 w]"""
        return self.convolution(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Geglu(nn.Module):
    """GEGLU of arXiv 2002.05202. The gate is the second half of the projection, as in diffusers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.projection = nn.Linear(width, 8 * width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, T, D] -> [B, T, 4 D]"""
        value, gate = self.projection(x).chunk(2, dim=-1)
        return value * F.gelu(gate)


class Attention(nn.Module):
    """Multi-head attention between the projections, in their layout, as in diffusers' transformer blocks."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads = heads

    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """[B, T, heads * d]"""
        batch, _, width = q.shape
        q, k, v = (x.view(batch, -1, self.heads, width // self.heads).transpose(1, 2) for x in (q, k, v))
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, -1, width)


NORM_FLOPS = 8  # per element: 1 for the mean, 3 for the variance, 4 to scale and shift
SILU_FLOPS = 4


def _convolution(inputs: int, outputs: int, pixels: int, reduced: int, kernel: int = 3, stride: int = 1) -> Operation:
    moves = f", stride {stride}" if stride > 1 else ""
    return Operation(
        name=f"conv{kernel}x{kernel}_{inputs}_{outputs}_{pixels}" + (f"_s{stride}" if stride > 1 else ""),
        make=lambda: nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2),
        size=pixels,
        reduced_size=reduced,
        shapes=lambda side: ((1, inputs, side, side),),
        title=lambda side: f"convolution {kernel}x{kernel}, {inputs} to {outputs}, {side}x{side}{moves}",
    )


def _upsampled(channels: int, pixels: int, reduced: int) -> Operation:
    return Operation(
        name=f"upsample_conv3x3_{channels}_{pixels}",
        make=lambda: UpsampledConvolution(channels),
        size=pixels,
        reduced_size=reduced,
        shapes=lambda side: ((1, channels, side, side),),
        title=lambda side: f"upsampling + convolution 3x3, {channels}, {side}x{side} doubled",
    )


def matmul(rows: int, inputs: int, outputs: int, reduced: int) -> Operation:
    """[rows, inputs] by [inputs, outputs], with a bias. reduced: rows on a software adapter."""
    return Operation(
        name=f"matmul_{rows}_{inputs}_{outputs}",
        make=lambda: nn.Linear(inputs, outputs),
        size=rows,
        reduced_size=reduced,
        shapes=lambda tokens: ((1, tokens, inputs),),
        title=lambda tokens: f"matmul + bias, {tokens}x{inputs} by {inputs}x{outputs}",
    )


def _geglu(rows: int, width: int, reduced: int) -> Operation:
    return Operation(
        name=f"geglu_{rows}_{width}",
        make=lambda: Geglu(width),
        size=rows,
        reduced_size=reduced,
        shapes=lambda tokens: ((1, tokens, width),),
        title=lambda tokens: f"GEGLU, {tokens}x{width} to {4 * width}",
    )


def _attention(head_size: int, heads: int, queries: int, reduced: int, keys: int | None = None) -> Operation:
    def shapes(tokens: int) -> tuple[Shape, ...]:
        q, kv = (1, tokens, heads * head_size), (1, keys or tokens, heads * head_size)
        return q, kv, kv

    kind = "self" if keys is None else "cross"
    over = "" if keys is None else f" over {keys}"
    return Operation(
        name=f"attention_{kind}_d{head_size}_{queries}",
        make=lambda: Attention(heads),
        size=queries,
        reduced_size=reduced,
        shapes=shapes,
        title=lambda tokens: f"{kind}-attention, {heads} heads of {head_size}, {tokens} tokens{over}",
    )


def _group_norm(channels: int, pixels: int, reduced: int) -> Operation:
    return Operation(
        name=f"group_norm_silu_{channels}_{pixels}",
        make=lambda: GroupNormSilu(channels),
        size=pixels,
        reduced_size=reduced,
        shapes=lambda side: ((1, channels, side, side),),
        title=lambda side: f"group norm + silu, {channels}, {side}x{side}",
        flops_per_element=NORM_FLOPS + SILU_FLOPS,
    )


def _layer_norm(rows: int, width: int) -> Operation:
    return Operation(
        name=f"layer_norm_{rows}_{width}",
        make=lambda: nn.LayerNorm(width),
        size=rows,
        reduced_size=rows,
        shapes=lambda tokens: ((1, tokens, width),),
        title=lambda tokens: f"layer norm, {tokens}x{width}",
        flops_per_element=NORM_FLOPS,
    )


# Large enough to keep a device busy; its rate is the reference for all other rows.
LARGE_MATMUL = matmul(4096, 4096, 4096, 4096)
LARGE_MATMUL_REDUCED = matmul(512, 512, 512, 512)
OPERATIONS: tuple[Operation, ...] = (
    _convolution(320, 320, 64, 16),
    _convolution(640, 640, 32, 8),
    _convolution(1280, 1280, 16, 8),
    _convolution(512, 512, 64, 16),
    _convolution(128, 128, 512, 64),
    _convolution(320, 320, 64, 32, stride=2),
    _convolution(640, 320, 64, 32, kernel=1),
    _convolution(1280, 1280, 16, 8, kernel=1),
    _convolution(320, 320, 64, 32, kernel=1, stride=2),
    _upsampled(1280, 8, 4),
    _upsampled(640, 32, 4),
    _upsampled(256, 256, 16),
    matmul(4096, 320, 320, 1024),
    matmul(1024, 2560, 640, 256),
    matmul(77, 768, 1280, 77),
    _geglu(4096, 320, 256),
    _geglu(256, 1280, 64),
    _attention(40, 8, 4096, 512),
    _attention(64, 5, 4096, 512),
    _attention(80, 8, 1024, 512),
    _attention(160, 8, 256, 256),
    _attention(512, 1, 4096, 512),
    _attention(40, 8, 4096, 1024, keys=77),
    _attention(80, 8, 1024, 1024, keys=77),
    _attention(160, 8, 256, 256, keys=77),
    _group_norm(320, 64, 64),
    _group_norm(1280, 8, 8),
    _group_norm(128, 512, 128),
    _layer_norm(4096, 320),
)


def select(patterns: tuple[str, ...], software: bool) -> tuple[Operation, ...]:
    """List the large matmul, then the operations whose name contains one of `patterns`; without patterns, all."""
    chosen = (o for o in OPERATIONS if not patterns or any(pattern in o.name for pattern in patterns))
    return (LARGE_MATMUL_REDUCED if software else LARGE_MATMUL, *chosen)
