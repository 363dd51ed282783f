"""The processes that candidates live in: started with their share of the machine, asked, and ended for certain."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

import spec
from harness.backends.process import last_words, worker_environment
from harness.bench.candidates import Candidate
from harness.weights.checkpoint import config_table


class Died(Exception):
    """The worker's process has ended, though it was still needed; how it ended, and what it said last."""


class Worker(Protocol):
    """One candidate at work."""

    def ask(self, operation: str, **arguments: Any) -> dict[str, Any]:
        """Have an operation of `harness.bench.worker.subject.Subject` done, and wait for its answer, arrays included.

        Raises:
            spec.InvalidInput: when the backend refuses, in its own words.
            Died: when there will be no answer.
        """

    def close(self) -> None:
        """End it, whatever it is doing."""


class Process:
    """A `Worker` in a process of its own, in a group of its own: what it has started ends with it."""

    def __init__(
        self,
        candidate: Candidate,
        config: spec.Config,
        params: Path,
        *,
        device: str,
        processors: Sequence[int],
        python: str = sys.executable,
    ) -> None:
        """Start it; nothing heavy is imported yet.

        Args:
            candidate: What it will be asked about.
            config: The network.
            params: File of the weights.
            device: ``auto``, ``cpu`` or ``gpu``.
            processors: By number, those that it may use, with a thread for each.
            python: The interpreter; its environment needs NumPy and the framework.

        Raises:
            spec.InvalidInput: when that interpreter cannot be started.
            Died: when it ends at once.
        """
        self._folder = tempfile.TemporaryDirectory(prefix="googlenet-")
        self._errors = tempfile.TemporaryFile("w+", errors="replace")
        job = {
            "backend": candidate.backend,
            "variant": candidate.variant,
            "module": candidate.module,
            "task": candidate.task,
            "batch": candidate.batch,
            "dtype": candidate.dtype,
            "config": config_table(config),
            "params": str(params),
            "device": device,
            "processors": list(processors),
            "folder": self._folder.name,
        }
        try:
            self._process = subprocess.Popen(
                [python, "-P", "-m", "harness.bench.worker"],
                env=environment(Path(self._folder.name), candidate, len(processors)),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                text=True,
                start_new_session=True,
            )
        except OSError as error:
            self._errors.close()
            self._folder.cleanup()
            raise spec.InvalidInput(
                f"--python {candidate.backend}={python}: cannot be started ({error.strerror})"
            ) from error
        try:
            self._send(job)
        except Died:
            self.close()
            raise

    def ask(self, operation: str, **arguments: Any) -> dict[str, Any]:
        """As `Worker.ask`."""
        self._send({"do": operation, **arguments})
        line = self._process.stdout.readline() if self._process.stdout else ""
        if not line:
            raise Died(self._last_words())
        reply = json.loads(line)
        if "refused" in reply:
            raise spec.InvalidInput(reply["refused"])
        answer: dict[str, Any] = reply["answer"]
        if "arrays" in answer:
            with np.load(answer["arrays"], allow_pickle=False) as arrays:
                answer["arrays"] = dict(arrays)
        return answer

    def close(self) -> None:
        """As `Worker.close`."""
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            try:
                if stream is not None:
                    stream.close()
            except BrokenPipeError:
                pass  # it died with a request unread
        self._folder.cleanup()

    def _send(self, message: Mapping[str, Any]) -> None:
        try:
            if self._process.stdin is not None:
                self._process.stdin.write(json.dumps(message) + "\n")
                self._process.stdin.flush()
        except BrokenPipeError as error:
            raise Died(self._last_words()) from error

    def _last_words(self) -> str:
        status = self._process.wait()
        self._errors.seek(0)
        return last_words(subprocess.CompletedProcess([], status, "", self._errors.read()))


def environment(folder: Path, candidate: Candidate, threads: int) -> dict[str, str]:
    """The environment of a candidate's process: so many threads for everyone, each framework told its own way.

    MXNet as its textbook starts it takes half of the processors; it is told that number here, since our package, which
    the textbook's module belongs to, would ask for all of them.
    """
    if (candidate.backend, candidate.variant) == ("mx", "textbook"):
        threads = max(1, threads // 2)
    variables = worker_environment(folder)
    if "OMP_WAIT_POLICY" not in os.environ:
        del variables["OMP_WAIT_POLICY"]  # one process works at a time, so that its threads may wait as they like
    if candidate.task:
        del variables[
            "JAX_COMPILATION_CACHE_DIR"
        ]  # what is timed compiles in its first call; what is only proven need not
    return variables | {"OMP_NUM_THREADS": str(threads), "MXNET_OMP_MAX_THREADS": str(threads)}
