"""Named weights -> shards of raw little-endian float16, and uint32 for the words of quantized ones."""

import re
from collections.abc import Iterable, Mapping

import numpy as np
import torch

from mlc_controlnet.bundle.params import RECORD_ALIGNMENT_BYTES, ParamRecord, ParamsSpec
from mlc_controlnet.bundle.writer import BundleWriter
from mlc_controlnet.capture import Param
from mlc_controlnet.components import DRAWING, PER_CONTROLNET, TEXT_ENCODER_2, kind_of

MAX_SHARD_BYTES = 32 * 2**20  # a browser holds one whole shard in memory while it hashes and uploads it


def write_params(
    writer: BundleWriter,
    params: Mapping[str, Iterable[Param]],
    tensors: Mapping[str, torch.Tensor],
    max_shard_bytes: int = MAX_SHARD_BYTES,
    first_shard: int = 0,
) -> ParamsSpec:
    """Write every param once, into shards of at most `max_shard_bytes`.

    A larger param has a shard of its own, because a record is never cut. No shard has weights of two groups: what every
    picture needs, each further ControlNet, and each other component. A page fetches a group when a picture needs it.

    Args:
        params: of each component.
        tensors: the checkpoint's tensors, from which the params are made.
        first_shard: the number in the name of the first shard.
    """
    records: list[ParamRecord] = []
    shards: list[str] = []
    shard = bytearray()

    def close_shard() -> None:
        shards.append(f"params/{first_shard + len(shards):02d}.bin")
        writer.add_bytes(shards[-1], bytes(shard))
        shard.clear()

    for group in _groups(params).values():
        for param in group:
            tensor = param.read(tensors)
            data = stored_form(tensor)
            param.give_back(tensors)
            if shard and len(shard) + len(data) > max_shard_bytes:
                close_shard()
            records.append(
                ParamRecord(param.name, tuple(tensor.shape), param.dtype, len(shards), len(shard), len(data))
            )
            shard += data + bytes(-len(data) % RECORD_ALIGNMENT_BYTES)
        if shard:
            close_shard()
    return ParamsSpec("float16", sum(record.bytes for record in records), tuple(shards), tuple(records))


def stored_form(tensor: torch.Tensor) -> bytes:
    """Return a tensor's bytes in a shard: uint32 as it is, all else as float16; little-endian, C order."""
    dtype = "<u4" if tensor.dtype == torch.uint32 else "<f2"
    return np.ascontiguousarray(tensor.detach().numpy()).astype(dtype).tobytes()


def _groups(params: Mapping[str, Iterable[Param]]) -> dict[str, dict[Param, None]]:
    """Return the params that are fetched together, by group. A param of several groups is in the first of them."""
    groups: dict[str, dict[Param, None]] = {_group_of(component): {} for component in DRAWING}
    for component, own in params.items():
        groups.setdefault(_group_of(component), {}).update(dict.fromkeys(own))
    seen: set[Param] = set()
    for name, group in groups.items():
        groups[name] = {param: None for param in group if param not in seen}
        seen |= group.keys()
    return groups


def _group_of(component: str) -> str:
    """Return what is fetched with a component: `drawing`, or the number of a ControlNet, or its own name."""
    if component in (*DRAWING, TEXT_ENCODER_2):
        return "drawing"
    return re.sub(r".*_", "", component) if kind_of(component) in PER_CONTROLNET else component
