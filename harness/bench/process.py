"""The processes that candidates run in: start one with its share of the machine, ask it, and end it for certain."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

import spec
from harness.backends import messages
from harness.backends.process import MXNET_OWN_ENGINE, last_words, scratch_folder, worker_environment
from harness.bench.candidates import Candidate
from harness.weights.checkpoint import config_table


class Died(Exception):
    """The worker's process has ended although it was still needed. The argument says how, and its last words."""

    def __str__(self) -> str:
        """A row's problem."""
        return f"the process died: {self.args[0]}"


class Process:
    """One candidate's worker, in a process group of its own: the processes that it starts end with it."""

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
        """Start the process; it imports nothing heavy yet.

        Args:
            candidate: What is measured.
            config: The network.
            params: The file of the weights.
            device: ``auto``, ``cpu`` or ``gpu``.
            processors: By number; the framework gets a thread for each.
            python: The interpreter; its environment needs NumPy and the framework.

        Raises:
            spec.InvalidInput: when that interpreter cannot be started, or there is no room for temporary files.
            Died: when it ends at once.
        """
        self._python = python
        self._files = ExitStack()
        with messages.temporary_files():
            folder = self._files.enter_context(scratch_folder())
            self._errors = self._files.enter_context(tempfile.TemporaryFile("w+", errors="replace"))
            variables = environment(folder, candidate, len(processors))
        job = {
            **asdict(candidate),
            "module": candidate.module(config),
            "config": config_table(config),
            "params": str(params),
            "device": device,
            "processors": list(processors),
            "folder": str(folder),
        }
        try:
            self._process = subprocess.Popen(
                [python, "-P", "-m", "harness.bench.worker"],
                env=variables,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                text=True,
                errors="replace",
                start_new_session=True,
            )
        except OSError as error:
            self._files.close()
            raise spec.InvalidInput(
                f"--python {candidate.backend}={python}: cannot be started ({error.strerror})"
            ) from error
        try:
            self._send(job)
        except (Died, spec.InvalidInput):
            self.close()
            raise

    def ask(self, operation: str, **arguments: Any) -> dict[str, Any]:
        """Have a method of `harness.bench.worker.operations.Operations` called, and wait for its answer.

        Raises:
            spec.InvalidInput: when the backend refuses, in its own words, or the interpreter runs other code than this.
            Died: when there will be no answer.
        """
        self._send({"do": operation, **arguments})
        said = ""
        for line in self._process.stdout or ():
            if (reply := messages.read(line)) is not None:
                break
            said = line
        else:
            raise self._end(said)
        if "refused" in reply:
            raise spec.InvalidInput(reply["refused"])
        answer: dict[str, Any] = reply["answer"]
        if "arrays" in answer:
            with np.load(answer["arrays"], allow_pickle=False) as arrays:
                answer["arrays"] = dict(arrays)
        return answer

    def close(self) -> None:
        """End it, whatever it is doing."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            with suppress(BrokenPipeError):  # it died with a request unread
                if stream is not None:
                    stream.close()
        self._files.close()

    def _send(self, message: Mapping[str, Any]) -> None:
        try:
            if self._process.stdin is not None:
                self._process.stdin.write(json.dumps(message) + "\n")
                self._process.stdin.flush()
        except BrokenPipeError as error:
            raise self._end() from error

    def _end(self, said: str = "") -> Exception:
        """How the process ended, which has said that in place of an answer."""
        status = self._process.wait()
        if status == 0:
            return spec.InvalidInput(messages.refusal(self._python, said))
        self._errors.seek(0)
        return Died(last_words(subprocess.CompletedProcess([], status, said, self._errors.read())))


StartProcess = Callable[[Candidate], Process]


def environment(folder: Path, candidate: Candidate, threads: int) -> dict[str, str]:
    """The environment of a candidate's process: every framework computes with that number of threads.

    The textbooks run as a user's script does: MXNet's, compiled or not, by MXNet's own engine, and not compiled with
    half of the threads; JAX's by XLA's own flags. They have to be told, because our packages, which the textbooks'
    modules belong to, choose others.
    """
    if (candidate.backend, candidate.variant) == ("mx", "textbook"):
        threads = max(1, threads // 2)
    variables = worker_environment(folder)
    if candidate.backend == "mx" and candidate.variant != "tuned":
        variables = MXNET_OWN_ENGINE | variables
    if candidate.backend == "jax" and candidate.variant != "tuned":
        variables = {"XLA_FLAGS": ""} | variables
    if "OMP_WAIT_POLICY" not in os.environ:
        del variables["OMP_WAIT_POLICY"]  # one process works at a time, so its threads may wait in busy loops
    if candidate.task:
        del variables["JAX_COMPILATION_CACHE_DIR"]  # the first call of what is timed compiles
    return variables | {"OMP_NUM_THREADS": str(threads), "MXNET_OMP_MAX_THREADS": str(threads)}
