"""The verdict of a comparison on doctored answers, its errors, its weights, and its JSON. No framework is needed."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

import spec
from harness.agreement import finite, probe_params, relative_error, relative_errors
from harness.backends.process import Answer
from harness.compare.comparison import OPTIMIZER, BackendReport, Expected, Report, expect, judge, judge_forward
from harness.compare.table import render
from spec import reference
from spec.tolerances import TOLERANCES, Tolerances, onnx_tolerances, picture_tolerances, rounding_of_sums

LENET = spec.preset("lenet")


# --------------------------------------------------------------------------------- the verdict, on doctored answers

ABOUT = {"framework": "X", "version": "1.0", "device": "cpu", "threads": 3}
# No two alike, so that one taken for another shows.
BOUNDS = Tolerances(activations=1e-3, logits=1e-4, loss=1e-5, gradients=1e-6, step=1e-7)


@pytest.fixture(scope="module")
def expected() -> Expected:
    images = np.random.default_rng(0).random((2, 1, 28, 28))
    return expect(LENET, probe_params(LENET, 4), images, np.array([1, 2]))


def _answer(expected: Expected, **changed: np.ndarray) -> Answer:
    """What a perfect backend would answer, but for the arrays that are changed."""
    arrays = {"logits": expected.stages["fc5"]}
    for kind, group in (("stage", expected.stages), ("gradient", expected.grads), ("step", expected.step)):
        arrays |= {f"{kind}/{name}": x for name, x in group.items()}
    facts = {"parameters": expected.parameters, "loss": expected.loss, "stages": list(expected.stages)}
    return Answer(ABOUT | facts, arrays | changed)


def test_perfect_answer_passes(expected):
    report = judge(_answer(expected), expected, BOUNDS)
    assert report.passed
    assert (report.logits_error, report.loss_error, report.gradient_error, report.step_error) == (0, 0, 0, 0)
    assert (report.framework, report.version, report.device, report.threads) == ("X", "1.0", "cpu", 3)


@pytest.mark.parametrize(
    ("key", "bound", "difference"),
    [
        ("stage/pool1", BOUNDS.activations, "pool1"),
        ("logits", BOUNDS.logits, "logits"),
        ("gradient/fc3.weight", BOUNDS.gradients, "gradient of fc3.weight"),
        ("step/conv2.bias", BOUNDS.step, "conv2.bias after a step"),
    ],
)
def test_array_fails_outside_its_own_bound_and_passes_inside(key, bound, difference, expected):
    x = _answer(expected).arrays[key]
    assert judge(_answer(expected, **{key: x * (1 + 0.9 * bound)}), expected, BOUNDS).passed
    for wrong in (x * (1 + 1.1 * bound), x * (1 - 1.1 * bound), np.where(x == x.max(), np.nan, x), x[..., None]):
        report = judge(_answer(expected, **{key: wrong}), expected, BOUNDS)
        assert (report.passed, report.first_difference) == (False, difference)


@pytest.mark.parametrize(
    ("fact", "value", "difference"),
    [
        ("parameters", 44_425, "parameter count"),
        ("loss", math.nan, "loss"),
        ("stages", list(reversed(spec.stage_names(LENET))), "order of the stages"),
    ],
)
def test_wrong_fact_fails(fact, value, difference, expected):
    answer = _answer(expected)
    report = judge(replace(answer, facts=answer.facts | {fact: value}), expected, BOUNDS)
    assert (report.passed, report.first_difference) == (False, difference)


def test_loss_fails_outside_its_own_bound_and_passes_inside(expected):
    for factor, passed in ((0.9, True), (1.1, False), (-1.1, False)):
        answer = _answer(expected)
        loss = expected.loss * (1 + factor * BOUNDS.loss)
        assert judge(replace(answer, facts=answer.facts | {"loss": loss}), expected, BOUNDS).passed is passed


@pytest.mark.parametrize("kind", ["stage", "gradient", "step"])
def test_missing_array_fails(kind, expected):
    answer = _answer(expected)
    name = "fc4" if kind == "stage" else "fc4.bias"
    del answer.arrays[f"{kind}/{name}"]
    report = judge(answer, expected, BOUNDS)
    assert not report.passed
    assert name in report.first_difference


def test_array_too_many_fails(expected):
    report = judge(_answer(expected, **{"gradient/conv3.weight": np.zeros(1)}), expected, BOUNDS)
    assert (report.gradient_error, report.worst_gradient) == (math.inf, "conv3.weight")
    assert report.first_difference == "gradient of conv3.weight"


def test_first_difference_is_the_first_in_forward_order(expected):
    wrong = {f"stage/{name}": 2 * expected.stages[name] for name in ("fc3", "pool2", "fc5")}
    wrong |= {"gradient/conv1.weight": 2 * expected.grads["conv1.weight"]}
    assert judge(_answer(expected, **wrong), expected, BOUNDS).first_difference == "pool2"


def test_worst_gradient_is_named(expected):
    off = {"conv1.weight": 1e-9, "fc3.bias": 3e-9, "fc5.weight": 2e-9}
    wrong = {f"gradient/{name}": expected.grads[name] * (1 + error) for name, error in off.items()}
    report = judge(_answer(expected, **wrong), expected, BOUNDS)
    assert report.passed
    assert (report.worst_gradient, report.gradient_error) == ("fc3.bias", pytest.approx(3e-9))


def test_evaluator_fails_where_it_differs(expected):
    arrays = {name: x.copy() for name, x in expected.stages.items()}
    bounds, count = onnx_tolerances(LENET, "float32"), spec.parameter_count(LENET)
    passing = judge_forward("onnx", arrays, count, expected, bounds)
    assert (passing.passed, passing.logits_error, passing.framework) == (True, 0, "ONNX Runtime")
    assert judge_forward("onnx", arrays, count + 1, expected, bounds).first_difference == "parameter count"
    arrays["conv2"][0, 3, 0, 0] += 1e-3 * np.abs(arrays["conv2"]).max()
    report = judge_forward("onnx", arrays, count, expected, bounds)
    assert (report.passed, report.first_difference) == (False, "conv2")
    del arrays["pool1"]
    report = judge_forward("onnx", arrays, count, expected, bounds)
    assert (report.first_difference, report.stages[1].error) == ("pool1", math.inf)


def test_logits_of_an_evaluator_have_their_own_bound(expected):
    arrays = expected.stages | {"fc5": expected.stages["fc5"] * (1 + 5e-4)}
    report = judge_forward("onnx-reference", arrays, expected.parameters, expected, BOUNDS)
    assert (report.first_difference, report.logits_error) == ("logits", pytest.approx(5e-4))


def test_batch_norm_over_large_maps_widens_the_bounds_and_over_small_ones_does_not():
    """At 107 x 139 pixels the first of Inception v4's 149 norms adds up 53 x 69 values an image."""
    v4, shape = spec.preset("inception-v4"), (8, 3, 107, 139)
    assert rounding_of_sums(v4, "float64", shape) == 8 * 53 * 69 * 149 * 2.0**-52
    wide, narrow = picture_tolerances(v4, "float64", shape), TOLERANCES["float64"]
    assert narrow.gradients < wide.gradients < 1e-9
    assert narrow.step < wide.step < wide.gradients
    assert narrow.activations == wide.activations
    assert 2e-4 < picture_tolerances(v4, "float32", (4, 3, 107, 107)).loss < 5e-4  # measured: 2e-4
    assert picture_tolerances(spec.preset("lenet-bn"), "float32", (4, 1, 28, 28)).loss == TOLERANCES["float32"].loss
    for config, image in ((spec.preset("lenet-bn"), (4, 1, 28, 28)), (spec.preset("bvlc"), (64, 3, 224, 224))):
        assert picture_tolerances(config, "float64", image) == narrow


def test_differences_do_not_cancel():
    assert relative_error(np.array([1.5, 0.5]), np.array([1.0, 1.0])) == 0.5
    assert relative_error(np.array([0.0, -2.0]), np.array([1.0, -2.0])) == 0.5
    assert relative_error(np.zeros(3), np.zeros(3)) == 0
    assert relative_error(np.full(3, 1e-3), np.zeros(3)) == 1e-3
    assert relative_error(np.array([np.inf]), np.array([1.0])) == math.inf
    assert relative_error(np.array([np.nan, 1.0]), np.array([1.0, 1.0])) == math.inf
    assert relative_error(np.zeros((2, 1)), np.zeros((1, 2))) == math.inf


def test_array_of_rounding_noise_is_measured_against_the_others():
    expected = {"a": np.array([2.0]), "zero": np.array([3e-17])}
    noise = {"a": np.array([2.0]), "zero": np.array([-5e-17])}
    assert max(relative_errors(noise, expected).values()) < 1e-15
    assert relative_errors({**noise, "zero": np.array([1e-9])}, expected)["zero"] > 4e-10
    small = {"a": np.array([2.0]), "zero": np.array([3e-11])}  # small, and not noise: measured against itself
    assert relative_errors({**small, "zero": np.array([6e-11])}, small)["zero"] == pytest.approx(1)


# -------------------------------------------------------------------------------------- what is compared, and the JSON


def test_weights_made_for_comparing_have_no_neutral_array():
    """An array of zeros or ones is one that a backend may ignore without a difference."""
    config = spec.preset("lenet-bn")
    params = probe_params(config, 3)
    assert {name: x.shape for name, x in params.items()} == spec.param_shapes(config)
    for name, x in params.items():
        assert len(np.unique(x)) == x.size, name
        neutral = 1 if name.endswith(("norm.weight", "norm.running_var")) else 0
        assert (np.abs(x - neutral) > 1e-7).all(), name
        assert not name.endswith("running_var") or (x > 0).all()


def test_weights_made_for_comparing_are_the_seeds():
    one, same, other = (probe_params(spec.preset("lenet-bn"), seed) for seed in (1, 1, 2))
    assert all(np.array_equal(x, same[name]) for name, x in one.items())
    assert not any(np.array_equal(x, other[name]) for name, x in one.items())


def test_expected_step_is_one_of_sgd_with_the_statistics_moved():
    config = spec.preset("lenet-bn")
    params, images, labels = probe_params(config, 4), np.random.default_rng(0).random((3, 1, 28, 28)), np.arange(3)
    expected = expect(config, params, images, labels)
    training = reference.loss_and_grads(config, params, images, labels)
    assert expected.step.keys() == params.keys()
    for name, x in params.items():
        moved = training.statistics[name] if spec.is_statistic(name) else x - 0.0625 * training.grads[name]
        np.testing.assert_array_equal(expected.step[name], moved, err_msg=name)
    assert (OPTIMIZER.rate, OPTIMIZER.momentum) == (0.0625, 0.875)


def test_error_that_is_not_finite_is_null_in_json():
    report = Report("lenet", "digits", [1], "float64", 0, None, 1, {}, BOUNDS, {"pt": BackendReport(crash="killed")})
    table = json.loads(json.dumps(report.as_json(), allow_nan=False))
    assert table["passed"] is False
    assert table["backends"]["pt"]["logits_error"] is table["backends"]["pt"]["step_error"] is None
    assert finite({"a": [1.5, math.nan, {"b": -math.inf}], "c": "inf"}) == {"a": [1.5, None, {"b": None}], "c": "inf"}


def test_the_table_has_the_rows_of_the_readme_and_the_referees_shapes(expected):
    """A backend that answers with another shape does not change the column of shapes."""
    worse = judge(_answer(expected, **{"stage/pool1": np.zeros((2, 6, 11, 11))}), expected, BOUNDS)
    backends = {"pt": worse, "mx": judge(_answer(expected), expected, BOUNDS)}
    shapes = {name: x.shape[1:] for name, x in expected.stages.items()}
    report = Report(
        "lenet", "digits", [2, 1, 28, 28], "float64", 0, None, expected.parameters, shapes, BOUNDS, backends
    )
    console = Console(file=io.StringIO(), width=100)
    render(report, console)
    rows = {line[:18].strip(): line[18:].split() for line in console.file.getvalue().splitlines()}
    assert rows["pool1"][:6] == ["6", "x", "12", "x", "12", "first"]
    readme = (Path(__file__).parent.parent / "README.md").read_text()
    for title in ("logits", "loss", "gradients, worst", "one SGD step", "parameters"):
        assert title in rows
        assert f"\n{title}  " in readme
