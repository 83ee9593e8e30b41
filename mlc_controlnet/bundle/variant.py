"""Other picture sizes and longer prompts: functions that take the place of the components' own.

A bundle holds each weight once. A variant is compiled for other shapes and is called with the components' own params,
so it costs kernels and no weights. Twin: web/src/engine/variant.ts.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlc_controlnet.components import TensorSpec

if TYPE_CHECKING:
    from mlc_controlnet.bundle.manifest import ComponentEntry

Shapes = tuple[tuple[int, ...], ...]  # of a function's inputs


@dataclass(frozen=True)
class FunctionEntry:
    """A function of the library, its inputs and outputs."""

    function: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


@dataclass(frozen=True)
class Variant:
    """A picture size and a length of prompts, and the functions that serve them."""

    height: int  # H, pixels
    width: int  # W, pixels
    chunks: int  # of a prompt: the context has this many times T tokens
    functions: Mapping[str, FunctionEntry]  # by the component's function that they take the place of

    def apply_to(self, components: "Mapping[str, ComponentEntry]") -> "dict[str, ComponentEntry]":
        """Return the components with the functions of this variant."""

        def replaced(entry: "ComponentEntry") -> "ComponentEntry":
            other = self.functions.get(entry.function)
            if other is None:
                return entry
            return dataclasses.replace(entry, function=other.function, inputs=other.inputs, outputs=other.outputs)

        return {name: replaced(entry) for name, entry in components.items()}

    def __str__(self) -> str:
        return f"{self.width}x{self.height}, {self.chunks} chunks"


def functions_by_shapes(
    components: "Mapping[str, ComponentEntry]", variants: Iterable[Variant]
) -> dict[tuple[str, Shapes], str]:
    """Map each component's function and the shapes of its inputs to the function that is compiled for these shapes."""
    compiled = {(entry.function, _shapes(entry.inputs)): entry.function for entry in components.values()}
    for variant in variants:
        compiled |= {(name, _shapes(other.inputs)): other.function for name, other in variant.functions.items()}
    return compiled


def _shapes(inputs: tuple[TensorSpec, ...]) -> Shapes:
    return tuple(tensor.shape for tensor in inputs)
