"""Faults in the readers of other people's networks, and in the rules for what is written out by hand."""

from __future__ import annotations

from teeth.fault import Fault

_R = "tests/test_rewriting.py"
_RULES = "harness/check/readers/rewriting.py"
_WRITTEN = "tests/test_check.py::test_written_batch_norm_is_read"
_G = "tests/test_check_mx.py"
_J = "tests/test_check_jax.py"
_GLUON = "googlenet_mx/recording.py"
_HANDLERS = "googlenet_mx/operators/handlers.py"
_SYMBOL = f"{_G}::test_symbol_with_a_loss_and_a_batch_norm_of_fixed_scale_is_read"

FAULTS = [
    Fault(
        "a leaky ReLU of Gluon is held to float64, in which MXNet does not compute it",
        _HANDLERS,
        "r.single = True",
        "r.single = False",
        (f"{_G}::test_leaky_relu_is_held_to_float32_in_which_mxnet_computes_it",),
    ),
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
    Fault(
        "a running mean's share is that of what was there",
        "googlenet_pt/functions/recorder.py",
        "share = ((running.flatten() - before[name].flatten()) / apart)",
        "share = ((batch.flatten() - running.flatten()) / apart)",
        (f"{_WRITTEN}[as in the paper]",),
    ),
    Fault(
        "a training pass without gradients",
        "googlenet_pt/recording.py",
        "torch.set_grad_enabled(training)",
        "torch.no_grad()",
        ("tests/test_check.py::test_batch_norm_that_asks_for_gradients_is_read[0.1]",),
    ),
    Fault(
        "statistics that are plain attributes stay in float32",
        "googlenet_pt/recording.py",
        "        vars(module).update({key: x.to(numbers) for key, x in plain_tensors(module).items()})\n",
        "        pass\n",
        ("tests/test_check.py::test_batch_norm_that_asks_for_gradients_is_read[0.1]",),
    ),
    Fault(
        "an average's own divisor is left out",
        "googlenet_pt/functions/handlers.py",
        "return r.node(Scale(area / divisor_override), [mean], y)",
        "return mean",
        ("tests/test_check.py::test_average_with_a_divisor_of_its_own_is_read[{'padding': 1}-4]",),
    ),
    # ------------------------------------------------------------------------------------------------------ JAX
    Fault(
        "what a mask drops is what it keeps",
        "googlenet_jax/jaxpr/masks.py",
        "kept = 1 - share if above else share",
        "kept = share",
        (f"{_J}::test_masks_of_random_numbers_are_dropout_which_drops_nothing[product]",),
    ),
    Fault(
        "a batch's mean of squares is its variance",
        "googlenet_jax/jaxpr/reader.py",
        'return arithmetic("add", spread, arithmetic("mul", one, other))',
        "return spread",
        (f"{_J}::test_training_is_read_with_the_statistics_of_the_batch_and_dropout[nnx]",),
    ),
    Fault(
        "training is asked for where inference is",
        "googlenet_jax/jaxpr/libraries.py",
        "{name: _FLAGS[name] == training for",
        "{name: _FLAGS[name] for",
        (f"{_J}::test_training_is_read_with_the_statistics_of_the_batch_and_dropout[linen]",),
    ),
    Fault(
        "the first batch of a training stands for all",
        "googlenet_jax/jaxpr/libraries.py",
        "    state = jax.tree.map(lambda x: jax.numpy.zeros_like(x) if x.dtype == bool else x, state)\n",
        "",
        (f"{_J}::test_running_statistics_that_blend_into_training_are_not_read_as_batch_norm",),
    ),
    Fault(
        "a view of an array is written in the order of its memory",
        "harness/check/conversion.py",
        "return np.ascontiguousarray(single if np.array_equal(single, x) else x)",
        "return single if np.array_equal(single, x) else x",
        (f"{_J}::test_weights_with_the_batchs_statistics_go_to_a_model_of_pytorch",),
    ),
    Fault(
        "rounding that batch norm amplifies is an error",
        "harness/check/checking.py",
        "max(TOLERANCES[dtype], recording.nudge)",
        "TOLERANCES[dtype]",
        (f"{_J}::test_weights_with_the_batchs_statistics_go_to_a_model_of_pytorch",),
    ),
    Fault(
        "weights of another shape are put into a layer",
        "googlenet_jax/jaxpr/weights.py",
        "if name in arrays and not _same_shape(arrays[name].shape, x.shape)",
        "if name in arrays and arrays[name].size > x.size",
        (f"{_J}::test_all_weights_that_do_not_fit_are_named",),
    ),
    # ---------------------------------------------------------------------------------------------------- MXNet
    Fault(
        "what MXNet computes in float32 is held to float64",
        "googlenet_mx/operators/recorder.py",
        "self.single = self.single or y.dtype == np.float32",
        "self.single = False",
        (f"{_G}::test_part_in_float32_is_held_to_what_float32_can_do",),
    ),
    Fault(
        "MXNet's momentum is read as everybody else's",
        _HANDLERS,
        "momentum = None if kept == 1 else round(1 - kept, 12)",
        "momentum = None if kept == 1 else kept",
        (_SYMBOL,),
    ),
    Fault(
        "a scale that MXNet takes for 1 is read as one",
        _GLUON,
        '.get("fix_gamma", True):',
        '.get("fix_gamma", False):',
        (_SYMBOL,),
    ),
    Fault(
        "MXNet's k is Caffe's where nobody says it",
        _HANDLERS,
        '("knorm", 2)',
        '("knorm", 1)',
        (f"{_G}::test_mistake_is_found_and_nothing_else[lrn-k]",),
    ),
    Fault(
        "a pass of the check moves running means",
        _GLUON,
        "            parameter.set_data(x)\n",
        "            x.wait_to_read()\n",
        (f"{_G}::test_a_pass_leaves_a_model_as_it_was",),
    ),
    Fault(
        "a hybridized model is one operation",
        "googlenet_mx/operators/recorder.py",
        "never = property(lambda block: False,",
        "never = property(lambda block: True,",
        (f"{_G}::test_our_own_network_is_the_same[lenet-bn-28-True]",),
    ),
    Fault(
        "statistics that a pass before has moved are taken for those before",
        "googlenet_mx/recording.py",
        "        with _kept(model):\n            usual",
        "        if model:\n            usual",
        (f"{_G}::test_a_pass_leaves_a_model_as_it_was[lenet-bn-scratch-1.0]",),
    ),
    Fault(
        "a symbol's label is an image",
        _GLUON,
        'labels = [name for name in free if name.endswith("label")]',
        'labels = [name for name in free if name.endswith("labels")]',
        (_SYMBOL,),
    ),
]
