"""The verb `vectors`: a conformance kit for a port in any language."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from harness import screen
from harness.cli.options import Heads, Json, Size, console, progress
from harness.shown import shown


def vectors(
    preset: Annotated[str, typer.Argument(help="See `googlenet presets`.")],
    folder: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="A new folder.")],
    channels: Annotated[int | None, typer.Option(help="Channels of the images.", show_default="the preset's")] = None,
    classes: Annotated[int | None, typer.Option(help="Number of classes.", show_default="the preset's")] = None,
    size: Size = None,
    heads: Heads = True,
    full: Annotated[bool, typer.Option("--full", help="Every array whole, whatever it takes.")] = False,
    as_json: Json = False,
) -> None:
    """Write a conformance kit: inputs and the referee's results, for a port in any language.

    A folder of safetensors with a page that says what to compute. `googlenet check CAPTURE.safetensors` reads what a
    port has computed, and names what is wrong.

    Without --full it takes at most 100 MB: gradients are norms and 256 numbers of each array. Dropout is off.

    Examples:

    googlenet vectors d2l --out kit

    googlenet vectors bvlc --classes 10 --no-aux --size 96 --out kit
    """
    from harness.check.kits.kit import kit_of
    from harness.check.kits.writing import check_new, write_kit

    check_new(folder)
    kit = kit_of(preset, channels=channels, classes=classes, size=size, heads=heads)
    with progress([*kit.sizes, "training"]) as done:
        facts = write_kit(kit, folder, full=full, done=done)
    if as_json:
        print(json.dumps(facts, indent=2))
        return
    sides = " and ".join(map(str, kit.sizes.values()))
    tell = console()
    screen.say(tell, f"{kit.config}, two pictures each of {sides} pixels: {facts['arrays']} arrays")
    screen.say(
        tell, f"stages {facts['stages']}, gradients and steps {facts['gradients']}, parameters {facts['parameters']}"
    )
    screen.say(tell, f"wrote {shown(folder)}, {facts['bytes'] / 1e6:.0f} MB; begin with README.md there")
