"""Searches a kernel's space by a Gaussian process: it tries what is likely to be faster than the best so far.

A process over the logarithms of the decisions predicts the logarithm of the time, with an uncertainty, for everything
that has not been tried; the next trials are those of the greatest expected improvement (Jones et al., 1998, eq. 15).
A space has a few hundred decisions, so each of them is predicted: there is nothing to evolve. MetaSchedule's own
search draws traces of schedule primitives, and ours choose primitives by the numbers drawn: such a trace does not
replay with other numbers.

The same seed and the same times give the same trials.
"""

import math
from collections.abc import Sequence

import numpy as np

from mlc_controlnet.kernels.tunable import Decisions
from mlc_controlnet.passes.schedule.tuning_records import write_decisions

FIRST_TRIALS = 8  # at random, after the rules' choice
LENGTHS = (0.5, 1.0, 2.0, 4.0)  # of the kernel, in standard deviations of a decision's logarithm
NOISE = 1e-3  # variance of a time's logarithm: 3 %
FAILED = 2.0  # what a decision that failed counts as, over the slowest that ran


class Search:
    """The state of one task's search: what to try next, given what was tried."""

    def __init__(self, space: Sequence[Decisions], chosen: Decisions, seed: int) -> None:
        """Begin with `chosen`, the rules' decision, which need not be in `space`."""
        self.space = list(space)
        self.chosen = chosen
        self.times: dict[str, float | None] = {}
        self._random = np.random.default_rng(seed)
        self._order = [self.space[index] for index in self._random.permutation(len(self.space))]
        features = np.array([[math.log2(1 + int(value)) for value in one.values()] for one in self.space])
        self._features = (features - features.mean(0)) / np.maximum(features.std(0), 1e-9) if self.space else features

    def tell(self, decisions: Decisions, time: float | None) -> None:
        """Take the time of a trial, in any unit; None: it failed."""
        self.times[write_decisions(decisions)] = time

    def ask(self, count: int) -> list[Decisions]:
        """Return what to try next, at most `count` decisions; none when all were tried."""
        if write_decisions(self.chosen) not in self.times:
            return [self.chosen]
        new = [one for one in self._order if write_decisions(one) not in self.times]
        known = [index for index, one in enumerate(self.space) if write_decisions(one) in self.times]
        first = FIRST_TRIALS + 1 - len(self.times)
        if first > 0 or len(known) < 2:
            return new[: min(count, max(first, 1))]
        waiting = [index for index, one in enumerate(self.space) if write_decisions(one) not in self.times]
        gains = self._expected_improvements(known, waiting)
        best = sorted(range(len(waiting)), key=lambda at: (-gains[at], at))
        return [self.space[waiting[at]] for at in best[:count]]

    def best(self, count: int, below: float = math.inf) -> list[Decisions]:
        """Return the fastest decisions that took less than `below`, the fastest first, without the rules'."""
        ran = [(time, one) for one in self.space if (time := self.times.get(write_decisions(one))) is not None]
        rules = write_decisions(self.chosen)
        fast = [(time, one) for time, one in ran if time < below and write_decisions(one) != rules]
        return [one for _, one in sorted(fast, key=lambda item: item[0])[:count]]

    def _expected_improvements(self, known: list[int], waiting: list[int]) -> np.ndarray:
        times = [self.times[write_decisions(self.space[index])] for index in known]
        slowest = max((time for time in times if time is not None), default=1.0)
        logs = np.log([FAILED * slowest if time is None else time for time in times])
        mean, deviation = logs.mean(), max(float(logs.std()), 1e-3)
        y = (logs - mean) / deviation
        noise = NOISE / deviation**2
        fits = [_Process(self._features[known], y, length, noise) for length in LENGTHS]
        process = max(fits, key=lambda fit: fit.evidence)
        predicted, sigma = process.predict(self._features[waiting])
        z = (y.min() - predicted) / sigma
        density = np.exp(-z * z / 2) / math.sqrt(2 * math.pi)
        cumulative = np.array([(1 + math.erf(value / math.sqrt(2))) / 2 for value in z])
        return sigma * (z * cumulative + density)


class _Process:
    """A Gaussian process with a squared exponential kernel (Rasmussen and Williams, algorithm 2.1)."""

    def __init__(self, x: np.ndarray, y: np.ndarray, length: float, noise: float) -> None:
        self.x, self.length = x, length
        self.factor = np.linalg.cholesky(self._kernel(x, x) + (noise + 1e-6) * np.eye(len(x)))
        self.weights = np.linalg.solve(self.factor.T, np.linalg.solve(self.factor, y))
        self.evidence = float(-y @ self.weights / 2 - np.log(np.diag(self.factor)).sum())

    def predict(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return means and standard deviations at `x`."""
        between = self._kernel(self.x, x)
        half = np.linalg.solve(self.factor, between)
        return between.T @ self.weights, np.sqrt(np.maximum(1 - np.square(half).sum(0), 1e-12))

    def _kernel(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        distances = np.square(a[:, None, :] - b[None, :, :]).sum(-1)
        return np.exp(-distances / (2 * self.length**2))
