"""The verbs that work on files of weights: convert, inspect, predict."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from harness.cli.options import Json, Python, check_choices, interpreters, notes, progress, split

if TYPE_CHECKING:
    from harness.weights.formats import Work

From = Annotated[
    str | None,
    typer.Option("--from", metavar="FORMAT", help="Of the source; see docs/porting.md.", show_default="found out"),
]
Preset = Annotated[str | None, typer.Option(help="The network, where the file does not say.", show_default="found out")]


def work_with(python: list[str] | None) -> Work:
    """What runs the tasks that need a framework."""
    from harness.backends.process import run_worker
    from harness.backends.registry import BACKENDS

    pythons = interpreters(python or [], list(BACKENDS))
    return lambda backend, task, arrays: run_worker(backend, task, arrays, pythons.get(backend, sys.executable))


def check_format(option: str, name: str | None) -> None:
    """Make sure that it is one.

    Raises:
        InvalidInput: otherwise.
    """
    from harness.weights.formats import FORMATS
    from spec import InvalidInput

    if name is not None and name not in FORMATS:
        raise InvalidInput(f"{option}: expected one of {', '.join(FORMATS)}, got {name!r}")


def convert(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="Weights: a file, or a folder.")],
    target: Annotated[Path, typer.Argument(metavar="DST", help="What to write; its suffix says the format.")],
    preset: Preset = None,
    from_format: From = None,
    to_format: Annotated[
        str | None, typer.Option("--to", metavar="FORMAT", help="Of the result.", show_default="by the suffix")
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="Round to float32 or float64.", show_default="as in the source")
    ] = None,
    heads: Annotated[
        bool, typer.Option("--aux/--no-aux", help="Keep the auxiliary heads, where there are any.")
    ] = True,
    verify: Annotated[
        bool, typer.Option("--verify/--no-verify", help="Run source and result on the same images, and compare.")
    ] = True,
    python: Python = None,
    as_json: Json = False,
) -> None:
    """Convert weights from one format to another, and prove that they are the same network.

    What was written is read again and held bit for bit; then source and result each run in the framework that they
    belong to. A result that does not agree is not put in place, and the exit status is 1.

    Examples:

    googlenet convert model.pt model.params --preset d2l

    googlenet convert runs/fast/pt/checkpoint.safetensors model.onnx
    """
    from harness.weights import convert as conversion
    from harness.weights.formats import FORMATS, format_for

    check_format("--from", from_format)
    check_format("--to", to_format)
    if dtype is not None:
        check_choices(stored_dtype=dtype)
    to_format = to_format or format_for(target)
    work = work_with(python)
    with progress([f"reading {source}", f"writing {target}"]) as done:
        read = conversion.read_weights(source, work, from_format, preset)
        done(f"reading {source}")
        weights = conversion.prepared(read, dtype, aux=heads)
        verification = conversion.convert(read, target, to_format, weights, work, verify=verify)
    passed = verification is None or verification.passed
    if as_json:
        facts = {
            "source": str(source),
            "from": read.form,
            "names": read.scheme,
            "target": str(target) if passed else None,
            "to": to_format,
            "preset": weights.config.preset,
            "tensors": len(weights.params),
            "sha256": conversion.fingerprint(weights),
            "verification": None if verification is None else verification.as_json(),
        }
        print(json.dumps(facts, indent=2))
        raise typer.Exit(0 if passed else 1)
    say = partial(Console().print, highlight=False, markup=False, soft_wrap=True)
    say(f"{source}: {FORMATS[read.form].title}, names of {read.scheme}; {weights.config}")
    say(f"{len(weights.params)} tensors, bit for bit; SHA-256 {conversion.fingerprint(weights)}")
    if verification is None:
        say("not run (--no-verify)")
    elif verification.missing is not None:
        say(f"not run: {verification.missing}", style="yellow")
    else:
        first, bound = verification.first_difference, verification.bound
        stages = f"first at {first}, by {verification.difference:.1e}" if first else f"no stage by more than {bound:g}"
        say(
            f"{verification.source} and {verification.result} on the same "
            f"{' x '.join(map(str, verification.images))} images: logits differ by {verification.logits:.1e} at most, "
            f"relatively; {stages}",
            style="red" if first else "green",
        )
    say(f"wrote {target}" if passed else f"nothing was written: {target} would not be the same network")
    raise typer.Exit(0 if passed else 1)


def inspect(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="Weights: a file, or a folder.")],
    from_format: From = None,
    python: Python = None,
    as_json: Json = False,
) -> None:
    """Say what a file of weights holds: format, network, tensors, and what is wrong with them.

    Where no network fits, the nearest and the differences are named. Exits with 1 then, and where a number is not
    finite.

    Example: googlenet inspect model.pt
    """
    from harness.weights.inspection import examine, render

    check_format("--from", from_format)
    found = examine(path, work_with(python), from_format)
    if as_json:
        print(json.dumps(found.as_json(), indent=2))
    else:
        render(found, Console())
    raise typer.Exit(0 if found.sound else 1)


def predict(
    pictures: Annotated[list[str], typer.Argument(metavar="IMAGE...", help="Files or folders; - for standard input.")],
    weights: Annotated[Path, typer.Option(help="Of any format.")],
    backends: Annotated[str, typer.Option(help="pt, mx, jax, onnx, separated by commas.")] = "pt",
    preset: Preset = None,
    from_format: From = None,
    labels: Annotated[
        Path | None, typer.Option(help="The classes' names, one a line.", show_default="as stored with the weights")
    ] = None,
    top: Annotated[int, typer.Option(help="How many classes to show.")] = 5,
    size: Annotated[int | None, typer.Option(help="Side in pixels.", show_default="as stored")] = None,
    order: Annotated[str | None, typer.Option(help="gray, RGB or BGR.", show_default="as stored")] = None,
    scale: Annotated[float | None, typer.Option(help="Of pixels from 0 to 255.", show_default="as stored")] = None,
    mean: Annotated[
        str | None, typer.Option(help="Subtracted then: 0.5, or 0.5,0.4,0.3.", show_default="as stored")
    ] = None,
    std: Annotated[str | None, typer.Option(help="Divided by then.", show_default="as stored")] = None,
    dtype: Annotated[str, typer.Option(help="float32, float64 or bfloat16; onnx computes in float32.")] = "float32",
    device: Annotated[str, typer.Option(help="auto, cpu or gpu.")] = "auto",
    python: Python = None,
    as_json: Json = False,
) -> None:
    """Classify pictures, in one framework or in several side by side.

    Examples:

    googlenet predict coat.png --weights runs/fast/pt/checkpoint.safetensors

    googlenet predict photos/ --weights model.onnx --backends pt,mx,jax,onnx
    """
    from harness.backends.registry import check_names
    from harness.weights import convert as conversion
    from harness.weights import prediction

    check_choices(dtype=dtype, device=device)
    check_format("--from", from_format)
    work = work_with(python)
    chosen = check_names(split(backends), prediction.ENGINES)
    read = conversion.read_weights(weights, work, from_format, preset).weights
    given: dict[str, Any] = {"size": size, "order": order, "scale": scale}
    given |= {"mean": prediction.numbers("--mean", mean), "std": prediction.numbers("--std", std)}
    prepare = prediction.preprocessing(
        read, {name: value for name, value in given.items() if value is not None}, labels
    )
    names, images = prediction.read_pictures(pictures, prepare)
    with progress(chosen) as done:
        found = prediction.predict(read, images, chosen, work, dtype=dtype, device=device, done=done)
    rows = prediction.ranked(names, found, prepare.labels, top)
    if as_json:
        print(json.dumps(rows, indent=2))
    else:
        prediction.render(rows, chosen, Console())
    if found.problems:
        for problem in found.problems:
            notes.print(problem, style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(1)
