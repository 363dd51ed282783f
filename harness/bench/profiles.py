"""Where the time goes: every stage of one backend, forward and backward, each timed alone, in turns."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

import spec
from harness.agreement import finite
from harness.bench.candidates import Candidate
from harness.bench.crew import Died
from harness.bench.proof import BATCH, Check, Referee
from harness.bench.record import SCHEMA
from harness.bench.roofline import stage_flops
from harness.bench.statistics import summarize
from harness.bench.turns import Heard, Hire, enough, hired, refuted, warm_up

_MEASUREMENT = 0.05  # seconds, at least: there are some forty things to measure


@dataclass
class Stage:
    """Seconds a call, of every round."""

    name: str
    forward: list[float] = field(default_factory=list)
    both: list[float] = field(default_factory=list)  # forward, and the gradients
    calls: tuple[int, int] = (1, 1)  # in a measurement of each

    @property
    def forward_seconds(self) -> float:
        """By the median."""
        return summarize(self.forward).median

    @property
    def backward_seconds(self) -> float:
        """The median of both less that of the forward pass, which can come out as less than nothing by noise."""
        return summarize(self.both).median - self.forward_seconds


@dataclass
class Profile:
    """A whole profile."""

    config: spec.Config
    size: int  # pixels
    candidate: Candidate
    rounds: int
    seed: int
    stages: list[Stage] = field(default_factory=list)
    proof: list[Check] = field(default_factory=list)
    about: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    problem: str | None = None
    complete: bool = False

    @property
    def passed(self) -> bool:
        """Whether the backend was proven and every round is there."""
        return self.complete and self.problem is None

    def measured(self) -> list[Stage]:
        """The stages with at least one round."""
        return [stage for stage in self.stages if stage.forward and stage.both]

    def rows(self) -> list[dict[str, Any]]:
        """For each stage its seconds, its share of all, and operations a second."""
        flops = stage_flops(self.config, self.size, self.candidate.batch)
        total = sum(summarize(stage.both).median for stage in self.measured())
        return [
            {
                "stage": stage.name,
                "forward_seconds": stage.forward_seconds,
                "backward_seconds": stage.backward_seconds,
                "share": (stage.forward_seconds + stage.backward_seconds) / total,
                "forward_flops_per_second": _rate(flops[stage.name], stage.forward_seconds),
                "backward_flops_per_second": _rate(2 * flops[stage.name], stage.backward_seconds),
                "unsteady": summarize(stage.forward).unsteady or summarize(stage.both).unsteady,
                "samples": {"forward": stage.forward, "both": stage.both},
            }
            for stage in self.measured()
        ]

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        value = {
            "schema": SCHEMA,
            "kind": "profile",
            "complete": self.complete,
            "passed": self.passed,
            "settings": {
                "backend": self.candidate.backend,
                "preset": self.config.preset,
                "heads": self.config.aux,
                "input": [self.config.in_channels, self.size, self.size],
                "batch": self.candidate.batch,
                "dtype": self.candidate.dtype,
                "rounds": self.rounds,
                "seed": self.seed,
            },
            **self.about,
            "warnings": self.warnings,
            "proof": [{**asdict(check), "passed": check.passed} for check in self.proof],
            "stages": self.rows(),
            "problem": self.problem,
        }
        cleaned: dict[str, Any] = finite(value)
        return cleaned


def _rate(flops: int, seconds: float) -> float | None:
    return flops / seconds if flops and seconds > 0 else None


def profile(
    found: Profile,
    referee: Referee,
    hire: Hire,
    *,
    heard: Heard = lambda text, done, total: None,
) -> None:
    """Fill the profile: proven first, then every stage's two calls once a round, in an order drawn anew.

    Ctrl-C ends it; what was measured stays.
    """
    try:
        _profile(found, referee, hire, heard)
        found.complete = True
    except spec.InvalidInput as refusal:
        found.problem = str(refusal)
    except Died as death:
        found.problem = f"the process died: {death}"
    except KeyboardInterrupt:
        found.warnings.append("interrupted: not everything was measured")


def _profile(found: Profile, referee: Referee, hire: Hire, heard: Heard) -> None:
    candidate = found.candidate
    total = 2 + found.rounds
    heard("held against the referee", 0, total)
    with hired(hire, candidate.program) as worker:
        worker.ask("begin")
        arrays = worker.ask("prove", images=str(referee.file(BATCH)), tasks=["infer", "train"])["arrays"]
    found.proof = referee.judge(arrays, ["infer", "train"], candidate.dtype)
    found.problem = refuted(found.proof)
    if found.problem is not None:
        return
    with hired(hire, candidate) as worker:
        heard("warming up", 1, total)
        worker.ask("begin")
        names = worker.ask("stages", images=str(referee.file(candidate.batch)))["stages"]
        found.stages = [Stage(name) for name in names]

        def measure(index: int, backward: bool, calls: int) -> float:
            return float(worker.ask("stage", index=index, backward=backward, calls=calls)["seconds"])

        for index, stage in enumerate(found.stages):
            forward, both = (
                warm_up(lambda calls, i=index, b=backward: measure(i, b, calls), _MEASUREMENT)[0][-1]  # type: ignore[misc]
                for backward in (False, True)
            )
            stage.calls = enough(forward, _MEASUREMENT), enough(both, _MEASUREMENT)
        random = np.random.default_rng(found.seed)
        for number in range(found.rounds):
            heard(f"round {number + 1} of {found.rounds}", 2 + number, total)
            for turn in random.permutation(2 * len(found.stages)):
                index, backward = divmod(int(turn), 2)
                stage = found.stages[index]
                calls = stage.calls[backward]
                seconds = measure(index, bool(backward), calls) / calls
                (stage.both if backward else stage.forward).append(seconds)


def render(found: Profile, console: Console) -> None:
    """Print the stages down, and what each takes across."""
    c = found.candidate
    text = f"{c.backend}, {found.config.preset}, {found.size} x {found.size}, batch {c.batch}, {c.dtype}"
    console.print(Text(f"{text}, {found.rounds} rounds", style="bold"), soft_wrap=True)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("stage")
    wide = console.width >= 72
    for name in ("forward ms", "backward ms", "share", *(("GFLOP/s", "backward") if wide else ())):
        table.add_column(name, justify="right", no_wrap=True)
    rows = found.rows()
    for row in rows:
        speeds = [_giga(row[f"{way}_flops_per_second"]) for way in ("forward", "backward")]
        cells = [f"{1000 * row[f'{way}_seconds']:,.4g}" for way in ("forward", "backward")]
        table.add_row(
            row["stage"] + (" !" if row["unsteady"] else ""), *cells, f"{row['share']:.1%}", *speeds[: 2 * wide]
        )
    if rows:
        sums = [f"{1000 * sum(row[f'{way}_seconds'] for row in rows):,.4g}" for way in ("forward", "backward")]
        table.add_section()
        table.add_row("all", *sums, "", *[""] * 2 * wide)
        console.print(table)
        console.print(
            Text("backward: both together, less the forward pass alone. !: the spread is over 10 %", style="dim")
        )
    if found.problem is not None:
        console.print(Text(found.problem, style="red"), soft_wrap=True)
    for warning in found.warnings:
        console.print(Text(f"warning: {warning}", style="yellow"), soft_wrap=True)


def _giga(value: float | None) -> str:
    return "" if value is None else f"{value / 1e9:.3g}"
