"""A candidate in a process of its own, which works when it is its turn: `python -P -m harness.bench.worker`.

A line of JSON comes in, ``{"do": "measure", "calls": 3}``, and a line goes out: ``{"answer": {...}}`` or
``{"refused": "why"}``. The first line is the job (`harness.bench.crew.Process`). When the input ends, so does the
process.
"""

from __future__ import annotations

import json
import os
import signal
import sys


def main() -> None:
    """Answer until nobody asks any more. Whatever is not a refusal ends the process, with a traceback."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one who asks
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what frameworks print does not belong among the answers
    job = json.loads(sys.stdin.readline())
    if hasattr(os, "sched_setaffinity"):
        # Before anything is imported that starts threads or counts processors: XLA has no other switch.
        os.sched_setaffinity(0, job["processors"])
    from harness.bench.worker.subject import Subject
    from spec import InvalidInput

    subject = Subject(job)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            reply: dict[str, object] = {"answer": subject.answer(request.pop("do"), **request)}
        except InvalidInput as refusal:
            reply = {"refused": str(refusal)}
        print(json.dumps(reply), file=channel, flush=True)


if __name__ == "__main__":
    main()
