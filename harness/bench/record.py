"""A benchmark as data: what was measured, row by row, and under which conditions. docs/bench-schema.md describes it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import spec
from harness.agreement import finite
from harness.bench.analysis.roofline import Machine, machine_of, work
from harness.bench.analysis.statistics import PRECISION, Latency, Ratio, Summary, latency, speed_ratio, summarize
from harness.bench.candidates import Candidate
from harness.bench.proof import Check

if TYPE_CHECKING:
    from harness.bench.analysis.changes import Changes

SCHEMA = 2


@dataclass(frozen=True)
class Sample:
    """One measurement."""

    round: int
    turn: int  # place in the round
    at: float  # seconds since the start of the benchmark
    seconds: float  # a call
    busy_threads: int | None


@dataclass(frozen=True)
class WarmUp:
    """The measurements before the rounds."""

    seconds: list[float] = field(default_factory=list)  # a call
    stable: bool | None = None  # whether the last two were alike


@dataclass(eq=False)
class Row:
    """One candidate; None stands for what was not reached."""

    candidate: Candidate
    framework: str | None = None
    version: str | None = None
    device: str | None = None
    threads: int | None = None  # by the framework's own word
    proof: list[Check] = field(default_factory=list)
    import_seconds: float | None = None
    build_seconds: float | None = None
    first_call_seconds: float | None = None
    warm_up: WarmUp = field(default_factory=WarmUp)
    calls: int | None = None  # in a measurement
    samples: list[Sample] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)  # seconds of every call, where an answer is waited for
    peak_memory_bytes: int | None = None
    last_loss: float | None = None
    problem: str | None = None

    @property
    def seconds(self) -> list[float]:
        """Seconds a call, of every round."""
        return [sample.seconds for sample in self.samples]

    @property
    def summary(self) -> Summary:
        """Median and quartiles of the rounds, of which there must be one."""
        return summarize(self.seconds)

    @property
    def latency(self) -> Latency | None:
        """How long single calls took; None but for inference of one image."""
        return latency(self.latencies) if self.latencies else None

    @property
    def cold_start_seconds(self) -> float | None:
        """Importing the framework, building the network and the first call."""
        parts = (self.import_seconds, self.build_seconds, self.first_call_seconds)
        return None if None in parts else sum(part or 0.0 for part in parts)

    @property
    def error(self) -> float | None:
        """The largest relative error that its proof found; None where there is none."""
        return max((check.error for check in self.proof), default=None)

    @property
    def images_per_second(self) -> float:
        """By the median."""
        return self.candidate.batch / self.summary.median_seconds

    @property
    def busy_threads(self) -> int | None:
        """The most in any round."""
        return max((s.busy_threads for s in self.samples if s.busy_threads is not None), default=None)


@dataclass(frozen=True)
class Comparison:
    """Two rows that were measured in the same rounds."""

    row: Row
    other: Row
    ratio: Ratio | None  # None where the machine was too busy

    @property
    def than(self) -> str:
        """The other row's name beside this one's."""
        candidate, other = self.row.candidate, self.other.candidate
        alike = (candidate.dtype, candidate.pipeline) == (other.dtype, other.pipeline)
        return other.label if alike else str(other)

    @property
    def starved(self) -> str:
        """Why no ratio is made of the rounds: ``the machine was busy: pt tuned in float32 took 0.2 to 31 s a call``."""
        took = []
        for row in (self.row, self.other):
            if row.summary.starved:
                name = f"{row.candidate.label} in {row.candidate.dtype}"
                took.append(f"{name} took {min(row.seconds):.2g} to {max(row.seconds):.2g} s a call")
        return f"the machine was busy: {', '.join(took)}"

    def __str__(self) -> str:
        """``pt tuned, train, batch 32, float32: 1.42 times as fast (1.38 to 1.45) as pt textbook``."""
        if self.ratio is None:
            return f"{self.row.candidate}: not measured against {self.than}, {self.starved}"
        preposition = "as" if self.ratio.difference_shown else "from"
        return f"{self.row.candidate}: {self.ratio} {preposition} {self.than}"


def compared(row: Row, other: Row) -> Comparison:
    """Two measured rows of one task and batch."""
    starved = row.summary.starved or other.summary.starved
    return Comparison(row, other, None if starved else speed_ratio(row.seconds, other.seconds))


@dataclass
class Report:
    """The part that a benchmark and a profile share."""

    config: spec.Config
    size: int  # pixels
    rounds: int
    seed: int  # of weights and order
    about: dict[str, Any] = field(default_factory=dict, kw_only=True)  # command, code, environment, before, after
    warnings: list[str] = field(default_factory=list, kw_only=True)
    complete: bool = field(default=False, kw_only=True)

    @property
    def passed(self) -> bool:
        """Whether everything was proven and measured."""
        raise NotImplementedError

    def header(self, kind: str, **settings: Any) -> dict[str, Any]:
        """The first keys of the JSON form; `settings` are those that only this kind has."""
        return {
            "schema": SCHEMA,
            "kind": kind,
            "complete": self.complete,
            "passed": self.passed,
            "settings": {
                **settings,
                "preset": self.config.preset,
                "heads": self.config.aux,
                "input": [self.config.in_channels, self.size, self.size],
                "rounds": self.rounds,
                "seed": self.seed,
            },
            **self.about,
            "warnings": self.warnings,
        }


@dataclass
class Record(Report):
    """A whole benchmark."""

    rows: list[Row]
    minutes: float = 0.0  # the budget for more rounds than asked for
    peaks: list[dict[str, Any]] = field(default_factory=list)  # backend, dtype, name, per_second
    changes: Changes | None = None  # since an earlier benchmark

    @property
    def passed(self) -> bool:
        """Whether every row was proven and measured."""
        return self.complete and all(row.problem is None for row in self.rows)

    @property
    def machine(self) -> Machine:
        """The best of the peaks."""
        return machine_of(self.peaks)

    def groups(self) -> dict[tuple[str, int], list[Row]]:
        """The rows by task and batch: those that are measured together."""
        groups: dict[tuple[str, int], list[Row]] = {}
        for row in self.rows:
            groups.setdefault((row.candidate.task, row.candidate.batch), []).append(row)
        return groups

    def comparisons(self, rows: Sequence[Row] | None = None) -> list[Comparison]:
        """Each variant with its backend's textbook, and each row with the first of its task and batch.

        A twin is compared with its original only.

        Args:
            rows: Those to compare; all where there are none.
        """
        rows = self.rows if rows is None else rows
        comparisons = []
        for i, row in enumerate(rows):
            c = row.candidate
            peers = [r for r in rows[:i] if (r.candidate.task, r.candidate.batch) == (c.task, c.batch)]
            alike = [r for r in peers if (r.candidate.dtype, r.candidate.pipeline) == (c.dtype, c.pipeline)]
            textbook = [r for r in alike if (r.candidate.backend, r.candidate.variant) == (c.backend, "textbook")]
            original = [r for r in peers if r.candidate == replace(c, again=False)]
            others = original if c.again else [*textbook[:1], *peers[:1]]
            for other in dict.fromkeys(others):
                if row.samples and other.samples:
                    comparisons.append(compared(row, other))
        return comparisons

    def uncertainty(self, rows: Sequence[Row]) -> float:
        """The largest half-width of the ratios of these rows, those left out that have a problem.

        It is infinite while one of them is not known, and 0 where nothing is compared.
        """
        ratios = [found.ratio for found in self.comparisons([row for row in rows if row.problem is None])]
        return max((math.inf if ratio is None else ratio.half_width for ratio in ratios), default=0.0)

    def work(self, row: Row) -> dict[str, float | None] | None:
        """A row's operations a second, and their share of the machine's peak and roof; None without measurements."""
        if not row.samples:
            return None
        c = row.candidate
        cost = work(self.config, self.size, c.task, c.batch, c.dtype)
        machine = self.machine
        speed = cost.flops / row.summary.median_seconds
        peak = machine.flops.get(c.dtype)
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
        """Plain values; a number that is not finite is null, since JSON has no infinity."""
        machine = self.machine
        value: dict[str, Any] = finite(
            {
                **self.header("bench", minutes=self.minutes, precision=PRECISION),
                "peaks": self.peaks,
                "machine": {"flops_per_second": dict(machine.flops), "bytes_per_second": machine.bandwidth},
                "rows": [self._row(row) for row in self.rows],
                "ratios": [
                    {
                        "row": self.rows.index(comparison.row),
                        "than": self.rows.index(comparison.other),
                        **(asdict(ratio) if ratio else dict.fromkeys(("ratio", "low", "high"))),
                        "difference_shown": ratio is not None and ratio.difference_shown,
                        "text": str(comparison),
                    }
                    for comparison in self.comparisons()
                    for ratio in [comparison.ratio]
                ],
                "against": self.changes and self.changes.as_json(),
            }
        )
        return value

    def _row(self, row: Row) -> dict[str, Any]:
        fields = asdict(row)
        del fields["latencies"]
        statistics = {**asdict(row.summary), "images_per_second": row.images_per_second} if row.samples else None
        return {
            **fields.pop("candidate"),
            "label": row.candidate.label,
            **fields,
            "busy_threads": row.busy_threads,
            "cold_start_seconds": row.cold_start_seconds,
            "proof": [check.as_json() for check in row.proof],
            "error": row.error,
            "statistics": statistics,
            "latency": asdict(row.latency) if row.latency else None,
            "work": self.work(row),
        }
