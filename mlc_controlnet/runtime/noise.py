"""Seeded Gaussian noise, the same numbers in Python and in the browser.

Philox4x32-10 (Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011) is counter-based:
block i of a stream is a function of i and the seed, in 32-bit integers that every language has. Box and Muller's
transform turns its words into normals in float64, which are rounded to float32.

Twin: web/src/engine/noise.ts. Both are tested with tests/fixtures/noise.json.
"""

import math
from collections.abc import Sequence

import numpy as np

INITIAL_LATENTS_STREAM = 0
FIRST_STEP_STREAM = 1  # of step i, if its sampler draws noise: this and i

_ROUNDS = 10
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)  # Salmon et al., table 2
_KEY_INCREMENTS = (0x9E3779B9, 0xBB67AE85)  # the golden ratio and sqrt(3) - 1, as fractions of 2**32
_MASK32 = 0xFFFFFFFF


def philox4x32(counters: np.ndarray, key: tuple[int, int]) -> np.ndarray:
    """Encrypt each counter with `key`, in ten rounds.

    counters: uint32 [N, 4]; so is the result.
    """
    c0, c1, c2, c3 = (counters[:, i].astype(np.uint64) for i in range(4))
    k0, k1 = key
    for _ in range(_ROUNDS):
        product0, product1 = c0 * np.uint64(_MULTIPLIERS[0]), c2 * np.uint64(_MULTIPLIERS[1])
        high0, low0 = product0 >> np.uint64(32), product0 & np.uint64(_MASK32)
        high1, low1 = product1 >> np.uint64(32), product1 & np.uint64(_MASK32)
        c0, c1, c2, c3 = high1 ^ c1 ^ np.uint64(k0), low1, high0 ^ c3 ^ np.uint64(k1), low0
        k0, k1 = (k0 + _KEY_INCREMENTS[0]) & _MASK32, (k1 + _KEY_INCREMENTS[1]) & _MASK32
    return np.stack([c0, c1, c2, c3], axis=1).astype(np.uint32)


def random_words(count: int, seed: int, stream: int) -> np.ndarray:
    """Return the first `count` words of a stream: uint32 [count].

    The key is the low and the high half of the seed; the counter of block i is (i, 0, 0, stream).
    """
    blocks = -(-count // 4)
    counters = np.zeros((blocks, 4), np.uint32)
    counters[:, 0] = np.arange(blocks)
    counters[:, 3] = stream
    return philox4x32(counters, (seed & _MASK32, seed >> 32)).reshape(-1)[:count]


def standard_normal(shape: Sequence[int], seed: int, stream: int = INITIAL_LATENTS_STREAM) -> np.ndarray:
    """Generate independent normals of mean 0 and standard deviation 1, float32, in C order.

    seed: an integer from 0 to `request.MAX_SEED`.
    """
    count = math.prod(shape)
    words = random_words(4 * (-(-count // 4)), seed, stream).astype(np.float64)
    uniform = (words + 0.5) * 2.0**-32  # strictly between 0 and 1
    u1, u2 = uniform[0::2], uniform[1::2]
    radius, angle = np.sqrt(-2.0 * np.log(u1)), 2.0 * np.pi * u2
    normals = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)  # [N / 2, 2]
    return normals.reshape(-1)[:count].astype(np.float32).reshape(shape)
