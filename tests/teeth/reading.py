"""Faults in the readers of other people's networks, and in the rules for what is written out by hand."""

from __future__ import annotations

from teeth.fault import Fault

_R = "tests/test_rewriting.py"
_RULES = "harness/check/readers/rewriting.py"

FAULTS = [
    Fault(
        "a sum of any channels is local response normalization",
        _RULES,
        "            around = level and sorted(total.weights) == list(range(-reach, reach + 1))",
        "            around = level",
        (f"{_R}::test_another_sum_is_not_understood",),
    ),
    Fault(
        "channels that are cut off come back",
        _RULES,
        "        if any(part.number or channel + i in range(part.channels)",
        "        if any(part.number",
        (f"{_R}::test_zeros_are_counted_where_they_are",),
    ),
    Fault(
        "any gate of a map is SiLU",
        _RULES,
        ' and gate.op == Activation("sigmoid") and gate.reads == (x,):',
        ' and gate.op == Activation("sigmoid"):',
        (f"{_R}::test_gate_of_the_same_map_is_silu",),
    ),
]
