import itertools

import numpy as np
import pytest

from mlc_controlnet.quantize.allocation import Option, allocate, least_bytes
from mlc_controlnet.quantize.shared_formats import share_formats

SIZES = {"palette2": 20, "palette4": 41, "palette6": 61, "int8": 83}


def random_weights(count: int, seed: int = 0) -> list[list[Option]]:
    numbers = np.random.default_rng(seed)
    return [
        [Option(name, size, float(sensitivity * 4.0 ** -int(name[-1]))) for name, size in SIZES.items()]
        for sensitivity in 10 ** numbers.uniform(-2, 2, count)
    ]


def formats_of(weights: list[list[Option]], shapes: list[int], budget: int, more: int) -> tuple[list[Option], int]:
    """What is chosen, and how many formats the shapes have beyond one each."""
    chosen = allocate(share_formats(weights, shapes, budget, more), budget)
    kernels = {(shape, option.format) for shape, option in zip(shapes, chosen, strict=True)}
    return chosen, len(kernels) - len(set(shapes))


@pytest.mark.parametrize("more", [0, 3, 10])
@pytest.mark.parametrize("budget", [40 * 21, 40 * 45, 40 * 80])
def test_shapes_have_no_more_formats_than_they_may(more: int, budget: int) -> None:
    weights, shapes = random_weights(40), [number // 5 for number in range(40)]
    chosen, further = formats_of(weights, shapes, budget, more)
    assert further <= more
    assert sum(option.bytes for option in chosen) <= budget


def test_the_smallest_choice_is_within_a_budget_without_room() -> None:
    weights = random_weights(12)
    chosen, _ = formats_of(weights, [0] * 12, least_bytes(weights), 0)
    assert {option.format for option in chosen} == {"palette2"}


def test_with_kernels_enough_the_choice_is_the_free_one() -> None:
    weights, shapes = random_weights(40), [number // 5 for number in range(40)]
    budget = 40 * 45
    free, shared = allocate(weights, budget), formats_of(weights, shapes, budget, 100)[0]
    assert sum(option.error for option in shared) <= 1.01 * sum(option.error for option in free)


def test_the_second_format_goes_where_it_saves_most_error() -> None:
    equal = [[Option(name, size, 4.0 ** -int(name[-1])) for name, size in SIZES.items()]] * 4
    unequal = [
        [Option(name, size, share * 4.0 ** -int(name[-1])) for name, size in SIZES.items()]
        for share in (1e-4, 1e-4, 100, 100)
    ]
    chosen, _ = formats_of(equal + unequal, [0] * 4 + [1] * 4, 8 * 45, 1)
    assert len({option.format for option in chosen[:4]}) == 1
    assert chosen[4].bytes < chosen[7].bytes


def test_few_kernels_cost_little_more_than_the_best_choice_with_as_many() -> None:
    weights, shapes, budget = random_weights(6, 3), [0, 0, 0, 1, 1, 1], 6 * 45
    chosen, further = formats_of(weights, shapes, budget, 1)
    spent = sum(option.bytes for option in chosen)
    best = min(
        sum(option.error for option in choice)
        for choice in itertools.product(*weights)
        if sum(option.bytes for option in choice) <= spent
        and len({(shape, option.format) for shape, option in zip(shapes, choice, strict=True)}) <= 3
    )
    assert further <= 1
    assert sum(option.error for option in chosen) <= 1.5 * best
