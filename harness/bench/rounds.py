"""The procedure: peaks, proofs, and then rounds in which every candidate is measured once, in a new random order.

The rounds go on until every ratio is known well enough, or the time is over.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace

import numpy as np

from harness.backends.registry import BACKENDS
from harness.bench.analysis.statistics import PRECISION
from harness.bench.candidates import Candidate
from harness.bench.process import Died, Process, StartProcess
from harness.bench.proof import BATCH, Referee, refutation
from harness.bench.record import Record, Row, Sample, WarmUp
from spec import Arrays, InvalidInput

MEASUREMENT = 0.3  # seconds, at least
_WARM_UPS = 10  # measurements, at most
_ALIKE = 0.1  # two measurements are alike that differ by less

Progress = Callable[[str, int, int], None]  # is told the present step, how many steps are done, and of how many


def no_progress(text: str, done: int, total: int) -> None:
    """Show nothing."""


@dataclass
class Benchmark:
    """The procedure for one record, which has a row for each candidate."""

    record: Record
    referee: Referee
    start: StartProcess
    clock: Callable[[], float] = time.monotonic  # seconds
    progress: Progress = no_progress

    def run(self) -> None:
        """Fill the rows. A row that cannot be proven or measured says why, and the others go on.

        Ctrl-C ends it: what was measured stays in the record, which is then not complete.
        """
        try:
            self._run()
            self.record.complete = True
        except KeyboardInterrupt:
            self.record.warnings.append("interrupted: not everything was measured")

    def _run(self) -> None:
        rows = self.record.rows
        programs = list(dict.fromkeys(row.candidate.program for row in rows))
        # A peak is a backend's: it does not depend on the variant.
        measurers = list(dict.fromkeys(replace(p, variant="tuned") for p in programs if p.backend in BACKENDS))
        self.random = np.random.default_rng(self.record.seed)
        self.started = self.clock()
        self.done = 0
        self.total = 2 * len(measurers) + len(programs) + len(rows) * (1 + self.record.rounds)
        for program in measurers:
            self._measure_peaks(program)
        for program in programs:
            self._prove(program)
        groups = list(self.record.groups().values())
        for number, group in enumerate(groups):
            self._time(group, left=len(groups) - number)
        for program in measurers:  # again: what disturbed the machine before may be over
            self._measure_peaks(program)

    def _step(self, text: str) -> None:
        self.progress(text, self.done, self.total)
        self.done += 1

    def _measure_peaks(self, program: Candidate) -> None:
        """Keep the best of what has been measured so far."""
        backend, dtype = program.backend, program.dtype
        self._step(f"the machine's peak, by {backend} in {dtype}")
        try:
            with closing(self.start(program)) as worker:
                measured = worker.ask("peaks")["peaks"]
        except (InvalidInput, Died) as error:
            warning = f"no peak by {backend} in {dtype}: {error}"
            if warning not in self.record.warnings:
                self.record.warnings.append(warning)
            return
        best = {(peak["backend"], peak["dtype"], peak["name"]): peak for peak in self.record.peaks}
        for new in measured:
            peak = best.setdefault((backend, dtype, new["name"]), {"backend": backend, "dtype": dtype, **new})
            peak["per_second"] = max(peak["per_second"], new["per_second"])
        self.record.peaks = list(best.values())

    def _prove(self, program: Candidate) -> None:
        """Hold a program against the referee, once for all batches, in a process that is not timed."""
        rows = [row for row in self.record.rows if row.candidate.program == program]
        tasks = sorted({row.candidate.task for row in rows})
        self._step(f"{program.label}: held against the referee")
        with _problems_of(rows):
            arrays = computed(program, tasks, self.referee, self.start)
            for row in rows:
                row.proof = self.referee.judge(arrays, [row.candidate.task], program.dtype)
                row.problem = refutation(row.proof)

    def _time(self, rows: Sequence[Row], left: int) -> None:
        """Start the workers of one task and batch, which bounds the memory, and measure each in every round.

        Args:
            rows: Those of one task and batch.
            left: The groups that share what is left of the budget, this one among them.
        """
        workers: dict[Row, Process] = {}
        with ExitStack() as stack:
            for row in rows:
                self._step(f"{row.candidate}: warming up")
                if row.problem is None:
                    with _problems_of([row]):
                        workers[row] = stack.enter_context(closing(self.start(row.candidate)))
                        self._warm_up(row, workers[row])
            now = self.clock()
            self._go_round(rows, workers, end=now + (self.started + 60 * self.record.minutes - now) / left)
            for row in rows:
                if row.problem is None:
                    with _problems_of([row]):
                        self._end(row, workers[row])

    def _go_round(self, rows: Sequence[Row], workers: Mapping[Row, Process], end: float) -> None:
        """Measure round by round: as many as asked for, and more until the ratios are known or the time is over."""
        number, uncertainty = 0, math.inf
        while number < self.record.rounds or (uncertainty > PRECISION and self.clock() < end):
            ready = [row for row in rows if row.problem is None]
            self.total += 0 if number < self.record.rounds else len(ready)
            known = f", ratios within {uncertainty:.1%}" if math.isfinite(uncertainty) else ""
            for turn, i in enumerate(self.random.permutation(len(ready))):
                row = ready[i]
                self._step(f"round {number + 1}{known}: {row.candidate}")
                with _problems_of([row]):
                    self._measure(row, workers[row], number, turn)
            number, uncertainty = number + 1, self.record.uncertainty(rows)

    def _warm_up(self, row: Row, worker: Process) -> None:
        """Build, call once, check the result; then measure until two measurements are alike."""
        c = row.candidate
        for name, value in worker.ask("begin").items():
            setattr(row, name, value)
        dataset = str(self.referee.dataset) if c.pipeline else None
        first = worker.ask("first", images=str(self.referee.file(c.batch)), dataset=dataset)
        row.first_call_seconds = first["seconds"]
        row.proof.append(self.referee.judge_first(first["arrays"], c.task, c.batch, c.dtype, loaded=c.pipeline))
        row.problem = refutation(row.proof)
        if row.problem is None:
            seconds, stable = warm_up(lambda calls: float(worker.ask("measure", calls=calls)["seconds"]))
            row.warm_up = WarmUp(seconds, stable)
            row.calls = enough(seconds[-1])

    def _measure(self, row: Row, worker: Process, number: int, turn: int) -> None:
        at = self.clock() - self.started
        calls = row.calls or 1
        measured = worker.ask("measure", calls=calls)
        row.samples.append(Sample(number, turn, at, measured["seconds"] / calls, measured["busy_threads"]))
        if (row.candidate.task, row.candidate.batch) == ("infer", 1):
            row.latencies += measured["calls"]

    def _end(self, row: Row, worker: Process) -> None:
        answer = worker.ask("end")
        row.peak_memory_bytes, row.last_loss = answer["peak_memory_bytes"], answer["last_loss"]
        if row.last_loss is not None and not math.isfinite(row.last_loss):
            row.problem = f"the loss of the last timed step is {row.last_loss}"


def computed(program: Candidate, tasks: Sequence[str], referee: Referee, start: StartProcess) -> Arrays:
    """What a program computes on the small batch, for `Referee.judge`, in a process that is not timed.

    Raises:
        InvalidInput: when the backend refuses.
        Died: when its process ends.
    """
    with closing(start(program)) as worker:
        worker.ask("begin")
        arrays: Arrays = worker.ask("prove", images=str(referee.file(BATCH)), tasks=tasks)["arrays"]
    return arrays


def check_tf32(given: Sequence[Candidate], start: StartProcess) -> None:
    """Ask each backend that is to compute in tf32 whether it can here, before anything is measured.

    Raises:
        InvalidInput: naming every backend that cannot.
    """
    refusals = []
    for program in dict.fromkeys(replace(c.program, variant="tuned") for c in given if c.dtype == "tf32"):
        try:
            with closing(start(program)) as worker:
                worker.ask("begin")
        except InvalidInput as error:
            refusals.append(f"{program.backend}: {error}")
        except Died:
            continue  # its rows will say so
    if refusals:
        raise InvalidInput("\n".join(refusals))


@contextmanager
def _problems_of(rows: Sequence[Row]) -> Iterator[None]:
    """A refusal or the death of a worker is a problem of these rows, and of no others."""
    try:
        yield
    except (InvalidInput, Died) as error:
        for row in rows:
            row.problem = str(error)


def warm_up(measure: Callable[[int], float], least: float = MEASUREMENT) -> tuple[list[float], bool]:
    """Measure until two successive measurements are alike, at most ten times.

    `measure` returns the seconds of that many calls together; a measurement should last `least` seconds. Returns the
    seconds a call of every measurement, and whether the last two were alike.
    """
    seconds = [measure(1)]
    while len(seconds) < _WARM_UPS:
        calls = enough(seconds[-1], least)
        seconds.append(measure(calls) / calls)
        if abs(seconds[-1] - seconds[-2]) <= _ALIKE * min(seconds[-2:]):
            return seconds, True
    return seconds, False


def enough(seconds: float, least: float = MEASUREMENT) -> int:
    """The number of calls of that length that fill a measurement."""
    return max(1, math.ceil(least / max(seconds, 1e-6)))
