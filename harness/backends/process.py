"""Running a backend in a process of its own, in this environment or another."""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np

import spec
from harness.backends.registry import PACKAGES, processors
from harness.backends.team import processes
from harness.images.sources import cache_folder

_CACHE = 2**30  # bytes of JAX's compilation cache; JAX drops what was used longest ago
_GRACE = 10.0  # seconds for a process to notice that another one has ended


@dataclass(frozen=True)
class Answer:
    """A worker's answer: facts and arrays, or the reason why there are none."""

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
    devices: int = 1,
) -> Answer:
    """Run one task in a new process and wait for its answer.

    Args:
        backend: ``pt``, ``mx`` or ``jax``.
        task: What `harness.worker` reads; JSON.
        arrays: By name, what the task works on.
        python: The interpreter. Its environment needs NumPy and the framework; this project's code is linked in.
            Training and evaluation also need safetensors, filelock and pydantic.
        listen: Called with each message that the worker sends on the way. With it Ctrl-C is the worker's: it is passed
            on, and the answer waited for.
        devices: How many are to train together. PyTorch wants a process for each, and all of them end together; the
            answer is the first one's. With another number than 1 there must be a `listen`.

    Raises:
        spec.InvalidInput: when that interpreter cannot be started.
    """
    with tempfile.TemporaryDirectory(prefix="googlenet-") as name:
        folders, starts = [], []
        for rank, variables in enumerate(_environments(backend, devices)):
            folders.append(folder := Path(name, str(rank)))
            folder.mkdir()
            (folder / "task.json").write_text(json.dumps(dict(task)))
            np.savez(folder / "task.npz", **arrays)
            command = [python, "-P", "-m", "harness.worker", backend, str(folder)]
            starts.append((command, worker_environment(folder) | variables))
        try:
            done, culprit = _run(starts, listen)
        except OSError as error:
            raise spec.InvalidInput(f"--python {backend}={python}: cannot be started ({error.strerror})") from error
        answers = [_read_answer(folder) for folder in folders]
    refusals = [answer for answer in answers if answer and answer.refused]
    if refusals:
        return refusals[0]
    if done[0].returncode != 0 or answers[0] is None:
        which = f"device {culprit} of {len(done)}: " if len(done) > 1 else ""
        return Answer(crash=which + last_words(done[culprit]))
    return answers[0]


def _read_answer(folder: Path) -> Answer | None:
    """The answer in a worker's folder; None if the worker did not write one."""
    try:
        facts = json.loads((folder / "answer.json").read_text())
        with np.load(folder / "answer.npz", allow_pickle=False) as answered:
            arrays = dict(answered)
    except (OSError, ValueError):
        return None
    if "refused" in facts:
        return Answer(refused=facts["refused"], missing=facts.get("missing", False))
    return Answer(facts, arrays)


def _run(
    starts: list[tuple[list[str], dict[str, str]]], listen: Callable[[dict[str, Any]], None] | None
) -> tuple[list[subprocess.CompletedProcess[str]], int]:
    """Run commands with their environments, and pass the first one's messages on as they come.

    Returns:
        How each ended, and which of them was the first to fail.
    """
    if listen is None:
        ((command, environment),) = starts
        return [subprocess.run(command, env=environment, capture_output=True, text=True, errors="replace")], 0
    with ExitStack() as stack:
        workers: list[subprocess.Popen[str]] = []
        errors = []
        for command, environment in starts:
            errors.append(stack.enter_context(tempfile.TemporaryFile("w+", errors="replace")))
            out = subprocess.DEVNULL if workers else subprocess.PIPE
            worker = subprocess.Popen(command, env=environment, stdout=out, stderr=errors[-1], text=True)
            workers.append(stack.enter_context(worker))
            stack.callback(worker.kill)  # if it is this side that fails
        first = workers[0]
        # Pass signals on. At a terminal the worker receives each twice; the second does nothing.
        for number in (signal.SIGINT, signal.SIGTERM):
            before = signal.signal(number, lambda number, _: first.send_signal(number))
            stack.callback(signal.signal, number, before)
        ended: list[int] = []
        watch = Thread(target=_end_together, args=[workers, ended], daemon=True)
        watch.start()
        for line in first.stdout or ():
            listen(json.loads(line))
        done = []
        for (command, _), worker, error in zip(starts, workers, errors, strict=True):
            worker.wait()
            error.seek(0)
            done.append(subprocess.CompletedProcess(command, worker.returncode, "", error.read()))
        watch.join()
        failed = [rank for rank in ended if done[rank].returncode != 0] or [0]
        # A process that was killed comes before those that failed for want of it.
        return done, min(failed, key=lambda rank: done[rank].returncode >= 0)


def _end_together(workers: list[subprocess.Popen[str]], ended: list[int]) -> None:
    """Wait until a process ends. The others, which may be waiting for it, then have a short time to do so too.

    Args:
        workers: The processes.
        ended: Takes the ranks of those that end by themselves, in that order.
    """
    end = math.inf
    while len(ended) < len(workers) and time.monotonic() < end:
        ended += [rank for rank, worker in enumerate(workers) if rank not in ended and worker.poll() is not None]
        if ended and end == math.inf:
            end = time.monotonic() + _GRACE
        time.sleep(0.02)
    for worker in workers:
        worker.kill()


def _environments(backend: str, devices: int) -> list[dict[str, str]]:
    """Environment variables for each process, about its devices; for PyTorch those that torchrun sets."""
    if devices == 1:
        return [{}]
    if backend == "jax":
        return [{"JAX_NUM_CPU_DEVICES": str(devices)}]
    # Devices that are parts of the CPU share its processors; JAX sees to that itself.
    share, names = str(max(1, processors() // devices)), ("OMP_NUM_THREADS", "MXNET_OMP_MAX_THREADS")
    threads = {name: share for name in names if name not in os.environ}
    if backend == "mx" or processes(backend) > 1:
        return [threads]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    together = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    together |= threads | {"WORLD_SIZE": str(devices), "LOCAL_WORLD_SIZE": str(devices)}
    return [together | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(devices)]


def worker_environment(folder: Path) -> dict[str, str]:
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
        **jax_cache(),
        **os.environ,
        "PYTHONPATH": str(links),
        # Equality is claimed of float32, so neither NVIDIA's libraries nor JAX may round it to TF32.
        "NVIDIA_TF32_OVERRIDE": "0",
        "JAX_DEFAULT_MATMUL_PRECISION": "highest",
        # JAX would take three quarters of a GPU's memory, and leave the others none.
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    }


def jax_cache() -> dict[str, str]:
    """Settings for JAX's persistent compilation cache, as environment variables.

    Machine code for one processor can stop another with an illegal instruction, and JAX does not tell processors apart:
    each kind has a folder of its own.
    """
    return {
        "JAX_COMPILATION_CACHE_DIR": str(cache_folder() / "jax" / _processor()),
        "JAX_COMPILATION_CACHE_MAX_SIZE": str(_CACHE),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
    }


def _processor() -> str:
    """A name for what this processor can do."""
    described = [platform.machine()]
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        facts = cpuinfo.read_text(errors="replace").split("\n\n")[0].splitlines()
        described += [line for line in facts if line.startswith(("model name", "flags", "Features"))]
    return hashlib.sha256("\n".join(described).encode()).hexdigest()[:16]


def last_words(done: subprocess.CompletedProcess[str]) -> str:
    """How the process ended, and the last lines of its standard error."""
    if done.returncode < 0:
        ending = f"killed by {signal.Signals(-done.returncode).name}"
    else:
        ending = f"exit status {done.returncode}"
    return "\n".join([ending, *done.stderr.strip().splitlines()[-12:]])
