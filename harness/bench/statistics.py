"""Summaries of a few measurements, and whether they show a difference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_UNSTEADY = 0.10  # a wider spread than this share of the median is marked
_STARVED = 0.50  # and beyond this one the median says nothing
_RESAMPLES = 10_000
_CONFIDENCE = 0.95


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
class Ratio:
    """One speed divided by another, with a 95 % interval."""

    ratio: float
    low: float
    high: float

    @property
    def difference_shown(self) -> bool:
        """An interval that holds 1 shows none."""
        return not self.low <= 1 <= self.high

    def __str__(self) -> str:
        """``1.42 times as fast (1.38 to 1.45)``, or that no difference was shown."""
        interval = f"({self.low:.2f} to {self.high:.2f})"
        if self.difference_shown:
            return f"{self.ratio:.2f} times as fast {interval}"
        return f"no difference shown {interval}"


def speed_ratio(seconds: Sequence[float], other_seconds: Sequence[float], seed: int) -> Ratio:
    """The other's median over this one's, with a percentile bootstrap over the rounds.

    A round is drawn as a whole: what disturbed the machine during it disturbed both. Source: Efron and Tibshirani 1993,
    An Introduction to the Bootstrap, chapter 13.

    Args:
        seconds: Seconds a call, one for each round.
        other_seconds: The other's. Rounds that only one of them has are left out.
        seed: Seed of the bootstrap.
    """
    rounds = min(len(seconds), len(other_seconds))
    a, b = np.array(seconds[:rounds]), np.array(other_seconds[:rounds])
    drawn = np.random.default_rng(seed).integers(0, rounds, (_RESAMPLES, rounds))
    ratios = np.median(b[drawn], axis=1) / np.median(a[drawn], axis=1)
    low, high = (float(x) for x in np.quantile(ratios, [(1 - _CONFIDENCE) / 2, (1 + _CONFIDENCE) / 2]))
    return Ratio(float(np.median(b) / np.median(a)), low, high)
