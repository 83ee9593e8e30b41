"""The precision of sums in float16 runs, and how large their operands may be."""

import numpy as np
import pytest

from mlc_controlnet.kernels.float16_sums import LONGEST_RUN, SCALE, run_length
from mlc_controlnet.parity.parity import signal_to_noise_db

GATE_DB = 60  # of one operation


def sum_in_runs(left: np.ndarray, right: np.ndarray, run: int) -> np.ndarray:
    """left [M, K] @ right [K, N] as kernels compute it, in float16."""
    scaled = left.astype(np.float16) * np.float16(1 / SCALE)
    right = right.astype(np.float16)
    sums = np.zeros((left.shape[0], right.shape[1]), np.float32)
    for first in range(0, left.shape[1], run):
        partial = np.zeros(sums.shape, np.float16)
        for k in range(first, first + run):
            exact = scaled[:, k, None].astype(np.float32) * right[k].astype(np.float32)
            partial = (exact + partial.astype(np.float32)).astype(np.float16)
        sums += np.float32(SCALE) * partial.astype(np.float32)
    return sums.astype(np.float16)


def precision_db(left: np.ndarray, right: np.ndarray, run: int = LONGEST_RUN) -> float:
    left, right = left.astype(np.float16), right.astype(np.float16)
    wanted = left.astype(np.float64) @ right.astype(np.float64)
    return signal_to_noise_db(wanted, sum_in_runs(left, right, run).astype(np.float64))


def normal(*shape: int, scale: float = 1.0) -> np.ndarray:
    return np.random.default_rng(len(shape) + shape[0]).standard_normal(shape) * scale


@pytest.mark.parametrize("depth", [320, 1280, 11520])
def test_runs_keep_the_precision_of_an_operation_at_any_depth(depth: int) -> None:
    assert precision_db(normal(8, depth), normal(depth, 24, scale=depth**-0.5)) > GATE_DB


def test_without_runs_the_precision_is_lost() -> None:
    assert precision_db(normal(8, 1280), normal(1280, 24, scale=1280**-0.5), run=1280) < 50


def test_activations_of_some_thousands_keep_the_precision() -> None:
    """A few channels of real models are that large in every row."""
    left, right = normal(8, 320), normal(320, 24, scale=0.05)
    left[:, ::50] *= 1000
    assert abs(left).max() > 2000
    assert precision_db(left, right) > GATE_DB


def test_small_weights_keep_the_precision() -> None:
    """As in the zero convolutions of a ControlNet whose training has begun."""
    assert precision_db(normal(8, 320), normal(320, 24, scale=1e-3)) > GATE_DB


def test_the_greatest_operands_do_not_overflow_a_run() -> None:
    """The next run takes as much away again: only a partial sum is larger than float16 holds."""
    left = np.full((1, 2 * LONGEST_RUN), 65504 * SCALE / LONGEST_RUN / 2)
    left[0, LONGEST_RUN:] *= -1
    assert sum_in_runs(left, np.full((2 * LONGEST_RUN, 1), 2.0), LONGEST_RUN) == 0


def test_a_run_divides_the_depth() -> None:
    assert [run_length("float16", depth) for depth in (320, 40, 36, 8, 4)] == [16, 10, 12, 8, 4]


def test_other_depths_and_dtypes_are_summed_in_float32() -> None:
    assert run_length("float32", 320) is None
    assert run_length("float16", 3) is None
    assert run_length("float16", 17) is None
