"""How much a component's output changes if one of its weights does, without running it once for each.

Let f(w) be the output, scaled to a sum of squares of 1, and d what a format changes of a weight. To first order the
error is J d, and for signs v drawn at random

    E_v (v^T J d)^2 = |J d|^2                    (Hutchinson, doi 10.1080/03610918908812806)

where v^T J is the gradient of v^T f(w): one backward pass gives it for every weight. Errors of rounding have no
correlation with each other, so that |J d|^2 is nearly the sum of g^2 d^2 over the weight's numbers: the diagonal of
optimal brain damage (LeCun et al., 1989) for an error of the output. The squares g^2 are kept, and serve every format.

Weights stay float16. A layer's is widened while the layer runs, in the forward and again in the backward pass.
"""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint as run_again

from mlc_controlnet.capture import Param, Quantizer, build_references, example_inputs, wrap
from mlc_controlnet.checkpoint import Checkpoint
from mlc_controlnet.quantize.scheme import Scheme
from mlc_controlnet.quantize.weight import dequantize

LAYERS = (nn.Conv2d, nn.Linear)
PROBES = 2  # of signs, for each input
SEED = 1

Inputs = tuple[torch.Tensor, ...]
SquaredGradients = dict[str, torch.Tensor]  # tensor of the checkpoint -> bfloat16 of its shape


def measure_sensitivities(
    checkpoint: Checkpoint,
    components: Iterable[str],
    inputs: Mapping[str, Sequence[Inputs]] | None = None,
) -> SquaredGradients:
    """Return the mean of g^2 for the weights of convolutions and linear layers, summed over the components.

    Args:
        components: those whose outputs count, each as much as another.
        inputs: of each component, float32 and int32; where there are none, one of `example_inputs`.
    """
    names = checkpoint.names_by_identity()
    wrapped = wrap(checkpoint)
    references = build_references(checkpoint, prepare=lambda layer: None)  # `_observe` does
    sums: SquaredGradients = {}
    for component in components:
        given = (inputs or {}).get(component) or [example_inputs(checkpoint.specs[component], "float32", SEED)]
        layers = {path: layer for path, layer in wrapped[component].named_modules() if isinstance(layer, LAYERS)}
        tensors = {path: names[id(layer.weight)] for path, layer in layers.items()}
        _add_squares(references.pop(component), tensors, given, sums)
    return sums


def expected_error(
    squares: Mapping[str, torch.Tensor],
    weight: Param,
    scheme: Scheme,
    tensors: Mapping[str, torch.Tensor],
    quantizer: Quantizer | None = None,
) -> float:
    """Return the noise of the outputs, as a part of their power, if this weight alone has the scheme.

    quantizer: None for one that knows nothing of a layer's inputs.
    """
    stored = weight.read(tensors).float()
    quantized = (quantizer or Quantizer()).try_out(weight, scheme, tensors)
    difference = torch.from_numpy(dequantize(quantized)).reshape(stored.shape) - stored
    return sum(
        float((squares[rows.tensor][rows.start : rows.stop] * own.square()).sum())
        for rows, own in weight.parts(difference, tensors)
    )


def _add_squares(
    module: nn.Module, tensors: Mapping[str, str], inputs: Sequence[Inputs], sums: SquaredGradients
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


def _observe(layer: nn.Module, tensor: str, share: float, sums: SquaredGradients) -> None:
    """Make a layer widen its weight where it is read, and add the square of each gradient to `sums`."""
    stored = layer.weight

    def add(gradient: torch.Tensor) -> None:
        squares = gradient.detach().square().mul_(share).to(torch.bfloat16)
        sums[tensor] = squares if tensor not in sums else sums[tensor].add_(squares)

    def run(x: torch.Tensor, anchor: torch.Tensor) -> torch.Tensor:
        weight = stored.float() + 0 * anchor
        if weight.requires_grad:
            weight.register_hook(add)
        if isinstance(layer, nn.Conv2d):
            return layer._conv_forward(x, weight, layer.bias)
        return nn.functional.linear(x, weight, layer.bias)

    def forward(x: torch.Tensor) -> torch.Tensor:
        anchor = torch.zeros((), requires_grad=True)
        return run_again(run, x, anchor, use_reentrant=False)

    layer.forward = forward
