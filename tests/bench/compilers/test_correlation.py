import dataclasses

import pytest

from mlc_controlnet.bench.compilers.correlation import Compared, compare, describe, rank_correlation
from mlc_controlnet.bench.compilers.figures import OURS
from tests.bench.compilers.made_up_judgements import figures, judgement, kernel
from tests.bench.made_up_figures import made_up_figures


def compared(*pairs: tuple[float, float]) -> list[Compared]:
    return [Compared(str(number), *pair) for number, pair in enumerate(pairs)]


def test_the_same_order_correlates_whatever_the_times() -> None:
    assert rank_correlation(compared((1, 10), (2, 11), (3, 900))) == pytest.approx(1)
    assert rank_correlation(compared((1, 9), (2, 5), (3, 1))) == pytest.approx(-1)
    assert 0 < rank_correlation(compared((1, 2), (2, 1), (3, 3), (4, 4))) < 1


def test_equal_times_share_their_rank() -> None:
    assert rank_correlation(compared((1, 5), (2, 5), (3, 5))) == 0
    assert rank_correlation(compared((1, 1), (2, 2), (2, 2))) == pytest.approx(1)


def test_only_operations_that_both_have_at_full_size_are_compared() -> None:
    rows = [judgement(name, kernel("k", 5.0)) for name in ("large matmul", "matmul", "norm", "other")]
    found = compare(figures(OURS, *rows), made_up_figures())
    assert [(one.name, one.predicted_ms, one.measured_ms) for one in found] == [
        ("large matmul", 0.005, 10.0),
        ("matmul", 0.005, 21.0),  # `norm` is reduced there
    ]


def test_the_line_names_the_device_and_the_chip() -> None:
    measured = made_up_figures()
    measured = dataclasses.replace(
        measured, rows=tuple(dataclasses.replace(r, is_reduced=False) for r in measured.rows)
    )
    times = {"large matmul": 10.0, "matmul": 30.0, "norm": 20.0}
    rows = [judgement(name, kernel("k", time)) for name, time in times.items()]
    assert describe(figures(OURS, *rows), measured) == (
        "3 operations on Model T, float32: rank correlation of the times predicted for navi31 and measured 1.00"
    )
    with pytest.raises(ValueError, match="2 operations"):
        describe(figures(OURS, *rows[:2]), measured)
