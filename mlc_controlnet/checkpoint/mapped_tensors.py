"""Tensors of a safetensors file where they are: mapped into memory, with pages that can be given back.

A page of a mapped file takes memory from when it is first read. A build reads every weight several times: to check it,
to compare it and to store it. Stable Diffusion XL with a ControlNet would then hold its 9.5 GB beside all that the
build makes of them. So whoever has read a tensor gives its pages back. The system's cache still has them, and the next
read finds them there.

The mapping is read-only: whoever changes a weight makes a new tensor. To write into a mapped one ends the process.
"""

import json
import mmap
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch

_MAPPING = "mapping"  # attribute of a storage: the mapping, and the storage's first byte in it


def map_tensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Map a safetensors file, which is known to be whole.

    Args:
        tensors: of the file by name, for their dtypes and shapes. Those of floating point are mapped, all others are
            returned as they are.
    """
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    begin = 8 + int.from_bytes(mapped[:8], "little")
    header = json.loads(mapped[8:begin])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given buffer is not writable")
        return {
            key: _map_one(mapped, begin + header[key]["data_offsets"][0], tensor)
            if tensor.is_floating_point() and tensor.numel()
            else tensor
            for key, tensor in tensors.items()
        }


def _map_one(mapped: mmap.mmap, start: int, like: torch.Tensor) -> torch.Tensor:
    tensor = torch.frombuffer(mapped, dtype=like.dtype, count=like.numel(), offset=start)
    setattr(tensor.untyped_storage(), _MAPPING, (mapped, start))
    return tensor.reshape(like.shape)


def give_back(tensor: torch.Tensor) -> None:
    """Let go of the memory of a mapped tensor, which can be read again. Any other tensor stays as it is."""
    mapped, start = getattr(tensor.untyped_storage(), _MAPPING, (None, 0))
    if mapped is None or not tensor.is_contiguous() or not hasattr(mmap, "MADV_DONTNEED"):
        return
    start += tensor.storage_offset() * tensor.itemsize
    stop = start + tensor.numel() * tensor.itemsize
    first, last = -(-start // mmap.PAGESIZE), stop // mmap.PAGESIZE  # whole pages: others are its neighbours' too
    if first < last:
        mapped.madvise(mmap.MADV_DONTNEED, first * mmap.PAGESIZE, (last - first) * mmap.PAGESIZE)
