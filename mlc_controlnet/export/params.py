"""Named weights -> shards of raw little-endian float16."""

from collections.abc import Iterable, Mapping

import numpy as np
import torch

from mlc_controlnet.bundle.manifest import RECORD_ALIGNMENT_BYTES, ParamRecord, ParamsSpec
from mlc_controlnet.bundle.writer import BundleWriter
from mlc_controlnet.capture import Param

MAX_SHARD_BYTES = 32 * 2**20  # a browser holds one whole shard in memory while it hashes and uploads it


def write_params(
    writer: BundleWriter,
    params: Iterable[Param],
    tensors: Mapping[str, torch.Tensor],
    max_shard_bytes: int = MAX_SHARD_BYTES,
    first_shard: int = 0,
) -> ParamsSpec:
    """Write every param, in the given order, into shards of at most `max_shard_bytes`.

    A larger param has a shard of its own, because a record is never cut.

    Args:
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

    for param in params:
        tensor = param.read(tensors)
        data = np.ascontiguousarray(tensor.detach().numpy()).astype("<f2").tobytes()
        if shard and len(shard) + len(data) > max_shard_bytes:
            close_shard()
        records.append(ParamRecord(param.name, tuple(tensor.shape), "float16", len(shards), len(shard), len(data)))
        shard += data + bytes(-len(data) % RECORD_ALIGNMENT_BYTES)
    if shard:
        close_shard()
    return ParamsSpec("float16", sum(record.bytes for record in records), tuple(shards), tuple(records))
