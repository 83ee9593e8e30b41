import time

import pytest

from mlc_controlnet.train.metrics import Stopwatch


def test_a_rate_is_that_of_the_steps_and_not_of_what_comes_between() -> None:
    watch = Stopwatch()
    for _ in range(2):
        with watch.step(4):
            time.sleep(0.02)
        time.sleep(0.2)
    figures = watch.read()
    assert 0.02 <= figures["seconds_per_step"] < 0.1
    assert figures["samples_per_second"] == pytest.approx(4 / figures["seconds_per_step"])


def test_a_look_starts_anew() -> None:
    watch = Stopwatch()
    for samples in (4, 2):
        with watch.step(samples):
            time.sleep(0.001)
        figures = watch.read()
        assert figures["samples_per_second"] == pytest.approx(samples / figures["seconds_per_step"])
