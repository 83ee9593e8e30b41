import math

import numpy as np
import pytest

from mlc_controlnet.kernels.tunable import Decisions
from mlc_controlnet.passes.schedule.tuning_records import write_decisions
from mlc_controlnet.tuning.search import Search

SPACE = [{"rows": 1 << r, "columns": 1 << c, "step": 1 << s} for r in range(6) for c in range(6) for s in range(6)]
CHOSEN = SPACE[0]


def cost(decisions: Decisions) -> float:
    """A bowl with its least at 8 x 16 in steps of 4."""
    rows, columns, step = (math.log2(decisions[name]) for name in ("rows", "columns", "step"))
    return 1 + (rows - 3) ** 2 + (columns - 4) ** 2 + 0.3 * (step - 2) ** 2


def run(seed: int, trials: int, batch: int = 1) -> Search:
    search = Search(SPACE, CHOSEN, seed)
    while len(search.times) < trials:
        for one in search.ask(min(batch, trials - len(search.times))):
            search.tell(one, cost(one))
    return search


def test_the_rules_are_tried_first() -> None:
    assert Search(SPACE, CHOSEN, 0).ask(8) == [CHOSEN]


@pytest.mark.parametrize("batch", [1, 6])
def test_the_best_of_216_is_found_in_40_trials(batch: int) -> None:
    (best,) = run(0, 40, batch).best(1)
    assert cost(best) <= 1.3
    random = np.random.default_rng(0).permutation(len(SPACE))[:40]
    assert cost(best) < min(cost(SPACE[index]) for index in random), "by luck alone"


def test_the_same_seed_and_times_give_the_same_trials() -> None:
    first, again, other = (list(run(seed, 24).times) for seed in (3, 3, 4))
    assert first == again != other


def test_nothing_is_tried_twice_and_all_is_tried_at_last() -> None:
    small = SPACE[:20]
    search = Search(small, CHOSEN, 0)
    while candidates := search.ask(3):
        for one in candidates:
            assert write_decisions(one) not in search.times
            search.tell(one, cost(one))
    assert len(search.times) == len(small)


def test_what_fails_is_no_answer_and_is_avoided() -> None:
    search = Search(SPACE, CHOSEN, 0)
    failed = 0
    while len(search.times) < 40:
        for one in search.ask(1):
            fails = one["rows"] > 8
            failed += fails
            search.tell(one, None if fails else cost(one))
    assert search.best(3)[0]["rows"] <= 8
    assert failed < 40 * sum(one["rows"] > 8 for one in SPACE) / len(SPACE)


def test_the_rules_are_not_among_the_best() -> None:
    search = Search(SPACE[:2], CHOSEN, 0)
    search.tell(CHOSEN, 1.0)
    assert search.best(3) == []
    search.tell(SPACE[1], 2.0)
    assert search.best(3) == [SPACE[1]]
