"""How much a component's output changes if one of its weights does, without running it once for each.

Let f(w) be the output, scaled to a sum of squares of 1, and d what a format changes of a weight. To first order the
error is J d, and for signs v drawn at random

    E_v (v^T J d)^2 = |J d|^2                    (Hutchinson, doi 10.1080/03610918908812806)

where v^T J is the gradient of v^T f(w): one backward pass gives it for every weight. Errors of rounding have no
correlation with each other, so that |J d|^2 is nearly the sum of g^2 d^2 over the weight's numbers: the diagonal of
optimal brain damage (LeCun et al., 1989) for an error of the output. The squares g^2 serve every format. Of a weight
only their sums over inputs and over outputs are kept, whose product is near them (Adafactor, arXiv 1804.04235, section
3): all squares of Stable Diffusion XL would be 8 GB.

Weights stay float16. A layer's is widened while the layer runs, in the forward and again in the backward pass. Of a
large weight a sample of outputs is rounded to see what a format does to it. A weight matters in a large picture as it
does in a small one, which takes less time and memory.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint as run_again

from mlc_controlnet.capture import Param, Quantizer, Rows, build_references, example_inputs, wrap
from mlc_controlnet.checkpoint import Checkpoint, give_back
from mlc_controlnet.components import ModelShape
from mlc_controlnet.quantize.scheme import PALETTE, Scheme

LAYERS = (nn.Conv2d, nn.Linear)
PROBES = 2  # of signs, for each input
SEED = 1
MOST_PIXELS = 512 * 512  # of the picture that gradients are taken on
SAMPLED_NUMBERS = 2**18  # of a weight, at least: 16 tables of 64 numbers

Inputs = tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class SquaredGradients:
    """The sums of g^2 of one weight, outputs first.

    Attributes:
        of_outputs: over the inputs, float32 [N].
        of_inputs: over the outputs, float32 [K]; of a convolution, K = C kh kw.
    """

    of_outputs: torch.Tensor
    of_inputs: torch.Tensor

    def __add__(self, other: "SquaredGradients") -> "SquaredGradients":
        """Return the sums of two outputs' gradients."""
        return SquaredGradients(self.of_outputs + other.of_outputs, self.of_inputs + other.of_inputs)

    def at(self, outputs: torch.Tensor) -> torch.Tensor:
        """Return g^2 of some outputs' weights, [outputs, K], as a product."""
        total = self.of_inputs.sum().clamp_min(torch.finfo(torch.float32).tiny)
        return torch.outer(self.of_outputs[outputs], self.of_inputs / total)


def measure_sensitivities(
    checkpoint: Checkpoint,
    components: Iterable[str],
    inputs: Mapping[str, Sequence[Inputs]] | None = None,
    most_pixels: int = MOST_PIXELS,
) -> dict[str, SquaredGradients]:
    """Return the mean of g^2 for the weights of convolutions and linear layers, summed over the components.

    They are by the name of the checkpoint's tensor.

    Args:
        components: those whose outputs count, each as much as another.
        inputs: of each component, float32 and int32; where there are none, one of `example_inputs`.
        most_pixels: those examples are for a picture of so many at most.
    """
    names = checkpoint.names_by_identity()
    specs = dataclasses.replace(checkpoint, shape=_smaller(checkpoint.shape, most_pixels)).specs
    wrapped = wrap(checkpoint)
    references = build_references(checkpoint, prepare=lambda layer: None)  # `_observe` does
    sums: dict[str, SquaredGradients] = {}
    for component in components:
        given = (inputs or {}).get(component) or [example_inputs(specs[component], "float32", SEED)]
        layers = {path: layer for path, layer in wrapped[component].named_modules() if isinstance(layer, LAYERS)}
        tensors = {path: names[id(layer.weight)] for path, layer in layers.items()}
        _add_squares(references.pop(component), tensors, given, sums)
    return sums


def expected_errors(
    squares: Mapping[str, SquaredGradients],
    weight: Param,
    schemes: Sequence[Scheme],
    tensors: Mapping[str, torch.Tensor],
    quantizer: Quantizer | None = None,
    sampled_numbers: int = SAMPLED_NUMBERS,
) -> list[float]:
    """Return the noise of the outputs, as a part of their power, if this weight alone has one of the schemes, for each.

    Args:
        schemes: of the weight; they differ in method, bits and group.
        quantizer: None for one that knows nothing of a layer's inputs.
        sampled_numbers: a larger weight's error is that of so many of its numbers, evenly spread, and more for what
            the others' gradients are larger.
    """
    matrix = weight.read(tensors).reshape(schemes[0].rows, schemes[0].columns)
    by_output = matrix.t() if schemes[0].outputs_last else matrix  # [N, K]
    outputs = _sampled_outputs(schemes, sampled_numbers)
    stored = by_output[outputs].float()
    factors = [(squares[rows.tensor], rows) for rows in weight.rows]
    whole = torch.cat([own.of_outputs[rows.start : rows.stop] for own, rows in factors])
    sample = _rows_of(factors, outputs, tensors)
    weight.give_back(tensors)
    larger = float(whole.sum() / whole[outputs].sum().clamp_min(torch.finfo(torch.float32).tiny))
    errors = []
    for scheme in schemes:
        decoded = (quantizer or Quantizer()).try_out(weight, stored, scheme)
        errors.append(larger * float((sample * (decoded - stored).square()).sum()))
    return errors


def _smaller(shape: ModelShape, most_pixels: int) -> ModelShape:
    """Return the shape for a picture of so many pixels at most, about as wide for its height.

    The smallest is a cell of the UNet's coarsest level.
    """
    factor = math.sqrt(most_pixels / (shape.height * shape.width))
    if factor >= 1:
        return shape
    cell = shape.vae_scale_factor * 2 ** (len(shape.unet_channels) - 1)
    height, width = (max(1, int(size * factor) // cell) * cell for size in (shape.height, shape.width))
    return dataclasses.replace(shape, height=height, width=width)


def _sampled_outputs(schemes: Sequence[Scheme], least_numbers: int) -> torch.Tensor:
    """Return the outputs to round, int64: whole groups of every scheme, the same distance from each other."""
    outputs, inputs = schemes[0].outputs, schemes[0].inputs
    group = math.lcm(*(scheme.group for scheme in schemes if scheme.method == PALETTE), 1)
    groups = outputs // group
    step = max(1, groups // max(1, math.ceil(least_numbers / (group * inputs))))
    return torch.arange(outputs).reshape(groups, group)[::step].flatten()


def _rows_of(
    factors: Sequence[tuple[SquaredGradients, Rows]], outputs: torch.Tensor, tensors: Mapping[str, torch.Tensor]
) -> torch.Tensor:
    """Return g^2 of some outputs of joined rows, float32 [outputs, K]."""
    first, parts = 0, []
    for own, rows in factors:
        here = outputs[(outputs >= first) & (outputs < first + rows.count(tensors))] - first + rows.start
        parts.append(own.at(here))
        first += rows.count(tensors)
    return torch.cat(parts)


def _add_squares(
    module: nn.Module, tensors: Mapping[str, str], inputs: Sequence[Inputs], sums: dict[str, SquaredGradients]
) -> None:
    """Add a component's squares to `sums`.

    Args:
        tensors: path of a layer in the module -> the tensor of the checkpoint that it reads.
    """
    share = 1 / (PROBES * len(inputs))
    for path, tensor in tensors.items():
        _observe(module.get_submodule(path), tensor, share, sums)
    generator = torch.Generator().manual_seed(SEED)
    for given in inputs:
        with torch.enable_grad():
            outputs = module(*given)
            outputs = [outputs] if isinstance(outputs, torch.Tensor) else list(outputs)
            for probe in range(PROBES):
                product = torch.zeros(())
                for output in outputs:
                    signs = torch.randint(0, 2, output.shape, generator=generator) * 2.0 - 1
                    power = output.detach().square().sum().clamp_min(torch.finfo(torch.float32).tiny)
                    product = product + (signs * output).sum() / (power * len(outputs)).sqrt()
                product.backward(retain_graph=probe < PROBES - 1)


def _observe(layer: nn.Module, tensor: str, share: float, sums: dict[str, SquaredGradients]) -> None:
    """Make a layer widen its weight where it is read, and add the square of each gradient to `sums`."""
    stored = layer.weight

    def add(gradient: torch.Tensor) -> None:
        squares = gradient.detach().flatten(1).square().mul_(share)
        own = SquaredGradients(squares.sum(1), squares.sum(0))
        sums[tensor] = own if tensor not in sums else sums[tensor] + own

    def run(x: torch.Tensor, anchor: torch.Tensor) -> torch.Tensor:
        weight = stored.float() + 0 * anchor
        give_back(stored)
        if weight.requires_grad:
            weight.register_hook(add)
        if isinstance(layer, nn.Conv2d):
            return layer._conv_forward(x, weight, layer.bias)
        return nn.functional.linear(x, weight, layer.bias)

    def forward(x: torch.Tensor) -> torch.Tensor:
        anchor = torch.zeros((), requires_grad=True)
        return run_again(run, x, anchor, use_reentrant=False)

    layer.forward = forward
