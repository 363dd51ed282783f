"""Which backends are tested, and the cases that several files share."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

# Compiling is most of what JAX does here. Lightly optimized, and by XLA's older emitters, which make four times less
# machine code, it takes a third of the time, and computes the same: LLVM's level 0 would compile faster still, and
# compute ten times as long. `googlenet compare` runs with XLA's own settings, in test_compare.py. Other versions may
# not have these settings, and XLA ends the process at one that it does not know.
with suppress(PackageNotFoundError):
    if version("jaxlib").startswith("0.7."):
        os.environ.setdefault(
            "XLA_FLAGS",
            "--xla_backend_optimization_level=1 --xla_cpu_use_fusion_emitters=false --xla_backend_extra_options="
            "xla_cpu_optimize_for_size=1,xla_cpu_disable_slp_vectorizer=1,xla_cpu_disable_loop_unrolling=1",
        )
# Each of pytest-xdist's processes has a processor to itself.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
# Two processes that compute at once must not wait for each other in busy loops.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Many networks pass through a process of the tests: what they leave is to go back to the system (glibc's default).
os.environ.setdefault("MALLOC_TRIM_THRESHOLD_", "131072")
# Float32 is compared, so neither NVIDIA's libraries nor JAX may round it to TF32; MXNet has no other switch.
os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")
os.environ.setdefault("JAX_DEFAULT_MATMUL_PRECISION", "highest")
# What has been compiled once is kept, for other processes and for the next time: most of a test's time in JAX.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parent.parent / ".pytest_cache" / "jax"))
os.environ.setdefault("JAX_COMPILATION_CACHE_MAX_SIZE", str(2**30))  # bytes
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")

# A shell starts what it sends to the background with Ctrl-C ignored, and so would be what the tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import spec
from harness.backend import BACKENDS, check_names, load
from harness.compare import probe_params
from harness.data import digits, load_batch
from harness.processes import Answer
from harness.worker import file_task, predict_task
from spec import reference

TESTED = tuple(check_names(os.environ.get("GOOGLENET_BACKENDS", ",".join(BACKENDS)).split(",")))
DATA = Path(os.environ["GOOGLENET_DATA"]) if os.environ.get("GOOGLENET_DATA") else None
GOOGLENETS = [name for name, config in spec.PRESETS.items() if isinstance(config, spec.GoogLeNetConfig)]
SEQUENCES = [name for name, config in spec.PRESETS.items() if isinstance(config, spec.SequenceConfig)]


def pytest_report_header() -> list[str]:
    return [f"backends: {', '.join(TESTED)}", f"Fashion-MNIST: {DATA or 'not given (GOOGLENET_DATA)'}"]


def pytest_runtest_teardown() -> None:
    """Drop what JAX has compiled before it fills the process.

    Each compiled program takes some thousand memory mappings, and Linux allows a process 65,530: about forty networks
    in, compiling ends in a segmentation fault.
    """
    mappings = Path("/proc/self/maps")
    if "jax" in sys.modules and mappings.exists() and mappings.read_bytes().count(b"\n") > 40_000:
        sys.modules["jax"].clear_caches()


# What takes longest comes first, so that the processes of `pytest -n 2` end together.
LONGEST = (
    "compare train trajectory loop parity backend_optimizers teeth training parallel tuned convert formats onnx bench"
).split()


_GROUP = pytest.StashKey[str]()
_SHARED = {"finished", "reports"}  # what a module's tests look at together


def _group(item: pytest.Item) -> str:
    """The tests that `pytest -n 2 --dist loadgroup` gives to one process, since they share what one of them makes.

    Of a file those of a backend, with its compiled programs, which tests of no backend or of all share with JAX's; or
    those of a case, with what the referee makes of it.
    """
    stem, parameters = item.path.stem, item.callspec.params if hasattr(item, "callspec") else {}
    if stem == "test_parity" and "case" in parameters:
        return f"{stem} {parameters['case']._replace(images='')}"
    if stem == "test_trajectory" and "run" in parameters:
        return f"{stem} {parameters['run']}"
    if stem == "test_compare" or (stem in ("test_train", "test_parallel") and _SHARED.isdisjoint(item.fixturenames)):
        return item.nodeid  # it starts processes of its own
    backend = parameters.get("backend", parameters.get("reports"))
    return item.nodeid if backend is None and item.get_closest_marker("slow") else f"{stem} {backend or 'jax'}"


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Iterator[None]:
    """Group the tests before pytest-xdist reads the groups, and order them after pytest has done so."""
    for item in items:
        group = item.stash[_GROUP] = _group(item)
        if group != item.nodeid:
            item.add_marker(pytest.mark.xdist_group(group))
    yield
    rank = {f"test_{name}": i for i, name in enumerate(LONGEST)}
    slow = {item.stash[_GROUP] for item in items if item.get_closest_marker("slow")}
    first: dict[str, tuple[bool, int, int]] = {}
    for i, item in enumerate(items):
        group = item.stash[_GROUP]
        first.setdefault(group, (group not in slow, rank.get(item.path.stem, len(rank)), i))
    items.sort(key=lambda item: first[item.stash[_GROUP]])


@pytest.fixture(scope="session", params=TESTED)
def backend(request: pytest.FixtureRequest) -> ModuleType:
    """Each backend under test; one that cannot be imported fails here, and does not skip."""
    return load(request.param)


def save_digits(folder: Path, each: int) -> None:
    """A folder of pictures with one subfolder a class, ``digit 0`` to ``digit 9``, of `each` of scikit-learn's."""
    images, labels = digits()
    for label in range(10):
        (folder / f"digit {label}").mkdir(parents=True)
        for i, picture in enumerate(images[labels == label][:each]):
            Image.fromarray(picture).save(folder / f"digit {label}" / f"{i}.png")


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
    config: spec.Config
    params: dict[str, np.ndarray]
    images: np.ndarray
    labels: np.ndarray


@lru_cache(maxsize=2)
def material(case: Case, dtype: str = "float64") -> Material:
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
    config, params, images, _ = material(case, dtype)
    return reference.activations(config, params, images)


@lru_cache(maxsize=2)
def expected_training(case: Case, dtype: str = "float64") -> reference.Training:
    return reference.loss_and_grads(*material(case, dtype))


def loaded(backend: ModuleType, config: spec.Config, params: spec.Arrays, dtype: str = "float64"):
    """A model on the CPU that holds those parameters."""
    model = backend.build(config, dtype=dtype, device="cpu")
    backend.load_params(model, params)
    return model


def here(backend: str, task: dict[str, Any], arrays: spec.Arrays) -> Answer:
    """What a worker does, without its process."""
    task = json.loads(json.dumps(task))
    try:
        if task["kind"] == "predict":
            facts, found = predict_task(load(backend), task, dict(arrays))
        else:
            facts, found = file_task(backend, task, dict(arrays))
    except spec.InvalidInput as error:
        return Answer(refused=str(error))
    return Answer(facts, found)


def interpreter_without(package: str, folder: Path) -> Path:
    """A program for `--python` whose workers cannot find a package."""
    python = folder / "python"
    python.write_text(
        f"#!/bin/sh\nexec {sys.executable} -c \"import runpy, sys; sys.modules['{package}'] = None; "
        "sys.argv = sys.argv[3:]; runpy.run_module('harness.worker', run_name='__main__')\" \"$@\"\n"
    )
    python.chmod(0o755)
    return python
