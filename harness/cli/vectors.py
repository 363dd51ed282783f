"""The verb `vectors`: a conformance kit for a port in any language."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness import screen
from harness.cli.options import Heads, Json, Size, console, progress
from harness.shown import shown

if TYPE_CHECKING:
    from harness.check.kits.judging import Verdict


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


def check_capture(path: Path, against: str | None, *, as_json: bool) -> None:
    """Judge what a port has computed on a kit, of a preset or in a folder; exits with 1 where it is not the same."""
    from harness.check.kits.capture import read_capture
    from harness.check.kits.judging import judge
    from harness.check.kits.kit import kit_of
    from harness.check.kits.writing import read_kit
    from spec import InvalidInput, stage_names

    if against is None:
        raise InvalidInput(f"{path}: expected --against with the preset of its kit, or the kit's folder")
    kit = read_kit(Path(against)) if Path(against).is_dir() else kit_of(against)
    capture = read_capture(path, kit)
    names = stage_names(kit.config)
    with progress(["stages"]) as done:
        verdict = judge(kit, capture, lambda stage: done("stages", names.index(stage) + 1, len(names)))
    if as_json:
        print(json.dumps(verdict.as_json(), indent=2))
    else:
        _print(verdict)
    raise typer.Exit(verdict.status)


def _print(verdict: Verdict) -> None:
    from harness.check.kits.bounds import BOUNDS

    tell, kit, errors = console(), verdict.kit, verdict.errors
    preset = kit.config.preset
    screen.say(tell, f"{_counted(verdict)}; {verdict.dtype}{', ' * bool(verdict.layout)}{verdict.layout}")
    rows = [(_listed(line.places), line.text, _off(line.off)) for line in verdict.lines]
    widths = [max((len(row[i]) for row in rows), default=0) for i in (0, 1)]
    for place, text, off in rows:
        screen.say(tell, f"{place:{widths[0]}}   {text:{widths[1]}}   {off}")
    for note in verdict.notes:
        screen.say(tell, note)
    if not verdict.lines:
        sizes, worst = " and ".join(map(str, kit.sizes.values())), max(errors.values(), default=0.0)
        words = [f"in {kind}" for kind in verdict.covered]
        what = (
            f"The same function as {preset} at {sizes}, {' and '.join(words)}"
            if words
            else "What was captured is right"
        )
        screen.say(tell, f"{what}: no array is off by more than {worst:.1e}.", "green")
        if "inference" not in verdict.covered:
            screen.say(
                tell, "The logits were not captured at both sizes, so that nothing is said of the whole.", "yellow"
            )
    elif stages := [error for name, error in errors.items() if name.partition("/")[0] in kit.sizes]:
        right = sum(error <= BOUNDS[verdict.dtype].stages for error in stages)
        screen.say(tell, f"Given its own input, the output of {right} of {len(stages)} stages is right.")


def _counted(verdict: Verdict) -> str:
    """``stages: 18 at 96 pixels, 18 at 97 pixels; loss; gradient: 116``."""
    kinds: dict[str, int] = {}
    for name in verdict.errors:
        kind = name.partition("/")[0]
        kinds[kind] = kinds.get(kind, 0) + 1
    sizes = verdict.kit.sizes
    stages = [f"{kinds.pop(which)} at {side} pixels" for which, side in sizes.items() if which in kinds]
    words = [f"stages: {', '.join(stages)}"] if stages else []
    words += ["loss"] if kinds.pop("loss", 0) else []
    return "; ".join([*words, *(f"{kind}: {number}" for kind, number in kinds.items())])


def _listed(places: tuple[str, ...]) -> str:
    return ", ".join(places if len(places) <= 4 else [*places[:3], f"{len(places) - 3} more"])


def _off(off: float | None) -> str:
    return "another shape" if off is None else f"off by {off:.2g}"
