"""The verbs that work on files of weights: convert, inspect, predict."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from harness import screen
from harness.cli.options import (
    Average,
    Device,
    Dtype,
    Json,
    Python,
    SkipDamaged,
    console,
    notes,
    progress,
    say,
    split,
    task_runner,
    tell_pictures,
)
from harness.shown import shown

Format = Literal["safetensors", "huggingface", "npz", "pytorch", "gluon", "mxnet", "flax", "orbax", "keras", "onnx"]
From = Annotated[
    Format | None,
    typer.Option("--from", help="Format of the source; see docs/porting.md.", show_default="detected"),
]
Preset = Annotated[str | None, typer.Option(help="The network, where the file does not say.", show_default="detected")]
# How pictures are prepared.
Labels = Annotated[
    Path | None, typer.Option(help="The classes' names, one a line.", show_default="as stored with the weights")
]
Publisher = Annotated[
    str | None,
    typer.Option(
        "--preprocessing",
        metavar="NAME",
        help="Whose way: torchvision, timm, keras, slim and others of docs/preprocessing.md. The options below "
        "change it.",
        show_default="as stored",
    ),
]
Side = Annotated[int | None, typer.Option("--size", help="Side in pixels.", show_default="as stored")]
Order = Annotated[
    Literal["gray", "RGB", "BGR"] | None, typer.Option(help="Order of the channels.", show_default="as stored")
]
Scale = Annotated[float | None, typer.Option(help="Factor of pixels from 0 to 255.", show_default="as stored")]
Mean = Annotated[str | None, typer.Option(help="Subtracted next: 0.5, or 0.5,0.4,0.3.", show_default="as stored")]
Std = Annotated[str | None, typer.Option(help="Divisor, last.", show_default="as stored")]


def convert(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="Weights: a file, or a folder.")],
    target: Annotated[Path, typer.Argument(metavar="DST", help="What to write; its suffix says the format.")],
    preset: Preset = None,
    from_format: From = None,
    to_format: Annotated[
        Format | None, typer.Option("--to", help="Format of the result.", show_default="by the suffix")
    ] = None,
    dtype: Annotated[
        Literal["float32", "float64"] | None, typer.Option(help="Round to this.", show_default="as in the source")
    ] = None,
    average: Average = True,
    heads: Annotated[
        bool, typer.Option("--aux/--no-aux", help="Keep the auxiliary heads, where there are any.")
    ] = True,
    verify: Annotated[
        bool, typer.Option("--verify/--no-verify", help="Run source and result on the same images, and compare.")
    ] = True,
    labels: Labels = None,
    publisher: Publisher = None,
    size: Side = None,
    order: Order = None,
    scale: Scale = None,
    mean: Mean = None,
    std: Std = None,
    named: Annotated[
        str | None,
        typer.Option(
            "--names",
            help="Whose names the arrays get: torchvision, d2l, d2l-today, gluon-prefixed, linen, caffe and others of "
            "docs/names.md, or canonical.",
            show_default="as in the source, where the format holds them",
        ),
    ] = None,
    fold_into: Annotated[
        str | None,
        typer.Option(
            metavar="PRESET",
            help="Write the weights of this preset, which computes the same: batch norm's scale and epsilon and a bias "
            "before it become part of other arrays.",
            show_default="the network as it is",
        ),
    ] = None,
    python: Python = None,
    as_json: Json = False,
) -> None:
    """Convert weights from one format to another, and prove that they are the same network.

    The result is read again and compared bit for bit; then source and result each run in the framework that their
    format belongs to. A result that does not agree is not put in place, and the exit status is 1.

    Examples:

    googlenet convert model.pt model.params --preset d2l

    googlenet convert runs/fast/pt/checkpoint.safetensors model.onnx

    googlenet convert mine.pt model.onnx --labels flowers.txt --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225
    """
    from harness.weights import convert as conversion
    from harness.weights.equivalence import folded, sized
    from harness.weights.formats import FORMATS, foreign, format_for
    from harness.weights.preprocessing import chosen

    form = to_format or format_for(target)
    run_task = task_runner(python)
    with progress([f"reading {source}", f"writing {target}"]) as done:
        read = conversion.read_weights(
            source, run_task, from_format, preset, average=average, any_norm=fold_into is not None
        )
        done(f"reading {source}")
        pictures = chosen(read.weights, labels, publisher, size=size, order=order, scale=scale, mean=mean, std=std)
        weights = conversion.prepared(read, dtype, aux=heads, form=form, pictures=pictures)
        if fold_into is not None:
            weights = folded(weights, sized(fold_into, weights.config))
        if named is None:
            naming = foreign.kept_scheme(read.naming, read.form == form, form, weights.config)
        else:
            naming = foreign.asked_scheme(named, form, weights.config)
        verification = conversion.convert(read, target, form, weights, run_task, verify=verify, naming=naming)
    tell_pictures(pictures)
    passed = verification is None or verification.passed
    if as_json:
        facts = {
            "source": str(source),
            "from": read.form,
            "names": read.scheme,
            "notes": list(read.notes),
            "target": str(target) if passed else None,
            "to": form,
            "target_names": naming.name,
            "preset": weights.config.preset,
            "tensors": len(weights.params),
            "sha256": conversion.fingerprint(weights),
            "verification": None if verification is None else verification.as_json(),
        }
        print(json.dumps(facts, indent=2))
        raise typer.Exit(0 if passed else 1)
    tell = partial(screen.say, console())
    tell(f"{shown(source)}: {FORMATS[read.form].title}, names of {read.scheme}; {weights.config}")
    for note in read.notes:
        tell(note)
    if naming.name != FORMATS[form].scheme:
        ours = "" if named else ", as in the source; --names canonical writes ours"
        tell(f"written with the names of {naming.name}{ours}")
    if fold_into is not None:
        tell(f"folded into {weights.config}, for prediction; {len(read.weights.params)} tensors before")
    tell(f"{len(weights.params)} tensors, bit for bit; SHA-256 {conversion.fingerprint(weights)}")
    if (half := conversion.widened(read.weights, weights)) is not None:
        tell(half)
    if verification is None:
        tell("not run (--no-verify)")
    elif verification.missing is not None:
        tell(f"not run: {verification.missing}", style="yellow")
    else:
        first, bound = verification.first_difference, verification.bound
        stages = f"first at {first}, by {verification.difference:.1e}" if first else f"no stage by more than {bound:g}"
        tell(
            f"{verification.source} and {verification.result} on the same "
            f"{' x '.join(map(str, verification.images))} images: logits differ by {verification.logits:.1e} at most, "
            f"relatively; {stages}",
            style="red" if first else "green",
        )
    tell(f"wrote {shown(target)}" if passed else f"nothing was written: {shown(target)} would not be the same network")
    raise typer.Exit(0 if passed else 1)


def inspect(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="Weights: a file, or a folder.")],
    from_format: From = None,
    python: Python = None,
    as_json: Json = False,
) -> None:
    """Show what a file of weights holds: format, network, tensors, and what is wrong with them.

    Where no network fits, it names the nearest and the differences. The exit status is 1 then, and where a number is
    not finite.

    Example: googlenet inspect model.pt
    """
    from harness.weights.inspection import examine, render

    inspection = examine(path, task_runner(python), from_format)
    if as_json:
        print(json.dumps(inspection.as_json(), indent=2))
    else:
        render(inspection, console())
    raise typer.Exit(0 if inspection.sound else 1)


def predict(
    pictures: Annotated[list[str], typer.Argument(metavar="IMAGE...", help="Files or folders; - for standard input.")],
    weights: Annotated[Path, typer.Option(help="Weights of any format: a file, or a folder.")],
    backends: Annotated[str, typer.Option(help="pt, mx, jax, onnx, openvino, separated by commas.")] = "pt",
    preset: Preset = None,
    from_format: From = None,
    labels: Labels = None,
    publisher: Publisher = None,
    top: Annotated[int, typer.Option(help="How many classes to show.")] = 5,
    size: Side = None,
    order: Order = None,
    scale: Scale = None,
    mean: Mean = None,
    std: Std = None,
    skip_damaged: SkipDamaged = False,
    dtype: Annotated[Dtype, typer.Option(help="Of the backends; onnx and openvino compute in float32.")] = "float32",
    device: Device = "auto",
    python: Python = None,
    as_json: Json = False,
) -> None:
    """Classify pictures, in one framework or in several side by side.

    Pictures are read as a viewer shows them: turned as their EXIF data say, what is transparent over white.

    Examples:

    googlenet predict coat.png --weights runs/fast/pt/checkpoint.safetensors

    googlenet predict photos/ --weights model.onnx --backends pt,mx,jax,onnx
    """
    from harness.backends.registry import check_names
    from harness.weights import convert as conversion
    from harness.weights import prediction
    from harness.weights.preprocessing import chosen

    run_task = task_runner(python)
    engines = check_names(split(backends), prediction.ENGINES)
    source = conversion.read_weights(weights, run_task, from_format, preset)
    read = source.weights
    say(source.notes)
    prepare = chosen(read, labels, publisher, size=size, order=order, scale=scale, mean=mean, std=std)
    names, images, lines = prediction.read_pictures(pictures, prepare, skip_damaged=skip_damaged)
    say(lines)
    tell_pictures(prepare)
    with progress(engines) as done:
        predictions = prediction.predict(read, images, engines, run_task, dtype=dtype, device=device, done=done)
    rows = prediction.ranked(names, predictions, prepare.labels, top)
    if as_json:
        print(json.dumps(rows, indent=2))
    else:
        prediction.render(rows, engines, console())
    for problem in predictions.problems:
        screen.say(notes, problem, "red")
    raise typer.Exit(1 if predictions.problems else 0)
