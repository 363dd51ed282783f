"""Faults in the referee of the exercises."""

from __future__ import annotations

from teeth.fault import Fault

_E = "tests/test_exercises.py"
_WRONG = f"{_E}::test_wrong_answer_is_told_what_is_wrong_and_nothing_else"

FAULTS = [
    Fault(
        "an answer is told what would be right",
        "harness/exercises/networks.py",
        '        text = f"{own} is not what is asked for"',
        "        text = line.text",
        (f"{_WRONG}[port-the-stem-pt-0]",),
    ),
    Fault(
        "another shape than the one that is asked for is not told",
        "harness/exercises/networks.py",
        "    if self.out not in shapes:",
        "    if not shapes:",
        (f"{_WRONG}[port-the-stem-pt-2]",),
    ),
]
