"""Weights on a device by their content: bundles over one base model hold them once.

A process that draws with several bundles gives all of them one store. Two bundles over one base have other shards and
other manifests, so weights are told apart by the hash of their bytes, not by names or files.
"""

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np


class WeightStore:
    """Device tensors that stay until the store goes. Kernels only read weights, so any number of bundles can share one.

    Attributes:
        shared_bytes: how much of the stored form was asked for again, and needed no memory.
    """

    def __init__(self) -> None:
        self._tensors: dict[tuple[object, ...], Any] = {}
        self.shared_bytes = 0

    def take(self, stored: np.ndarray, dtype: str, device: Any, upload: Callable[[np.ndarray], Any]) -> Any:
        """Return the tensor on `device`, in `dtype`, of a weight as its shard stores it; `upload` makes a new one."""
        digest = hashlib.sha256(np.ascontiguousarray(stored).data.cast("B")).digest()
        key = digest, stored.dtype.str, stored.shape, dtype, str(device)
        if key in self._tensors:
            self.shared_bytes += stored.nbytes
        else:
            self._tensors[key] = upload(stored)
        return self._tensors[key]
