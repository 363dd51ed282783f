"""The procedure: peaks, proofs, and then rounds in which every candidate has its turn, in an order drawn anew."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from harness.backends.registry import BACKENDS
from harness.bench.candidates import Candidate, groups
from harness.bench.crew import Died, Worker
from harness.bench.proof import BATCH, Check, Referee
from harness.bench.record import Record, Row, Sample, is_finite
from spec import InvalidInput

MEASUREMENT = 0.3  # seconds, at least
_WARM_UPS = 10  # measurements, at most
_ALIKE = 0.1  # two that differ by less are

Hire = Callable[[Candidate], Worker]
Heard = Callable[[str, int, int], None]


def benchmark(
    record: Record,
    referee: Referee,
    hire: Hire,
    *,
    clock: Callable[[], float] = time.monotonic,
    heard: Heard = lambda text, done, total: None,
) -> None:
    """Fill the rows of the record. A row that cannot be proven or measured says why, and the others go on.

    Ctrl-C ends it: what was measured stays in the record, which is then not complete.

    Args:
        record: With a row for each candidate.
        referee: The material, and what should come out.
        hire: Starts a candidate's worker.
        clock: Seconds.
        heard: Told what is being done, how many steps are done, and of how many.
    """
    try:
        _Benchmark(record, referee, hire, clock, heard).run()
    except KeyboardInterrupt:
        record.warnings.append("interrupted: not everything was measured")
    else:
        record.complete = True


class _Benchmark:
    def __init__(self, record: Record, referee: Referee, hire: Hire, clock: Callable[[], float], heard: Heard) -> None:
        self.record, self.referee, self.hire, self.clock, self.heard = record, referee, hire, clock, heard
        self.rows = {row.candidate: row for row in record.rows}
        self.programs = list(dict.fromkeys(row.candidate.program for row in record.rows))
        self.measurers = list(dict.fromkeys((p.backend, p.dtype) for p in self.programs if p.backend in BACKENDS))
        self.random = np.random.default_rng(record.seed)
        self.started = clock()
        self.done = 0
        self.total = 2 * len(self.measurers) + len(self.programs) + len(record.rows) * (1 + record.rounds)

    def run(self) -> None:
        for backend, dtype in self.measurers:
            self._measure_peaks(backend, dtype)
        for program in self.programs:
            self._prove(program)
        for group in groups([row.candidate for row in self.record.rows]):
            self._time([self.rows[candidate] for candidate in group])
        for backend, dtype in self.measurers:  # again: what disturbed the machine before may be over
            self._measure_peaks(backend, dtype)

    def _step(self, text: str) -> None:
        self.heard(text, self.done, self.total)
        self.done += 1

    def _measure_peaks(self, backend: str, dtype: str) -> None:
        """Keep the best of what has been measured so far."""
        self._step(f"the machine's peak, by {backend} in {dtype}")
        worker = None
        try:
            worker = self.hire(Candidate(backend, "tuned", "", 0, dtype))
            best = {(peak["backend"], peak["dtype"], peak["name"]): peak for peak in self.record.peaks}
            for found in worker.ask("peaks")["peaks"]:
                peak = best.setdefault((backend, dtype, found["name"]), {"backend": backend, "dtype": dtype, **found})
                peak["per_second"] = max(peak["per_second"], found["per_second"])
            self.record.peaks = list(best.values())
        except (InvalidInput, Died) as error:
            warning = f"no peak by {backend} in {dtype}: {error}"
            if warning not in self.record.warnings:
                self.record.warnings.append(warning)
        finally:
            if worker is not None:
                worker.close()

    def _prove(self, program: Candidate) -> None:
        """Hold a program against the referee, once for all batches, in a process that is not timed."""
        rows = [row for row in self.record.rows if row.candidate.program == program]
        tasks = sorted({row.candidate.task for row in rows})
        self._step(f"{program.label}: held against the referee")
        with self._problems_of(rows), hired(self.hire, program) as worker:
            worker.ask("begin")
            arrays = worker.ask("prove", images=str(self.referee.file(BATCH)), tasks=tasks)["arrays"]
            for row in rows:
                row.proof = self.referee.judge(arrays, [row.candidate.task], program.dtype)
                row.problem = refuted(row.proof)

    def _time(self, rows: Sequence[Row]) -> None:
        """Start the workers of one task and batch, and give each its turn in every round."""
        workers: dict[Candidate, Worker] = {}
        try:
            for row in rows:
                self._step(f"{row.candidate}: warming up")
                if row.problem is None:
                    with self._problems_of([row]):
                        workers[row.candidate] = self.hire(row.candidate)
                        self._warm_up(row, workers[row.candidate])
            for number in range(self.record.rounds):
                ready = [row for row in rows if row.problem is None]
                for turn, i in enumerate(self.random.permutation(len(ready))):
                    row = ready[i]
                    self._step(f"round {number + 1} of {self.record.rounds}: {row.candidate}")
                    with self._problems_of([row]):
                        self._measure(row, workers[row.candidate], number, turn)
            for row in rows:
                if row.problem is None:
                    with self._problems_of([row]):
                        found = workers[row.candidate].ask("end")
                        row.peak_memory, row.last_loss = found["peak_memory"], found["loss"]
                        if not is_finite(row.last_loss):
                            row.problem = f"the loss of the last timed step is {row.last_loss}"
        finally:
            for worker in workers.values():
                worker.close()

    def _warm_up(self, row: Row, worker: Worker) -> None:
        """Build, call once, check the result; then measure until two measurements are alike."""
        c = row.candidate
        found = worker.ask("begin")
        row.framework, row.version, row.device = found["framework"], found["version"], found["device"]
        row.threads = found["threads"]
        row.import_seconds, row.build_seconds = found["import_seconds"], found["build_seconds"]
        dataset = str(self.referee.dataset) if c.pipeline else None
        found = worker.ask("first", images=str(self.referee.file(c.batch)), dataset=dataset)
        row.first_call_seconds = found["seconds"]
        row.proof.append(self.referee.judge_first(found["arrays"], c.task, c.batch, c.dtype, loaded=c.pipeline))
        row.problem = refuted(row.proof)
        if row.problem is None:
            row.warm_up, row.warm = warm_up(lambda calls: float(worker.ask("measure", calls=calls)["seconds"]))
            row.calls = enough(row.warm_up[-1])

    def _measure(self, row: Row, worker: Worker, number: int, turn: int) -> None:
        at, calls = self.clock() - self.started, row.calls or 1
        found = worker.ask("measure", calls=calls)
        row.samples.append(Sample(number, turn, at, found["seconds"] / calls, found["busy_threads"]))

    @contextmanager
    def _problems_of(self, rows: Sequence[Row]) -> Iterator[None]:
        """What is refused, and a worker that dies, is a problem of these rows, and of no others."""
        try:
            yield
        except InvalidInput as refusal:
            problem = str(refusal)
        except Died as death:
            problem = f"the process died: {death}"
        else:
            return
        for row in rows:
            row.problem = problem


def warm_up(measure: Callable[[int], float], least: float = MEASUREMENT) -> tuple[list[float], bool]:
    """Measure until two successive measurements are alike, or for the last time.

    Args:
        measure: Seconds for so many calls.
        least: Seconds that a measurement should last.

    Returns:
        Seconds a call, of every measurement; and whether the last two were alike.
    """
    found = [measure(1)]
    while len(found) < _WARM_UPS:
        calls = enough(found[-1], least)
        found.append(measure(calls) / calls)
        if abs(found[-1] - found[-2]) <= _ALIKE * min(found[-2:]):
            return found, True
    return found, False


def enough(seconds: float, least: float = MEASUREMENT) -> int:
    """Calls that together last as long as a measurement should."""
    return max(1, math.ceil(least / max(seconds, 1e-6)))


def refuted(proof: Sequence[Check]) -> str | None:
    """What is wrong, for people; None where everything agrees."""
    wrong = [f"{check.what} by {check.error:.1e} (at most {check.bound:g})" for check in proof if not check.passed]
    return f"not timed, since it differs from the referee: {'; '.join(wrong)}" if wrong else None


@contextmanager
def hired(hire: Hire, candidate: Candidate) -> Iterator[Worker]:
    worker = hire(candidate)
    try:
        yield worker
    finally:
        worker.close()
