"""Somebody's model, run in a process of its own: `python -m harness.check.trial FOLDER`.

The folder holds the task (`task.json`) and takes the answer (`answer.json`, `answer.npz`). The code that runs here is
the user's, who asked for it. It has a time limit, a limit of memory and no input; what it prints is dropped.
"""

from __future__ import annotations

import importlib
import inspect
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn
from zipfile import BadZipFile

import numpy as np

import spec
from harness.backends import messages
from harness.backends.process import scratch_folder, worker_environment
from harness.check import PROGRAMS, SYMBOL
from harness.check.graph import NotSeen, Recording, enlarged, graph_of, probe_images
from harness.shown import shown

PADS_AS_NUMBERS = {"flax", "equinox", "keras"}  # of which it is not seen that they are SAME, or round up
# The modules that record models, by the package of a class that a model is made from.
_RECORDERS = {"torch": "googlenet_pt.recording", "mxnet": "googlenet_mx.recording"}
_RECORDERS |= dict.fromkeys(PADS_AS_NUMBERS, "googlenet_jax.recording")
_BY_ARGUMENT = {"rngs": "flax", "key": "equinox"}  # what a function makes that wants such random numbers


@dataclass(frozen=True)
class Task:
    """What is asked of a process."""

    target: str  # FILE.py:NAME, package.module:NAME, or a file with one of `FILES` at its end
    folder: str  # where it is looked for
    arguments: Mapping[str, Any]  # of the class or the function
    shapes: tuple[spec.Shape, ...]  # of an image, (channels, height, width), to try in this order
    training: bool  # whether to run it in training mode too
    memory: float  # GiB
    weights: str | None = None  # a file of the model's own weights
    as_it_is: bool = False  # no parameter is moved away from neutral values
    exactly: bool = False  # a file's own sizes do not take the place of the shapes'


@dataclass(frozen=True)
class Trial:
    """What a model does: its passes at the size that was asked for, one pixel larger, and in training mode."""

    shape: spec.Shape
    framework: str
    dtype: str
    parameters: int
    recordings: Mapping[str, Recording] = field(default_factory=dict)  # by kind of the pass
    failed: Mapping[str, str] = field(default_factory=dict)  # why there is none, by kind
    batch: int = 2  # images

    def shape_of(self, kind: str) -> spec.Shape:
        """Of an image in a pass, (channels, height, width)."""
        return enlarged(self.shape) if kind == LARGER else self.shape


LARGER = "larger"  # a kind of pass
_FACTS = ("shape", "framework", "dtype", "parameters", "failed", "batch")


# ------------------------------------------------------------------------------------------------ from the outside


def run_trial(task: Task, seconds: float, python: str = sys.executable) -> Trial:
    """Build and run a model in a new process; for an ONNX file in one for each shape, since a runtime can crash.

    Raises:
        spec.InvalidInput: when it could not be built or run, in one line that says why.
    """
    if task.target.endswith(".onnx") and len(task.shapes) > 1:
        first, *rest = task.shapes
        try:
            return run_trial(replace(task, shapes=(first,)), seconds, python)
        except spec.InvalidInput as error:
            try:
                return run_trial(replace(task, shapes=tuple(rest)), seconds, python)
            except spec.InvalidInput:
                raise error from None
    stored, arrays = run_apart("harness.check.trial", asdict(task), seconds, python)
    recordings = {kind: _recording(kind, graph, arrays) for kind, graph in stored["graphs"].items()}
    facts = {name: stored[name] for name in _FACTS} | {"shape": tuple(stored["shape"])}
    return Trial(recordings=recordings, **facts)


def run_apart(
    module: str, task: Mapping[str, Any], seconds: float, python: str = sys.executable
) -> tuple[dict[str, Any], dict[str, spec.Array]]:
    """Have `python -m MODULE FOLDER`, which calls `serve`, do a task on somebody's code.

    Args:
        module: What is run.
        task: With the code's `target`, the `folder` where it is looked for, and the limit of `memory`, in GiB.
        seconds: The time that it may take.
        python: The interpreter.

    Raises:
        spec.InvalidInput: when it could not be done, in one line that says why.
    """
    with scratch_folder() as folder:
        with messages.temporary_files():
            (folder / "task.json").write_text(json.dumps(task))
        process = subprocess.Popen(
            [python, "-P", "-m", module, str(folder)],
            env=worker_environment(folder) | {"KERAS_BACKEND": "jax"},  # which is the one that is read
            cwd=task["folder"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # what it starts ends with it
        )
        try:
            status = process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise spec.InvalidInput(
                f"{task['target']}: it did not end within {seconds:g} seconds; --time allows more "
                "(code that trains belongs under if __name__ == '__main__')"
            ) from None
        finally:
            _end(process)
        return _answer(folder, task["target"], status)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and all that it has started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _answer(folder: Path, target: str, status: int) -> tuple[dict[str, Any], dict[str, spec.Array]]:
    try:
        stored = messages.read((folder / "answer.json").read_text())
        with np.load(folder / "answer.npz", allow_pickle=False) as file:
            arrays = dict(file)
    except (OSError, ValueError, EOFError, BadZipFile):
        stored = None
    if stored is None:
        killed = "memory ran out, or something killed it" if status == -signal.SIGKILL else "the code ended the process"
        raise spec.InvalidInput(f"{target}: it ended with exit status {status} before it had run: {killed}")
    if "refused" in stored:
        raise spec.InvalidInput(f"{target}: {stored['refused']}")
    return stored, arrays


def _recording(kind: str, graph: Any, arrays: Mapping[str, spec.Array]) -> Recording:
    named = {key.removeprefix(f"{kind}/array/"): x for key, x in arrays.items() if key.startswith(f"{kind}/array/")}
    outputs = [arrays[f"{kind}/output/{i}"] for i in range(len(graph["outputs"]))]
    samples = [arrays[f"{kind}/sample/{i}"] for i in range(len(graph["nodes"]))]
    return Recording(graph_of(graph, named), outputs, samples, nudge=graph["nudge"])


# ------------------------------------------------------------------------------------------------- from the inside


class Refused(Exception):
    """The code could not be run, or the model not be built."""


class _Unfit(Refused):
    """Its weights could not be loaded, which no other size changes."""


def main(folder: Path) -> None:
    """Do the task in the folder."""
    serve(folder, _tried)


def _tried(stored: dict[str, Any], arrays: dict[str, spec.Array]) -> dict[str, Any]:
    task = Task(**stored | {"shapes": tuple(map(tuple, stored["shapes"]))})
    return _written(attempt(task), arrays)


def serve(folder: Path, work: Callable[[dict[str, Any], dict[str, spec.Array]], dict[str, Any]]) -> NoReturn:
    """Do the task that `run_apart` has put into a folder, within its limits, and end this process.

    `work` takes the task, and a dictionary for the arrays of its answer. It may raise `Refused`.
    """
    task, started = json.loads((folder / "task.json").read_text()), os.getpid()
    threading.Thread(target=_watch, args=[os.getppid()], daemon=True).start()
    limit = int(task["memory"] * 2**30)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    arrays: dict[str, spec.Array] = {}
    try:
        answer = work(task, arrays)
    except Refused as error:
        answer = {"refused": str(error)}
    if os.getpid() != started:  # the code has forked, and its child comes back here too
        os._exit(0)
    messages.write_arrays(folder / "answer.npz", arrays)
    (folder / "answer.json").write_text(messages.written(answer))
    sys.stdout.flush()
    os._exit(0)  # whatever the code has left running


def _watch(parent: int) -> None:
    """End with the command that started this process, and whose time limit it is."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _written(trial: Trial, arrays: dict[str, spec.Array]) -> dict[str, Any]:
    """What the answer says; the arrays take their places in `arrays`."""
    for kind, recording in trial.recordings.items():
        arrays |= {f"{kind}/array/{name}": x for name, x in recording.graph.arrays.items()}
        arrays |= {f"{kind}/output/{i}": x for i, x in enumerate(recording.outputs)}
        arrays |= {f"{kind}/sample/{i}": x for i, x in enumerate(recording.samples)}
    graphs = {
        kind: recording.graph.as_json() | {"nudge": recording.nudge} for kind, recording in trial.recordings.items()
    }
    return {name: getattr(trial, name) for name in _FACTS} | {"graphs": graphs}


def attempt(task: Task) -> Trial:
    """Build the model and record its passes at the first shape that it takes."""
    if task.target.endswith(".onnx"):
        from harness.check.readers.onnx_graph import read_onnx

        with told("it was read"):
            return read_onnx(Path(task.folder, task.target), task.shapes, exactly=task.exactly)
    if task.target.endswith(SYMBOL):
        weights = Path(task.folder, task.weights) if task.weights else None
        task = replace(task, arguments={"path": Path(task.folder, task.target), "weights": weights})
    made = _found(task)
    reasons: dict[str, str] = {}
    for shape in task.shapes:
        model, recorder, framework = _built(made, task)
        for attempts, dtype in enumerate(recorder.DTYPES):
            if attempts:
                model, _, _ = _built(made, task)
            try:
                model, inference = _first_pass(recorder, model, dtype, shape, task)
            except _Unfit:
                raise
            except Refused as error:
                reasons[" x ".join(map(str, shape))] = str(error)  # the last dtype is the one that people use
                continue
            recordings, failed = {"inference": inference}, {}
            others = {LARGER: (enlarged(shape), False)} | ({"training": (shape, True)} if task.training else {})
            for kind, (size, training) in others.items():
                try:
                    with told("it ran and raised"):
                        recordings[kind] = recorder.record(model, probe_images(size), training=training)
                except NotSeen:
                    continue
                except Refused as error:
                    failed[kind] = str(error)
            parameters = recorder.parameters(model)
            if not parameters and task.target.endswith(PROGRAMS):  # it is frozen
                parameters, framework = inference.graph.trained(), "torchscript"
            single = any(recording.single for recording in recordings.values())
            return Trial(shape, framework, "float32" if single else dtype, parameters, recordings, failed)
    if len(set(reasons.values())) == 1:
        raise Refused(next(iter(reasons.values())))
    raise Refused("; ".join(f"at {shape} {reason}" for shape, reason in reasons.items()) + "; --input says the shape")


def _first_pass(recorder: Any, model: Any, dtype: str, shape: spec.Shape, task: Task) -> tuple[Any, Recording]:
    """The model with its arrays, and what it does at inference."""
    images = probe_images(shape)
    with told("it ran and raised"):
        model = recorder.settle(model, dtype, None if task.weights or task.as_it_is else 0, images)
    if task.weights is not None:
        with told(f"--weights {shown(task.weights)}", _Unfit):
            recorder.load(model, Path(task.folder, task.weights))
    with told("it ran and raised"):
        return model, recorder.record(model, images, training=False)


def _found(task: Task) -> Any:
    """The class, the function or the model of that name."""
    if task.target.endswith(SYMBOL):
        return importlib.import_module(_RECORDERS["mxnet"]).Symbol
    if task.target.endswith(PROGRAMS):
        with told("reading it raised"):
            return importlib.import_module("googlenet_pt.programs").load_program(Path(task.folder, task.target))
    return named(task.target, task.folder)


def named(target: str, folder: str) -> Any:
    """What ``FILE.py:NAME`` or ``package.module:NAME``, looked for in a folder, is.

    Raises:
        Refused: when its code raises, or has no such name.
    """
    place, _, name = target.rpartition(":")
    sys.path.insert(0, folder)
    if "bool" not in vars(np):
        np.bool = np.bool_  # type: ignore[attr-defined]  # MXNet 1.9.1 reads that name while it is imported
    with told("its code raised"):
        if place.endswith(".py"):
            path = Path(folder, place).resolve()
            sys.path.insert(0, str(path.parent))
            module = _module(path)
        else:
            module = importlib.import_module(place)
    made = module
    for part in name.split("."):
        if not hasattr(made, part):
            own = [key for key, x in vars(module).items() if getattr(x, "__module__", "") == module.__name__]
            raise Refused(f"expected the name of a class, a function or a model; it defines {', '.join(own)}")
        made = getattr(made, part)
    return made


def _module(path: Path) -> ModuleType:
    loader = SourceFileLoader(path.stem, str(path))
    module = ModuleType(path.stem)
    module.__file__ = str(path)
    sys.modules.setdefault(path.stem, module)
    loader.exec_module(module)
    return module


def _built(made: Any, task: Task) -> tuple[Any, Any, str]:
    """A new model, its recorder, and its framework."""
    model, framework = made, None if isinstance(made, type) else _framework(type(made))
    if framework is None and callable(made):
        framework = _framework(made) or _by_argument(made) or ("torch" if "torch" in sys.modules else None)
        with told("it was read" if task.target.endswith(SYMBOL) else "it was built and raised"):
            build = importlib.import_module(_RECORDERS[framework]).build if framework else _called
            model = build(made, dict(task.arguments))
        framework = _framework(type(model))
    if framework is None:
        expected = "PyTorch, MXNet Gluon, Flax, Equinox or Keras"
        raise Refused(f"expected a model of {expected}, got {shown(type(model).__name__)}")
    return model, importlib.import_module(_RECORDERS[framework]), framework


def _called(made: Any, arguments: dict[str, Any]) -> Any:
    return made(**arguments)


def _framework(kind: Any) -> str | None:
    """The package of a recorder's framework that a class is made from."""
    packages = (base.__module__.partition(".")[0] for base in getattr(kind, "__mro__", ()))
    return next((name for name in packages if name in _RECORDERS), None)


def _by_argument(made: Any) -> str | None:
    """The framework of what a function makes, where its arguments say so."""
    try:
        wanted = inspect.signature(made).parameters
    except (TypeError, ValueError):
        return None
    return next((framework for name, framework in _BY_ARGUMENT.items() if name in wanted), None)


@contextmanager
def told(what: str, refusal: type[Refused] = Refused) -> Iterator[None]:
    """A context in which whatever the user's code raises, an end of the process too, is told in one line."""
    try:
        yield
    except (Refused, NotSeen):
        raise
    except spec.InvalidInput as error:
        raise refusal(f"{what}: {error}") from error
    except SystemExit as error:
        raise refusal(f"the code ended the process, with exit status {error.code}") from error
    except MemoryError as error:
        raise refusal("memory ran out; --memory allows more") from error
    except EOFError as error:
        raise refusal("the code asked for input, and there is none") from error
    except BaseException as error:
        first, *others = str(error).strip().splitlines() or [""]
        said = others[-1] if others and first.startswith("Traceback") else first  # as MXNet's operators raise it
        if "not enough memory" in said or "can't allocate memory" in said:
            raise refusal("memory ran out; --memory allows more") from error
        what = f"{what} {shown(type(error).__name__)}"
        raise refusal(f"{what}: {shown(said[:200])}" if said else what) from error


if __name__ == "__main__":
    main(Path(sys.argv[1]))
