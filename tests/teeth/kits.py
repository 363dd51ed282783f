"""Faults in conformance kits, and in what is said of captures."""

from __future__ import annotations

from teeth.fault import Fault

_K = "tests/test_kits.py"
_TABLE = f"{_K}::test_mistake_in_the_table_is_named_by_its_numbers"

FAULTS = [
    Fault(
        "a kit's numbers are not those that its page draws",
        "harness/check/kits/kit.py",
        "        u = (x >> np.uint64(40)) / 2.0**23 - 1",
        "        u = (x >> np.uint64(41)) / 2.0**22 - 1",
        (f"{_K}::test_anybody_can_draw_the_inputs",),
    ),
    Fault(
        "a step that divides rounding by rounding is in a kit",
        "harness/check/kits/kit.py",
        "size > _ZERO * max(sizes.values())",
        "size > 0.0 * max(sizes.values())",
        (f"{_K}::test_kit_holds_what_the_referee_computes",),
    ),
    Fault(
        "a stage is computed from the referee's input, not from the port's",
        "harness/check/kits/judging.py",
        "reads, pending = stage, []",
        "pending = list(pending)",
        (f"{_TABLE}[pool-floor]",),
    ),
    Fault(
        "a mistake explains a stage that it does not reproduce at the other size",
        "harness/check/kits/explaining.py",
        "    if any(mistakes) and all(one.right",
        "    if any(mistakes) and any(one.right",
        (f"{_K}::test_rules_that_agree_at_an_even_size_are_told_apart_at_the_odd_one",),
    ),
    Fault(
        "the branches of a block are taken in their own order, whatever came out",
        "harness/check/kits/explaining.py",
        "key=lambda order: _matches(blocks, order))",
        "key=lambda order: 0)",
        (f"{_TABLE}[branch-order]",),
    ),
    Fault(
        "the statistics of a batch are looked for in one picture",
        "harness/check/kits/explaining.py",
        "        first = other.mistake.of_batch or self._reproduced(other, slice(0, 1))",
        "        first = self._reproduced(other, slice(0, 1))",
        (f"{_K}::test_mistake_in_one_stage_is_named_by_its_numbers[norm-training]",),
    ),
    Fault(
        "gradients are held against the sum over the pictures",
        "harness/check/kits/training.py",
        "        expected = {name: self.expected.grads[name] for name in got}",
        "        expected = {name: 2 * self.expected.grads[name] for name in got}",
        (f"{_K}::test_port_that_is_right_is_the_same",),
    ),
    Fault(
        "a capture with NaN is read",
        "harness/check/kits/capture.py",
        "if not np.isfinite(x).all()",
        "if x.size == 0",
        (f"{_K}::test_capture_that_is_none_is_refused_with_all_its_problems",),
    ),
]
