"""Watch what the layers of components read."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from mlc_controlnet.capture import wrap
from mlc_controlnet.capture.reference import Layer
from mlc_controlnet.checkpoint import Checkpoint
from mlc_controlnet.quantize.input_moments import BLOCK, InputMoments

LAYERS = (nn.Conv2d, nn.Linear)
ROWS_OF_A_CALL = 512  # whose products are added: all rows would take as long as drawing with them, many times


@dataclass
class _Sums:
    """Of the rows that the layers of one weight have read."""

    has_bias: bool
    sums: torch.Tensor  # float64 [K]
    squares: torch.Tensor  # float64 [K]
    blocks: list[torch.Tensor]  # of chosen rows, x x^T of each BLOCK inputs
    chosen_sums: torch.Tensor  # float64 [K], of chosen rows
    rows: int = 0
    chosen: int = 0
    calls: int = 0

    @classmethod
    def zeros(cls, inputs: int, has_bias: bool) -> "_Sums":
        sums, squares, chosen = (torch.zeros(inputs, dtype=torch.float64) for _ in range(3))
        sizes = [min(BLOCK, inputs - first) for first in range(0, inputs, BLOCK)]
        return cls(has_bias, sums, squares, [torch.zeros(size, size) for size in sizes], chosen)

    def moments(self) -> InputMoments:
        products = tuple(block / self.chosen for block in self.blocks)
        means = (self.chosen_sums / self.chosen).float().split(BLOCK)
        return InputMoments(
            self.rows, self.sums / self.rows, self.squares / self.rows, products, tuple(means), self.has_bias
        )


class Watch:
    """Adds up what layers read, from its start to its end."""

    def __init__(self, layers: Iterable[tuple[str, Layer]]) -> None:
        """layers: with the tensor of the checkpoint that each has as its weight; several can share one."""
        self._of_tensor: dict[str, _Sums] = {}
        self._handles = [layer.register_forward_pre_hook(self._hook(tensor)) for tensor, layer in layers]

    def end(self) -> dict[str, InputMoments]:
        """Return the moments of the layers that ran, by their weights' tensors."""
        for handle in self._handles:
            handle.remove()
        return {tensor: sums.moments() for tensor, sums in self._of_tensor.items()}

    def _hook(self, tensor: str) -> Callable[[Layer, tuple[torch.Tensor, ...]], None]:
        def add(layer: Layer, inputs: tuple[torch.Tensor, ...]) -> None:
            if tensor not in self._of_tensor:
                self._of_tensor[tensor] = _Sums.zeros(layer.weight[0].numel(), layer.bias is not None)
            _add(self._of_tensor[tensor], layer, inputs[0].detach())

        return add


def layers_of(component: str, checkpoint: Checkpoint) -> Iterator[tuple[str, str]]:
    """Yield the path of each layer of a component in its reference, and the tensor that is its weight."""
    names = checkpoint.names_by_identity()
    for path, layer in wrap(checkpoint)[component].named_modules():
        if isinstance(layer, LAYERS) and getattr(layer, "groups", 1) == 1:
            yield path, names[id(layer.weight)]


def _add(to: _Sums, layer: Layer, x: torch.Tensor) -> None:
    """Add a call's rows: of x [..., K], or of the patches of x [B, C, H, W]."""
    generator = torch.Generator().manual_seed(to.calls)  # layers that read the same choose the same rows
    if isinstance(layer, nn.Linear):
        rows = x.reshape(-1, x.shape[-1])
        count, sums, squares = rows.shape[0], rows.sum(0), rows.square().sum(0)
        chosen = rows if count <= ROWS_OF_A_CALL else rows[torch.randint(count, (ROWS_OF_A_CALL,), generator=generator)]
    else:
        count, sums, squares, chosen = _patches(layer, x, generator)
    to.rows += count
    to.chosen += len(chosen)
    to.calls += 1
    to.sums += sums
    to.squares += squares
    to.chosen_sums += chosen.sum(0)
    for block, own in zip(to.blocks, chosen.split(BLOCK, 1), strict=True):
        block += own.t() @ own


def _patches(
    layer: nn.Conv2d, x: torch.Tensor, generator: torch.Generator
) -> tuple[int, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Count the patches that a convolution reads; return that, their sum and squares' sum [K], and some of them."""
    (kh, kw), (sh, sw), (dh, dw) = layer.kernel_size, layer.stride, layer.dilation
    padded = F.pad(x, layer._reversed_padding_repeated_twice)
    height = (padded.shape[2] - dh * (kh - 1) - 1) // sh + 1  # of the output
    width = (padded.shape[3] - dw * (kw - 1) - 1) // sw + 1
    count = x.shape[0] * height * width
    chosen = torch.randint(count, (min(count, ROWS_OF_A_CALL),), generator=generator)
    batch, top, left = chosen // (height * width), chosen // width % height * sh, chosen % width * sw
    sums, squares, patches = [], [], []
    for i, j in ((i, j) for i in range(0, dh * kh, dh) for j in range(0, dw * kw, dw)):
        tap = padded[:, :, i : i + sh * (height - 1) + 1 : sh, j : j + sw * (width - 1) + 1 : sw]
        sums.append(tap.sum((0, 2, 3)))
        squares.append(tap.square().sum((0, 2, 3)))
        patches.append(padded[batch, :, top + i, left + j])
    return count, torch.stack(sums, 1).flatten(), torch.stack(squares, 1).flatten(), torch.stack(patches, 2).flatten(1)
