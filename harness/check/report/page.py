"""The page of a check: two networks side by side from top to bottom, their differences marked. Imports jinja2.

The page needs no other file and no script. Whatever comes from a model, names above all, is escaped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from harness.atomic import StrPath, write_atomically
from harness.check.align import Alignment, Pair
from harness.check.checking import Line, Report, replay_errors
from harness.check.differences import described, differences
from harness.check.graph import probe_images
from harness.check.tree import Fork, Item, Side, Step
from harness.check.trial import Trial
from harness.shown import shown


@dataclass(frozen=True)
class Cell:
    """An operation of one of the two networks."""

    what: str
    place: str
    shape: str


@dataclass(frozen=True)
class Row:
    """An operation of the one beside that of the other; of a block or a head what is in it, branch by branch."""

    reference: Cell | None
    model: Cell | None
    error: str = ""  # of the model's, run again
    lines: tuple[tuple[int, Line], ...] = ()  # differences here, with their numbers in the table above
    branches: tuple[tuple[Row, ...], ...] = field(default_factory=tuple)


def write_page(report: Report, trial: Trial, title: str, path: StrPath) -> None:
    """Write the page of a model's check.

    Raises:
        spec.InvalidInput: when it cannot be written.
    """
    kind = "training" if "training" in report.compared else "inference"
    errors = replay_errors(trial.recordings[kind], probe_images(trial.shape, trial.batch))
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        finalize=lambda x: x if isinstance(x, Markup) else shown(x),
    )
    if report.alignment:
        rows = list(_rows(report.alignment, _marks(report), errors))
    else:
        rows = [
            Row(None, _cell(Step(node.op, node.place, (), node.shape)), _error(errors, number))
            for number, node in enumerate(trial.recordings[kind].graph.nodes)
        ]
    page = environment.get_template("page.html").render(
        title=shown(title),
        report=report,
        rows=rows,
        worst=max(errors.values(), default=0.0),
        training=kind == "training",
    )
    write_atomically(path, page.encode())


def _marks(report: Report) -> dict[int, list[tuple[int, Line]]]:
    """The lines of the report by the identity of the pairs that they are about."""
    marks: dict[int, list[tuple[int, Line]]] = {}
    for difference in differences(report.alignment):
        text = difference.text.format(reference=report.against)
        for number, line in enumerate(report.lines, 1):
            if line.text == text and difference.place in line.places:
                marks.setdefault(id(difference.pair), []).append((number, line))
    return marks


def _rows(alignment: Alignment, marks: Mapping[int, Any], errors: Mapping[int, float]) -> Iterator[Row]:
    for pair in alignment:
        item = pair.model or pair.reference
        branches = tuple(tuple(_rows(inner, marks, errors)) for inner in _inner(pair, item))
        number = pair.model.number if isinstance(pair.model, Step) else -1
        lines = tuple(marks.get(id(pair), ()))
        yield Row(_cell(pair.reference), _cell(pair.model), _error(errors, number), lines, branches)


def _inner(pair: Pair, item: Item | None) -> Sequence[Alignment]:
    """What is in a block or a head, also in one that only one of the two has."""
    if pair.inner or isinstance(item, Step) or item is None:
        return pair.inner
    chains = item.branches if isinstance(item, Fork) else (item.chain,)
    alone = [(Pair(None, x) if item is pair.model else Pair(x, None) for x in chain) for chain in chains]
    return tuple(map(tuple, alone))


def _cell(item: Item | None) -> Cell | None:
    if item is None:
        return None
    last = item.chain[-1] if isinstance(item, Side) and item.chain else item
    shape = () if isinstance(last, Side) else last.shape
    return Cell(described(item), item.place, " x ".join(map(str, shape)))


def _error(errors: Mapping[int, float], number: int) -> str:
    return f"{errors[number]:.0e}" if number in errors else ""
