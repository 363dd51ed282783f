"""What several test files share: which backends are tested, networks with their inputs, and the command in process."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import pytest
from PIL import Image

import harness.backends.doctor
import harness.backends.process
import harness.compare.comparison
import harness.training.train
import spec
from harness.agreement import probe_params
from harness.backends.process import Answer, run_worker
from harness.backends.registry import BACKENDS, check_names, load
from harness.cli.main import main
from harness.images.sources import digits, load_batch
from harness.weights.checkpoint import Checkpoint
from harness.worker import handle
from spec import inception, reference

ROOT = Path(__file__).parent.parent
TESTED = tuple(check_names(os.environ.get("GOOGLENET_BACKENDS", ",".join(BACKENDS)).split(",")))
FIRST = TESTED[0]
DATA = Path(os.environ["GOOGLENET_DATA"]) if os.environ.get("GOOGLENET_DATA") else None
GOOGLENETS = [name for name, config in spec.PRESETS.items() if config.family == "GoogLeNet"]
INCEPTIONS = [config.preset for config in inception.INCEPTIONS]
SEQUENCES = [name for name in spec.PRESETS if name not in (*GOOGLENETS, *INCEPTIONS)]


# ------------------------------------------------------------------------------------------- networks and their inputs


class Case(NamedTuple):
    """A preset at a size, a batch and a kind of images."""

    preset: str
    size: int
    batch: int
    images: str = "random"

    def __str__(self) -> str:
        return "-".join(map(str, self))

    @property
    def config(self) -> spec.Config:
        """Without dropout, and without the heads where they do not fit."""
        config = spec.preset(self.preset, dropout=0.0)
        try:
            spec.stage_shapes(config, (config.in_channels, self.size, self.size))
        except spec.InvalidInput:
            return spec.preset(self.preset, dropout=0.0, aux=False)
        return config


class Material(NamedTuple):
    """A network's configuration, parameters and inputs."""

    config: spec.Config
    params: dict[str, np.ndarray]
    images: np.ndarray
    labels: np.ndarray


@lru_cache(maxsize=2)
def material(case: Case, dtype: str = "float64") -> Material:
    """Parameters and inputs of a case; do not change them."""
    config = case.config
    rng = np.random.default_rng(7)
    if case.images == "random":
        images = rng.normal(size=(case.batch, config.in_channels, case.size, case.size))
        labels = rng.integers(0, config.num_classes, case.batch)
    else:
        batch = load_batch([case.images], config, case.size, case.batch, DATA)
        images, labels = batch.images, batch.labels
    params = {name: x.astype(dtype) for name, x in probe_params(config, seed=3).items()}
    return Material(config, params, images.astype(dtype), labels)


@lru_cache(maxsize=2)
def expected_activations(case: Case, dtype: str = "float64") -> dict[str, np.ndarray]:
    """Every stage of the referee."""
    config, params, images, _ = material(case, dtype)
    return reference.activations(config, params, images)


@lru_cache(maxsize=2)
def expected_training(case: Case, dtype: str = "float64") -> reference.Training:
    """Loss, gradients and running statistics of the referee."""
    return reference.loss_and_grads(*material(case, dtype))


def loaded(backend: ModuleType, config: spec.Config, params: spec.Arrays, dtype: str = "float64") -> Any:
    """A model on the CPU that holds those parameters."""
    model = backend.build(config, dtype=dtype, device="cpu")
    backend.load_params(model, params)
    return model


def numbered(config: spec.Config, dtype: str = "float64") -> dict[str, np.ndarray]:
    """Parameters no two numbers of which are alike in an array, and no two arrays alike: what is moved shows."""
    shapes = spec.param_shapes(config).items()
    return {name: np.arange(np.prod(shape), dtype=dtype).reshape(shape) + i for i, (name, shape) in enumerate(shapes)}


def weights_of(preset: str, dtype: str = "float32", **settings: Any) -> Checkpoint:
    """Weights as a file holds them: parameters, preprocessing and class names."""
    config = spec.preset(preset, **settings)
    params = {name: x.astype(dtype) for name, x in probe_params(config, 2).items()}
    preprocessing = {"size": 40, "order": "gray" if config.in_channels == 1 else "RGB", "scale": 1.0}
    preprocessing |= {"mean": [0.5], "std": [0.25]}
    labels = [f"class {i}" for i in range(config.num_classes)]
    return Checkpoint(params, config, {"preprocessing": preprocessing, "labels": labels})


def save_digits(folder: Path, each: int) -> None:
    """A folder of pictures with one subfolder a class, ``digit 0`` to ``digit 9``, of `each` of scikit-learn's."""
    images, labels = digits()
    for label in range(10):
        (folder / f"digit {label}").mkdir(parents=True)
        for i, picture in enumerate(images[labels == label][:each]):
            Image.fromarray(picture).save(folder / f"digit {label}" / f"{i}.png")


def import_frameworks(request: pytest.FixtureRequest) -> None:
    """For a fixture of a file: import the backends apart from its tests.

    Where only a few of these run, each imports what it needs.
    """
    if sum(item.path == request.path for item in request.session.items) > 50:
        request.getfixturevalue("first")
        for backend in TESTED:
            load(backend)


@cache
def traps() -> ModuleType:
    """`docs/traps.py`, which is a script and in no package."""
    source = importlib.util.spec_from_file_location("traps", ROOT / "docs" / "traps.py")
    module = importlib.util.module_from_spec(source)
    sys.modules[source.name] = module  # where its dataclasses look
    source.loader.exec_module(module)
    return module


NOT_QUICK_IN_JAX = pytest.mark.parametrize(
    "backend",
    [pytest.param(name, marks=pytest.mark.slow if name == "jax" else ()) for name in TESTED],
    indirect=True,
)


# ------------------------------------------------------------------------------------------- the command, in process


def here(
    backend: str,
    task: dict[str, Any],
    arrays: spec.Arrays,
    python: str = sys.executable,
    listen: Callable[[dict[str, Any]], None] | None = None,
    devices: int = 1,
    lifeline: int | None = None,
) -> Answer:
    """`harness.backends.process.run_worker` without the process: what crashes there raises here.

    Another interpreter has a process all the same.
    """
    if python != sys.executable:
        return run_worker(backend, task, arrays, python, listen, devices, lifeline)
    assert devices == 1, "several devices need processes of their own"
    task = json.loads(json.dumps(task))  # as it reaches a worker
    try:
        facts, found = handle(backend, task, dict(arrays), listen or (lambda message: None))
    except spec.InvalidInput as error:
        return Answer(refused=str(error))
    return Answer(json.loads(json.dumps(facts)), found)


@contextmanager
def workers_here() -> Iterator[None]:
    """Within this, backends work in this process."""
    with contextlib.ExitStack() as stack:
        for module in (
            harness.compare.comparison,
            harness.backends.doctor,
            harness.backends.process,
            harness.training.train,
        ):
            stack.enter_context(mock.patch.object(module, "run_worker", here))
        yield


def _variables(changed: dict[str, str]) -> dict[str, str]:
    """The environment of a command: this process's, without the settings that only the tests have."""
    env = {name: value for name, value in os.environ.items() if name != "GOOGLENET_DATA"}
    return env | {"COLUMNS": "140"} | changed


def googlenet(
    *arguments: str, status: int = 0, cwd: Path = ROOT, stdin: bytes = b"", **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the command in this process, its workers too, in a folder; the exit status is asserted."""
    out, err = io.StringIO(), io.StringIO()
    code = 0
    with (
        contextlib.chdir(cwd),
        mock.patch.dict(os.environ, _variables(environment), clear=True),
        mock.patch.object(sys, "argv", ["googlenet", *arguments]),
        mock.patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin))),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        workers_here(),
    ):
        try:
            main()
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    assert code == status, err.getvalue() + out.getvalue()
    return subprocess.CompletedProcess(["googlenet", *arguments], code, out.getvalue(), err.getvalue())


def command(*arguments: str, **environment: str) -> tuple[list[str], dict[str, str]]:
    """The words of the command in a process of its own, and its environment."""
    words = [sys.executable, "-m", "harness.cli.main", *arguments]
    return words, _variables(environment) | {"PYTHONPATH": str(ROOT)}


def googlenet_process(
    *arguments: str, status: int = 0, cwd: Path = ROOT, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the command as a user does: in a process of its own, with processes for its backends."""
    words, env = command(*arguments, **environment)
    done = subprocess.run(words, capture_output=True, text=True, cwd=cwd, env=env)
    assert done.returncode == status, done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    return done


def interpreter_without(package: str, folder: Path) -> Path:
    """A program for `--python` whose workers cannot find a package."""
    python = folder / "python"
    python.write_text(
        f"#!/bin/sh\nexec {sys.executable} -c \"import runpy, sys; sys.modules['{package}'] = None; "
        "sys.argv = sys.argv[3:]; runpy.run_module('harness.worker', run_name='__main__')\" \"$@\"\n"
    )
    python.chmod(0o755)
    return python


def first_backend() -> ModuleType:
    """The package of the first backend under test."""
    return load(FIRST)
