"""The verb `check`: somebody's own model against a network of the spec."""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness import screen
from harness.check import FILES, PROGRAMS, SYMBOL
from harness.cli.options import Json, console, notes, task_runner, working
from harness.cli.vectors import check_capture
from harness.shown import shown

if TYPE_CHECKING:
    from harness.check.checking import Line, Report
    from harness.check.trial import Task, Trial
    from harness.weights.convert import Verification


def check(
    model: Annotated[str, typer.Argument(metavar="FILE.py:NAME", help="Or package.module:NAME, or a file of a model.")],
    against: Annotated[
        str | None,
        typer.Option(help="A preset, see `googlenet presets`, or another model.", show_default="the nearest preset"),
    ] = None,
    arg: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="For the class or function. May be repeated.")
    ] = None,
    images: Annotated[
        str | None, typer.Option("--input", metavar="3x224x224", help="Channels, height and width of an image.")
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="A file that is loaded into the model first.", show_default="its own")
    ] = None,
    target: Annotated[
        Path | None,
        typer.Option("--convert", metavar="OUT", help="Write its weights by canonical or the other model's names."),
    ] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a page with both networks, their differences marked.")
    ] = None,
    accept: Annotated[
        list[str] | None,
        typer.Option(metavar="WORDS", help="Write them although lines with these words differ. May be repeated."),
    ] = None,
    inference: Annotated[bool, typer.Option("--inference", help="Compare inference at this size alone.")] = False,
    time: Annotated[float, typer.Option(help="Seconds for the model to be built and run.")] = 120.0,
    memory: Annotated[float, typer.Option(help="GiB of memory for that.")] = 8.0,
    as_json: Json = False,
) -> None:
    """Say where your own network differs from a preset or from another model, and what each difference does.

    It reads models of PyTorch, MXNet Gluon, Flax, Equinox and Keras (on JAX), ONNX files, TorchScript programs (.pt)
    and symbols of MXNet (-symbol.json). It runs your code, that in a program too, in a process of its own: a class or
    a function is called with --arg, a model is taken as it is.

    CAPTURE.safetensors is what a port in any language has computed on a kit of `googlenet vectors`.

    Exits with 0 where it is the same function, with 1 where it is not (in training or one pixel larger counts), with 2
    where it could not be built or run, and with 3 where it ran and was not understood.

    Examples:

    googlenet check model.py:GoogLeNet --against bvlc

    googlenet check model.py:GoogLeNet --arg num_classes=10 --input 1x96x96 --json

    googlenet check model.onnx

    googlenet check model.py:GoogLeNet --against other.py:GoogLeNet

    googlenet check model.py:GoogLeNet --weights mine.pt --convert mine.safetensors

    googlenet check capture.safetensors --against d2l
    """
    import spec
    from harness.check.checking import check as judged
    from harness.check.conversion import accepted, with_names
    from harness.check.report.page import write_page
    from harness.check.trial import Task

    if model.endswith(".safetensors"):
        if any((arg, images, weights, target, html, accept, inference)):
            raise spec.InvalidInput(f"{model}: --against and --json alone are for captures")
        check_capture(Path(model), against, as_json=as_json)
    other = against if against is not None and _is_model(against) else None
    sources = _sources(model, other, weights)
    if model.endswith(FILES) and (arg or (weights and not model.endswith(SYMBOL))):
        raise spec.InvalidInput("--arg and --weights are for code, and --weights for a symbol; a file has its weights")
    for option, number in (("--time", time), ("--memory", memory)):
        if not number > 0:
            raise spec.InvalidInput(f"{option}: expected a number above 0, got {number:g}")
    _check_targets(target, html, sources, other)
    task = Task(
        target=model,
        folder=str(Path.cwd()),
        arguments=_arguments(arg or []),
        shapes=_shapes(images, None if other else against),
        training=not inference,
        memory=memory,
        weights=None if weights is None else str(weights),
        as_it_is=target is not None,
        exactly=images is not None,
    )
    trial, second = _run(task, other, time)
    name = against if other is None else shown(other if _name(other) == _name(model) else _name(other))
    with working(f"comparing {shown(model)}"):
        report = with_names(judged(trial, name, inference=inference, other=second), trial)
    facts, status = report.as_json(), report.status
    if html is not None:
        write_page(report, trial, f"{model} against {report.against}" if report.against else model, html)
    if not as_json:
        _print(report)
    if target is not None and not accepted(report, accept or []):
        facts["converted"] = None
        remedy = "--accept WORDS takes what differs" if report.lines else "it has to be understood"
        screen.say(notes, f"nothing was written to {shown(target)}: {remedy}", "red")
        status = status or 1
    elif target is not None:
        source, its_task = weights or _file(model), None if other is None else _of(other, task)
        with working(f"writing {shown(target)}"):
            verification = _converted(report, trial, target, source, second, its_task, time)
        facts["converted"] = None if verification is None else verification.as_json()
        if not as_json:
            _print_conversion(verification, target)
        status = 0 if verification is None or verification.passed else 1
    if as_json:
        sys.stdout.write(json.dumps(facts, indent=2) + "\n")
    raise typer.Exit(status)


def _sources(model: str, other: str | None, weights: Path | None) -> list[Path]:
    """The files that are read, as far as they are there; a module's may not be."""
    from spec import InvalidInput

    if weights is not None and not weights.exists():
        raise InvalidInput(f"--weights {weights}: there is no such file")
    return [path for path in (_file(model), weights, _file(other) if other else None) if path and path.exists()]


def _check_targets(target: Path | None, html: Path | None, sources: Sequence[Path], other: str | None) -> None:
    """Refuse what cannot be written, or would replace what is read, before any work is done."""
    from harness.atomic import check_target
    from harness.check.conversion import TRANSFERRED
    from harness.weights.formats import format_for
    from spec import InvalidInput

    for option, path in (("--convert", target), ("--html", html)):
        if path is not None:
            check_target(path)
            if path.exists() and any(map(path.samefile, sources)):
                raise InvalidInput(f"{option} {path}: expected a new name, got that of a source; choose another")
    if target is not None and other is None:
        format_for(target)
    elif target is not None and target.suffix not in TRANSFERRED:
        raise InvalidInput(
            f"--convert {target}: another model's weights are written as a state dict; expected a name that ends "
            f"in one of {', '.join(TRANSFERRED)}"
        )


def _shapes(images: str | None, preset: str | None) -> tuple[tuple[int, int, int], ...]:
    """Of an image, to try in this order."""
    import spec

    if images is not None:
        return (_shape(images),)
    if preset is None:
        return (3, 224, 224), (1, 96, 96), (1, 224, 224), (1, 28, 28), (3, 299, 299)
    config = spec.preset(preset)
    channels = dict.fromkeys((config.in_channels, 3, 1))
    return tuple((number, config.input_size, config.input_size) for number in channels)


def _of(other: str, task: Task) -> Task:
    """The other model's task."""
    return replace(task, target=other, arguments={}, weights=None)


def _run(task: Task, other: str | None, seconds: float) -> tuple[Trial, Trial | None]:
    """The passes of a model, and of the other one, at the size that this takes."""
    from harness.check.trial import run_trial

    second = None
    if other is not None:
        with working(f"running {shown(other)}"):
            second = run_trial(_of(other, task), seconds)
        task = replace(task, shapes=(second.shape,), exactly=True)
    with working(f"running {shown(task.target)}"):
        return run_trial(task, seconds), second


def _converted(
    report: Report,
    trial: Trial,
    target: Path,
    source: Path,
    second: Trial | None,
    its_task: Task | None,
    seconds: float,
) -> Verification | None:
    """Write the weights by canonical names, or by those of the other model, and prove them."""
    from harness.check.conversion import converted, transferred
    from harness.check.trial import run_trial

    if second is None or its_task is None:
        return converted(report, source if source.exists() else Path.cwd(), target, task_runner(None))
    its_task = replace(its_task, shapes=(second.shape,), exactly=True)
    rerun = partial(run_trial, seconds=seconds)
    return transferred(report, trial, second, its_task, target, rerun, task_runner(None))


def _is_model(text: str) -> bool:
    return text.endswith(FILES) or ":" in text


def _name(model: str) -> str:
    return Path(model).name if model.endswith(FILES) else model.rpartition(":")[2]


def _file(model: str) -> Path:
    """The file in which a model is; for a module's it does not have to exist."""
    from zipfile import BadZipFile

    from harness.weights.formats.pytorch import is_program
    from spec import InvalidInput

    if not model.endswith(FILES) and not re.fullmatch(r".+:[A-Za-z_][\w.]*", model):
        raise InvalidInput(
            f"expected FILE.py:NAME, package.module:NAME, or a name that ends in one of {', '.join(FILES)}, "
            f"got {model!r}"
        )
    file = Path(model if model.endswith(FILES) else model.rpartition(":")[0])
    if (model.endswith(FILES) or file.suffix == ".py") and not file.is_file():
        raise InvalidInput(f"{file}: there is no such file")
    try:
        code = not model.endswith(PROGRAMS) or is_program(file)
    except (OSError, BadZipFile) as error:
        raise InvalidInput(f"{file}: cannot be read, or is damaged ({shown(error)}); restore a copy") from error
    if not code:
        raise InvalidInput(
            f"{file}: expected a TorchScript program, got a file without code; --weights takes weights, "
            "beside the code of their model"
        )
    return file


def _shape(text: str) -> tuple[int, int, int]:
    from spec import InvalidInput

    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})x(\d{1,5})", text)
    if not match or "0" in match.groups():
        raise InvalidInput(f"--input: expected channels, height and width such as 3x224x224, got {text!r}")
    channels, height, width = map(int, match.groups())
    return channels, height, width


def _arguments(options: list[str]) -> dict[str, Any]:
    """``{"num_classes": 10}`` of ``["num_classes=10"]``; what is no Python literal is a text."""
    from spec import InvalidInput

    arguments: dict[str, Any] = {}
    for option in options:
        name, equals, value = option.partition("=")
        if not equals or not name.isidentifier():
            raise InvalidInput(f"--arg: expected NAME=VALUE, got {option!r}")
        try:
            arguments[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            arguments[name] = value
    return arguments


def _print(report: Report) -> None:
    from harness.check.trial import LARGER

    out = console()
    if not report.against:
        screen.say(out, f"not understood: {report.not_understood}", "red")
        return
    same = report.parameters == report.reference_parameters
    name = report.against
    count = f"as {name}" if same else f"{name} has {report.reference_parameters:,}"
    screen.say(
        out,
        f"{report.parameters:,} parameters, {count}; read {report.operations} operations and ran them again: equal",
    )
    rows = [(_places(line, report.stages), line.text, line.effect) for line in report.lines]
    widths = [max((len(row[i]) for row in rows), default=0) for i in (0, 1)]
    for where, text, effect in rows:
        screen.say(out, f"{where:{widths[0]}}   {text:{widths[1]}}   {effect}")
    for note in report.notes:
        screen.say(out, note)
    if report.not_understood:
        screen.say(out, f"not understood: {report.not_understood}", "red")
    size = " x ".join(map(str, report.shape[1:]))
    if report.status == 0:
        larger = " and one pixel larger" if LARGER in report.compared else ""
        training = ", and in training" if "training" in report.compared else ", in inference"
        screen.say(out, f"The same function as {name} at {size}{larger}{training}.", "green")
    elif report.lines:
        hidden = sum(line.shown_by == "nothing" for line in report.lines if line.counts)
        of = sum(line.counts for line in report.lines)
        screen.say(out, f"Names, shapes and counts show {'none' if hidden == of else of - hidden} of these {of}.")
    if report.nearest != report.preset:
        screen.say(out, f"Nearest preset: {report.nearest}.")


def _print_conversion(verification: Verification | None, target: Path) -> None:
    passed = verification is None or verification.passed
    if verification is not None and verification.missing is None:
        said = f"{verification.source} and {verification.result}: logits differ by {verification.logits:.1e} at most"
        screen.say(console(), said, "green" if passed else "red")
    elif verification is not None:
        screen.say(console(), f"not run: {verification.missing}", "yellow")
    screen.say(console(), f"wrote {shown(target)}" if passed else f"nothing was written: {shown(target)}")


def _places(line: Line, stages: Mapping[str, Sequence[str]]) -> str:
    """``conv1, branch1x1 of all 9 blocks``."""
    there: dict[str, list[str]] = {}
    for place in line.places:
        stage, _, part = place.partition(".")
        there.setdefault(part, []).append(stage)
    whole = [part for part, names in there.items() if len(names) > 2 and set(names) == set(stages.get(part, ()))]
    names = [place for place in line.places if place.partition(".")[2] not in whole]
    text = ", ".join(names if len(names) <= 6 else [*names[:5], f"{len(names) - 5} more"])
    if whole:
        every = f"{', '.join(whole)} of all {len(stages[whole[0]])} blocks"
        text = ", ".join(filter(None, [text, every]))
    return text
