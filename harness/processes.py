"""Running a backend in a process of its own, in this environment or another."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import spec
from harness.backend import PACKAGES


@dataclass(frozen=True)
class Answer:
    """What a worker left: facts and arrays, or the reason why there are none."""

    facts: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, spec.Array] = field(default_factory=dict)
    refused: str | None = None  # the backend's own words: the caller asked for what cannot be
    missing: bool = False  # refused, because the framework is not installed
    crash: str | None = None  # the process died or raised


def run_worker(
    backend: str,
    task: Mapping[str, Any],
    arrays: Mapping[str, spec.Array],
    python: str = sys.executable,
    listen: Callable[[dict[str, Any]], None] | None = None,
) -> Answer:
    """Run one task in a new process and wait for its answer.

    Args:
        backend: ``pt``, ``mx`` or ``jax``.
        task: What `harness.worker` reads; JSON.
        arrays: By name, what the task works on.
        python: The interpreter; its environment needs NumPy and the backend's framework, not this project. To train
            or evaluate it needs safetensors and filelock too.
        listen: Called with each message that the worker sends on the way. With it Ctrl-C is the worker's: it is passed
            on, and the answer waited for.

    Raises:
        spec.InvalidInput: when that interpreter cannot be started.
    """
    with tempfile.TemporaryDirectory(prefix="googlenet-") as name:
        folder = Path(name)
        (folder / "task.json").write_text(json.dumps(dict(task)))
        np.savez(folder / "task.npz", **arrays)
        command = [python, "-P", "-m", "harness.worker", backend, str(folder)]
        try:
            done = _run(command, _environment(folder), listen)
        except OSError as error:
            raise spec.InvalidInput(f"--python {backend}={python}: cannot be started ({error.strerror})") from error
        try:
            facts = json.loads((folder / "answer.json").read_text())
            with np.load(folder / "answer.npz", allow_pickle=False) as answered:
                found = dict(answered)
        except (OSError, ValueError):
            return Answer(crash=_last_words(done))
    if "refused" in facts:
        return Answer(refused=facts["refused"], missing=facts.get("missing", False))
    if done.returncode != 0:
        return Answer(crash=_last_words(done))
    return Answer(facts, found)


def _run(
    command: list[str], environment: dict[str, str], listen: Callable[[dict[str, Any]], None] | None
) -> subprocess.CompletedProcess[str]:
    """Like `subprocess.run`, and hands the messages over as they come."""
    if listen is None:
        return subprocess.run(command, env=environment, capture_output=True, text=True, errors="replace")
    with tempfile.TemporaryFile("w+", errors="replace") as errors:
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True) as worker:
            # At a terminal the worker has had the signal already, and has no use for two; else this is how it gets it.
            numbers = (signal.SIGINT, signal.SIGTERM)
            before = [signal.signal(number, lambda number, _: worker.send_signal(number)) for number in numbers]
            try:
                for line in worker.stdout or ():
                    listen(json.loads(line))
                worker.wait()
            finally:
                for number, handler in zip(numbers, before, strict=True):
                    signal.signal(number, handler)
                worker.kill()  # if it is this side that failed
        errors.seek(0)
        return subprocess.CompletedProcess(command, worker.returncode, "", errors.read())


def _environment(folder: Path) -> dict[str, str]:
    """The worker finds our packages, and nothing else of this environment, through a folder of links."""
    links = folder / "packages"
    links.mkdir()
    home = Path(spec.__file__).parent.parent
    for package in ("spec", "harness", *PACKAGES.values()):
        (links / package).symlink_to(home / package)
    return {
        # OpenMP's threads wait for each other in busy loops unless told otherwise: two processes on the same cores then
        # bring each other to a standstill.
        "OMP_WAIT_POLICY": "PASSIVE",
        **os.environ,
        "PYTHONPATH": str(links),
        # Equality is claimed of float32, so neither NVIDIA's libraries nor JAX may round it to TF32.
        "NVIDIA_TF32_OVERRIDE": "0",
        "JAX_DEFAULT_MATMUL_PRECISION": "highest",
        # JAX would take three quarters of a GPU's memory, and leave the others none.
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    }


def _last_words(done: subprocess.CompletedProcess[str]) -> str:
    """How the process ended, and the end of what it said."""
    if done.returncode < 0:
        ending = f"killed by {signal.Signals(-done.returncode).name}"
    else:
        ending = f"exit status {done.returncode}"
    return "\n".join([ending, *done.stderr.strip().splitlines()[-12:]])
