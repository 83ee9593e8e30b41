"""Weights: from a bundle's shards to the device memory, for good or for the calls of one component.

The build plans which weights stay and writes the plan into the manifest; export/weight_residency.py gives the reasons.
Twin: web/src/engine/weights.ts.
"""

import mmap
from collections.abc import Callable
from typing import Any

import numpy as np
import tvm

from mlc_controlnet.bundle.manifest import Library, MemoryMode, drawing_components
from mlc_controlnet.bundle.params import MergedParam, ParamRecord
from mlc_controlnet.bundle.reader import Bundle
from mlc_controlnet.components import CONTROLNET, RESIDUAL_SUM, UNET, UNET_SHALLOW, kind_of
from mlc_controlnet.runtime.weight_store import WeightStore

# These alternate from step to step. If none of two has weights to upload, their workspace is kept for the next step.
EVERY_STEP = frozenset({CONTROLNET, RESIDUAL_SUM, UNET, UNET_SHALLOW})


class Weights:
    """All weights of a bundle. One component at a time is active and has all its weights on the device.

    The weights of components that not every picture needs are read when a picture uses them: ControlNets after the
    first, the VAE encoder. Merged weights are made before their component's first turn.
    """

    def __init__(
        self,
        bundle: Bundle,
        mode: MemoryMode,
        library: Library,
        device: Any,
        function: Callable[[str], Any],
        store: WeightStore | None = None,
    ) -> None:
        """Upload the weights that stay on the device. The others stay in the shard files, which are memory-mapped.

        Every shard is checked against its hash before it is read. Raises UserError for a damaged one.

        Args:
            library: says in which dtypes its functions read weights.
            function: returns a function of the library, by its name.
            store: holds the weights that stay, for several bundles; None: they are this bundle's own.
        """
        self._function = function
        self._store = store
        self._device = device
        self._bundle = bundle
        self._params = {name: component.params for name, component in bundle.manifest.components.items()}
        self._staying = {param for name, params in self._params.items() for param in params[: mode.kept_params[name]]}
        self._leaving = {name for name, params in self._params.items() if not self._staying.issuperset(params)}
        self._records = {record.name: record for record in bundle.manifest.params.records}
        self._merged = {merged.name: merged for merged in bundle.manifest.params.merged}
        self._read_back: dict[str, np.ndarray] = {}  # merged weights that do not stay on the device
        self._shards: dict[int, np.ndarray] = {}  # the files, mapped
        self._maps: list[mmap.mmap] = []
        self._kept: dict[str, Any] = {}
        self._library = library
        self._tables = bundle.manifest.params.tables
        first = {
            param for name in drawing_components(bundle.manifest.components) for param in self._params.get(name, ())
        }
        for source in {source for param in first for source in self._sources(param)}:
            self._stored(source)
        for param in first & self._staying - self._merged.keys():
            self._kept[param] = self._upload_to_stay(param)
        self._give_pages_back()
        self._tuples: dict[str, Any] = {}
        self._turn: str | None = None

    def take(self, name: str) -> Any:
        """Activate component `name` and return its weights as the one tuple that its function expects.

        This frees the workspace of the component that was active before, and its weights except those that stay.
        """
        if self._turn == name and name in self._tuples:
            return self._tuples[name]
        last, self._turn = self._turn, name
        swaps = self._leaves(last) or self._leaves(name)
        if swaps or last is None or not {kind_of(last), kind_of(name)} <= EVERY_STEP:
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
        return name in self._leaving

    def _bring(self, name: str) -> Any:
        if self._leaves(name):
            self._device.sync()  # memory is only free when the device has finished with it
        self._merge(name)
        params = self._params[name]
        coming = {}
        for param in params:
            if param not in self._kept:
                upload = self._upload_to_stay if param in self._staying else self._upload
                coming[param] = upload(param)
        self._kept |= {param: tensor for param, tensor in coming.items() if param in self._staying}
        return tvm.runtime.convert([self._kept[p] if p in self._kept else coming[p] for p in params])

    def _merge(self, name: str) -> None:
        """Make the merged weights of `name` that are not here yet, one after another.

        Those that do not stay on the device are read back, and wait in memory.
        """
        for param in self._params[name]:
            if param not in self._merged or param in self._kept or param in self._read_back:
                continue
            tensor = self._make(self._merged[param])
            if param in self._staying:
                self._kept[param] = tensor
            else:
                self._read_back[param] = tensor.numpy()

    def _make(self, merged: MergedParam) -> Any:
        sources = [self._kept[s] if s in self._kept else self._upload(s) for s in merged.sources]
        made = self._function(merged.function)(*sources)
        self._device.sync()
        free_workspace()
        return made

    def _sources(self, param: str) -> tuple[str, ...]:
        return self._merged[param].sources if param in self._merged else (param,)

    def _stored(self, param: str) -> np.ndarray:
        """View a weight in its shard's file, which is checked at the first view, or one that was read back."""
        if param in self._read_back:
            return self._read_back[param]
        record = self._records[param]
        if record.shard not in self._shards:
            path = self._bundle.verified_path(self._bundle.manifest.params.shards[record.shard])
            with path.open("rb") as file:
                self._maps.append(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
            self._shards[record.shard] = np.frombuffer(self._maps[-1], np.uint8)
        return _view(self._shards[record.shard], record)

    def _give_pages_back(self) -> None:
        """Let the process forget the pages of the shards that it has read. The system's cache still has them."""
        if hasattr(mmap, "MADV_DONTNEED"):
            for mapped in self._maps:
                mapped.madvise(mmap.MADV_DONTNEED)

    def _upload_to_stay(self, param: str) -> Any:
        """Copy to the device for good, unless another bundle has the same weight there."""
        if self._store is None:
            return self._upload(param)
        return self._store.take(
            self._stored(param), self._dtype_on_device(param), self._device, lambda _: self._upload(param)
        )

    def _upload(self, param: str) -> Any:
        """Copy to the device. Where the library reads float32, float16 is widened to it, which is exact."""
        return tvm.runtime.tensor(self._stored(param).astype(self._dtype_on_device(param)), self._device)

    def _dtype_on_device(self, param: str) -> str:
        stored = self._stored(param)
        return self._library.dtype_on_device(stored.dtype.name, stored.shape, param in self._tables)


def free_workspace() -> None:
    """Free the workspace of the components, which TVM keeps for the next call."""
    tvm.get_global_func("vm.builtin.memory_manager.clear")()


def _view(shard: np.ndarray, record: ParamRecord) -> np.ndarray:
    """View one weight as the shard stores it: little-endian, C order."""
    stored = shard[record.byte_offset : record.byte_offset + record.bytes]
    return stored.view(np.dtype(record.dtype).newbyteorder("<")).reshape(record.shape)
