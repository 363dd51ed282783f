"""The parts of a run on a GPU, the most telling first, and the way through them while time lasts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.atomic import write_atomically
from harness.gpu.sensors import Read, watch

ROOT = Path(__file__).parents[2]
GRACE = 20.0  # seconds for a part that is told to stop, to write what it has
LEAST = 40.0  # seconds: with less no part begins
STATE = "gpu.json"
_COMMAND = ("-m", "harness.cli.main")
_DTYPES = {"mx": "float32"}  # MXNet has no other that is fast
_OTHERS = "float32,tf32,bfloat16"


@dataclass(frozen=True)
class Part:
    """One command of the run."""

    name: str  # of its files
    title: str
    command: tuple[str, ...]  # for this interpreter
    variables: Mapping[str, str] = field(default_factory=dict)  # of its environment


def plan(backends: Sequence[str], folder: Path) -> list[Part]:
    """The parts for backends that find a GPU: tests, `compare` in float64, and the benchmark, a batch at a time.

    What a part writes is in `folder`, under its name.
    """
    names = ",".join(backends)
    compare = ("compare", "--backends", names, "--device", "gpu", "--json", str(folder / "compare.json"))
    parts = [
        Part(
            "tests",
            "Tests",
            ("-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "gpu", str(ROOT / "tests" / "test_gpu.py")),
            {"GOOGLENET_BACKENDS": names},
        ),
        Part("compare", "Against the referee, in float64", (*_COMMAND, *compare)),
    ]
    for batch in (128, 1024, 1):
        for name in backends:
            out = folder / f"{name}-{batch}"
            options = {
                "--batch": batch,
                "--dtype": _DTYPES.get(name, _OTHERS),
                "--variant": "all",
                "--device": "gpu",
                "--rounds": 5,  # the fewest that an interval is given for
                "--minutes": 0,  # no more than these
                "--out": out,
                "--markdown": f"{out}.md",
            }
            words = (str(word) for option in options.items() for word in option)
            parts.append(Part(out.name, f"{name}, batch {batch}", (*_COMMAND, "bench", name, *words)))
    return parts


def run_part(part: Part, folder: Path, seconds: float) -> int | None:
    """Run it for so long at most; its output goes to a file. Returns its exit status, or None when time was up.

    It is told to stop as by Ctrl-C, after which `googlenet bench` keeps what it has measured.
    """
    (folder / f"{part.name}.md").unlink(missing_ok=True)  # tables are appended to it
    variables = {**os.environ, "PYTHONPATH": str(ROOT), **part.variables}
    with (folder / f"{part.name}.txt").open("w") as output:
        process = subprocess.Popen(
            [sys.executable, *part.command],
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(GRACE)
            return None
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


Run = Callable[[Part, Path, float], int | None]


def passed_before(folder: Path, about: dict[str, Any]) -> dict[str, Any]:
    """What earlier runs have noted in the folder about parts that passed, with the same machine and code.

    Nothing where code has changed since the last commit: nobody knows what an earlier run had.
    """
    try:
        state = json.loads((folder / STATE).read_text())
        alike = all(state[key] == json.loads(json.dumps(about[key])) for key in about)
        if alike and not about["code"]["dirty"]:
            return {name: result for name, result in state["parts"].items() if result["status"] == "passed"}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass  # there is none, or it is damaged
    return {}


def go_on(
    parts: Sequence[Part],
    folder: Path,
    about: dict[str, Any],
    seconds: float,
    *,
    read: Read | None = None,
    run: Run = run_part,
    clock: Callable[[], float] = time.monotonic,
    tell: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Do the parts that are not done yet, while time lasts, and note each as soon as it ends.

    A part is ``passed`` (exit status 0), ``failed``, or ``unfinished``, for time was up. The next run does again what
    has not passed.

    Args:
        parts: In order.
        folder: Takes their files, and the notes.
        about: The machine and the code, for the notes.
        seconds: For all of them.
        read: Reads the GPU meanwhile.
        run: Runs a part.
        clock: In seconds.
        tell: Takes a line about each part.

    Returns:
        The notes: `about`, and under ``parts`` what became of each that was begun.
    """
    done = passed_before(folder, about)
    deadline = clock() + seconds
    for part in parts:
        left = deadline - clock()
        if part.name in done:
            tell(f"{part.title}: passed before")
            continue
        if left < LEAST:
            break
        tell(f"{part.title}: begins, {left:.0f} s left")
        begun = clock()
        with watch(read) as watched:
            status = run(part, folder, left - GRACE)
        done[part.name] = {
            "status": "unfinished" if status is None else "passed" if status == 0 else "failed",
            "exit_status": status,
            "seconds": round(clock() - begun, 1),
            "gpu": watched.as_json(),
        }
        _write(folder, about, parts, done)
        tell(f"{part.title}: {done[part.name]['status']} after {done[part.name]['seconds']:.0f} s")
    return _write(folder, about, parts, done)


def _write(folder: Path, about: dict[str, Any], parts: Sequence[Part], done: dict[str, Any]) -> dict[str, Any]:
    notes = {"schema": 1, **about, "parts": {part.name: done[part.name] for part in parts if part.name in done}}
    write_atomically(folder / STATE, (json.dumps(notes, indent=2) + "\n").encode())
    return notes
