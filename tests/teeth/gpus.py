"""Faults in what only GPUs use: precision, memory formats, graphs, datasets on the device."""

from __future__ import annotations

from teeth.fault import Fault

PRECISION = "tests/test_precision.py::"
FLAGS = tuple(
    f"{PRECISION}test_pytorch_rounds_both_or_neither_in_every_pass_and_leaves_its_flags_alone[{tf32}-pt]"
    for tf32 in (True, False)
)
GRAPHS = "tests/test_graphs.py::"
REPLAYED = f"{GRAPHS}test_replayed_steps_are_the_plain_ones_bit_for_bit"
BATCHES = "tests/test_resident.py::test_batches_of_the_device_are_those_of_the_host"
RUN = "tests/test_gpu_run.py::"

FAULTS = [
    Fault(
        "pt: TF32 is left on for the rest of the process",
        "googlenet_pt/device.py",
        "            setting.allow_tf32 = value\n",
        "            setting.allow_tf32 = True\n",
        FLAGS,
    ),
    Fault(
        "pt: the backward pass of a step rounds as PyTorch likes",
        "googlenet_pt/train.py",
        "        value.backward(torch.full_like(value, scale))\n",
        "    value.backward(torch.full_like(value, scale))\n",
        FLAGS,
    ),
    Fault(
        "jax: nobody tells a layer its precision",
        "googlenet_jax/network.py",
        "part.dtype, part.precision = self.dtype, precision",
        "part.dtype = self.dtype",
        (f"{PRECISION}test_jax_tells_every_convolution_and_product_of_a_step[HIGH-jax]",),
    ),
    Fault(
        "tf32 is taken where nothing rounds to it",
        "harness/backends/registry.py",
        'if dtype == "tf32" and (capability is None or capability < (8, 0)):',
        'if dtype == "tf32" and (capability is not None and capability < (8, 0)):',
        (f"{PRECISION}test_compute_capability_8_has_tf32[None-False]",),
    ),
    Fault(
        "pt: a graph computes the batch that it was captured with",
        "googlenet_pt/graphs.py",
        "            static.copy_(x)\n",
        "            pass\n",
        (f"{REPLAYED}[sgd-float32]",),
    ),
    Fault(
        "pt: results of a graph change with its next replay",
        "googlenet_pt/graphs.py",
        "return [y.clone() for y in self._outputs]",
        "return list(self._outputs)",
        (f"{REPLAYED}[sgd-float32]",),
    ),
    Fault(
        "pt: an epoch's last batch goes into the whole batch's graph",
        "googlenet_pt/graphs.py",
        "elif key != self._key:",
        "elif self._key is None:",
        (f"{REPLAYED}[sgd-float32]",),
    ),
    Fault(
        "pt: the rate is what it was when the graph was captured",
        "googlenet_pt/optimizer.py",
        '            group["lr"].fill_(rate)\n',
        '            group["lr"] = rate\n',
        (f"{REPLAYED}[adam-float32]", f"{REPLAYED}[rmsprop-float32]"),
    ),
    Fault(
        "pt: the share of an average is what it was when the graph was captured",
        "googlenet_pt/optimizer.py",
        "        self.t += 1\n",
        "        self.t = torch.tensor(self.t.item() + 1, dtype=torch.float64)\n",
        (f"{REPLAYED}[rmsprop-float32]",),
    ),
    Fault(
        "pt: a graph writes into an optimizer's state from before it was loaded",
        "googlenet_pt/optimizer.py",
        "    optimizer.graph = _graph(model)  # one that was captured has the state's old place\n",
        "",
        (f"{GRAPHS}test_a_state_that_is_loaded_is_captured_anew",),
    ),
    Fault(
        "pt: batch norm in the weights forgets the running mean",
        "googlenet_pt/predict.py",
        "((bias - norm.running_mean) * scale + shift)",
        "(bias * scale + shift)",
        (f"{GRAPHS}test_a_captured_predictor_computes_what_the_model_does[float64]",),
    ),
    Fault(
        "jax: a dataset on the device is normalized as its first channel",
        "googlenet_jax/train.py",
        "table[np.arange(len(table)), pixels[rows]]",
        "table[0, pixels[rows]]",
        (f"{BATCHES}[jax-3-mean1-std1-float64]", f"{BATCHES}[jax-3-mean1-std1-float32]"),
    ),
    Fault(
        "pt: a dataset on the device is normalized as its first channel",
        "googlenet_pt/train.py",
        "numbers.take(pixels[chosen].long() + first)",
        "numbers.take(pixels[chosen].long())",
        (f"{BATCHES}[pt-3-mean1-std1-float64]", f"{BATCHES}[pt-3-mean1-std1-float32]"),
    ),
    Fault(
        "a dataset on the device is gone through in the first epoch's order",
        "harness/training/loop.py",
        'order: dict[str, Any] = {"seed": settings.seed, "epoch": epoch, "first": first}',
        'order: dict[str, Any] = {"seed": settings.seed, "epoch": 0, "first": first}',
        ("tests/test_loop.py::test_the_loop_trains_as_the_referee_does[pt]",),
    ),
    Fault(
        "a dataset fills the device",
        "harness/training/loop.py",
        "4 * split.images.nbytes <= free",
        "split.images.nbytes <= free",
        ("tests/test_resident.py::test_images_live_on_a_single_gpu_that_has_room_for_four_times_as_many",),
    ),
    Fault(
        "make gpu does again what has passed",
        "harness/gpu/plan.py",
        'if result["status"] == "passed"}',
        "if False}",
        (f"{RUN}test_what_time_does_not_suffice_for_is_done_by_the_next_run",),
    ),
    Fault(
        "make gpu takes another machine's results for this one's",
        "harness/gpu/plan.py",
        "if alike and not about",
        "if not about",
        (f"{RUN}test_another_machine_and_other_code_begin_anew",),
    ),
    Fault(
        "a part of make gpu that takes too long loses what it has measured",
        "harness/gpu/plan.py",
        "process.send_signal(signal.SIGINT)",
        "process.kill()",
        (f"{RUN}test_a_part_that_takes_too_long_is_told_to_stop",),
    ),
]
