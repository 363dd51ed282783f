"""A profile: every stage of one backend, forward and with gradients, each timed alone."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from harness.agreement import finite
from harness.bench.analysis.roofline import stage_flops
from harness.bench.analysis.statistics import summarize
from harness.bench.candidates import Candidate
from harness.bench.process import Died, Process, StartProcess
from harness.bench.proof import Check, Referee, refutation
from harness.bench.record import Report
from harness.bench.rounds import Progress, computed, enough, no_progress, warm_up
from spec import InvalidInput

_MEASUREMENT = 0.05  # seconds, at least: there are some forty calls to measure


@dataclass
class Stage:
    """Seconds a call, of every round."""

    name: str
    forward: list[float] = field(default_factory=list)
    both: list[float] = field(default_factory=list)  # forward, and the gradients

    @property
    def forward_seconds(self) -> float:
        """By the median."""
        return summarize(self.forward).median_seconds

    @property
    def backward_seconds(self) -> float:
        """The median of both less that of the forward pass; noise can make it negative."""
        return summarize(self.both).median_seconds - self.forward_seconds


@dataclass
class Profile(Report):
    """A whole profile."""

    candidate: Candidate
    stages: list[Stage] = field(default_factory=list)
    proof: list[Check] = field(default_factory=list)
    problem: str | None = None

    @property
    def passed(self) -> bool:
        """Whether the backend was proven and every round is there."""
        return self.complete and self.problem is None

    def rows(self) -> list[dict[str, Any]]:
        """For each stage with a round: its seconds, its share of all, and operations a second."""
        flops = stage_flops(self.config, self.size, self.candidate.batch)
        measured = [stage for stage in self.stages if stage.forward and stage.both]
        total = sum(summarize(stage.both).median_seconds for stage in measured)
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
            for stage in measured
        ]

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        candidate = self.candidate
        value: dict[str, Any] = finite(
            {
                **self.header("profile", backend=candidate.backend, batch=candidate.batch, dtype=candidate.dtype),
                "proof": [check.as_json() for check in self.proof],
                "stages": self.rows(),
                "problem": self.problem,
            }
        )
        return value


def _rate(flops: int, seconds: float) -> float | None:
    return flops / seconds if flops and seconds > 0 else None


def measure(profile: Profile, referee: Referee, start: StartProcess, *, progress: Progress = no_progress) -> None:
    """Fill the profile: prove the backend, then measure every stage's two calls once a round, in a random order.

    Ctrl-C ends it; what was measured stays.
    """
    try:
        _prove(profile, referee, start, progress)
        if profile.problem is None:
            with closing(start(profile.candidate)) as worker:
                _measure(profile, referee, worker, progress)
        profile.complete = True
    except (InvalidInput, Died) as error:
        profile.problem = str(error)
    except KeyboardInterrupt:
        profile.warnings.append("interrupted: not everything was measured")


def _prove(profile: Profile, referee: Referee, start: StartProcess, progress: Progress) -> None:
    tasks = ["infer", "train"]
    progress("held against the referee", 0, 2 + profile.rounds)
    arrays = computed(profile.candidate.program, tasks, referee, start)
    profile.proof = referee.judge(arrays, tasks, profile.candidate.dtype)
    profile.problem = refutation(profile.proof)


def _measure(profile: Profile, referee: Referee, worker: Process, progress: Progress) -> None:
    def seconds(index: int, backward: bool, calls: int) -> float:
        return float(worker.ask("stage", index=index, backward=backward, calls=calls)["seconds"])

    progress("warming up", 1, 2 + profile.rounds)
    worker.ask("begin")
    names = worker.ask("stages", images=str(referee.file(profile.candidate.batch)))["stages"]
    profile.stages = [Stage(name) for name in names]
    calls = {}
    for index in range(len(names)):
        for backward in (False, True):
            warm, _ = warm_up(lambda n, i=index, b=backward: seconds(i, b, n), _MEASUREMENT)  # type: ignore[misc]
            calls[index, backward] = enough(warm[-1], _MEASUREMENT)
    pairs = list(calls)
    random = np.random.default_rng(profile.seed)
    for number in range(profile.rounds):
        progress(f"round {number + 1} of {profile.rounds}", 2 + number, 2 + profile.rounds)
        for turn in random.permutation(len(pairs)):
            index, backward = pairs[turn]
            stage = profile.stages[index]
            samples = stage.both if backward else stage.forward
            samples.append(seconds(index, backward, calls[index, backward]) / calls[index, backward])
