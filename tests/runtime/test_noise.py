import json
from pathlib import Path

import numpy as np
import pytest

from mlc_controlnet.runtime.noise import philox4x32, random_words, standard_normal
from mlc_controlnet.runtime.option_checks import MAX_SEED

GOLDEN = json.loads((Path(__file__).parents[1] / "fixtures" / "noise.json").read_text())


@pytest.mark.parametrize("vector", GOLDEN["known_answers"])
def test_philox_gives_the_known_answers_of_its_paper(vector):
    counters = np.array([vector["counter"]], np.uint32)
    assert philox4x32(counters, tuple(vector["key"])).tolist() == [vector["result"]]


@pytest.mark.parametrize("case", GOLDEN["normals"])
def test_noise_is_what_the_browser_is_tested_with(case):
    count = len(case["words"])
    assert random_words(count, case["seed"], case["stream"]).tolist() == case["words"]
    normals = standard_normal((count,), case["seed"], case["stream"])
    np.testing.assert_array_max_ulp(normals, np.array(case["float32"], np.float32), maxulp=1)


def test_seed_zero_is_a_seed():
    assert np.array_equal(standard_normal((4, 5), 0), standard_normal((4, 5), 0))
    assert not np.array_equal(standard_normal((4, 5), 0), standard_normal((4, 5), 1))


def test_the_upper_half_of_a_seed_counts():
    assert not np.array_equal(standard_normal((8,), 1), standard_normal((8,), 1 + 2**32))


def test_the_largest_seed_works():
    assert np.isfinite(standard_normal((8,), MAX_SEED)).all()


def test_a_shorter_draw_is_the_beginning_of_a_longer_one():
    assert np.array_equal(standard_normal((1, 3, 5), 3).ravel(), standard_normal((40,), 3)[:15])


def test_noise_is_standard_normal():
    """One sample of 2**16: mean and deviation within five standard errors, no pair of neighbours correlated."""
    normals = standard_normal((2**16,), 11).astype(np.float64)
    error = 2**-8
    assert abs(normals.mean()) < 5 * error
    assert abs(normals.std() - 1) < 5 * error / np.sqrt(2)
    assert abs((normals**4).mean() - 3) < 5 * error * np.sqrt(96)
    assert abs((normals[:-1] * normals[1:]).mean()) < 5 * error
