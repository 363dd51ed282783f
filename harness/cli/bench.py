"""The verbs that measure: bench, profile."""

from __future__ import annotations

import json
import shlex
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer

from harness import screen
from harness.cli.options import (
    DataDir,
    Device,
    Heads,
    Json,
    Python,
    console,
    interpreters,
    lines,
    notes,
    progress,
    say,
    split,
    typed,
)
from harness.shown import shown

if TYPE_CHECKING:
    import spec
    from harness.bench.process import StartProcess
    from harness.bench.proof import Referee
    from harness.bench.record import Report
    from harness.training.runs import Settings

Preset = Annotated[str, typer.Option(help="See `googlenet presets`.")]
Size = Annotated[int | None, typer.Option(help="Side of the images in pixels.", min=1, show_default="the preset's")]
Threads = Annotated[
    int | None, typer.Option(help="And processors, for each backend.", min=1, show_default="all processors")
]
Images = Annotated[str, typer.Option("--data", help="digits, fashion-mnist, or a folder of pictures.")]
Seed = Annotated[int, typer.Option(help="Seed of weights and order.")]
Out = Annotated[Path | None, typer.Option(metavar="DIR", help="Write data, pictures and report there.")]


_RECIPE = "fast"  # of `--task accuracy`
_OF_ACCURACY = frozenset("target seeds".split())
_WITH_ACCURACY = _OF_ACCURACY | frozenset(
    "backends task dtype device data data_dir seed python out markdown as_json".split()
)


def bench(
    context: typer.Context,
    backends: Annotated[
        list[str] | None, typer.Argument(help="Some of pt, mx, jax, onnx, openvino.", show_default="pt mx jax")
    ] = None,
    task: Annotated[
        Literal["train", "infer", "both", "accuracy"],
        typer.Option(help=f"What is measured. accuracy: how long recipe {_RECIPE} trains until --target is reached."),
    ] = "both",
    preset: Preset = "d2l",
    size: Size = None,
    batch: Annotated[str, typer.Option(help="Images a call; several separated by commas.")] = "32",
    dtype: Annotated[
        str, typer.Option(help="Some of float32, tf32 (GPUs) and bfloat16, separated by commas.")
    ] = "float32",
    variant: Annotated[
        Literal["tuned", "textbook", "both", "all"], typer.Option(help="all: textbook, compiled and tuned.")
    ] = "tuned",
    pipeline: Annotated[bool, typer.Option("--pipeline", help="Also with loading of the images.")] = False,
    device: Device = "auto",
    threads: Threads = None,
    rounds: Annotated[int, typer.Option(help="At least; in each, everything is measured once.", min=1)] = 7,
    minutes: Annotated[
        float, typer.Option(help="More rounds until every ratio is known to 3 %, or for so long in all.", min=0)
    ] = 5,
    heads: Heads = True,
    data: Annotated[
        str | None,
        typer.Option(
            help="digits, fashion-mnist, or a folder of pictures.", show_default="digits; fashion-mnist for accuracy"
        ),
    ] = None,
    data_dir: DataDir = None,
    target: Annotated[float, typer.Option(help="Of accuracy: on the test images.", min=0, max=1)] = 0.88,
    seeds: Annotated[int, typer.Option(help="Of accuracy: trainings of each backend, from --seed on.", min=1)] = 5,
    seed: Seed = 0,
    python: Python = None,
    against: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Compare with the bench.json of an earlier benchmark.")
    ] = None,
    out: Out = None,
    markdown: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Append the tables to this Markdown file.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure the backends: proven equal to the referee first, then timed in turns on the same processors.

    Exits with 1 when something could not be proven or measured, or with --against is slower than it was by more than
    the noise. Ctrl-C ends it, and keeps what was measured.

    Examples:

    googlenet bench

    googlenet bench pt mx jax onnx --task infer --batch 1,32,128 --variant both --out bench

    googlenet bench --against before/bench.json

    googlenet bench pt jax --task accuracy --target 0.88 --seeds 5
    """
    from harness.backends.registry import check_names
    from harness.backends.textbook import check_config
    from harness.bench.analysis.changes import changes, check_comparable, read_earlier
    from harness.bench.candidates import DTYPES, ENGINES, TASKS, VARIANTS, candidates, with_twins
    from harness.bench.record import SCHEMA, Record, Row
    from harness.bench.report import tables
    from harness.bench.report.markdown import append_markdown
    from harness.bench.report.page import write_folder
    from harness.bench.rounds import Benchmark, check_tf32
    from spec import InvalidInput

    words = typed(context).items()
    if task == "accuracy":
        if refused := [word for name, word in words if name not in _WITH_ACCURACY]:
            raise InvalidInput(f"--task accuracy trains by recipe {_RECIPE}: leave out {', '.join(refused)}")
        data = data or "fashion-mnist"
        _accuracy(backends, split(dtype), device, data, data_dir, target, seeds, seed, python, out, markdown, as_json)
    elif refused := [word for name, word in words if name in _OF_ACCURACY]:
        raise InvalidInput(f"{', '.join(refused)}: only with --task accuracy")
    data = data or "digits"
    names = check_names(backends or ["pt", "mx", "jax"], ENGINES)
    batches = _batches(batch)
    config, size = _network(preset, size, heads=heads)
    dtypes = _dtypes(split(dtype), DTYPES, device)
    chosen = candidates(names, VARIANTS[variant], TASKS[task], batches, dtypes, pipeline=pipeline)
    if not chosen:
        raise InvalidInput(
            "nothing to measure: onnx and openvino only infer, onnx in float32, and jax has no compiled variant"
        )
    if any(candidate.variant in ("textbook", "compiled") for candidate in chosen):
        check_config(config, "float32")
    record = Record(config, size, rounds, seed, [Row(candidate) for candidate in with_twins(chosen)], minutes)
    _check_outputs(out, markdown)
    earlier = None if against is None else read_earlier(against, SCHEMA)
    with _conditions(record, threads):
        if earlier is not None:
            check_comparable(earlier, record)
        with _referee(record, data, data_dir, batches, pipeline=pipeline) as referee:
            start = _starter(record, referee, device, interpreters(python or [], names))
            check_tf32(chosen, start)
            with _bar("benchmark") as progress:
                Benchmark(record, referee, start, progress=progress).run()
    if earlier is not None:
        record.changes = changes(earlier, record)
    if as_json:
        print(json.dumps(record.as_json(), indent=2))
    else:
        tables.render(record, console())
    if out is not None:
        write_folder(record, out)
        if not as_json:
            screen.say(console(), f"report: {shown(out / 'report.html')}")
    if markdown is not None:
        append_markdown(record, markdown)
    regressed = record.changes is not None and record.changes.regressed
    raise typer.Exit(130 if not record.complete else 0 if record.passed and not regressed else 1)


def _accuracy(
    backends: list[str] | None,
    dtypes: Sequence[str],
    device: str,
    data: str,
    data_dir: Path | None,
    target: float,
    seeds: int,
    seed: int,
    python: list[str] | None,
    out: Path | None,
    markdown: Path | None,
    as_json: bool,
) -> NoReturn:
    """Measure how long the backends train until they reach an accuracy."""
    from harness.backends.process import run_worker
    from harness.backends.registry import BACKENDS, check_names
    from harness.bench.accuracy import Accuracy, Contender, Trainings
    from harness.bench.candidates import DTYPES, Candidate
    from harness.bench.report import tables
    from harness.bench.report.markdown import append_markdown
    from harness.bench.report.page import write_accuracy
    from harness.bench.rounds import check_tf32
    from harness.images.prepared import prepare
    from harness.training.recipe import recipe
    from harness.training.train import settings_for

    names = check_names(backends or list(BACKENDS))
    chosen = recipe(_RECIPE)
    dtypes = _dtypes(dtypes, DTYPES, device)
    _check_outputs(out, markdown)
    source = f"folder:{data}" if Path(data).is_dir() else data
    preparing = f"preparing {data}"
    with progress([preparing]) as advance:
        done = partial(advance, preparing)
        dataset = prepare(source, chosen.config().in_channels, chosen.size, data_dir, done).resolve()

    def settings(seed: int, dtype: str) -> Settings:
        return settings_for(chosen, dataset, seed, dtype, device)

    first = settings(seed, dtypes[0])
    candidates = [Candidate(name, "tuned", "accuracy", chosen.batch, dtype) for dtype in dtypes for name in names]
    config = replace(first.config, dropout=0.0)  # of the proof: no two frameworks drop alike
    contenders = [Contender(candidate) for candidate in candidates]
    report = Accuracy(config, chosen.size, seeds, seed, first, _RECIPE, target, contenders)
    pythons = dict.fromkeys(names, sys.executable) | interpreters(python or [], names)
    # Proven as `bench` does by default. Where maps are small and pictures flat, a single tie would decide the proof.
    proof = replace(report, size=config.input_size, seed=0)
    with _conditions(report, None), _referee(proof, "digits", None, []) as referee, _bar("accuracy") as tell:
        start = _starter(report, referee, device, pythons)
        check_tf32(candidates, start)
        Trainings(report, dataset, settings, referee, start, run_worker, pythons, progress=tell).go()
    if as_json:
        print(json.dumps(report.as_json(), indent=2))
    else:
        tables.render(report, console())
    if out is not None:
        write_accuracy(report, out)
    if markdown is not None:
        append_markdown(report, markdown)
    raise typer.Exit(130 if not report.complete else 0 if report.passed else 1)


def profile(
    backend: Annotated[str, typer.Argument(help="pt, mx or jax.")],
    preset: Preset = "d2l",
    size: Size = None,
    batch: Annotated[int, typer.Option(help="Images a call.", min=1)] = 32,
    dtype: Annotated[Literal["float32", "tf32", "bfloat16"], typer.Option(help="What is computed in.")] = "float32",
    device: Device = "auto",
    threads: Threads = None,
    rounds: Annotated[int, typer.Option(help="In each, everything is measured once.", min=1)] = 7,
    heads: Heads = True,
    data: Images = "digits",
    data_dir: DataDir = None,
    seed: Seed = 0,
    python: Python = None,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Measure every stage of a backend alone, forward and backward, and say what share of the time it takes.

    With --out a bar chart is drawn, which the report of `googlenet bench` with the same --out then shows too.

    Example: googlenet profile jax --batch 128 --out bench
    """
    from harness.backends.registry import check_names
    from harness.bench.candidates import DTYPES, Candidate
    from harness.bench.profiles import Profile, measure
    from harness.bench.report.page import write_profile
    from harness.bench.report.tables import render_profile
    from harness.bench.rounds import check_tf32

    (name,) = check_names([backend])
    _dtypes([dtype], DTYPES, device)
    config, size = _network(preset, size, heads=heads)
    profile = Profile(config, size, rounds, seed, Candidate(name, "tuned", "train", batch, dtype))
    _check_outputs(out, None)
    with _conditions(profile, threads), _referee(profile, data, data_dir, [batch]) as referee:
        start = _starter(profile, referee, device, interpreters(python or [], [name]))
        check_tf32([profile.candidate], start)
        with _bar(f"profile of {name}") as progress:
            measure(profile, referee, start, progress=progress)
    if as_json:
        print(json.dumps(profile.as_json(), indent=2))
    else:
        render_profile(profile, console())
    if out is not None:
        write_profile(profile, out)
    raise typer.Exit(0 if profile.passed else 1 if profile.complete or profile.problem else 130)


def _network(preset: str, size: int | None, *, heads: bool) -> tuple[spec.Config, int]:
    """The network without dropout, which no two frameworks draw alike, and the side of its images."""
    import spec as network

    config = network.preset(preset, aux=None if heads else False, dropout=0.0)
    size = config.input_size if size is None else size
    network.stage_shapes(config, (config.in_channels, size, size))
    return config, size


def _dtypes(dtypes: Sequence[str], known: Sequence[str], device: str) -> Sequence[str]:
    from harness.backends.registry import check_tf32
    from spec import InvalidInput

    if not dtypes or not set(dtypes) <= set(known) or len(set(dtypes)) < len(dtypes):
        raise InvalidInput(f"--dtype: expected some of {', '.join(known)}, each once, got {', '.join(dtypes)!r}")
    if device == "cpu":
        check_tf32("tf32" if "tf32" in dtypes else "", None)
    return dtypes


def _batches(text: str) -> list[int]:
    from spec import InvalidInput

    batches = [int(n) if n.isdecimal() else 0 for n in split(text)]
    if not batches or min(batches) < 1 or len(set(batches)) < len(batches):
        raise InvalidInput(f"--batch: expected whole numbers of at least 1, separated by commas, got {text!r}")
    return batches


def _check_outputs(out: Path | None, markdown: Path | None) -> None:
    """Refuse what cannot be written, before hours of work."""
    from harness.bench.report.page import check_folder
    from spec import InvalidInput

    try:
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            check_folder(out)
        if markdown is not None:
            markdown.open("a").close()
    except OSError as error:
        raise InvalidInput(f"{error.filename}: cannot be written ({error.strerror})") from error


@contextmanager
def _conditions(report: Report, threads: int | None) -> Iterator[None]:
    """Note where and how a report was made, before and after. Ctrl-C and SIGTERM then end the measurements only."""
    from harness.bench import machine
    from spec import InvalidInput

    processors = machine.allowed()
    if threads is not None and threads > len(processors):
        raise InvalidInput(f"--threads: this process may use {len(processors)} processors, got {threads}")

    used = processors[:threads]
    before = machine.now() | {"busy_processors": machine.busy_processors(used)}
    environment = machine.environment(used)
    report.about = {
        "command": shlex.join(["googlenet", *sys.argv[1:]]),
        "code": machine.code(),
        "environment": environment,
        "before": before,
        "after": before,
    }
    report.warnings += machine.warnings_before(environment, before)
    say(f"warning: {warning}" for warning in report.warnings)
    handlers = {number: signal.signal(number, signal.default_int_handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        report.about["after"] = machine.now()
        report.warnings += machine.warnings_after(before, report.about["after"])


@contextmanager
def _referee(
    report: Report, data: str, data_dir: Path | None, batches: Sequence[int], *, pipeline: bool = False
) -> Iterator[Referee]:
    """The referee with images of that source; with `pipeline` also with a dataset prepared for training.

    It refuses a source with too few images before any work is done.
    """
    from harness.backends import messages
    from harness.backends.process import scratch_folder
    from harness.bench.proof import BATCH, Referee
    from harness.images.prepared import prepare
    from harness.images.sources import load_batch

    config, size = report.config, report.size
    dataset = None
    if pipeline:
        source = f"folder:{data}" if Path(data).is_dir() else data
        dataset = prepare(source, config.in_channels, size, data_dir).resolve()
    with ExitStack() as stack:
        with messages.temporary_files():
            folder = stack.enter_context(scratch_folder())
            referee = Referee(
                config, lambda n: load_batch([data], config, size, n, data_dir), folder, dataset, report.seed
            )
        for n in (BATCH, *batches):
            referee.batch(n)
            if pipeline:
                referee.batch(n, loaded=True)
        yield referee


def _starter(report: Report, referee: Referee, device: str, pythons: Mapping[str, str]) -> StartProcess:
    from harness.bench.process import Process

    return lambda candidate: Process(
        candidate,
        report.config,
        referee.params_file,
        device=device,
        processors=report.about["environment"]["used_processors"],
        python=pythons.get(candidate.backend, sys.executable),
    )


@contextmanager
def _bar(what: str) -> Iterator[Any]:
    """A bar with the present step; yields the function that `benchmark` calls before each step."""
    if not notes.is_terminal:
        yield lines()
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=notes, transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda text, done, total: bar.update(task, description=text, completed=done, total=total)
