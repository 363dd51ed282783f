"""Test, compare and measure on this machine's GPU, with the versions of the frameworks that it has.

What time does not suffice for, the next run with the same code goes on with. Exits with 0 when everything that was run
has passed, with 1 when a part failed, and with 2 where no backend finds a GPU.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from harness.atomic import check_target, write_atomically
from harness.backends.doctor import examine
from harness.bench import machine
from harness.gpu.page import page
from harness.gpu.plan import go_on, plan
from harness.gpu.sensors import open_gpu
from harness.screen import say
from spec import InvalidInput


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m harness.gpu", description=__doc__)
    parser.add_argument("--minutes", type=float, default=8.0, help="for all parts together (default: 8)")
    parser.add_argument("--out", type=Path, default=Path("gpu"), metavar="DIR", help="data (default: gpu)")
    parser.add_argument(
        "--markdown", type=Path, default=Path("BENCHMARKS-GPU.md"), metavar="FILE", help="default: BENCHMARKS-GPU.md"
    )
    parser.add_argument("--json", action="store_true", help="print the notes as JSON")
    options = parser.parse_args(words)
    notes = Console(stderr=True)
    try:
        return _run(options, notes)
    except InvalidInput as error:
        say(notes, f"error: {error}", "red")
        return 2


def _run(options: argparse.Namespace, notes: Console) -> int:
    check_target(options.markdown)
    say(notes, "asks each backend for its GPUs")
    findings = examine("auto")
    backends = [name for name, finding in findings["backends"].items() if _finds_a_gpu(finding)]
    if not backends:
        raise InvalidInput("no backend finds a GPU here that it can use: `googlenet doctor` says why")
    code = machine.code()
    named = f"{(code['commit'] or 'unknown')[:12]}{'-changed' if code['dirty'] else ''}"  # other code begins anew
    folder = options.out / named
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInput(f"{folder}: cannot be made ({error.strerror})") from error
    gpu = open_gpu()
    if gpu is None:
        say(notes, "clocks and power are not read: pip install '.[gpu]'", "yellow")
    about = {
        "gpu": gpu and gpu[0],
        "found": _named(findings["gpus"]) or findings["backends"][backends[0]]["devices"][1],
        "code": code,
        "versions": {
            findings["backends"][name]["framework"]: findings["backends"][name]["version"] for name in backends
        }
        | {"NumPy": findings["numpy"], "Python": findings["python"]},
    }
    parts = plan(backends, folder)
    done = go_on(
        parts,
        folder,
        about,
        60 * options.minutes,
        read=gpu and gpu[1],
        tell=lambda line: say(notes, line),
    )
    write_atomically(options.markdown, page(done, parts, folder).encode())
    if options.json:
        print(json.dumps(done, indent=2))
    states = [done["parts"].get(part.name, {}).get("status", "not reached") for part in parts]
    say(
        notes,
        f"{states.count('passed')} of {len(parts)} parts passed, {states.count('failed')} failed: {options.markdown}",
    )
    if set(states) - {"passed", "failed"}:
        say(notes, "time was up: run it again to go on")
    return 1 if "failed" in states else 0


def _named(gpus: list[dict[str, str]]) -> str:
    """As `googlenet doctor` lists them; empty where NVIDIA's tool does not."""
    return "; ".join("{name}, compute capability {compute_capability}, driver {driver}".format(**gpu) for gpu in gpus)


def _finds_a_gpu(finding: dict[str, Any]) -> bool:
    return (
        finding["works"] and len(finding["devices"]) > 1 and not any("cannot run on" in x for x in finding["problems"])
    )


if __name__ == "__main__":
    sys.exit(main())
