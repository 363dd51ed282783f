"""Time to accuracy: every backend trains with several seeds until its test accuracy reaches a target.

A training is that of `googlenet train`, in a process of its own. The clock runs from the start of the process to the
end of the evaluation that finds the target reached: importing, compiling, evaluations and checkpoints are all in. There
is one evaluation an epoch, so the seconds come in steps of an epoch's length.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from harness.agreement import finite
from harness.backends.process import Answer, scratch_folder
from harness.bench.analysis.statistics import Ratio, speed_ratio
from harness.bench.candidates import Candidate
from harness.bench.process import Died, StartProcess
from harness.bench.proof import Check, Referee, refutation
from harness.bench.record import Report
from harness.bench.rounds import Progress, computed, no_progress
from harness.training.runs import Settings
from spec import InvalidInput


@dataclass
class Trial:
    """One training."""

    seed: int
    turn: int  # place in the round
    accuracies: list[float] = field(default_factory=list)  # on the test images, after each epoch
    ends: list[float] = field(default_factory=list)  # seconds from the start to the end of that epoch's evaluation
    reached: bool = False
    diverged: str | None = None  # why it ended early

    @property
    def seconds(self) -> float:
        """Until the target was reached; infinite where it never was."""
        return self.ends[-1] if self.reached else math.inf


@dataclass(eq=False)
class Contender:
    """One backend in one dtype."""

    candidate: Candidate
    proof: list[Check] = field(default_factory=list)
    trials: list[Trial] = field(default_factory=list)
    problem: str | None = None

    @property
    def reached(self) -> list[Trial]:
        """The trainings that reached the target."""
        return [trial for trial in self.trials if trial.reached]

    @property
    def median_seconds(self) -> float:
        """A training that never reached the target took longer than any other."""
        return median(trial.seconds for trial in self.trials)

    def over(self, other: Contender) -> Ratio | None:
        """Its speed over the other's, seed by seed; None unless both always reached the target."""
        own, theirs = ([trial.seconds for trial in one.trials] for one in (self, other))
        always = own and len(own) == len(theirs) and max(*own, *theirs) < math.inf
        return speed_ratio(own, theirs) if always else None


@dataclass
class Accuracy(Report):
    """All trainings; a round is one seed, with which every contender trains once, in a new random order."""

    settings: Settings  # of the first seed, in the first dtype
    recipe: str  # its name
    target: float
    contenders: list[Contender]

    @property
    def passed(self) -> bool:
        """Whether every contender was proven and trained as often as asked, whether it reached the target or not."""
        return self.complete and all(contender.problem is None for contender in self.contenders)

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        settings = self.settings
        chosen = {"recipe": self.recipe, "target": self.target, "data": settings.data, "batch": settings.recipe.batch}
        chosen |= {"epochs": settings.recipe.epochs, "train_images": settings.train_images}
        rows = [self._row(contender) for contender in self.contenders]
        value: dict[str, Any] = finite(
            {**self.header("accuracy", **chosen, test_images=settings.test_images), "rows": rows}
        )
        return value

    def _row(self, contender: Contender) -> dict[str, Any]:
        ratio = contender.over(self.contenders[0]) if contender is not self.contenders[0] else None
        return {
            "backend": contender.candidate.backend,
            "dtype": contender.candidate.dtype,
            "proof": [check.as_json() for check in contender.proof],
            "trials": [{**asdict(trial), "seconds": trial.seconds} for trial in contender.trials],
            "reached": len(contender.reached),
            "median_seconds": contender.median_seconds if contender.trials else None,
            "ratio_to_first": asdict(ratio) if ratio else None,
            "problem": contender.problem,
        }


class _Reached(Exception):
    """Ends a training, of which no more is asked."""


@dataclass
class Trainings:
    """The procedure for one `Accuracy`."""

    report: Accuracy
    dataset: Path  # folder of the prepared images
    settings: Callable[[int, str], Settings]  # of a seed and a dtype
    referee: Referee
    start: StartProcess  # of the proofs
    run: Callable[..., Answer]  # `harness.backends.process.run_worker`
    pythons: Mapping[str, str]  # interpreter by backend
    clock: Callable[[], float] = time.monotonic  # seconds
    progress: Progress = no_progress

    def go(self) -> None:
        """Prove every contender, then train. What cannot be proven or trained says why, and the others go on.

        Ctrl-C ends it: what was trained stays in the report, which is then not complete.
        """
        try:
            self._go()
            self.report.complete = True
        except KeyboardInterrupt:
            self.report.warnings.append("interrupted: not everything was trained")

    def _go(self) -> None:
        report = self.report
        self.total = report.rounds * len(report.contenders) * report.settings.steps
        for contender in report.contenders:
            self.progress(f"{contender.candidate.label}: held against the referee", 0, self.total)
            self._prove(contender)
        random = np.random.default_rng(report.seed)
        for number in range(report.rounds):
            for turn, i in enumerate(random.permutation(len(report.contenders))):
                if report.contenders[i].problem is None:
                    self._train(report.contenders[i], Trial(report.seed + number, turn))

    def _prove(self, contender: Contender) -> None:
        tasks = ["infer", "train"]
        try:
            arrays = computed(contender.candidate.program, tasks, self.referee, self.start)
        except (InvalidInput, Died) as error:
            contender.problem = str(error)
        else:
            contender.proof = self.referee.judge(arrays, tasks, contender.candidate.dtype)
            contender.problem = refutation(contender.proof)

    def _train(self, contender: Contender, trial: Trial) -> None:
        """Train until the target is reached or the recipe ends."""
        report, candidate = self.report, contender.candidate
        settings = self.settings(trial.seed, candidate.dtype)
        number = trial.seed - report.seed
        before = (number * len(report.contenders) + trial.turn) * settings.steps

        def tell(step: int) -> None:
            last = f", accuracy {trial.accuracies[-1]:.4f} after epoch {len(trial.ends)}" if trial.ends else ""
            name = f"seed {number + 1} of {report.rounds}, {candidate.label} {candidate.dtype}"
            self.progress(name + last, before + step, self.total)

        def listen(message: dict[str, Any]) -> None:
            if message["event"] == "progress":
                tell(message["step"])
            elif message["event"] == "record" and message["record"]["kind"] == "epoch":
                trial.ends.append(self.clock() - began)
                trial.accuracies.append(message["record"]["test_accuracy"])
                tell(message["record"]["step"])
                if trial.accuracies[-1] >= report.target:
                    raise _Reached

        tell(0)
        with scratch_folder() as folder:
            task: dict[str, Any] = {"kind": "train", "folder": str(folder / "run"), "start": None, "devices": 1}
            task |= {"settings": settings.as_json(), "dataset": str(self.dataset), "stop_after": None}
            began = self.clock()
            try:
                answer = self.run(candidate.backend, task, {}, self.pythons[candidate.backend], listen)
            except _Reached:
                trial.reached = True
                answer = Answer({"complete": True})
        contender.problem = answer.refused or answer.crash
        trial.diverged = answer.facts.get("diverged")
        if contender.problem is None and trial.diverged is None and not answer.facts["complete"]:
            raise KeyboardInterrupt
        if contender.problem is None:
            contender.trials.append(trial)
