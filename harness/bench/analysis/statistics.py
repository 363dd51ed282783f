"""Summaries of a few measurements, and whether they show a difference."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from spec import Array

PRECISION = 0.03  # a ratio is known well enough when half of its interval is at most this share of it
LEAST = 5  # rounds that an interval takes: with fewer even the whole range of the ratios covers less than 93 %
_Z = NormalDist().inv_cdf(0.975)
_UNSTEADY = 0.10  # a wider spread than this share of the median is marked
_STARVED = 0.50  # and beyond this one the median says nothing


@dataclass(frozen=True)
class Summary:
    """Seconds a call, over the rounds."""

    rounds: int
    median_seconds: float
    lower_quartile_seconds: float
    upper_quartile_seconds: float
    spread: float  # between the quartiles, as a share of the median
    unsteady: bool  # whether the spread is too wide to trust the median
    starved: bool  # whether it is so wide that other programs must have had the processors


def summarize(seconds: Sequence[float]) -> Summary:
    """Median and quartiles, the latter interpolated as NumPy does by default."""
    lower, median, upper = (float(x) for x in np.percentile(seconds, [25, 50, 75]))
    spread = (upper - lower) / median
    return Summary(len(seconds), median, lower, upper, spread, spread > _UNSTEADY, spread > _STARVED)


@dataclass(frozen=True)
class Latency:
    """Seconds of single calls. A percentile that no call would lie beyond is None."""

    calls: int
    p50_seconds: float | None
    p95_seconds: float | None
    p99_seconds: float | None


def latency(seconds: Sequence[float]) -> Latency:
    """The percentiles of all calls, whatever round they were in: what a user meets is the disturbed ones too."""
    calls = len(seconds)
    known = [float(np.percentile(seconds, p)) if calls * (100 - p) >= 100 else None for p in (50, 95, 99)]
    return Latency(calls, *known)


@dataclass(frozen=True)
class Ratio:
    """One speed divided by another, with a 95 % interval; it is 0 to infinity where there are too few rounds."""

    ratio: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        """Half of the interval, as a share of the ratio."""
        return (self.high - self.low) / 2 / self.ratio

    @property
    def noise(self) -> float:
        """The distance from 1 that the interval allows; of the same thing measured twice, the floor of noise."""
        return max(1 - self.low, self.high - 1)

    @property
    def difference_shown(self) -> bool:
        """An interval that holds 1 shows none."""
        return not self.low <= 1 <= self.high

    @property
    def interval(self) -> str:
        """``1.38 to 1.45``."""
        return f"{self.low:.2f} to {self.high:.2f}" if math.isfinite(self.high) else f"unknown below {LEAST} rounds"

    def __str__(self) -> str:
        """``1.42 times as fast (1.38 to 1.45)``, or that no difference was shown."""
        if self.difference_shown:
            return f"{self.ratio:.2f} times as fast ({self.interval})"
        return f"no difference shown ({self.interval})"


def speed_ratio(seconds: Sequence[float], others: Sequence[float]) -> Ratio:
    """The other's time over this one's, of two that were measured in the same rounds.

    What disturbs the machine for a whole round disturbs both, and leaves their ratio in that round as it is. Ratio and
    interval are those of Wilcoxon's signed ranks, of the logarithms: they ask only that a ratio is as likely to be too
    large as too small, and a round in which other programs ran hardly moves them. Source: Hollander and Wolfe 1999,
    Nonparametric Statistical Methods, sections 3.2 and 3.3.

    Args:
        seconds: Seconds a call, one for each round.
        others: The other's. Rounds that only one of them has are left out.
    """
    n = min(len(seconds), len(others))
    ratios = np.log(others[:n]) - np.log(seconds[:n])
    first, second = np.triu_indices(n)
    averages = (ratios[first] + ratios[second]) / 2
    return _ratio(averages, n, n * (n + 1) / 4, math.sqrt(n * (n + 1) * (2 * n + 1) / 24))


def speed_change(seconds: Sequence[float], before: Sequence[float]) -> Ratio:
    """The time before over the time now, of two that were measured in different runs.

    The interval is that of the Wilcoxon-Mann-Whitney test of the logarithms. It knows the noise within each run, and
    nothing of what may have changed the machine between them. Source: Hollander and Wolfe 1999, sections 4.2 and 4.3.
    """
    n, m = len(seconds), len(before)
    differences = np.log(before)[:, None] - np.log(seconds)
    return _ratio(differences.ravel(), min(n, m), n * m / 2, math.sqrt(n * m * (n + m + 1) / 12))


def _ratio(estimates: Array, rounds: int, mean: float, deviation: float) -> Ratio:
    """The median of the estimates (logarithms), and the ranks that the normal approximation of their test leaves.

    From five rounds on its ranks are those of the exact distribution or one beside them.
    """
    ordered = np.sort(estimates)
    middle = math.exp(np.median(ordered))
    if rounds < LEAST:
        return Ratio(middle, 0.0, math.inf)
    cut = math.floor(mean - _Z * deviation)
    return Ratio(middle, math.exp(ordered[cut]), math.exp(ordered[-1 - cut]))
