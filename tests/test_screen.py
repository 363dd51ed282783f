"""What is printed: whole tables on a narrow screen, and names from outside that do no harm, in every place."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from support import googlenet

import spec
from harness.backends import doctor
from harness.bench.candidates import candidates
from harness.bench.record import Record, Row
from harness.bench.report import tables
from harness.compare import sizes
from harness.compare.comparison import BackendReport, Report, StageReport
from harness.compare.table import render
from harness.screen import cell, new_table, print_table, say
from harness.shown import as_text, shown
from harness.training import display
from harness.training.recipe import recipe
from harness.training.runs import Settings
from harness.training.train import Part, Result
from harness.weights import inspection, prediction
from spec.tolerances import picture_tolerances

NASTY = "[red]n[/b]\x1b[2J\nx\udce9$\\frac{$"
LENET = spec.preset("lenet", dropout=0.0)


def printed(show: Callable[[Console], Any], width: int = 300) -> str:
    """What stands on a screen of that width, without codes."""
    console = Console(width=width, file=io.StringIO())
    show(console)
    return console.file.getvalue()


def settings(data: str) -> Settings:
    return Settings(recipe("lenet-bn"), data, "0" * 64, ("a", "b"), 10, 5, 0, "float32", "cpu")


def show_comparison(console: Console, name: str) -> None:
    shapes = {stage: shape for stage, shape in spec.stage_shapes(LENET, (1, 28, 28)).items()}
    stages = [StageReport(stage, [4, *shape], 1e-16) for stage, shape in shapes.items()]
    sound = BackendReport("X", "1", "cpu", 2, 44_426, stages, 1e-16, 1e-16, 1e-16, "fc3.weight", 1e-16, passed=True)
    backends = {"pt": sound, "mx": sound, "jax": sound, "onnx": BackendReport(crash=name)}
    bounds = picture_tolerances(LENET, "float64", (4, 1, 28, 28))
    report = Report("lenet", name, [4, 1, 28, 28], "float64", 0, name, 44_426, shapes, bounds, backends)
    render(report, console)


def show_run(console: Console, name: str) -> None:
    view = display.Overview(Path(name), settings(name), RESULTS, [])
    display.show_run(view, console)


def show_scores(console: Console, name: str) -> None:
    import numpy as np

    display.show_scores(np.array([[123456, 7], [89, 0]]), 1.5, [name, "b"], console)


def show_training(console: Console, name: str) -> None:
    screen = display.Screen(console)
    part = Part("pt", Path(name), settings(name), note=name)
    screen.begin(part)
    screen.message(part, {"event": "warning", "text": name})


def show_inspection(console: Console, name: str) -> None:
    tensor = inspection.Tensor(name, (1024, 512, 7, 7), "float32", 0.00123, -0.5, -1.25e-10, 3.75e10, 2)
    found = inspection.Inspection(Path(name), "safetensors", 5, [tensor], "d2l", [], name, (name,), problem=name)
    inspection.render(found, console)


def show_predictions(console: Console, name: str) -> None:
    probability = {engine: 0.0625 for engine in prediction.ENGINES}
    row = {"picture": name, "classes": [{"class": 0, "label": name, "probability": probability}]}
    prediction.render([row, row], prediction.ENGINES, console)


def show_doctor(console: Console, name: str) -> None:
    findings = {"python": "3", "numpy": "2", "platform": name, "gpus": []}
    doctor.render(findings | {"backends": {"pt": {"works": False, "problems": [name]}}}, console)


def show_benchmark(console: Console, name: str) -> None:
    (candidate,) = candidates(["pt"], ["tuned"], ["infer"], [2], ["float32"])
    record = Record(LENET, 28, 3, 0, [Row(candidate, problem=name)])
    record.about = {"environment": {"used_processors": [0]}}
    record.warnings.append(name)
    tables.render(record, console)


def show_sizes(console: Console, name: str) -> None:
    sizes.render(sizes.measure_all(["lenet", "alexnet"]), console)


RESULTS = [
    Result("pt", 1234, 2000, False, None, 0.12345, 0.95, 0.25, 0.9, 1234.4, 3725.4),
    Result("jax", 20, 2000, False, None, 2.34567, 0.15, 2.25, 0.1, 999.4, 59.6),
]
PLACES = [
    show_comparison,
    show_run,
    show_scores,
    show_training,
    show_inspection,
    show_predictions,
    show_doctor,
    show_benchmark,
]


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
def test_a_name_from_outside_is_shown_whole_and_is_not_obeyed(place):
    text = printed(lambda console: place(console, NASTY))
    assert "\x1b" not in text
    assert "\udce9" not in text
    assert "[red]n[/b]\\x1b[2J" in text
    assert "x\\udce9$\\frac{$" in text


def figures(text: str) -> set[str]:
    """Everything in a table that holds a digit."""
    return {word for word in text.split() if re.search(r"\d", word)}


@pytest.mark.parametrize("width", [80, 50])
@pytest.mark.parametrize(
    "place",
    [show_comparison, show_run, show_scores, show_inspection, show_predictions, show_sizes],
    ids=lambda place: place.__name__,
)
def test_a_narrow_screen_loses_no_figure(place, width):
    def show(console: Console) -> None:
        place(console, "name")

    assert figures(printed(show, width)) == figures(printed(show))
    assert "…" not in printed(show, width)


def test_columns_that_have_no_room_come_below_beside_the_first_again():
    table = new_table("name", "figure", "number", "share")
    table.add_row(cell("one name"), "123456789", "5.5", "0.25")
    lines = printed(lambda console: print_table(console, table), 24).splitlines()
    assert lines == ["name         figure", "one name  123456789", "name      number  share", "one name     5.5   0.25"]
    whole = printed(lambda console: print_table(console, table)).splitlines()
    assert [line.split()[-3:] for line in whole] == [["figure", "number", "share"], ["123456789", "5.5", "0.25"]]


def test_lines_are_broken_where_they_say_and_nowhere_else():
    text = printed(lambda console: say(console, f"{'long ' * 30}\n{shown(NASTY)}"), 40)
    assert text == f"{'long ' * 30}\n{shown(NASTY)}\n"


def test_names_are_on_one_line():
    assert shown("é $x$ [b]\r\n\x1b") == "é $x$ [b]\\r\\n\\x1b"


def test_names_are_text():
    assert shown("\u202e\udce9") == "\\u202e\\udce9"
    assert as_text("caf\udce9/é") == "caf\\xe9/é"


def test_refusals_obey_no_name():
    said = googlenet("eval", "[red]\x1b[2J\udce9[/b]", status=2).stderr
    assert said.startswith("error: [red]\\x1b[2J\\udce9[/b]")
