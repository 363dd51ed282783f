"""A candidate in a process of its own: `python -P -m harness.bench.worker`.

A line of JSON comes in, ``{"do": "measure", "calls": 3}``, and a line goes out: ``{"answer": {...}}`` or
``{"refused": "why"}``. The first line is the job (`harness.bench.process.Process`). When the input ends, so does the
process. Its lines are those of `harness.backends.messages`.
"""

from __future__ import annotations

import json
import os
import signal
import sys


def main() -> None:
    """Answer until the input ends. Any error but a refusal ends the process, with a traceback."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the command that asks
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what frameworks print does not belong among the answers
    job = json.loads(sys.stdin.readline())
    if hasattr(os, "sched_setaffinity"):
        # XLA has no other switch. Later imports start threads and count processors.
        os.sched_setaffinity(0, job["processors"])
    from harness.backends import messages
    from harness.bench.worker.operations import Operations
    from spec import InvalidInput

    messages.watch_lifeline(lambda: os._exit(1))
    operations = Operations(job)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            reply: dict[str, object] = {"answer": getattr(operations, request.pop("do"))(**request)}
        except InvalidInput as refusal:
            reply = {"refused": str(refusal)}
        print(messages.written(reply), file=channel, flush=True)


if __name__ == "__main__":
    main()
