"""Convert weights from one format into another, and verify that they are the same network.

The written file is read again and compared bit for bit. Then the source and the result run on the same images, each
loaded and run by the framework that its format belongs to.
"""

from __future__ import annotations

import math
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import spec
from harness.agreement import finite, relative_error
from harness.atomic import StrPath, sync_folder, temporary_folder
from harness.backends.registry import NotInstalled
from harness.weights import names
from harness.weights.checkpoint import (
    AVERAGE,
    STATE,
    Checkpoint,
    averaged,
    config_of,
    config_table,
    describe,
    holds_training,
    plain,
    understand,
)
from harness.weights.equivalence import noise, to_fold
from harness.weights.formats import FORMATS, RunTask, answer_of, detect, foreign, params_of, read
from harness.weights.formats.contents import Contents
from harness.weights.onnx_run import EVALUATORS, onnx_runtime
from harness.weights.preprocessing import Preprocessing, preprocessing_of, published
from harness.weights.recognition import Recognized, recognize
from harness.weights.schemes.scheme import Scheme
from spec import Array, Config, InvalidInput, reference
from spec.tolerances import TOLERANCES

_IMAGES = 2  # of the verification
_FRAMEWORKS = {"spec": "the NumPy referee", "pt": "PyTorch", "mx": "MXNet", "jax": "JAX", "onnx": "ONNX Runtime"}


@dataclass(frozen=True)
class Source:
    """Weights that have been read, and where they come from."""

    path: Path
    form: str
    naming: Scheme  # of the file's arrays
    weights: Checkpoint
    notes: tuple[str, ...] = ()  # what stood around the network, a line each

    @property
    def scheme(self) -> str:
        """The name of the file's names."""
        return self.naming.name


@dataclass
class Verification:
    """Source and result on the same images, each run by its own framework."""

    source: str
    result: str
    images: tuple[int, ...]
    bound: float  # of the relative differences
    logits: float = math.inf
    first_difference: str | None = None  # the first stage, in forward order, that is out of bounds
    difference: float = 0.0  # of that stage
    missing: str | None = None  # why nothing was run: a framework is not installed

    @property
    def passed(self) -> bool:
        """Whether no difference was found."""
        return self.first_difference is None

    def as_json(self) -> dict[str, Any]:
        """Plain values; an infinite difference is null."""
        return {**finite(asdict(self)), "passed": self.passed}


def read_weights(
    path: StrPath,
    run_task: RunTask,
    form: str | None = None,
    preset: str | None = None,
    *,
    average: bool = True,
    any_norm: bool = False,
) -> Source:
    """Read weights of any format, under any scheme's names.

    The format is detected where `form` is None. `preset` names the network where the file does not. Of a training that
    averages its weights these are the averages, unless `average` is False. With `any_norm` batch norm may have a form
    that only `harness.weights.equivalence.folded` takes.

    Raises:
        InvalidInput: when the file is damaged, or fits no network, or several and `preset` does not say which.
    """
    path = Path(path)
    path, form, contents = read(path, run_task, form)
    try:
        if contents.ours:
            weights, naming = understood(contents, FORMATS[form].scheme, preset)
            if not any(name.startswith(AVERAGE) for name in weights.state):
                return Source(path, form, naming, weights)
            if not average:
                return Source(path, form, naming, weights, ("the weights after the training's last step",))
            weights = replace(weights, params=averaged(weights.params, weights.state))
            return Source(path, form, naming, weights, ("the averages of the training's weights",))
        network = recognize(contents.arrays, preset, contents.remedy)
        if len(network.configs) > 1:
            fitting = ", ".join(config.preset for config in network.configs)
            raise InvalidInput(f"fits {fitting}: say which with --preset, since the file does not")
        if (remedy := to_fold(network.configs[0])) and not any_norm:
            raise InvalidInput(remedy)
        source = foreign_source(path, form, network, network.configs[0])
        spec.check_params(source.weights.config, source.weights.params)
    except InvalidInput as error:
        raise InvalidInput(f"{path}: {error}") from error
    return source


def foreign_source(path: StrPath, form: str, network: Recognized, config: Config) -> Source:
    """A network in a foreign file as one of its configurations, with what its publisher says of pictures."""
    path = Path(path)
    metadata = {"preprocessing": published(network.scheme.name, config).as_json()}
    weights = Checkpoint(network.params(config), config, metadata)
    return Source(path, form, network.scheme, weights, tuple(network.notes()))


def understood(contents: Contents, scheme: str, preset: str | None = None) -> tuple[Checkpoint, Scheme]:
    """The weights in a file that has our texts, and its scheme: `scheme`, unless the texts say that it is another.

    Raises:
        InvalidInput: when the arrays are not those that the texts describe, or of another preset.
    """
    config = config_of(contents.texts)
    if preset not in (None, config.preset):
        raise InvalidInput(f"it says that it is preset {config.preset}; leave --preset out, or say the same")
    state = {name: x for name, x in contents.arrays.items() if name.startswith(STATE)}
    params = {name: x for name, x in contents.arrays.items() if name not in state}
    texts = dict(contents.texts)
    naming = names.SCHEMES[scheme]
    if texts.pop("names", None) is not None:
        network = recognize(params, config.preset)
        params, naming = dict(network.arrays), network.scheme
    return understand(names.rename(params, naming, config) | state, texts), naming


def prepared(
    source: Source, dtype: str | None, *, aux: bool, form: str | None = None, pictures: Preprocessing | None = None
) -> Checkpoint:
    """What is to be written: the parameters, how pictures are prepared for them, and the classes' names.

    An optimizer's state and a run's position stay behind, and the auxiliary heads where `aux` is False. Arrays are
    rounded to `dtype`; None leaves them as they are, or widens float16 to float32 where the format `form` does not hold
    it. Pictures are prepared as the source says, unless `pictures` does.

    Raises:
        InvalidInput: when rounding makes a number infinite.
    """
    weights = source.weights
    config = weights.config if aux else replace(weights.config, aux=False)
    params = {name: weights.params[name] for name in spec.param_shapes(config)}
    if dtype is None and form is not None and not FORMATS[form].half and _dtypes(weights) == {"float16"}:
        dtype = "float32"
    if dtype is not None:
        with np.errstate(over="ignore"):
            params = {name: x.astype(dtype) for name, x in params.items()}
        spec.check_params(config, params)
    pictures = pictures or preprocessing_of(weights)
    return Checkpoint(params, config, {"preprocessing": pictures.as_json(), "labels": list(pictures.labels)})


def widened(source: Checkpoint, result: Checkpoint) -> str | None:
    """What to say where the result holds half precision in float32, which changes no number."""
    if _dtypes(source) == {"float16"} and _dtypes(result) == {"float32"}:
        return "numbers of float16, written as float32, which holds them exactly"
    # bfloat16 is the upper half of float32; no reader leaves it as it is, for NumPy has none.
    halves = (plain(x).view("<u4") & 0xFFFF for x in source.params.values() if x.dtype == np.float32)
    if _dtypes(source) == _dtypes(result) == {"float32"} and not any(half.any() for half in halves):
        return "numbers of bfloat16, written as float32, which holds them exactly"
    return None


def _dtypes(weights: Checkpoint) -> set[str]:
    return {x.dtype.name for x in weights.params.values()}


def convert(
    source: Source,
    target: StrPath,
    form: str,
    weights: Checkpoint,
    run_task: RunTask,
    *,
    verify: bool,
    naming: Scheme | None = None,
) -> Verification | None:
    """Write weights from `prepared`, and put them in place once they are verified.

    What stood there before stays whole until then. The result is compared bit for bit in any case; source and result
    run where `verify` is True. Where that verification has not passed, nothing has been written. `naming` names the
    arrays in the result; None for the format's own names.

    Raises:
        InvalidInput: when the target cannot be written, or is something else that would be lost, or when a framework
            cannot read the source or the result.
    """
    target = Path(target)
    _check_target(source.path, target, form)
    try:
        with temporary_folder(target.parent) as unfinished:
            written = unfinished / target.name
            naming = naming or names.SCHEMES[FORMATS[form].scheme]
            foreign.write(written, form, weights, naming, run_task)
            own = naming.name == FORMATS[form].scheme
            again = read_weights(written, run_task, form, None if own else weights.config.preset)
            _check_equal(again.weights, weights, target, own=own)
            result = Source(written, form, naming, weights)
            verification = verified(source, result, run_task) if verify else None
            if verification is None or verification.passed:
                _publish(written, target)
            return verification
    except OSError as error:
        raise InvalidInput(f"{target}: cannot be written ({error.strerror}); nothing was changed") from error


def _check_target(source: Path, target: Path, form: str) -> None:
    folder = not FORMATS[form].suffixes
    if target.exists() and target.samefile(source):
        raise InvalidInput(f"{target}: expected another name than that of the source, which would be replaced")
    if holds_training(target):
        raise InvalidInput(
            f"{target}: expected a new name, and this is the checkpoint of a training run, which could not go on; "
            "choose another name"
        )
    if form == "mxnet":
        params_of(target)
    if target.is_dir() and not folder:
        raise InvalidInput(f"{target}: expected the name of a file, and this is a folder")
    if folder and target.exists() and (not target.is_dir() or (any(target.iterdir()) and detect(target) != form)):
        raise InvalidInput(
            f"{target}: expected a new folder, or {FORMATS[form].title} to replace; move this away first"
        )
    if not target.absolute().parent.is_dir():
        raise InvalidInput(f"{target}: there is no folder {target.parent}")


def _check_equal(read: Checkpoint, weights: Checkpoint, target: Path, *, own: bool) -> None:
    """Check that not a bit has changed. Files without our own names do not all say what has no parameters."""
    changed = [name for name, x in weights.params.items() if not _same(x, read.params.get(name))]
    whole = read.config == weights.config or (not own and read.config.preset == weights.config.preset)
    more = [x for name, x in read.params.items() if name not in weights.params]
    fixed = not own and all((x == 1).all() for x in more)  # a scale that the network does not learn
    if changed or not whole or (more and not fixed):
        what = ", ".join(changed[:5]) or "the configuration"
        raise InvalidInput(f"{target}: read again, it holds something else ({what}); nothing was written")


def _same(x: Array, y: Array | None) -> bool:
    if y is None or x.shape != y.shape:
        return False
    return x.dtype.name == y.dtype.name and plain(x).tobytes() == plain(y).tobytes()


def _publish(written: Path, target: Path) -> None:
    """Rename the result to its own name, once all of it is on the disk."""
    for path in [written, *written.rglob("*")]:
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    if written.is_dir() and target.exists():
        target.rename(written.parent / "before")
    for path in written.parent.iterdir():  # a symbol has its parameters in a second file
        if path != written and path.name != "before":
            path.replace(target.with_name(path.name))
    written.replace(target)
    sync_folder(target.absolute().parent)


# ----------------------------------------------------------------------------------------------------- verification


def verified(source: Source, result: Source, run_task: RunTask) -> Verification:
    """Run both, each as its own framework loads it, and compare the stages.

    An ONNX file is run by ONNX Runtime, and by OpenVINO where it is installed: the worse of the two counts. Where the
    names in the source are not the framework's own, the referee runs the weights that were read. Where the
    result is rounded, the referee runs the rounded weights; where its batch norm has another form, those of the source.
    """
    config = result.weights.config
    params = source.weights.params
    runners = [_runner(source), FORMATS[result.form].runner]
    rounded = any(x.dtype != params.get(name, x).dtype for name, x in result.weights.params.items())
    if rounded or to_fold(source.weights.config):
        runners[0] = "spec"
    folded = config.batch_norm != source.weights.config.batch_norm
    single = "onnx" in runners or (folded and _dtypes(result.weights) != {"float64"})
    bound = TOLERANCES["float32" if single else "float64"].activations
    images = noise(_IMAGES, config, source.weights.config)
    verification = Verification(_FRAMEWORKS[runners[0]], _FRAMEWORKS[runners[1]], images.shape, bound)
    try:
        given = source if folded else replace(source, weights=result.weights)
        expected = _stages(given, runners[0], source.weights.config, images, run_task)
        computed = {verification.result: _stages(result, runners[1], config, images, run_task)}
        if runners[1] == "onnx" and (second := EVALUATORS["openvino"]).installed:
            computed[second.title] = second.run(result.path, images)
    except NotInstalled as error:
        verification.missing = str(error)
        return verification
    verification.result = " and ".join(computed)
    errors = {
        name: max(relative_error(got[name], x) for got in computed.values())
        for name, x in expected.items()
        if all(name in got for got in computed.values())
    }
    verification.logits = errors[config.logits]
    wrong = [(name, error) for name, error in errors.items() if not error <= bound]
    if wrong:
        verification.first_difference, verification.difference = wrong[0]
    return verification


def _runner(source: Source) -> str:
    form = FORMATS[source.form]
    return form.runner if source.scheme == form.scheme and not source.notes else "spec"


def _stages(source: Source, runner: str, config: Config, images: Array, run_task: RunTask) -> dict[str, Array]:
    """Every stage's output by name, as the runner computes it; `config` is the network in the file."""
    if runner == "spec":
        params = {name: x.astype(np.float64) for name, x in source.weights.params.items()}
        return reference.activations(source.weights.config, params, images)
    if runner == "onnx":
        return onnx_runtime(source.path, images)
    task: dict[str, Any] = {"kind": "run", "config": config_table(config), "dtype": "float64"}
    if source.scheme != FORMATS[source.form].scheme:
        task["names"] = foreign.own_names(source.naming, source.form, config)
    return answer_of(run_task, runner, source.path, task, {"images": images}).arrays


def fingerprint(weights: Checkpoint) -> str:
    """The SHA-256 that every format stores of these weights."""
    return describe(weights.params, weights.config, weights.metadata)["sha256"]
