"""Faults in the page of a network."""

from __future__ import annotations

from teeth.fault import Fault

_E = "tests/test_explore.py"

FAULTS = [
    Fault(
        "a receptive field grows by the kernel, not by the pixels between its units",
        "harness/explore/fields.py",
        "height + (op.sides[0] - 1) * j,",
        "height + (op.sides[0] - 1),",
        (f"{_E}::test_receptive_fields_of_googlenet_are_those_that_follow_from_the_paper[inception3a-59-8]",),
    ),
    Fault(
        "what a unit sees is moved by the padding the wrong way",
        "harness/explore/fields.py",
        "i * op.strides[axis] - op.pads[axis][0]",
        "i * op.strides[axis] + op.pads[axis][0]",
        (f"{_E}::test_unit_sees_what_its_field_says_and_nothing_else",),
    ),
    Fault(
        "the maps of a branch are those of the stage's first channels",
        "harness/explore/maps.py",
        "x = stages[stage][:, start:stop]",
        "x = stages[stage][:, : stop - start]",
        (f"{_E}::test_maps_of_a_branch_are_its_own",),
    ),
    Fault(
        "a trap is made in a copy that is thrown away",
        "harness/explore/laboratory.py",
        "stages = reference.activations(wrong.config,",
        "stages = reference.activations(right.config,",
        (f"{_E}::test_a_trap_says_where_it_is_and_from_where_on_stages_differ",),
    ),
    Fault(
        "names from outside end the script that they stand in",
        "harness/explore/web/page.html",
        "{{ data | tojson }}",
        "{{ data | safe }}",
        (f"{_E}::test_nothing_from_outside_is_markup",),
    ),
    Fault(
        "a setting that only one of two presets has is no difference",
        "harness/explore/network.py",
        "for what in dict.fromkeys([*one, *other]):",
        "for what in one.keys() & other.keys() - {'activation'}:",
        (f"{_E}::test_one_activation_is_all_that_the_first_chinese_edition_differs_in",),
    ),
    Fault(
        "a backend that is not the referee's network is not told",
        "harness/explore/page.py",
        "return self.worst <= TOLERANCES[DTYPE].activations",
        "return self.worst <= TOLERANCES['bfloat16'].activations",
        (f"{_E}::test_a_backend_that_is_wrong_is_told",),
    ),
]
