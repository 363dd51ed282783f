"""The verbs of learners: `exercise`, with a referee of the answers, and `explore`, a network as a page."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness import screen
from harness.cli.options import DataDir, Json, Size, console, progress, say, task_runner, tell_pictures, working
from harness.shown import shown

if TYPE_CHECKING:
    from harness.exercises.exercise import Answer, Exercise, Verdict
    from harness.explore.subject import Subject
    from harness.weights.formats import RunTask


def exercise(
    name: Annotated[str | None, typer.Argument(metavar="EXERCISE", help="Without it they are listed.")] = None,
    file: Annotated[
        str | None, typer.Argument(metavar="FILE.py", help="Your answer; FILE.py:NAME where it has another name.")
    ] = None,
    time: Annotated[float, typer.Option(help="Seconds that your code may take.")] = 120.0,
    memory: Annotated[float, typer.Option(help="GiB of memory for that.")] = 8.0,
    as_json: Json = False,
) -> None:
    """List exercises, tell one, or judge your answer to it.

    Answers are held against the referee. Of one that is wrong it says which part, and how, and not what would be right.
    Your code runs in a process of its own.

    Exits with 0 where the answer is right, with 1 where it is wrong, and with 2 where it could not be judged.

    Examples:

    googlenet exercise

    googlenet exercise port-the-stem

    googlenet exercise port-the-stem my.py
    """
    from harness.exercises.catalog import EXERCISES, exercise_named

    if name is None:
        return _list(list(EXERCISES.values()), as_json=as_json)
    asked = exercise_named(name)
    if file is None:
        return _tell(asked, as_json=as_json)
    answer = _answer(asked, file, time, memory)
    with working(f"running {shown(answer.target)}"):
        verdict = asked.judge(answer)
    if as_json:
        print(json.dumps({"exercise": asked.name, "answer": answer.target} | verdict.as_json(), indent=2))
    else:
        _print(asked, verdict)
    raise typer.Exit(0 if verdict.right else 1)


def _answer(asked: Exercise, text: str, time: float, memory: float) -> Answer:
    from harness.exercises.exercise import Answer
    from spec import InvalidInput

    for option, number in (("--time", time), ("--memory", memory)):
        if not number > 0:
            raise InvalidInput(f"{option}: expected a number above 0, got {number:g}")
    file, _, name = text.partition(".py:")
    path = Path(f"{file}.py" if name else text)
    if path.suffix != ".py":
        raise InvalidInput(f"expected FILE.py or FILE.py:NAME, got {text!r}")
    if not path.is_file():
        raise InvalidInput(f"{path}: there is no such file")
    return Answer(path, name or asked.writes, time, memory)


def _list(exercises: list[Exercise], *, as_json: bool) -> None:
    if as_json:
        rows = [{"name": row.name, "title": row.title, "writes": row.writes} for row in exercises]
        print(json.dumps(rows, indent=2))
        return
    out = console()
    width = max(len(row.name) for row in exercises)
    for row in exercises:
        screen.say(out, f"{row.name:{width}}   {row.title}")
    screen.say(out, "googlenet exercise NAME tells one; googlenet exercise NAME my.py judges your answer.", "dim")


def _tell(asked: Exercise, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({key: getattr(asked, key) for key in ("name", "title", "writes", "text", "hint")}, indent=2))
        return
    out = console()
    screen.say(out, asked.title, "bold")
    for text in (asked.text, f"Hint: {asked.hint}"):
        screen.say(out, "\n" + textwrap.fill(text, min(out.width, 100), break_on_hyphens=False))
    screen.say(out, f"\nYour file defines {asked.writes}: googlenet exercise {asked.name} my.py")


def _print(asked: Exercise, verdict: Verdict) -> None:
    out = console()
    if verdict.right:
        screen.say(out, f"{asked.name}: right", "green")
    else:
        screen.say(out, f"{asked.name}: wrong", "red")
    widths = [max((len(getattr(x, part)) for x in verdict.findings), default=0) for part in ("place", "text")]
    for x in verdict.findings:
        screen.say(out, f"{x.place:{widths[0]}}   {x.text:{widths[1]}}   {x.effect}".rstrip())
    for note in verdict.notes:
        screen.say(out, note, "dim")


def explore(
    pictures: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PICTURE",
            help="Files or folders, at most 8 pictures.",
            show_default="digits or photographs; for a run on Fashion-MNIST its test images",
        ),
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="See `googlenet presets`.", show_default="d2l, or what the weights are of")
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Weights of any format: a file, or a folder.", show_default="random ones"),
    ] = None,
    out: Annotated[Path, typer.Option(metavar="FILE", help="The page.")] = Path("explore.html"),
    backend: Annotated[str, typer.Option(help="pt, mx or jax: what computes the pictures.")] = "pt",
    size: Size = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Write a network as one page to walk through, in any browser, in English and Chinese.

    The network drawn from its table, with the code of every stage in three frameworks; pictures on their way through
    it, computed by a backend and checked against the referee; mistakes of porting to switch on; presets side by side.
    The page needs no other file and no network.

    The exit status is 1 where the backend does not compute what the referee does.

    Examples:

    googlenet explore

    googlenet explore coat.png --weights runs/fast/pt/checkpoint.safetensors --out coat.html
    """
    from harness.atomic import check_target
    from harness.backends.registry import BACKENDS, check_names
    from harness.explore.page import explore as write

    check_names([backend], BACKENDS)
    check_target(out)
    run_task = task_runner(None)
    subject = _subject(pictures or [], preset, weights, size, data_dir, run_task)
    with progress([backend, "referee", "traps"]) as done:
        facts = write(subject, backend, run_task, out, done)
    if as_json:
        told: dict[str, Any] = {
            "page": str(out),
            "bytes": facts.size,
            "preset": facts.preset,
            "weights": subject.weights or None,
            "pictures": list(subject.names),
            "backend": backend,
            "errors": facts.errors,
            "traps": facts.traps,
        }
        print(json.dumps(told, indent=2))
    else:
        tell = console()
        pictures_of = f"{len(subject.names)} picture{'s' * (len(subject.names) > 1)} of"
        screen.say(tell, f"{subject.config}, {pictures_of} {subject.images.shape[2]} pixels")
        error = f"{facts.worst:.1e}, relatively"
        if facts.agrees:
            said, color = f"no stage is off the referee by more than {error}", "green"
        else:
            said, color = f"off the referee by {error}; rounding does not explain it", "red"
        screen.say(tell, f"{backend} in float64: {said}", color)
        screen.say(tell, f"wrote {shown(out)}, {facts.size / 1e6:.1f} MB; open it in a browser")
    raise typer.Exit(0 if facts.agrees else 1)


def _subject(
    pictures: list[str],
    preset: str | None,
    weights: Path | None,
    size: int | None,
    data_dir: Path | None,
    run_task: RunTask,
) -> Subject:
    """The network, its weights, and the pictures."""
    from harness.explore.subject import drawn, of_weights
    from harness.weights.convert import read_weights

    if weights is None:
        subject, lines = drawn(preset or "d2l", pictures, size, data_dir)
    else:
        source = read_weights(weights, run_task, None, preset)
        say(source.notes)
        subject, lines = of_weights(source.weights, str(weights), pictures, size, data_dir)
        tell_pictures(subject.prepare)
    say(lines)
    return subject
