"""Faults in what only GPUs use: precision, memory formats, graphs, datasets on the device."""

from __future__ import annotations

from teeth.fault import Fault

PRECISION = "tests/test_precision.py::"
FLAGS = tuple(
    f"{PRECISION}test_pytorch_rounds_both_or_neither_in_every_pass_and_leaves_its_flags_alone[{tf32}-pt]"
    for tf32 in (True, False)
)

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
]
