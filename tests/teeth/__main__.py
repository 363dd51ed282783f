"""Put every fault into a copy of the project, one at a time, and see whether a quick test fails.

    python -m teeth                    # from the folder tests: all faults, and the table in docs/testing.md
    python -m teeth --only "loader"    # those whose name or file has that text; no table is written

Exits with 1 where a fault is not found, where its place in the code is gone, or where its tests fail without it.
"""

from __future__ import annotations

import argparse
import compileall
import json
import os
import py_compile
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from queue import Queue

from teeth.fault import Fault
from teeth.faults import FAULTS, misplaced

ROOT = Path(__file__).parent.parent.parent
DOCUMENT = ROOT / "docs" / "testing.md"
BEGIN, END = "<!-- teeth: begin -->", "<!-- teeth: end -->"
LIMIT = 120  # seconds for the tests of a fault; one that hangs is found
SUITE_LIMIT = 1200  # seconds for the whole quick suite


@dataclass(frozen=True)
class Contents:
    """What became of a fault."""

    fault: Fault
    test: str | None  # the first quick test that failed
    seconds: float


def main() -> int:
    parser = argparse.ArgumentParser(prog="make test-teeth", description=__doc__, add_help=True)
    parser.add_argument("--only", default="", metavar="TEXT", help="faults whose name or file has that text")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="copies that work side by side")
    options = parser.parse_args()
    gone = misplaced(ROOT)
    if gone:
        print("These faults have lost their place: port them to the code as it is.", *gone, sep="\n  ")
        return 1
    chosen = [fault for fault in FAULTS if options.only in fault.name or options.only in fault.file]
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="teeth-") as folder, ExitStack() as stack:
        copies = [stack.enter_context(closing(Copy(Path(folder, str(i))))) for i in range(options.jobs)]
        tests = list(dict.fromkeys(test for fault in chosen if fault.slow is None for test in fault.tests))
        print(f"{len(chosen)} faults; without any, their {len(tests)} tests and files ...", flush=True)
        with ThreadPoolExecutor(len(copies)) as pool:
            # A copy without tests is left out: pytest would run all that there are.
            parts = [part for i in range(len(copies)) if (part := tests[i :: len(copies)])]
            for failed in pool.map(lambda copy, part: copy.first_failure(part, SUITE_LIMIT), copies, parts):
                if failed:
                    print(f"{failed} fails without a fault")
                    return 1
        found = _find_all(chosen, copies)
    missed = [one.fault for one in found if one.test is None and one.fault.slow is None]
    print(f"{len(found) - len(missed)} of {len(found)} faults in {(time.monotonic() - begun) / 60:.0f} minutes")
    for fault in missed:
        print(f"NOT FOUND: {fault.name} ({fault.file})")
    if not options.only and not missed:
        _write(found)
        print(f"wrote {DOCUMENT.relative_to(ROOT)}")
    return 1 if missed else 0


def _find_all(faults: list[Fault], copies: list[Copy]) -> list[Contents]:
    """Every fault in one of the copies, several at a time; progress on the standard output."""
    free: Queue[Copy] = Queue()
    for copy in copies:
        free.put(copy)

    def find(fault: Fault) -> Contents:
        copy = free.get()
        try:
            begun = time.monotonic()
            test = None if fault.slow else _find(fault, copy)
            return Contents(fault, test, time.monotonic() - begun)
        finally:
            free.put(copy)

    found = []
    with ThreadPoolExecutor(len(copies)) as pool:
        for one in pool.map(find, faults):
            found.append(one)
            what = one.test or ("only the slow suite" if one.fault.slow else "NOT FOUND")
            print(f"{len(found):4} {one.seconds:5.1f} s  {one.fault.name}: {what}", flush=True)
    return found


def _find(fault: Fault, copy: Copy) -> str | None:
    """The first quick test that fails with the fault: of its own, else of all."""
    path = copy.folder / fault.file
    right = path.read_text()
    path.write_text(right.replace(fault.old, fault.new))
    try:
        return copy.first_failure(fault.tests, LIMIT) or copy.first_failure(["tests"], SUITE_LIMIT)
    finally:
        path.write_text(right)


class Copy:
    """A copy of the project in a folder, and the process that runs tests in it."""

    def __init__(self, folder: Path) -> None:
        """Copy what is there, committed or not; compiled so that another content of a file is noticed."""
        self.folder = folder
        listed = subprocess.run(
            ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
        )
        for name in filter(None, listed.stdout.split("\0")):
            if (ROOT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, folder / name)
        compileall.compile_dir(folder, quiet=1, invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH)
        env = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "300", "PYTHONPATH": str(folder / "tests")}
        env["JAX_COMPILATION_CACHE_DIR"] = str(ROOT / ".pytest_cache" / "jax")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "teeth.server"],
            cwd=folder,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def first_failure(self, tests: Sequence[str], limit: float) -> str | None:
        """The first of these tests that fails; None if all pass.

        A test that takes longer than a quick one may is no failure.
        """
        assert self.process.stdin
        assert self.process.stdout
        print(json.dumps({"tests": list(tests), "limit": limit}), file=self.process.stdin, flush=True)
        answer = json.loads(self.process.stdout.readline())
        if answer["status"] is None:
            return f"{tests[0]} (does not end)"
        failures = re.findall(r"^(?:FAILED|ERROR) (tests/.+?\.py(?:::.+?)?)(?: - (.*))?$", answer["said"], re.MULTILINE)
        failures = [test for test, why in failures if not (why or "").startswith("took ")]
        if failures:
            return failures[0]
        if answer["status"] in (0, 1):
            return None
        raise RuntimeError(f"pytest: exit status {answer['status']}\n{answer['said'][-3000:]}")

    def close(self) -> None:
        """End the process."""
        self.process.stdin.close()
        self.process.wait()


def _write(found: list[Contents]) -> None:
    """The table, into the document."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    rows = [f"| {one.fault.name} | `{one.fault.file}` | {_cell(one)} |" for one in found]
    head = [
        f"Of commit {commit.stdout.strip()}, {len(found)} faults:",
        "",
        "| fault | in | first quick test that finds it |",
    ]
    text = DOCUMENT.read_text()
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    table = "\n".join([*head, "| --- | --- | --- |", *rows])
    DOCUMENT.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}")


def _cell(one: Contents) -> str:
    if one.test is None:
        return f"only the slow suite: {one.fault.slow}"
    file, _, test = one.test.partition("::")
    return f"`{file.removeprefix('tests/')}` {test}".replace("|", "\\|").strip()


if __name__ == "__main__":
    sys.exit(main())
