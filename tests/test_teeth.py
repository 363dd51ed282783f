"""The comparison itself is tested: a fault put into a real model must fail, and the failure must name the place.

In JAX each of these models would compile for 20 s. `make test-teeth` puts such faults into the code of all three. What
the comparison makes of doctored answers is in test_verdict.py.
"""

from __future__ import annotations

import dataclasses
import math
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from networks import Case, answer_of, material
from networks import expected as expectation
from support import TESTED, loaded
from trajectories import (
    ADAM,
    SGD,
    THIN_ADAM,
    Result,
    goes_on,
    loss_error,
    parameter_error,
    referee_result,
    start,
    turns,
)

import spec
from harness.agreement import relative_error
from harness.compare.comparison import BackendReport, Expected, judge
from spec.tolerances import TOLERANCES, TRAJECTORY

CASE = Case("d2l", 28, 2)
BOUNDS = TOLERANCES["float64"]
LIVE = pytest.mark.parametrize("backend", [name for name in TESTED if name != "jax"], indirect=True)


@pytest.fixture(scope="module")
def expected() -> Expected:
    return expectation(CASE)


def _report(backend: ModuleType, model: Any, expected: Expected) -> BackendReport:
    _, _, images, labels = material(CASE)
    return judge(answer_of(backend, model, images, labels), expected, BOUNDS)


def _assert_everything_from_there_on_differs(report: BackendReport, first: str) -> None:
    assert not report.passed
    assert report.first_difference == first
    names = [stage.name for stage in report.stages]
    for stage in report.stages:
        before = names.index(stage.name) < names.index(first)
        assert (stage.error <= BOUNDS.activations) == before, stage
    assert report.logits_error > BOUNDS.logits
    assert report.loss_error > BOUNDS.loss
    assert report.gradient_error > BOUNDS.gradients
    assert report.step_error > BOUNDS.step


@LIVE
def test_a_model_without_a_fault_passes(backend, expected):
    config, params, _, _ = material(CASE)
    report = _report(backend, loaded(backend, config, params), expected)
    assert report.passed
    assert report.first_difference is None


@LIVE
@pytest.mark.parametrize("name", ["conv1.weight", "inception4c.branch5x5_reduce.bias", "fc.weight"])
def test_perturbed_weights_of_one_output_are_found_at_their_stage(name, backend, expected):
    config, params, _, _ = material(CASE)
    wrong = params[name].copy()
    wrong[len(wrong) // 2] += 1e-3
    report = _report(backend, loaded(backend, config, {**params, name: wrong}), expected)
    _assert_everything_from_there_on_differs(report, name.split(".")[0])


@LIVE
def test_a_transposed_square_kernel_is_found_at_its_stage(backend, expected):
    """Same shape, other layout: (in, out) for (out, in), which no check of shapes can see."""
    config, params, _, _ = material(CASE)
    wrong = params["conv2_reduce.weight"].transpose(1, 0, 2, 3)
    report = _report(backend, loaded(backend, config, {**params, "conv2_reduce.weight": wrong}), expected)
    _assert_everything_from_there_on_differs(report, "conv2_reduce")


@LIVE
def test_a_missing_relu_is_found_at_its_stage(backend, expected):
    config, params, _, _ = material(CASE)
    model = loaded(backend, config, params)
    assert model.conv2.activation == "relu"
    model.conv2.activation = None
    _assert_everything_from_there_on_differs(_report(backend, model, expected), "conv2")


def _pad_shifted_pt(model: Any) -> None:
    from torch.nn.functional import pad

    model.conv1.padding = (0, 0)
    model.conv1.register_forward_pre_hook(lambda layer, inputs: pad(inputs[0], (2, 3, 2, 3)))


def _pad_shifted_mx(model: Any) -> None:
    conv = type(model.conv1).hybrid_forward
    model.conv1._kwargs["pad"] = (0, 0)

    def shifted(F, x, weight, bias=None):
        x = F.pad(x, mode="constant", constant_value=0, pad_width=(0, 0, 0, 0, 2, 3, 2, 3))
        return conv(model.conv1, F, x, weight=weight, bias=bias)

    model.conv1.hybrid_forward = shifted


PAD_SHIFTED = {"googlenet_pt": _pad_shifted_pt, "googlenet_mx": _pad_shifted_mx}


@LIVE
def test_a_shifted_pad_is_found_at_its_stage(backend, expected):
    """What 'same' padding does to the first convolution at an even size: all shapes stay as they were."""
    config, params, _, _ = material(CASE)
    model = loaded(backend, config, params)
    PAD_SHIFTED[backend.__name__](model)
    report = _report(backend, model, expected)
    assert [stage.shape for stage in report.stages] == [list(x.shape) for x in expected.stages.values()]
    _assert_everything_from_there_on_differs(report, "conv1")


ENDS = ("branch1x1", "branch3x3", "branch5x5", "pool_proj")


def _branches_swapped_pt(model: Any) -> None:
    import torch

    sizes = [spec.nodes(model.config)[f"inception3a.{end}"].out_channels for end in ENDS]

    def swapped(block, inputs, output):
        y1, y3, y5, pooled = output.split(sizes, dim=1)
        return torch.cat([y1, y3, pooled, y5], dim=1)

    model.inception3a.register_forward_hook(swapped)


def _branches_swapped_mx(model: Any) -> None:
    block = model.inception3a
    forward = type(block).hybrid_forward
    edges = np.cumsum([spec.nodes(model.config)[f"inception3a.{end}"].out_channels for end in ENDS]).tolist()
    _, first, second, last = edges

    def swapped(F, x):
        y = forward(block, F, x)
        parts = [(0, first), (second, last), (first, second)]
        return F.concat(*[F.slice_axis(y, axis=1, begin=begin, end=end) for begin, end in parts], dim=1)

    block.hybrid_forward = swapped


BRANCHES_SWAPPED = {"googlenet_pt": _branches_swapped_pt, "googlenet_mx": _branches_swapped_mx}


@LIVE
def test_two_exchanged_branches_are_found_at_their_stage(backend, expected):
    """The 5x5 and the pool branch of 3a both have 32 channels, so that again every shape stays."""
    config, params, _, _ = material(CASE)
    model = loaded(backend, config, params)
    BRANCHES_SWAPPED[backend.__name__](model)
    _assert_everything_from_there_on_differs(_report(backend, model, expected), "inception3a")


@LIVE
def test_another_flatten_order_is_found_at_the_head_that_it_reaches(backend):
    """(H, W, C) for (C, H, W) before the auxiliary heads' dense layer: only that head differs."""
    case = Case("torchvision", 28, 2)
    config, params, images, _ = material(case)
    name = "aux1.fc1.weight"
    wrong = params[name].reshape(1024, 128, 4, 4).transpose(0, 2, 3, 1).reshape(1024, 2048)
    stages = backend.activations(loaded(backend, config, {**params, name: wrong}), images)
    right = expectation(case).stages
    assert [name for name in right if relative_error(stages[name], right[name]) > BOUNDS.activations] == ["aux1"]


# ------------------------------------------------------------------------------- trainings, with faults put into them

NESTEROV_DECAY = SGD._replace(optimizer=dataclasses.replace(SGD.optimizer, nesterov=True, weight_decay=0.1))
MASKED = THIN_ADAM._replace(steps=4)


def _assert_found(got: Result, expected: Result) -> None:
    assert loss_error(got, expected) > TRAJECTORY.losses
    assert parameter_error(got, expected) > TRAJECTORY.parameters


@LIVE
def test_a_rate_that_does_not_drop_is_found(backend):
    same = [turn._replace(rate=SGD.optimizer.rate) for turn in turns(SGD)]
    _assert_found(goes_on(backend, *start(backend, SGD), same), referee_result(SGD))


@LIVE
def test_the_rate_inside_the_momentum_buffer_is_found(backend):
    """As in MXNet and Caffe. A buffer of rate · b is, once the rate is a tenth, what one of 10 · b is here."""
    model, native = start(backend, SGD)
    given = turns(SGD)
    begun = goes_on(backend, model, native, given[:2])
    state = backend.dump_optimizer(model, native)
    drop = given[1].rate / given[2].rate
    backend.load_optimizer(model, native, {name: drop * x for name, x in state.items()})
    rest = goes_on(backend, model, native, given[2:])
    _assert_found(Result(begun.losses + rest.losses, begun.correct + rest.correct, rest.params), referee_result(SGD))


@LIVE
def test_masks_of_the_step_before_are_found(backend):
    given = turns(MASKED)
    late = [turn._replace(masks=before.masks) for turn, before in zip(given[1:], given, strict=False)]
    shifted = goes_on(backend, *start(backend, MASKED), [given[0], *late])
    _assert_found(shifted, referee_result(MASKED))


def test_weight_decay_of_biases_is_found(monkeypatch):
    """Put into the referee, since JAX would take long to compile it; so are the next two."""
    right = referee_result(NESTEROV_DECAY)
    monkeypatch.setattr("spec.optimizers.is_decayed", lambda name: True)
    _assert_found(referee_result(NESTEROV_DECAY), right)


@dataclasses.dataclass(frozen=True)
class _EpsilonMisplaced(spec.Adam):
    """Adam with its epsilon somewhere else."""

    where: str = ""

    def update(self, params: spec.Arrays, grads: spec.Arrays, state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        old = dict(params)
        super().update(params, grads, state)
        t = int(state["t"])
        for name in grads:
            m, v = state[f"m/{name}"] / (1 - self.beta1**t), state[f"v/{name}"] / (1 - self.beta2**t)
            if self.where == "inside the root":
                divisor = np.sqrt(v + self.epsilon)
            elif self.where == "inside the correction":
                divisor = np.sqrt(v) + self.epsilon / math.sqrt(1 - self.beta2**t)
            else:
                divisor = np.sqrt(v) + self.epsilon
            old[name] = params[name] - self.rate * m / divisor
        return old


def _misplaced(where: str = "") -> Result:
    optimizer = _EpsilonMisplaced(**dataclasses.asdict(ADAM.optimizer), where=where)
    return referee_result(ADAM._replace(optimizer=optimizer))


@pytest.mark.parametrize("where", ["inside the root", "inside the correction"])
def test_a_misplaced_epsilon_in_adam_is_found(where):
    right = referee_result(ADAM)
    assert parameter_error(_misplaced(), right) <= TRAJECTORY.parameters
    _assert_found(_misplaced(where), right)
