"""A benchmark as a folder: its data, its pictures, and one page that needs no other file. Imports jinja2."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from harness.atomic import StrPath, check_target, write_atomically
from harness.bench.accuracy import Accuracy
from harness.bench.profiles import Profile
from harness.bench.record import Record
from harness.bench.report import plots
from harness.bench.report.tables import RATIOS, Line, circumstances, facts, legend, sections, verdict
from spec import InvalidInput

_DATA, _PAGE = "bench.json", "report.html"
_VARIANTS = {
    "textbook": "the network as tutorials or its publishers write it, with the framework's own defaults",
    "compiled": "the textbook's network with the framework's own compilation switch",
    "tuned": "this project's network",
    "session": "the graph that this project exports, in ONNX Runtime",
}


def write_folder(record: Record, folder: StrPath) -> None:
    """Write data, pictures and page; the page also shows the profiles that lie there already."""
    folder = Path(folder)
    _write_json(folder / _DATA, record.as_json())
    pictures = plots.draw(record)
    for name, svg in pictures.items():
        write_atomically(folder / f"{name}.svg", svg.encode())
    shown = [(name.capitalize(), svg) for name, svg in pictures.items()]
    write_atomically(folder / _PAGE, page(record, [*shown, *_profiles(folder)]).encode())


def write_accuracy(report: Accuracy, folder: StrPath) -> None:
    """Write the data of trainings, and their curves."""
    folder = Path(folder)
    _write_json(folder / "accuracy.json", report.as_json())
    if any(contender.trials for contender in report.contenders):
        write_atomically(folder / "accuracy.svg", plots.draw_accuracy(report).encode())


def check_folder(folder: StrPath) -> None:
    """Make sure, before hours of work, that `write_folder` can write there.

    Raises:
        InvalidInput: when a file cannot be written, or one that lies there is not what its name says.
    """
    folder = Path(folder)
    for name in (_DATA, _PAGE):
        check_target(folder / name)
    _profiles(folder)


def _profiles(folder: Path) -> list[tuple[str, str]]:
    """Headings and pictures of the profiles that lie in a folder."""
    pictures = []
    for path in sorted(folder.glob("profile-*.json")):
        try:
            profile = json.loads(path.read_text())
            if profile["stages"]:
                pictures.append((f"Stages of {profile['settings']['backend']}", plots.draw_stages(profile)))
        except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
            raise InvalidInput(f"{path}: expected what `googlenet profile` writes; move this file away") from error
    return pictures


def write_profile(profile: Profile, folder: StrPath) -> None:
    """Write a profile's data and its bar chart."""
    folder = Path(folder)
    data = profile.as_json()
    backend = profile.candidate.backend
    _write_json(folder / f"profile-{backend}.json", data)
    if data["stages"]:
        write_atomically(folder / f"stages-{backend}.svg", plots.draw_stages(data).encode())


def _write_json(path: Path, value: dict[str, Any]) -> None:
    write_atomically(path, (json.dumps(value, indent=2) + "\n").encode())


def page(record: Record, pictures: list[tuple[str, str]]) -> str:
    """The report as HTML that refers to nothing outside itself; `pictures` are headings and SVG elements."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    differences = []
    checks = []
    for row in record.rows:
        candidate = row.candidate
        name = str(candidate)
        images = "each call loads its images" if candidate.pipeline else "images on the device beforehand"
        told = [f"{row.framework or ''} {row.version or ''}", candidate.dtype, row.device, row.threads]
        what = f"{_VARIANTS[candidate.variant]}; {images}"
        cells = ["" if value is None else str(value) for value in (*told, row.busy_threads, what)]
        differences.append(Line(name, cells, None))
        for check in row.proof:
            problem = None if check.passed else "differs"
            checks.append(Line(name, [check.what, f"{check.error:.1e}", f"{check.bound:g}"], problem))
    return environment.get_template("page.html").render(
        title=f"{record.config.preset} at {record.size} x {record.size} pixels",
        record=record,
        sections=sections(record),
        circumstances=circumstances(record),
        legend=legend(record),
        verdict=verdict(record),
        ratio_columns=RATIOS,
        pictures=[(name, Markup(plots.inline(svg))) for name, svg in pictures],
        differences=differences,
        checks=checks,
        facts=facts(record),
        data=_DATA,
    )
