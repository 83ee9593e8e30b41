"""Small sets of cases in which every two values of two factors meet at least once."""

import itertools
import random
from collections.abc import Mapping, Sequence
from typing import Any

Case = dict[str, Any]


def covering_set(factors: Mapping[str, Sequence[Any]], seed: int = 0, tries: int = 40) -> list[Case]:
    """Choose cases greedily: of a few random ones, the one with the most pairs that have not met yet."""
    rng = random.Random(seed)
    names = list(factors)
    open_pairs = {
        (a, i, b, j)
        for a, b in itertools.combinations(names, 2)
        for i in range(len(factors[a]))
        for j in range(len(factors[b]))
    }
    cases: list[Case] = []
    while open_pairs:
        wanted = rng.choice(sorted(open_pairs))
        candidates = [_candidate(factors, wanted, rng) for _ in range(tries)]
        best = max(candidates, key=lambda chosen: len(_pairs(names, chosen) & open_pairs))
        open_pairs -= _pairs(names, best)
        cases.append({name: factors[name][index] for name, index in best.items()})
    return cases


def random_cases(factors: Mapping[str, Sequence[Any]], count: int, seed: int) -> list[Case]:
    """Draw cases from all combinations."""
    rng = random.Random(seed)
    return [{name: rng.choice(values) for name, values in factors.items()} for _ in range(count)]


def _candidate(
    factors: Mapping[str, Sequence[Any]], wanted: tuple[str, int, str, int], rng: random.Random
) -> dict[str, int]:
    chosen = {name: rng.randrange(len(values)) for name, values in factors.items()}
    a, i, b, j = wanted
    return {**chosen, a: i, b: j}


def _pairs(names: Sequence[str], chosen: Mapping[str, int]) -> set[tuple[str, int, str, int]]:
    return {(a, chosen[a], b, chosen[b]) for a, b in itertools.combinations(names, 2)}
