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
    Fault(
        "a loss counts as right that is not",
        "harness/exercises/numbers.py",
        "        elif not math.isclose(number, right, rel_tol=CLOSE):",
        "        elif number > 2 * right:",
        (f"{_WRONG}[label-smoothing-numpy-1]",),
    ),
    Fault(
        "weights count as carried that have the right shape",
        "harness/exercises/numbers.py",
        "        if array is None or np.array_equal(array, right):",
        "        if array is None or array.shape == right.shape:",
        (f"{_WRONG}[carry-the-weights-numpy-0]",),
    ),
    Fault(
        "a side that is too large for the smallest counts as right",
        "harness/exercises/numbers.py",
        "        elif side is not None and side != spec.minimum_input_size(config):",
        "        elif side is not None and side < spec.minimum_input_size(config):",
        (f"{_WRONG}[smallest-picture-numpy-0]",),
    ),
]
