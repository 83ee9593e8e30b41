"""The numbers that candidates compute with: a browser's tab and this process draw the same ones from a seed.

A hash of each element's place gives its bits, so nothing has to travel. Floats are in [0.5, 1) with a random sign, and
every bit of their fractions is random: no product underflows, and the sum of a convolution stays within the range of
float16.
Twin: browser/page/values.mjs.
"""

from collections.abc import Sequence

import numpy as np


def draw_values(dtype: str, shape: Sequence[int], seed: int) -> np.ndarray:
    """Return float32, float16 or uint32 (words of codes) values; zeros of any other dtype."""
    count = int(np.prod(shape))
    if dtype == "float32":
        words = _hashes(count, seed)
        return (0x3F000000 | words & 0x807FFFFF).view(np.float32).reshape(shape)
    if dtype == "float16":
        words = _hashes(count, seed)
        return (0x3800 | words & 0x3FF | words >> 16 & 0x8000).astype(np.uint16).view(np.float16).reshape(shape)
    if dtype == "uint32":
        return _hashes(count, seed).reshape(shape)
    return np.zeros(shape, dtype)


def _hashes(count: int, seed: int) -> np.ndarray:
    """Return a hash of each place: Wellons' lowbias32, https://nullprogram.com/blog/2018/07/31/."""
    return _hash(np.arange(count, dtype=np.uint32) + _hash(np.array([seed], np.uint32)))


def _hash(words: np.ndarray) -> np.ndarray:
    words = words ^ words >> 16
    words *= np.uint32(0x7FEB352D)
    words ^= words >> 15
    words *= np.uint32(0x846CA68B)
    return words ^ words >> 16
