"""Which weights of a ControlNet a bundle need not hold, because it holds another component's.

Control types of one union ControlNet have the same weights but for two vectors, and each of those is stored once.

A Control-LoRA is a difference from the UNet's encoder. For each param of its ControlNet, the bundle holds what takes
the fewest bytes:

- nothing, if one of the UNet's params is equal: both components are called with that one;
- factors, if every layer in it has some, and the UNet's params hold the weights that they change: the device makes the
  param of both, once (capture/merge.py);
- the param itself otherwise, merged by the build.

This comes after phase clean, which decides how params are joined and laid out.
"""

import dataclasses
import itertools
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass

import torch
import tvm

from mlc_controlnet.capture.merge import Factors, Merge, MergeShape, Slice, factor_params, merge_module
from mlc_controlnet.capture.module import CapturedModel
from mlc_controlnet.capture.param import Param
from mlc_controlnet.checkpoint import Checkpoint, part_of
from mlc_controlnet.components import CONTROLNET, UNET, kind_of

BINDINGS = 8  # tensors of one kernel that every WebGPU device grants


def share_weights(
    captured: CapturedModel,
    checkpoint: Checkpoint,
    holds: Callable[[Param], bool] = lambda _: True,
    functions: Container[str] | None = None,
) -> CapturedModel:
    """Return the model whose control types share their union ControlNet's weights, and whose Control-LoRAs share what
    they can with the UNet, with the functions that make params.

    Args:
        captured: after phase clean.
        holds: whether the bundle has one of the UNet's params, for a bundle that exists.
        functions: those of its libraries; None: any can be compiled; (): the device makes no params.
    """
    captured = _share_unions(captured, checkpoint)
    if UNET not in captured.params:
        return captured
    tensors = checkpoint.tensors()
    params, merges = dict(captured.params), dict(captured.merges)
    for component, own in captured.params.items():
        if kind_of(component) == CONTROLNET and part_of(component) in checkpoint.control_loras:
            sharer = _Sharer(part_of(component), checkpoint, captured.params[UNET], tensors)
            equal = {param: sharer.equal_of_unet(param) for param in own}
            params[component] = tuple(twin if twin and holds(twin) else param for param, twin in equal.items())
            for param in params[component]:
                merge = sharer.merge(param) if param in own else None
                if merge is None or not (functions is None or merge.shape.function in functions):
                    continue
                if all(map(holds, merge.sources[: len(merge.shape.bases)])):
                    merges[param] = merge
    added = merge_module((merge.shape for merge in merges.values()), captured.dtype)
    module = tvm.IRModule({**captured.module.functions, **added.functions})
    return dataclasses.replace(captured, module=module, params=params, merges=merges)


def stored_bytes(captured: CapturedModel, component: str, checkpoint: Checkpoint) -> tuple[int, int]:
    """Return how many bytes of weights a ControlNet's component adds to a bundle, and without `share_weights`."""
    tensors = checkpoint.stored_tensors()
    before = itertools.takewhile(lambda name: name != component, captured.params)
    others = {param for name in (*before, UNET) for param in captured.params.get(name, ())}
    adds = set(captured.stored[component]) - others
    return sum(param.bytes(tensors) for param in adds), sum(
        param.bytes(tensors) for param in captured.params[component]
    )


def _share_unions(captured: CapturedModel, checkpoint: Checkpoint) -> CapturedModel:
    """Call components with another's params where both are made of the very same tensors: see `load_parts`."""
    firsts = checkpoint.names_by_identity()
    first_name = {name: firsts[id(tensor)] for name, tensor in checkpoint.tensors().items()}
    known = {param for own in captured.params.values() for param in own}

    def shared(param: Param) -> Param:
        rows = (dataclasses.replace(rows, tensor=first_name[rows.tensor]) for rows in param.rows)
        twin = dataclasses.replace(param, rows=tuple(rows))
        return twin if twin in known else param

    params = {name: tuple(map(shared, own)) for name, own in captured.params.items()}
    return dataclasses.replace(captured, params=params)


@dataclass(frozen=True)
class _Place:
    """The UNet's param that holds a tensor, and the tensor's rows in it before it is permuted."""

    param: Param
    start: int
    stop: int


class _Sharer:
    """One Control-LoRA's ControlNet, `part`, beside the UNet's params."""

    def __init__(
        self, part: str, checkpoint: Checkpoint, unet: Sequence[Param], tensors: Mapping[str, torch.Tensor]
    ) -> None:
        self.part = part
        self.products = checkpoint.control_loras[part]
        self.tensors = tensors
        self.stored = checkpoint.stored_tensors()
        self.places: dict[str, _Place] = {}
        for param in unet:
            stop = 0
            for rows in param.rows:
                start, stop = stop, stop + rows.count(tensors)
                if rows.are_all:
                    self.places[rows.tensor] = _Place(param, start, stop)

    def equal_of_unet(self, param: Param) -> Param | None:
        """Return the UNet's param that holds the same numbers in the same layout."""
        keys = [self._key(rows.tensor) for rows in param.rows]
        names = [f"{UNET}.{key}" for key in keys]
        place = self.places.get(names[0])
        if (
            place is None
            or set(keys) & self.products.keys()
            or place.param != dataclasses.replace(Param.joined(names), axes=param.axes)
        ):
            return None
        pairs = zip(param.rows, names, strict=True)
        same = all(rows.are_all and torch.equal(self.tensors[rows.tensor], self.tensors[name]) for rows, name in pairs)
        return place.param if same else None

    def merge(self, param: Param) -> Merge | None:
        """Return how the device makes `param`; None if it cannot, or if the factors are not smaller."""
        keys = [self._key(rows.tensor) for rows in param.rows]
        shape = param.shape(self.tensors)
        outputs_last = param.axes == (*range(1, len(shape)), 0)
        places = [self.places[f"{UNET}.{key}"] for key in keys if f"{UNET}.{key}" in self.places]
        if len(places) < len(keys) or not set(keys) <= self.products.keys() or not (outputs_last or not param.axes):
            return None
        bases = tuple(dict.fromkeys(place.param for place in places))
        sizes = tuple(base.shape(self.tensors) for base in bases)
        inputs = slice(-1) if outputs_last else slice(1, None)
        if any(
            base.axes != param.axes or size[inputs] != shape[inputs] for base, size in zip(bases, sizes, strict=True)
        ):
            return None
        groups = [list(group) for _, group in itertools.groupby(keys, self._width_and_rank)]
        factors = tuple(Factors(len(group), *self._width_and_rank(group[0])) for group in groups)
        merged = MergeShape(shape, outputs_last, sizes, _slices(places, bases), factors)
        own = tuple(factor for group in groups for factor in factor_params(*self._names(group), outputs_last))
        is_smaller = sum(factor.bytes(self.stored) for factor in own) < param.bytes(self.stored)
        return Merge(merged, (*bases, *own)) if is_smaller and merged.bindings <= BINDINGS else None

    def _key(self, tensor: str) -> str:
        return tensor.removeprefix(f"{self.part}.")

    def _width_and_rank(self, key: str) -> tuple[int, int]:
        product = self.products[key]
        return product.left.shape[0], product.rank

    def _names(self, keys: Sequence[str]) -> tuple[list[str], list[str]]:
        return [f"{self.part}.{key}.up" for key in keys], [f"{self.part}.{key}.down" for key in keys]


def _slices(places: Sequence[_Place], bases: Sequence[Param]) -> tuple[Slice, ...]:
    """Return the outputs of `places`, as few slices as possible."""
    slices: list[Slice] = []
    for place in places:
        base = bases.index(place.param)
        if slices and (slices[-1].base, slices[-1].stop) == (base, place.start):
            slices[-1] = dataclasses.replace(slices[-1], stop=place.stop)
        else:
            slices.append(Slice(base, place.start, place.stop))
    return tuple(slices)
