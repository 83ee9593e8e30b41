import itertools

import numpy as np
import pytest

from mlc_controlnet.quantize.allocation import Option, allocate, least_bytes, lower_hull

BYTES = {"palette2": 20, "palette4": 41, "palette6": 61, "int8": 83}


def random_weights(count: int, seed: int) -> list[list[Option]]:
    """Errors fall about fourfold for each bit, from a sensitivity that differs from weight to weight."""
    numbers = np.random.default_rng(seed)
    return [
        [
            Option(name, size * scale, float(sensitivity * 4.0 ** -int(name[-1]) * numbers.uniform(0.7, 1.4)))
            for name, size in BYTES.items()
        ]
        for sensitivity, scale in zip(10 ** numbers.uniform(-2, 2, count), numbers.integers(1, 9, count), strict=True)
    ]


@pytest.mark.parametrize("seed", range(5))
def test_no_choice_of_as_few_bytes_has_a_smaller_error(seed: int) -> None:
    weights = random_weights(6, seed)
    for budget in (400, 800, 1500):
        if budget < least_bytes(weights):
            continue
        chosen = allocate(weights, budget)
        assert sum(option.bytes for option in chosen) <= budget
        spent = sum(option.bytes for option in chosen)
        error = sum(option.error for option in chosen)
        # Options above the hull can use a rest of the budget that no step of a hull fits.
        hulls = [lower_hull(options) for options in weights]
        best = min(
            sum(option.error for option in choice)
            for choice in itertools.product(*hulls)
            if sum(option.bytes for option in choice) <= spent
        )
        assert error <= 1.5 * best


def test_a_sensitive_weight_has_more_bits() -> None:
    weights = [[Option(name, size, share * 4.0 ** -int(name[-1])) for name, size in BYTES.items()] for share in (1, 50)]
    dull, sensitive = allocate(weights, 105)
    assert (dull.format, sensitive.format) == ("palette4", "palette6")


def test_more_bytes_never_make_the_error_larger() -> None:
    weights = random_weights(20, 7)
    least = least_bytes(weights)
    errors = [sum(option.error for option in allocate(weights, budget)) for budget in range(least, 4 * least, 97)]
    assert errors == sorted(errors, reverse=True)


def test_a_format_that_is_larger_and_no_better_is_never_taken() -> None:
    options = [Option("a", 10, 1.0), Option("b", 20, 1.0), Option("c", 30, 0.1), Option("d", 25, 0.9)]
    assert [option.format for option in lower_hull(options)] == ["a", "c"]


def test_a_budget_that_no_choice_fits_is_refused() -> None:
    weights = random_weights(3, 0)
    with pytest.raises(ValueError, match="1 bytes too few"):
        allocate(weights, least_bytes(weights) - 1)
