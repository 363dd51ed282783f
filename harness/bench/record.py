"""A benchmark as data: what was measured, row by row, and under which conditions. docs/bench-schema.md describes it."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

import spec
from harness.agreement import finite
from harness.bench.candidates import Candidate
from harness.bench.proof import Check
from harness.bench.roofline import machine_of, work
from harness.bench.statistics import Ratio, Summary, speed_ratio, summarize

SCHEMA = 1


@dataclass(frozen=True)
class Sample:
    """One measurement."""

    round: int
    turn: int  # place in the round
    at: float  # seconds since the start of the benchmark
    seconds: float  # a call
    busy_threads: int | None


@dataclass
class Row:
    """One candidate; None is what was not reached."""

    candidate: Candidate
    framework: str | None = None
    version: str | None = None
    device: str | None = None
    threads: int | None = None  # as the framework says
    proof: list[Check] = field(default_factory=list)
    import_seconds: float | None = None
    build_seconds: float | None = None
    first_call_seconds: float | None = None
    warm_up: list[float] = field(default_factory=list)  # seconds a call
    warm: bool | None = None  # whether the last two of these were alike
    calls: int | None = None  # in a measurement
    samples: list[Sample] = field(default_factory=list)
    peak_memory: int | None = None  # bytes
    last_loss: float | None = None
    problem: str | None = None

    @property
    def seconds(self) -> list[float]:
        """A call, of every round."""
        return [sample.seconds for sample in self.samples]

    @property
    def summary(self) -> Summary | None:
        """What the rounds say; None without any."""
        return summarize(self.seconds) if self.samples else None

    @property
    def images_per_second(self) -> float | None:
        """By the median."""
        return self.candidate.batch / self.summary.median if self.summary else None

    @property
    def busy_threads(self) -> int | None:
        """The most in any round."""
        return max((s.busy_threads for s in self.samples if s.busy_threads is not None), default=None)


@dataclass(frozen=True)
class Comparison:
    """Two rows that took turns with each other."""

    ours: Row
    theirs: Row
    ratio: Ratio

    def __str__(self) -> str:
        """``pt tuned, train, batch 32, float32: 1.42 times as fast (1.38 to 1.45) as pt textbook``."""
        ours, theirs = self.ours.candidate, self.theirs.candidate
        alike = (ours.dtype, ours.pipeline) == (theirs.dtype, theirs.pipeline)
        return f"{ours}: {self.ratio} {'as' if self.ratio.shown else 'from'} {theirs.label if alike else theirs}"


@dataclass
class Record:
    """A whole benchmark."""

    config: spec.Config
    size: int  # pixels
    rounds: int
    seed: int  # of the order of turns, and of the bootstrap
    rows: list[Row]
    about: dict[str, Any] = field(default_factory=dict)  # command, code, environment: what the measuring does not need
    peaks: list[dict[str, Any]] = field(default_factory=list)  # backend, dtype, name, per_second
    warnings: list[str] = field(default_factory=list)
    complete: bool = False

    @property
    def passed(self) -> bool:
        """Whether every row was proven and measured."""
        return self.complete and all(row.problem is None for row in self.rows)

    def comparisons(self) -> list[Comparison]:
        """Each variant with the textbook of its backend, and each row with the first that took turns with it."""
        found = []
        for i, row in enumerate(self.rows):
            c = row.candidate
            peers = [r for r in self.rows[:i] if (r.candidate.task, r.candidate.batch) == (c.task, c.batch)]
            alike = [r for r in peers if (r.candidate.dtype, r.candidate.pipeline) == (c.dtype, c.pipeline)]
            textbook = [r for r in alike if (r.candidate.backend, r.candidate.variant) == (c.backend, "textbook")]
            for other in dict.fromkeys(map(id, [*textbook[:1], *peers[:1]])):
                theirs = next(r for r in peers if id(r) == other)
                if row.samples and theirs.samples:
                    found.append(Comparison(row, theirs, speed_ratio(row.seconds, theirs.seconds, self.seed)))
        return found

    def work(self, row: Row) -> dict[str, float | None] | None:
        """What a row achieves, beside what the machine could do; None without measurements."""
        if row.summary is None:
            return None
        c = row.candidate
        cost = work(self.config, self.size, c.task, c.batch, c.dtype)
        machine = machine_of(self.peaks)
        speed, peak = cost.flops / row.summary.median, machine.flops.get(c.dtype)
        roof = machine.roof(cost.intensity, c.dtype)
        return {
            "flops_per_call": cost.flops,
            "bytes_per_call": cost.bytes,
            "intensity": cost.intensity,
            "flops_per_second": speed,
            "share_of_peak": None if peak is None else speed / peak,
            "share_of_roof": None if roof is None else speed / roof,
        }

    def as_json(self) -> dict[str, Any]:
        """Plain values; what is not finite is null, since JSON has no infinity."""
        machine = machine_of(self.peaks)
        value = {
            "schema": SCHEMA,
            "kind": "bench",
            "complete": self.complete,
            "passed": self.passed,
            "settings": {
                "preset": self.config.preset,
                "heads": self.config.aux,
                "input": [self.config.in_channels, self.size, self.size],
                "rounds": self.rounds,
                "seed": self.seed,
            },
            **self.about,
            "warnings": self.warnings,
            "peaks": self.peaks,
            "machine": {"flops_per_second": dict(machine.flops), "bytes_per_second": machine.bandwidth},
            "rows": [self._row(row) for row in self.rows],
            "ratios": [
                {
                    "row": self.rows.index(found.ours),
                    "than": self.rows.index(found.theirs),
                    "ratio": found.ratio.ratio,
                    "low": found.ratio.low,
                    "high": found.ratio.high,
                    "difference_shown": found.ratio.shown,
                    "text": str(found),
                }
                for found in self.comparisons()
            ],
        }
        cleaned: dict[str, Any] = finite(value)
        return cleaned

    def _row(self, row: Row) -> dict[str, Any]:
        summary = row.summary
        return {
            **asdict(row.candidate),
            "label": row.candidate.label,
            "framework": row.framework,
            "version": row.version,
            "device": row.device,
            "threads": row.threads,
            "busy_threads": row.busy_threads,
            "proof": [{**asdict(check), "passed": check.passed} for check in row.proof],
            "import_seconds": row.import_seconds,
            "build_seconds": row.build_seconds,
            "first_call_seconds": row.first_call_seconds,
            "warm_up": {"seconds": row.warm_up, "stable": row.warm},
            "calls": row.calls,
            "samples": [asdict(sample) for sample in row.samples],
            "statistics": None
            if summary is None
            else {
                "rounds": summary.rounds,
                "median_seconds": summary.median,
                "lower_quartile_seconds": summary.lower,
                "upper_quartile_seconds": summary.upper,
                "spread": summary.spread,
                "unsteady": summary.unsteady,
                "images_per_second": row.images_per_second,
            },
            "work": self.work(row),
            "peak_memory_bytes": row.peak_memory,
            "last_loss": row.last_loss,
            "problem": row.problem,
        }


def is_finite(loss: float | None) -> bool:
    """Whether a loss, if there is one, is a number."""
    return loss is None or math.isfinite(loss)
