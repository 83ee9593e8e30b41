"""What a finished kernel should compute, in numpy's float64: attention for some queries, norms wholly."""

from collections.abc import Sequence

import numpy as np

from mlc_controlnet.kernels.asked_for import Asked
from mlc_controlnet.kernels.attention import Attention
from mlc_controlnet.kernels.normalization import GroupNorm

QUERIES = 16  # about


def compute(asked: Asked, inputs: Sequence[np.ndarray]) -> np.ndarray:
    """Return the output in float64; NaN where it was not computed. inputs: the kernel's, without its output."""
    wide = [value.astype(np.float64) for value in inputs]
    if isinstance(asked, Attention):
        return _attend(asked, wide)
    x, gamma, beta = wide
    if isinstance(asked, GroupNorm):
        of_channels = (1, asked.channels, *[1] * (len(asked.shape) - 2))
        normal = _normalize(x.reshape(asked.batch, asked.groups, -1), asked.epsilon).reshape(asked.shape)
        y = normal * gamma.reshape(of_channels) + beta.reshape(of_channels)
        return y / (1 + np.exp(-y)) if asked.silu else y
    return _normalize(x, asked.epsilon) * gamma + beta


def _normalize(x: np.ndarray, epsilon: float) -> np.ndarray:
    deviations = x - x.mean(-1, keepdims=True)
    return np.asarray(deviations / np.sqrt(np.square(deviations).mean(-1, keepdims=True) + epsilon))


def _attend(asked: Attention, inputs: Sequence[np.ndarray]) -> np.ndarray:
    assert asked.layout != "shared", "no space has it"
    operands = np.split(inputs[0], 3, axis=-1) if asked.layout == "together" else inputs[:3]
    q, k, v = (one.reshape(*one.shape[:2], asked.heads, asked.head_size) for one in operands)
    shape = (asked.batch, asked.heads, asked.queries, asked.keys)
    bias = None if asked.bias_shape is None else np.broadcast_to(inputs[3], shape)
    ahead = 0 if asked.causal == "TopLeft" else asked.keys - asked.queries
    output = np.full(asked.query_shape, np.nan)
    total = asked.batch * asked.queries
    for number in range(0, total, -(-total // QUERIES)):
        batch, query = divmod(number, asked.queries)
        scores = asked.scale * np.einsum("hd,khd->hk", q[batch, query], k[batch])
        if bias is not None:
            scores = scores + bias[batch, :, query]
        if asked.causal is not None:
            scores[:, max(query + ahead + 1, 0) :] = -np.inf
        powers = np.exp(scores - scores.max(-1, keepdims=True))
        weights = powers / powers.sum(-1, keepdims=True)
        output[batch, query] = np.einsum("hk,khd->hd", weights, v[batch]).reshape(-1)
    return output
