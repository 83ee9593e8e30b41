"""Which params of a model's functions can be packed: weights of matrix products and of convolutions.

After phase clean a function reads a weight in one of these ways, and its scheme depends on which:

    conv2d(x, permute_dims(w, [3, 0, 1, 2]))    w [C, kh, kw, N], outputs last
    matmul(x, w)                                w [K, N], outputs last
    matmul(x, permute_dims(w))                  w [N, K], of few rows x: the projections of the time embedding

Everything else stays as it is: norms, biases and embeddings, which are read otherwise; and small weights. Those of few
inputs or outputs are a model's first and last convolutions, which see pictures and latents.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from tvm import relax

from mlc_controlnet.capture import CapturedModel, Param
from mlc_controlnet.kernels.matmul_tile import LEAST_ROWS
from mlc_controlnet.passes.clean.lay_out_weights import AS_TORCH, TRANSPOSED, is_direct
from mlc_controlnet.passes.clean.param_sources import inputs_of
from mlc_controlnet.passes.matching import axes_of, is_call, shape_of
from mlc_controlnet.quantize.scheme import Scheme, can_code, choose_scheme

LEAST_NUMBERS = 4096
LEAST_CHANNELS = 32  # inputs and outputs


@dataclass(frozen=True)
class Place:
    """How a function reads a weight: as a matrix in the order of memory, of inputs by outputs if these are last."""

    rows: int
    columns: int
    outputs_last: bool = True

    @property
    def numbers(self) -> int:
        """Count the weight's numbers."""
        return self.rows * self.columns

    def scheme(self, method: str, bits: int) -> Scheme:
        """Return how to code the weight."""
        return choose_scheme(method, bits, self.rows, self.columns, self.outputs_last)


def find_weights(captured: CapturedModel) -> dict[Param, Place]:
    """Return the params that every function can read packed, and how all of them read each.

    Weights that the device makes of others, or makes others of, are left out.
    """
    kept = {source for merge in captured.merges.values() for source in merge.sources} | captured.merges.keys()
    found: dict[Param, Place | None] = dict.fromkeys(kept)
    functions = [(name, captured.function_of(name)) for name in captured.params]
    for component, function in [*functions, *((component, other) for other, component in captured.others.items())]:
        places = places_of(captured.module[function])
        for number, param in enumerate(captured.params[component]):
            place = places.get(number)
            if found.setdefault(param, place) != place:
                found[param] = None
    _agree(captured, found)
    return {param: place for param, place in found.items() if place is not None}


def places_of(function: relax.Function) -> dict[int, Place]:
    """Map the numbers of a function's params that it reads as weights, and in no other way, to their places."""
    numbers = {b.var: b.value.index for b in bindings(function) if is_param(b.value, function)}
    places: dict[int, Place] = {}
    others: set[int] = set()
    transposed: dict[relax.Var, tuple[int, Place]] = {}
    for binding in bindings(function):
        value = binding.value
        if is_param(value, function):
            continue
        read = [numbers[var] for var in relax.analysis.free_vars(value) if var in numbers]
        if is_call(value, "relax.permute_dims") and value.args[0] in numbers:
            *first, last = shape_of(value.args[0])
            if axes_of(value) == AS_TORCH:
                transposed[binding.var] = numbers[value.args[0]], Place(math.prod(first), last)
                continue
            if axes_of(value) == TRANSPOSED:
                transposed[binding.var] = numbers[value.args[0]], Place(first[0], last, outputs_last=False)
                continue
        elif is_call(value, "relax.nn.conv2d") and is_direct(value) and value.args[1] in transposed:
            number, place = transposed[value.args[1]]
            places[number] = place
        elif is_call(value, "relax.matmul") and value.args[1] in numbers and len(shape_of(value.args[1])) == 2:
            rows, columns = shape_of(value.args[1])
            places[numbers[value.args[1]]] = Place(rows, columns)
            read = [numbers[value.args[0]]] if value.args[0] in numbers else []
        elif is_call(value, "relax.matmul") and value.args[1] in transposed and shape_of(value)[-2] < LEAST_ROWS:
            number, place = transposed[value.args[1]]
            places[number] = place
        else:
            read += [transposed[var][0] for var in relax.analysis.free_vars(value) if var in transposed]
        others.update(read)
    others.update(numbers[var] for var in relax.analysis.free_vars(function.body.body) if var in numbers)
    return {number: place for number, place in places.items() if number not in others and _is_worth_it(place)}


def bindings(function: relax.Function) -> Iterator[relax.VarBinding]:
    """Yield the bindings of a function in order."""
    for block in function.body.blocks:
        yield from block.bindings


def is_param(value: relax.Expr, function: relax.Function) -> bool:
    """Return whether a value is one of the function's bundled params."""
    return isinstance(value, relax.TupleGetItem) and value.tuple_value == function.params[inputs_of(function)]


def _is_worth_it(place: Place) -> bool:
    fewest = min(place.rows, place.columns)
    return place.numbers >= LEAST_NUMBERS and fewest >= LEAST_CHANNELS and can_code(place.rows, place.columns)


def _agree(captured: CapturedModel, found: dict[Param, Place | None]) -> None:
    """Leave out the params of components that share a function with one whose param is left out."""
    components: dict[str, list[str]] = {}
    for component in captured.params:
        components.setdefault(captured.function_of(component), []).append(component)
    changed = True
    while changed:
        changed = False
        for sharing in components.values():
            for same in zip(*(captured.params[component] for component in sharing), strict=True):
                if any(found[param] is None for param in same) and any(found[param] is not None for param in same):
                    found.update(dict.fromkeys(same))
                    changed = True
