"""Run quick tests again and again, each time in a process that has the frameworks but not our code: `python -m teeth.server`.

A line of JSON comes in, ``{"tests": [...], "limit": seconds}``, and one goes out: ``{"status": 1, "said": "..."}``. The
current folder is a copy of the project. A status of null is a run that did not end.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

import environment  # noqa: F401 (before any framework is imported)
import pytest

QUICK = "not slow and not large"
# Not MXNet, which googlenet_mx prepares before it imports it, nor Hypothesis, whose assertions pytest rewrites.
LIBRARIES = (
    *("numpy", "PIL.Image", "rich.console", "typer.testing", "safetensors.numpy"),
    *("torch._dynamo", "jax", "flax.nnx", "optax", "onnx", "onnxruntime"),
)


def main() -> None:
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    sys.path.insert(0, str(Path.cwd()))
    _import_what_is_not_ours()
    for line in sys.stdin:
        request = json.loads(line)
        with tempfile.TemporaryFile("w+") as output:
            status = _run(request["tests"], request["limit"], output.fileno())
            output.seek(0)
            print(json.dumps({"status": status, "said": output.read()}), file=channel, flush=True)


def _import_what_is_not_ours() -> None:
    for name in LIBRARIES:
        importlib.import_module(name)


def _run(tests: list[str], limit: float, output: int) -> int | None:
    """The exit status of pytest on these tests; None where it took longer than the limit, and was ended."""
    child = os.fork()
    if child == 0:
        os.setsid()
        os.dup2(output, 1)
        os.dup2(output, 2)
        status = 70
        try:
            options = [
                "-q",
                "-x",
                "-rfE",
                "-p",
                "no:cacheprovider",
                "-p",
                "no:hypothesispytest",
                "-m",
                QUICK,
                "--color=no",
            ]
            status = int(pytest.main([*options, *tests]))
        finally:  # what the frameworks do at an ordinary exit is for the process that imported them
            sys.stdout.flush()
            os._exit(status)
    end = time.monotonic() + limit
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


if __name__ == "__main__":
    main()
