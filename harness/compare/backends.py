"""The main job: the same weights and images through every backend, each held against the referee.

ONNX Runtime and ONNX's own evaluator are further judges: others wrote them, they run the same graph, and only forward.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import Any

import numpy as np

import spec
from harness.agreement import finite, probe_params, relative_error, relative_errors
from harness.backends.process import Answer, run_worker
from harness.images.sources import Batch
from harness.weights.checkpoint import config_table
from spec import Array, Arrays, reference
from spec.tolerances import Tolerances, of_onnx, on_pictures

SGD = spec.SGD(rate=0.0625, momentum=0.875)  # exact in float32, so that no framework can round them


JUDGES = {  # what they are called, and the package that says which version it is
    "onnx": ("ONNX Runtime", "onnxruntime"),
    "onnx-reference": ("ONNX reference", "onnx"),
}


@dataclass(frozen=True)
class Weights:
    """Parameters by canonical name, and the file that they are from."""

    params: Arrays
    source: str


@dataclass(frozen=True)
class Expected:
    """The referee's results on one batch."""

    parameters: int
    stages: dict[str, Array]
    logits: str  # the stage that has them
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
    """One backend or judge against the referee. Errors are infinite where shapes differ or numbers are not finite.

    Judges do not train: what belongs to training is None.
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
    first_difference: str | None = None  # the first thing, in forward order, that is out of bounds
    crash: str | None = None
    passed: bool = False


@dataclass
class Report:
    """A whole comparison; `as_json` is what `--json` writes."""

    preset: str
    source: str
    shape: list[int]
    dtype: str
    seed: int
    weights: str | None  # the file that they are from; None: made from the seed
    expected_parameters: int
    tolerances: Tolerances
    backends: dict[str, BackendReport]

    @property
    def passed(self) -> bool:
        """Whether every backend agrees with the referee."""
        return all(report.passed for report in self.backends.values())

    def as_json(self) -> dict[str, Any]:
        """Plain values; an infinite error is null, since JSON has no infinity."""
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


def expect(config: spec.Config, params: Arrays, images: Array, labels: Array) -> Expected:
    """What the referee computes.

    Raises:
        spec.InvalidInput: when parameters, images or labels do not fit the network.
    """
    stages = reference.activations(config, params, images)
    training = reference.loss_and_grads(config, params, images, labels)
    step = {**params, **SGD.update(params, training.grads, {}), **training.statistics}
    return Expected(spec.parameter_count(config), stages, config.logits, training.loss, training.grads, step)


def judge(answer: Answer, expected: Expected, bounds: Tolerances) -> BackendReport:
    """One backend's answer against the referee's results."""
    if answer.crash is not None:
        return BackendReport(crash=answer.crash)
    facts, arrays = answer.facts, answer.arrays
    stages = _stage_reports({name: arrays.get(f"stage/{name}", np.empty(0)) for name in expected.stages}, expected)
    logits_error = relative_error(arrays["logits"], expected.stages[expected.logits])
    loss_error = relative_error(np.array(facts["loss"]), np.array(expected.loss))
    gradient_error, worst_gradient = _worst(arrays, "gradient", expected.grads)
    step_error, worst_step = _worst(arrays, "step", expected.step)
    checks = [
        ("parameter count", facts["parameters"] == expected.parameters),
        ("order of the stages", facts["stages"] == list(expected.stages)),
        *((stage.name, stage.error <= bounds.activations) for stage in stages),
        ("logits", logits_error <= bounds.logits),
        ("loss", loss_error <= bounds.loss),
        (f"gradient of {worst_gradient}", gradient_error <= bounds.gradients),
        (f"{worst_step} after a step", step_error <= bounds.step),
    ]
    first = next((what for what, agrees in checks if not agrees), None)
    return BackendReport(
        framework=facts["framework"],
        version=facts["version"],
        device=facts["device"],
        threads=facts["threads"],
        parameters=facts["parameters"],
        stages=stages,
        logits_error=logits_error,
        loss_error=loss_error,
        gradient_error=gradient_error,
        worst_gradient=worst_gradient,
        step_error=step_error,
        worst_step=worst_step,
        first_difference=first,
        passed=first is None,
    )


def judge_forward(name: str, arrays: Arrays, parameters: int, expected: Expected, bounds: Tolerances) -> BackendReport:
    """One judge's stages against the referee's.

    Args:
        name: The judge's.
        arrays: Every stage's output.
        parameters: How many the graph has.
        expected: The referee's results.
        bounds: Of the dtype that the judge computes in.
    """
    framework, package = JUDGES[name]
    stages = _stage_reports({stage: arrays.get(stage, np.empty(0)) for stage in expected.stages}, expected)
    logits = next(stage.error for stage in stages if stage.name == expected.logits)
    checks = [
        ("parameter count", parameters == expected.parameters),
        *((stage.name, stage.error <= bounds.activations) for stage in stages),
        ("logits", logits <= bounds.logits),
    ]
    first = next((what for what, agrees in checks if not agrees), None)
    return BackendReport(
        framework=framework,
        version=version(package),
        device="cpu",
        parameters=parameters,
        stages=stages,
        logits_error=logits,
        loss_error=None,
        gradient_error=None,
        step_error=None,
        first_difference=first,
        passed=first is None,
    )


def _stage_reports(got: Arrays, expected: Expected) -> list[StageReport]:
    return [
        StageReport(name, list(got[name].shape), relative_error(got[name], x)) for name, x in expected.stages.items()
    ]


def _worst(arrays: Arrays, kind: str, expected: Arrays) -> tuple[float, str]:
    """The largest error of a set of arrays, and whose it is."""
    got = {key.split("/", 1)[1]: x for key, x in arrays.items() if key.startswith(f"{kind}/")}
    errors = relative_errors(got, expected)
    worst = max(errors, key=lambda name: errors[name])
    return errors[worst], worst


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
    judges: Sequence[str] = (),
    done: Callable[[str], None] = lambda name: None,
) -> Report:
    """Run the backends, each in a process of its own, and the referee; hold each against it.

    Args:
        config: The network; its dropout must be 0, since no two frameworks drop the same values.
        batch: Real images.
        backends: Names, in the order of the report.
        dtype: ``float64``, ``float32`` or ``bfloat16``; the referee always computes in float64, from the same
            parameters and images, which are float32 for ``bfloat16``.
        device: ``auto``, ``cpu`` or ``gpu``.
        seed: Of the weights.
        pythons: Interpreter by backend, where it is not this one.
        weights: Parameters to compare on; None for some made from the seed.
        judges: Some of `JUDGES`, to be asked too.
        done: Called with the name of each backend, and with ``referee``, when it has finished.

    Raises:
        spec.InvalidInput: when the images do not fit, or a backend refuses.
    """
    given = probe_params(config, seed) if weights is None else weights.params
    params = {name: x.astype(spec.array_dtype(dtype)) for name, x in given.items()}
    images = batch.images.astype(spec.array_dtype(dtype))
    spec.check_images(config, images)
    spec.check_labels(config, batch.labels, len(images))
    spec.check_training_batch(config, images.shape)
    task = {
        "kind": "probe",
        "config": config_table(config),
        "dtype": dtype,
        "device": device,
        "sgd": asdict(SGD),
    }
    arrays = {**params, "images": images, "labels": batch.labels}

    def run(name: str) -> Answer:
        answer = run_worker(name, task, arrays, pythons.get(name, sys.executable))
        done(name)
        return answer

    # One worker per processor: compiling keeps one busy, and the others' work fits beside it.
    with ThreadPoolExecutor(min(len(backends), os.cpu_count() or 1)) as pool:
        running = {name: pool.submit(run, name) for name in backends}
        expected = expect(config, params, images, batch.labels)
        done("referee")
        answers = {name: future.result() for name, future in running.items()}
    refusals = [f"{name}: {answer.refused}" for name, answer in answers.items() if answer.refused]
    if refusals:
        raise spec.InvalidInput("\n".join(refusals))
    bounds = on_pictures(config, dtype)
    reports = {name: judge(answer, expected, bounds) for name, answer in answers.items()}
    for name in judges:
        reports[name] = _ask(name, config, params, images, expected)
        done(name)
    return Report(
        preset=config.preset,
        source=batch.source,
        shape=list(images.shape),
        dtype=dtype,
        seed=seed,
        weights=None if weights is None else weights.source,
        expected_parameters=expected.parameters,
        tolerances=bounds,
        backends=reports,
    )


def _ask(name: str, config: spec.Config, params: Arrays, images: Array, expected: Expected) -> BackendReport:
    """A judge's report; ONNX Runtime computes in float32 whatever it is given."""
    from harness.weights import onnx_run
    from harness.weights.formats import onnx_file

    graph = onnx_file.build(config, params)
    trained = [name for name in spec.param_shapes(config) if not spec.is_statistic(name)]
    parameters = sum(math.prod(x.dims) for x in graph.graph.initializer if x.name in trained)
    single = name == "onnx" or images.dtype == np.float32
    run = onnx_run.onnx_runtime if name == "onnx" else onnx_run.onnx_reference
    arrays = run(graph.SerializeToString(), images)
    return judge_forward(name, arrays, parameters, expected, of_onnx(config, "float32" if single else "float64"))
