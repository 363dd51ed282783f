"""What a handful of measurements says, and what it does not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

UNSTEADY = 0.10  # of the median: a wider spread is said
_RESAMPLES = 10_000
_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Summary:
    """Seconds a call, over the rounds."""

    median: float
    lower: float  # quartile
    upper: float  # quartile
    rounds: int

    @property
    def spread(self) -> float:
        """The distance between the quartiles, as a share of the median."""
        return (self.upper - self.lower) / self.median

    @property
    def unsteady(self) -> bool:
        """Whether the spread is too wide to take the median at its word."""
        return self.spread > UNSTEADY


def summarize(seconds: Sequence[float]) -> Summary:
    """Median and quartiles, the latter interpolated as NumPy does by default."""
    lower, median, upper = (float(x) for x in np.percentile(seconds, [25, 50, 75]))
    return Summary(median, lower, upper, len(seconds))


@dataclass(frozen=True)
class Ratio:
    """How many times as fast one is as another, and a 95 % interval of that."""

    ratio: float
    low: float
    high: float

    @property
    def shown(self) -> bool:
        """Whether a difference was shown: an interval that holds 1 shows none."""
        return not self.low <= 1 <= self.high

    def __str__(self) -> str:
        """``1.42 times as fast (1.38 to 1.45)``, or that no difference was shown."""
        interval = f"({self.low:.2f} to {self.high:.2f})"
        return f"{self.ratio:.2f} times as fast {interval}" if self.shown else f"no difference shown {interval}"


def speed_ratio(ours: Sequence[float], theirs: Sequence[float], seed: int) -> Ratio:
    """Median of `theirs` over median of `ours`, with a percentile bootstrap over the rounds.

    A round is drawn as a whole: what disturbed the machine during it disturbed both. Source: Efron and Tibshirani 1993,
    An Introduction to the Bootstrap, chapter 13.

    Args:
        ours: Seconds a call, one for each round.
        theirs: The same of the other; rounds that only one of them has are left out.
        seed: Of the drawing.
    """
    rounds = min(len(ours), len(theirs))
    a, b = np.array(ours[:rounds]), np.array(theirs[:rounds])
    drawn = np.random.default_rng(seed).integers(0, rounds, (_RESAMPLES, rounds))
    ratios = np.median(b[drawn], axis=1) / np.median(a[drawn], axis=1)
    low, high = (float(x) for x in np.quantile(ratios, [(1 - _CONFIDENCE) / 2, (1 + _CONFIDENCE) / 2]))
    return Ratio(float(np.median(b) / np.median(a)), low, high)
