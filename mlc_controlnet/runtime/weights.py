"""Weights: from a bundle's shards into the device's memory, to stay there or to come for a component's calls.

Which do what is planned when the bundle is built and written into the manifest; why so: bundle/memory_plan.py.
Twin: web/src/engine/weights.ts.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import tvm

from mlc_controlnet.bundle.manifest import MemoryMode, ParamRecord
from mlc_controlnet.bundle.reader import Bundle
from mlc_controlnet.components import CONTROLNET, UNET

# They take turns at every step: what they work in is kept for the next one, where no weight has to come or go.
EVERY_STEP = frozenset({CONTROLNET, UNET})


class Weights:
    """All weights of a bundle. One component at a time has its turn, and all its weights on the device."""

    def __init__(self, bundle: Bundle, mode: MemoryMode, compute_dtype: str, device: Any) -> None:
        """Upload what stays on the device; the rest stays in the shards' files, which are mapped.

        Every shard is checked against its hash. Raises UserError for one that is damaged.
        """
        self._device = device
        self._params = {name: component.params for name, component in bundle.manifest.components.items()}
        staying = {param for name, params in self._params.items() for param in params[: mode.kept_params[name]]}
        self._kept: dict[str, Any] = {}
        self._waiting: dict[str, np.ndarray] = {}  # in the shards' files
        self._dtype = compute_dtype
        shards = [np.memmap(bundle.verified_path(path), np.uint8, "r") for path in bundle.manifest.params.shards]
        for record in bundle.manifest.params.records:
            stored = _view(shards[record.shard], record)
            if record.name in staying:
                self._kept[record.name] = self._upload(stored)
            else:
                self._waiting[record.name] = stored
        self._tuples: dict[str, Any] = {}
        self._turn: str | None = None

    def take(self, name: str) -> Any:
        """Make it the turn of component `name`; returns its weights as the one tuple that its function takes.

        What the last component worked in is freed, and so are its weights, except those that stay.
        """
        if self._turn == name and name in self._tuples:
            return self._tuples[name]
        last, self._turn = self._turn, name
        swaps = self._leaves(last) or self._leaves(name)
        if swaps or not {last, name} <= EVERY_STEP:
            free_workspace()
        if last is not None and self._leaves(last):
            self._tuples.pop(last, None)
        if name not in self._tuples:
            self._tuples[name] = self._bring(name)
        return self._tuples[name]

    @property
    def on_device(self) -> frozenset[str]:
        """The names of the weights that are on the device now."""
        turn = self._params[self._turn] if self._turn in self._tuples else ()
        return frozenset(self._kept) | frozenset(turn)

    def _leaves(self, name: str | None) -> bool:
        return name is not None and any(param in self._waiting for param in self._params[name])

    def _bring(self, name: str) -> Any:
        if self._leaves(name):
            self._device.sync()  # what is freed is free only when the device has done with it
        coming: Mapping[str, Any] = {
            param: self._upload(self._waiting[param]) for param in self._params[name] if param in self._waiting
        }
        return tvm.runtime.convert([self._kept[p] if p in self._kept else coming[p] for p in self._params[name]])

    def _upload(self, stored: np.ndarray) -> Any:
        """float16 becomes float32 for a float32 library, which is exact."""
        return tvm.runtime.tensor(stored.astype(self._dtype if stored.dtype == "<f2" else stored.dtype), self._device)


def free_workspace() -> None:
    """Give back what components have worked in: TVM keeps it for the next call."""
    tvm.get_global_func("vm.builtin.memory_manager.clear")()


def _view(shard: np.ndarray, record: ParamRecord) -> np.ndarray:
    """One weight as it is stored: little-endian, C order."""
    stored = shard[record.byte_offset : record.byte_offset + record.bytes]
    return stored.view(np.dtype(record.dtype).newbyteorder("<")).reshape(record.shape)
