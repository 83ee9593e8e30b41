"""Which weights are read by kernels of one shape: with one format they share a kernel, with two there are two of it."""

from collections.abc import Collection

from tvm import relax

from mlc_controlnet.capture import CapturedModel, Param
from mlc_controlnet.passes.matching import is_call, shape_of
from mlc_controlnet.passes.quantize.find_weights import bindings, is_param

Shape = tuple[tuple[int, ...], ...]  # of what a call reads, its weight and its result


def kernel_shapes(captured: CapturedModel, weights: Collection[Param]) -> dict[Param, frozenset[Shape]]:
    """Return the shapes of the calls that read each weight, in all functions.

    What a kernel computes beside its product is left out: most weights of a shape are followed by the same.

    Args:
        captured: after phase clean.
        weights: of those that `find_weights` names.
    """
    found: dict[Param, set[Shape]] = {param: set() for param in weights}
    functions = [(name, captured.function_of(name)) for name in captured.params]
    for component, function in [*functions, *((component, other) for other, component in captured.others.items())]:
        own = captured.params[component]
        for number, shape in _readings(captured.module[function]):
            if own[number] in found:
                found[own[number]].add(shape)
    return {param: frozenset(shapes) for param, shapes in found.items()}


def _readings(function: relax.Function) -> list[tuple[int, Shape]]:
    """Return the numbers of params with the shape of each product or convolution that reads them."""
    numbers: dict[relax.Var, int] = {}
    readings: list[tuple[int, Shape]] = []
    for binding in bindings(function):
        value = binding.value
        if is_param(value, function):
            numbers[binding.var] = value.index
        elif is_call(value, "relax.permute_dims") and value.args[0] in numbers:
            numbers[binding.var] = numbers[value.args[0]]
        elif (is_call(value, "relax.matmul") or is_call(value, "relax.nn.conv2d")) and value.args[1] in numbers:
            x, weight = value.args
            readings.append((numbers[weight], (shape_of(x), shape_of(weight), shape_of(value))))
    return readings
