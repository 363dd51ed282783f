"""Faults in the check of other people's networks."""

from __future__ import annotations

from teeth.fault import Fault

_C = "tests/test_check.py"
_READ = "tests/test_check_jax.py::test_arithmetic_is_read_as_the_layer_that_it_is"
_MISTAKE = f"{_C}::test_mistake_is_found_and_nothing_else"
_SAME = f"{_C}::test_same_function_in_another_form_is_no_difference"

FAULTS = [
    Fault(
        "what is run again is not held against the model",
        "harness/check/checking.py",
        "    if not error <= tolerance(recording, dtype):",
        "    if error > 1e9:",
        (f"{_C}::test_recorder_that_sees_something_else_is_not_believed",),
    ),
    Fault(
        "an unknown operation is passed over",
        "harness/check/tree.py",
        "        if isinstance(op := graph.nodes[number].op, Unknown):",
        "        if isinstance(op := graph.nodes[number].op, Flatten):",
        (f"{_C}::test_unknown_operation_is_not_understood",),
    ),
    Fault(
        "a training pass that failed counts as one that agrees",
        "harness/check/checking.py",
        'problem = problem or f"its training pass',
        'notes = notes or f"its training pass',
        (f"{_C}::test_model_whose_training_cannot_be_seen_is_not_the_same",),
    ),
    Fault(
        "pools are compared by their settings, not by what they read",
        "harness/check/align.py",
        "    if names and isinstance(reference, Sliding | AdaptiveAverage)",
        "    if names and isinstance(reference, AdaptiveAverage)",
        (f"{_SAME}[same-pool]",),
    ),
    Fault(
        "the order of branches is not looked at",
        "harness/check/differences.py",
        "            if matched != sorted(matched):",
        "            if not matched:",
        (f"{_MISTAKE}[order]",),
    ),
    Fault(
        "an effect is that of all differences and of none",
        "harness/check/differences.py",
        "            items += [] if parts else [pair.reference]",
        "            items += [pair.reference]",
        (f"{_MISTAKE}[no-lrn]",),
    ),
    Fault(
        "batch norm that is a part of its layer leaves no bias there",
        "harness/check/reference.py",
        '{**layer.arrays, "bias": layer.arrays.get("bias", f"{layer.place}.bias")}',
        "{**layer.arrays}",
        (f"{_C}::test_batch_norm_that_was_folded_into_the_layers_is_no_difference",),
    ),
    Fault(
        "weights are written whatever differs",
        "harness/check/conversion.py",
        "all(any(word in text for word in words) for text in lines)",
        "True",
        (f"{_C}::test_weights_of_another_function_are_written_where_the_difference_is_accepted",),
    ),
    Fault(
        "another model's weights are put in place whatever it puts out with them",
        "harness/check/conversion.py",
        "        if done.passed:",
        "        if done.logits >= 0:",
        (f"{_C}::test_weights_go_from_one_model_to_another",),
    ),
    Fault(
        "of another model the heads are not looked at",
        "harness/check/reference.py",
        'kinds = ["training"] if training else ["inference", LARGER]',
        'kinds = [""] if training else ["inference", LARGER]',
        (f"{_C}::test_model_is_held_against_another_one[]",),
    ),
    Fault(
        "a function's place is that of the module which calls it",
        "googlenet_pt/recording.py",
        "        placed.append(node if alone else replace(node, place=shared))",
        "        placed.append(node)",
        (f"{_C}::test_model_is_held_against_another_one[no-lrn]",),
    ),
    Fault(
        "a program's operation is called in whatever form fits its inputs",
        "googlenet_pt/programs.py",
        'schema.overload_name or "default")',
        'schema.overload_name or "default").overloadpacket',
        (f"{_C}::test_program_is_read_as_the_module_that_it_was_made_from[scripted]",),
    ),
    Fault(
        "the constants of a frozen program are one where they are equal",
        "googlenet_pt/functions/recorder.py",
        "self.names.get(id(array),",
        "self.names.setdefault(id(array),",
        (f"{_C}::test_program_is_read_as_the_module_that_it_was_made_from[frozen]",),
    ),
    Fault(
        "names from a model are markup in the page of a check",
        "harness/check/report/page.py",
        "        autoescape=True,",
        "        autoescape=False,",
        (f"{_C}::test_page_has_both_networks_and_marks_their_differences",),
    ),
    Fault(
        "the page of a check marks nothing",
        "harness/check/report/page.py",
        "        lines = tuple(marks.get(id(pair), ()))",
        "        lines = ()",
        (f"{_C}::test_page_has_both_networks_and_marks_their_differences",),
    ),
    Fault(
        "whichever parameter a written-out batch norm has is its mean",
        "harness/check/readers/written_norm.py",
        " and np.allclose(shift, offset - numbers[mean] * factor, rtol=_CLOSE, atol=_CLOSE)",
        "",
        (f"{_READ}[norm folded]",),
    ),
    Fault(
        "a factor and a shift are always a batch norm",
        "harness/check/readers/written_norm.py",
        "np.ptp(epsilon) <= _LEVEL * numbers[var].max() and epsilon.mean() > -_LEVEL",
        "True",
        (f"{_READ}[no norm]",),
    ),
    Fault(
        "JAX: whatever order a map is laid out in, it is the usual one",
        "googlenet_jax/jaxpr/operations.py",
        'last=order == "HWC" and',
        'last=order == "WHC" and',
        (f"{_READ}[flattened]",),
    ),
    Fault(
        "JAX: a sum divided by any map of numbers is an average",
        "googlenet_jax/jaxpr/layers.py",
        "    return r.instead(x, replace(before.average, count_pad=False)) if same else None",
        "    return r.instead(x, before.average)",
        (f"{_READ}[not counted]",),
    ),
    Fault(
        "JAX: of layers side by side each is the first",
        "googlenet_jax/jaxpr/values.py",
        "            begin = end\n",
        "            begin = 0\n",
        (f"{_READ}[side by side]",),
    ),
    Fault(
        "zeros around a map are minus infinity to a max pool, also where the map is negative",
        "harness/check/tree.py",
        "            if positive and isinstance(op := item.op, BorderedMaxPool):",
        "            if isinstance(op := item.op, BorderedMaxPool):",
        (f"{_C}::test_flattening_and_padding_are_read_as_they_are",),
    ),
]
