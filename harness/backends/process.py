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
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import Any
from zipfile import BadZipFile

import numpy as np

import spec
from harness.atomic import temporary_folder
from harness.backends import messages
from harness.backends.registry import PACKAGES, processors
from harness.backends.team import processes
from harness.images.sources import cache_folder

_CACHE = 2**30  # bytes of JAX's compilation cache; JAX drops what was used longest ago
MXNET_OWN_ENGINE = {"MXNET_ENGINE_TYPE": "ThreadedEnginePerDevice"}  # asynchronous; `googlenet_mx` chooses another
_GRACE = 10.0  # seconds for a process to notice that another one has ended
_WORDS = 12  # lines of a process's last words


def scratch_folder() -> AbstractContextManager[Path]:
    """A temporary folder for what this process and a worker exchange."""
    return temporary_folder(Path(tempfile.gettempdir()))


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
    lifeline: int | None = None,
) -> Answer:
    """Run one task in a new process and wait for its answer.

    Args:
        backend: ``pt``, ``mx`` or ``jax``.
        task: What `harness.worker` reads; JSON.
        arrays: By name, what the task works on.
        python: The interpreter. Its environment needs NumPy and the framework; this project's code is linked in.
            Training and evaluation also need safetensors, filelock and pydantic.
        listen: Called with each message that the worker sends on the way. A training that has begun is not ended by
            Ctrl-C and SIGTERM: they are passed on, and the answer is waited for.
        devices: How many are to train together. PyTorch wants a process for each, and all of them end together; the
            answer is the first one's. With another number than 1 there must be a `listen`.
        lifeline: A `harness.backends.messages.lifeline` that several workers share; else it has one of its own.

    Raises:
        spec.InvalidInput: when that interpreter cannot be started, or there is no room for temporary files.
    """
    with ExitStack() as stack:
        folders, starts = [], []
        with messages.temporary_files():
            parent = stack.enter_context(scratch_folder())
            for rank, variables in enumerate(_environments(backend, devices)):
                folders.append(folder := parent / str(rank))
                folder.mkdir()
                (folder / "task.json").write_text(json.dumps(dict(task)))
                messages.write_arrays(folder / "task.npz", arrays)
                command = [python, "-P", "-m", "harness.worker", backend, str(folder)]
                starts.append((command, worker_environment(folder) | variables))
        if lifeline is None:
            lifeline = stack.enter_context(messages.lifeline())
        done, culprit = _run(starts, listen, lifeline, saves=task["kind"] == "train")
        said = _text(folders[0]) or done[0].stdout
        answers = [_read_answer(folder) for folder in folders]
    refusals = [answer for answer in answers if answer and answer.refused]
    if refusals:
        return refusals[0]
    if done[0].returncode != 0:
        which = f"device {culprit} of {len(done)}: " if len(done) > 1 else ""
        return Answer(crash=which + last_words(done[culprit]))
    if answers[0] is None:
        return Answer(refused=messages.refusal(python, said))
    return answers[0]


def _read_answer(folder: Path) -> Answer | None:
    """The answer in a worker's folder; None if the worker did not write one."""
    facts = messages.read(_text(folder))
    try:
        with (folder / "answer.npz").open("rb") as file, np.load(file, allow_pickle=False) as answered:
            arrays = dict(answered)
    except (OSError, ValueError, EOFError, BadZipFile):
        return None
    if facts is None:
        return None
    if "refused" in facts:
        return Answer(refused=facts["refused"], missing=facts.get("missing", False))
    return Answer(facts, arrays)


def _text(folder: Path) -> str:
    """The text of the answer in a worker's folder; empty where there is none."""
    try:
        return (folder / "answer.json").read_text(errors="replace")
    except OSError:
        return ""


def _run(
    starts: list[tuple[list[str], dict[str, str]]],
    listen: Callable[[dict[str, Any]], None] | None,
    lifeline: int,
    *,
    saves: bool = False,
) -> tuple[list[subprocess.CompletedProcess[str]], int]:
    """Run commands with their environments, and pass the first one's messages on as they come.

    Args:
        starts: The commands.
        listen: Takes the messages.
        lifeline: The standard input of all.
        saves: Whether signals are the first one's from its first message on.

    Returns:
        How each ended, and which of them was the first to fail.
    """
    if listen is None:
        ((command, environment),) = starts
        with _start_of(command):
            only = subprocess.run(
                command, env=environment, stdin=lifeline, capture_output=True, text=True, errors="replace"
            )
        return [only], 0
    with ExitStack() as stack:
        workers: list[subprocess.Popen[str]] = []
        errors = []
        for command, environment in starts:
            with messages.temporary_files():
                errors.append(stack.enter_context(tempfile.TemporaryFile("w+", errors="replace")))
            out = subprocess.DEVNULL if workers else subprocess.PIPE
            with _start_of(command):
                worker = subprocess.Popen(
                    command, env=environment, stdin=lifeline, stdout=out, stderr=errors[-1], text=True, errors="replace"
                )
            workers.append(stack.enter_context(worker))
            stack.callback(worker.kill)  # if it is this side that fails
        ended: list[int] = []
        watch = Thread(target=_end_together, args=[workers, ended], daemon=True)
        watch.start()
        first = workers[0]
        said: deque[str] = deque(maxlen=_WORDS)  # lines that are no messages
        for line in first.stdout or ():
            message = messages.read(line)
            if message is None:
                said.append(line)
                continue
            if saves:
                stack.enter_context(_signals_of(first))
                saves = False
            listen(message)
        done = []
        for (command, _), worker, error in zip(starts, workers, errors, strict=True):
            worker.wait()
            error.seek(0)
            noise = "".join(said) if worker is first else ""
            done.append(subprocess.CompletedProcess(command, worker.returncode, noise, error.read()))
        watch.join()
        failed = [rank for rank in ended if done[rank].returncode != 0] or [0]
        # A process that was killed comes before those that failed for want of it.
        return done, min(failed, key=lambda rank: done[rank].returncode >= 0)


@contextmanager
def _start_of(command: list[str]) -> Iterator[None]:
    """A context in which an `OSError` is that a worker's command cannot be started."""
    try:
        yield
    except OSError as error:
        python, *_, backend, _folder = command
        raise spec.InvalidInput(f"--python {backend}={python}: cannot be started ({error.strerror})") from error


@contextmanager
def _signals_of(worker: subprocess.Popen[str]) -> Iterator[None]:
    """Pass Ctrl-C and SIGTERM on to a worker. At a terminal it receives each twice; the second does nothing."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda number, _: worker.send_signal(number)) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


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
    share = str(max(1, processors() // devices))
    settings = {"OMP_NUM_THREADS": share, "MXNET_OMP_MAX_THREADS": share}
    if backend == "mx":
        settings |= MXNET_OWN_ENGINE  # the other has one device compute after the other
    settings = {name: value for name, value in settings.items() if name not in os.environ}
    if backend == "mx" or processes(backend) > 1:
        return [settings]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    together = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    together |= settings | {"WORLD_SIZE": str(devices), "LOCAL_WORLD_SIZE": str(devices)}
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
    """How the process ended, and the last lines that it wrote."""
    if done.returncode == -signal.SIGKILL:
        ending = "killed by SIGKILL, as the system does when memory runs out: a smaller batch or size takes less"
    elif done.returncode < 0:
        ending = f"killed by {signal.Signals(-done.returncode).name}"
    else:
        ending = f"exit status {done.returncode}"
    return "\n".join([ending, *(done.stderr.strip() or done.stdout.strip()).splitlines()[-_WORDS:]])
