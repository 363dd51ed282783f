"""`googlenet compare`: every backend computes on the same weights and images, and is held against the referee.

`compare` sends weights and images to a worker for each backend (`harness.worker`, ``probe``), which answers with arrays
named ``stage/NAME``, ``gradient/NAME`` and ``step/NAME``. `expect` computes the same here, and `judge` compares them.

Evaluators of ONNX graphs (`harness.weights.onnx_run`) may be compared too. They run the forward pass only.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from typing import Any, NamedTuple

import numpy as np

import spec
from harness.agreement import finite, of_kind, probe_params, relative_error, worst_error
from harness.backends.messages import lifeline
from harness.backends.process import Answer, run_worker
from harness.backends.registry import processors
from harness.images.sources import Batch
from harness.weights.checkpoint import config_table
from harness.weights.onnx_run import EVALUATORS
from spec import Array, Arrays, reference
from spec.tolerances import Tolerances, onnx_tolerances, picture_tolerances

OPTIMIZER = spec.SGD(rate=0.0625, momentum=0.875)  # exact in float32, so that no framework can round them


@dataclass(frozen=True)
class Weights:
    """Parameters by canonical name, and their file."""

    params: Arrays
    source: str


@dataclass(frozen=True)
class Expected:
    """The referee's results on one batch."""

    parameters: int
    stages: dict[str, Array]
    logits: str  # name of the stage that puts out the logits
    loss: float
    grads: dict[str, Array]
    step: dict[str, Array]  # every array after one SGD step


@dataclass
class StageReport:
    """One stage of one backend."""

    name: str
    shape: list[int]  # (N, C, H, W) or (N, num_classes)
    error: float


@dataclass
class BackendReport:
    """One backend or evaluator against the referee.

    An error is infinite where shapes differ or a number is not finite. Evaluators do not train: their errors of loss,
    gradients and step are None.
    """

    framework: str = ""
    version: str = ""
    device: str = ""
    threads: int | None = None
    parameters: int = 0
    stages: list[StageReport] = field(default_factory=list)
    logits_error: float = math.inf
    loss_error: float | None = math.inf
    gradient_error: float | None = math.inf
    worst_gradient: str = ""
    step_error: float | None = math.inf
    worst_step: str = ""
    first_difference: str | None = None  # the first check, in forward order, that failed
    crash: str | None = None
    passed: bool = False


@dataclass
class Report:
    """A whole comparison; `--json` writes `as_json`."""

    preset: str
    source: str
    shape: list[int]
    dtype: str
    seed: int
    weights: str | None  # file; None: made from the seed
    expected_parameters: int
    stage_shapes: dict[str, tuple[int, ...]]  # the referee's, without the batch
    tolerances: Tolerances
    backends: dict[str, BackendReport]

    @property
    def passed(self) -> bool:
        """Whether every backend agrees with the referee."""
        return all(report.passed for report in self.backends.values())

    def as_json(self) -> dict[str, Any]:
        """Plain values; an infinite error becomes None, since JSON has no infinity."""
        return {
            "preset": self.preset,
            "input": {"source": self.source, "shape": self.shape},
            "dtype": self.dtype,
            "seed": self.seed,
            "weights": self.weights,
            "tolerances": asdict(self.tolerances),
            "backends": {name: finite(asdict(report)) for name, report in self.backends.items()},
            "passed": self.passed,
        }


def compare(
    config: spec.Config,
    batch: Batch,
    *,
    backends: Sequence[str],
    dtype: str,
    device: str,
    seed: int,
    pythons: Mapping[str, str],
    weights: Weights | None = None,
    evaluators: Sequence[str] = (),
    done: Callable[[str], None] = lambda name: None,
) -> Report:
    """Run the referee here and each backend in a process of its own, and compare their results.

    The referee computes in float64, from parameters and images of the dtype (``tf32``, ``bfloat16``: of float32).

    Args:
        config: The network; its dropout must be 0, since no two frameworks drop the same values.
        batch: The images.
        backends: Names, in the order of the report.
        dtype: ``float64``, ``float32``, ``tf32`` or ``bfloat16``, for the backends.
        device: ``auto``, ``cpu`` or ``gpu``.
        seed: Seed of the weights, where `weights` has none.
        pythons: Interpreter by backend; the others run in this one.
        weights: Parameters to compare on.
        evaluators: Names from `EVALUATORS`.
        done: Takes ``referee`` and each name when its results are there.

    Raises:
        spec.InvalidInput: when the images do not fit, or a backend refuses.
    """
    chosen = probe_params(config, seed) if weights is None else weights.params
    params = {name: x.astype(spec.array_dtype(dtype)) for name, x in chosen.items()}
    images = batch.images.astype(spec.array_dtype(dtype))
    spec.check_batch(config, images, batch.labels)  # before any process is started
    task = {"kind": "probe", "config": config_table(config), "dtype": dtype, "device": device, "sgd": asdict(OPTIMIZER)}
    arrays = {**params, "images": images, "labels": batch.labels}

    def run(name: str) -> Answer:
        answer = run_worker(name, task, arrays, pythons.get(name, sys.executable), lifeline=line)
        done(name)
        return answer

    # One worker for each processor: a worker that compiles keeps a processor busy.
    with ThreadPoolExecutor(min(len(backends), processors())) as pool, lifeline() as line:
        try:
            running = {name: pool.submit(run, name) for name in backends}
            expected = expect(config, params, images, batch.labels)
            done("referee")
            answers = {name: future.result() for name, future in running.items()}
        except BaseException:  # Ctrl-C, for one: those that wait do not start, and those that run end with their line
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    refusals = [f"{name}: {answer.refused}" for name, answer in answers.items() if answer.refused]
    if refusals:
        raise spec.InvalidInput("\n".join(refusals))
    bounds = picture_tolerances(config, dtype, images.shape)
    reports = {name: judge(answer, expected, bounds) for name, answer in answers.items()}
    for name in evaluators:
        reports[name] = _evaluate(name, config, params, images, expected)
        done(name)
    return Report(
        preset=config.preset,
        source=batch.source,
        shape=list(images.shape),
        dtype=dtype,
        seed=seed,
        weights=None if weights is None else weights.source,
        expected_parameters=expected.parameters,
        stage_shapes={name: x.shape[1:] for name, x in expected.stages.items()},
        tolerances=bounds,
        backends=reports,
    )


def expect(config: spec.Config, params: Arrays, images: Array, labels: Array) -> Expected:
    """The referee's results.

    Raises:
        spec.InvalidInput: when parameters, images or labels do not fit the network.
    """
    stages = reference.activations(config, params, images)
    training = reference.loss_and_grads(config, params, images, labels)
    step = {**params, **OPTIMIZER.update(params, training.grads, {}), **training.statistics}
    return Expected(spec.parameter_count(config), stages, config.logits, training.loss, training.grads, step)


def judge(answer: Answer, expected: Expected, bounds: Tolerances) -> BackendReport:
    """Compare a worker's answer (`harness.worker.probe`) with the referee's results."""
    if answer.crash is not None:
        return BackendReport(crash=answer.crash)
    facts = answer.facts
    arrays = answer.arrays
    worst_gradient, gradient_error = worst_error(arrays, "gradient", expected.grads)
    worst_step, step_error = worst_error(arrays, "step", expected.step)
    report = BackendReport(
        **{key: facts[key] for key in ("framework", "version", "device", "threads", "parameters")},
        stages=_stage_reports(of_kind(arrays, "stage"), expected),
        logits_error=relative_error(arrays["logits"], expected.stages[expected.logits]),
        loss_error=relative_error(np.array(facts["loss"]), np.array(expected.loss)),
        gradient_error=gradient_error,
        worst_gradient=worst_gradient,
        step_error=step_error,
        worst_step=worst_step,
    )
    return _concluded(report, expected, bounds, facts["stages"])


def judge_forward(name: str, arrays: Arrays, parameters: int, expected: Expected, bounds: Tolerances) -> BackendReport:
    """Compare an evaluator's stages (`arrays`) and the number of parameters in its graph with the referee's."""
    evaluator = EVALUATORS[name]
    stages = _stage_reports(arrays, expected)
    report = BackendReport(
        framework=evaluator.title,
        version=version(evaluator.package),
        device="cpu",
        parameters=parameters,
        stages=stages,
        logits_error=next(stage.error for stage in stages if stage.name == expected.logits),
        loss_error=None,
        gradient_error=None,
        step_error=None,
    )
    return _concluded(report, expected, bounds, list(expected.stages))


class Check(NamedTuple):
    """One error and its bound."""

    name: str  # in `BackendReport.first_difference`
    title: str  # of its row in the table
    error: float | None
    bound: float


def checks(report: BackendReport, bounds: Tolerances) -> list[Check]:
    """Every error of a report, in forward order."""
    return [
        *(Check(stage.name, stage.name, stage.error, bounds.activations) for stage in report.stages),
        Check("logits", "logits", report.logits_error, bounds.logits),
        Check("loss", "loss", report.loss_error, bounds.loss),
        Check(f"gradient of {report.worst_gradient}", "gradients, worst", report.gradient_error, bounds.gradients),
        Check(f"{report.worst_step} after a step", "one SGD step", report.step_error, bounds.step),
    ]


def _concluded(report: BackendReport, expected: Expected, bounds: Tolerances, order: list[str]) -> BackendReport:
    """The report with its first difference; `order` is that of the backend's stages."""
    differences = []
    if report.parameters != expected.parameters:
        differences.append("parameter count")
    if order != list(expected.stages):
        differences.append("order of the stages")
    for check in checks(report, bounds):
        if check.error is not None and not check.error <= check.bound:
            differences.append(check.name)
    return replace(report, first_difference=next(iter(differences), None), passed=not differences)


def _stage_reports(arrays: Arrays, expected: Expected) -> list[StageReport]:
    reports = []
    for name, stage in expected.stages.items():
        array = arrays.get(name, np.empty(0))
        reports.append(StageReport(name, list(array.shape), relative_error(array, stage)))
    return reports


def _evaluate(name: str, config: spec.Config, params: Arrays, images: Array, expected: Expected) -> BackendReport:
    """An evaluator's report; the reference evaluator computes in the images' dtype."""
    from harness.weights.formats import onnx_file

    graph = onnx_file.build(config, params)
    trained = [name for name in spec.param_shapes(config) if not spec.is_statistic(name)]
    parameters = sum(math.prod(x.dims) for x in graph.graph.initializer if x.name in trained)
    evaluator = EVALUATORS[name]
    single = evaluator.single or images.dtype == np.float32
    arrays = evaluator.run(graph.SerializeToString(), images)
    bounds = onnx_tolerances(config, "float32" if single else "float64")
    return judge_forward(name, arrays, parameters, expected, bounds)
