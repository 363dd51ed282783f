"""The verdict on a capture: every stage that is wrong given its own input, and the mistake that gives its numbers.

A stage's output is computed again by the referee from what the port itself put into it. So a mistake in one stage says
nothing of those behind it, and each that is wrong is found. What a mistake explains it reproduces at both sizes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

import spec
from harness.agreement import finite
from harness.check.kits.bounds import BOUNDS
from harness.check.kits.capture import Capture
from harness.check.kits.explaining import UNKNOWN, Evidence, Found, Search
from harness.check.kits.kit import Kit
from harness.check.kits.training import judge_training
from harness.check.reference import graph_of_table
from harness.check.tree import Chain, read
from spec import Array
from spec.network import IMAGES, Head

_COARSE = 1e-2  # of a stage
_SINGLE = BOUNDS["float32"].stages


@dataclass(frozen=True)
class Line:
    """Equal findings, wherever they are."""

    places: tuple[str, ...]
    text: str
    off: float | None  # max |got - expected| / max |expected|, the largest; None: another shape
    known: bool  # whether the mistake reproduces what was captured


@dataclass(frozen=True)
class Verdict:
    """What is said of a capture."""

    kit: Kit
    dtype: str
    layout: str
    errors: Mapping[str, float]  # of every array, given its own input
    lines: tuple[Line, ...]
    notes: tuple[str, ...]

    @property
    def status(self) -> int:
        """The exit status."""
        return 1 if self.lines else 0

    @property
    def covered(self) -> tuple[str, ...]:
        """What was judged as a whole: ``inference`` where the logits were, ``training`` where all gradients were."""
        config = self.kit.config
        trained = [name for name in spec.param_shapes(config) if not spec.is_statistic(name)]
        of = {
            "inference": [f"{which}/{config.logits}" for which in self.kit.sizes],
            "training": [f"gradient/{name}" for name in trained],
        }
        return tuple(kind for kind, names in of.items() if all(name in self.errors for name in names))

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        made: dict[str, Any] = {
            "verdict": "differs" if self.lines else "same",
            "preset": self.kit.config.preset,
            "sizes": dict(self.kit.sizes),
            "dtype": self.dtype,
            "layout": self.layout,
            "covered": list(self.covered),
            "tolerances": asdict(BOUNDS[self.dtype]),
            "errors": dict(self.errors),
            "notes": list(self.notes),
            "differences": [
                {"places": list(line.places), "text": line.text, "off_by": line.off, "named": line.known}
                for line in self.lines
            ],
        }
        result: dict[str, Any] = finite(made)
        return result


@dataclass
class Part:
    """Stages from one captured map to the next: mostly one."""

    name: str  # of what was captured
    stages: tuple[str, ...]
    reads: str  # a stage, or the images
    config: spec.Config  # of these stages alone
    seen: dict[str, tuple[Array, Array]] = field(default_factory=dict)  # by size: what went in, and what came out

    @property
    def place(self) -> str:
        """What it is called: one stage, or from the first to the one that was captured."""
        return self.name if len(self.stages) == 1 else f"{self.stages[0]} to {self.name}"

    def chain(self, which: str) -> Chain:
        """The operations on the map of a size."""
        x = self.seen[which][0]
        return read(graph_of_table(self.config, x.shape[1:]), heads=False)


def parts(kit: Kit, capture: Capture) -> list[Part]:
    """What can be judged, in forward order."""
    made: dict[str, Part] = {}
    for which in kit.sizes:
        captured = capture.of(which)
        reads: str = IMAGES
        pending: list[tuple[str, Any]] = []
        for stage, part in kit.config.stages:
            if isinstance(part, Head):
                table = [*pending, *((f"{stage}.{leaf}", op) for leaf, op in part.chain)]
            else:
                pending = [*pending, (stage, part)]
                table = pending
            if stage in captured:
                x = kit.images(which).astype(np.float64) if reads == IMAGES else captured[reads]
                names = tuple(dict.fromkeys(name.partition(".")[0] for name, _ in table))
                config = replace(kit.config, table=tuple(table), in_channels=x.shape[1], aux=False)
                one = made.setdefault(f"{stage} {reads}", Part(stage, names, reads, config))
                one.seen[which] = (x, captured[stage])
                if not isinstance(part, Head):
                    reads, pending = stage, []
    order = {stage: number for number, stage in enumerate(spec.stage_names(kit.config))}
    return sorted(made.values(), key=lambda part: order[part.name])


def judge(kit: Kit, capture: Capture, done: Callable[[str], None] = lambda name: None) -> Verdict:
    """Judge what a port has computed on a kit; `done` takes the name of each stage that is finished."""
    with np.errstate(all="ignore"):
        return _Judge(kit, capture).verdict(done)


class _Judge:
    def __init__(self, kit: Kit, capture: Capture) -> None:
        self.kit, self.capture = kit, capture
        self.tolerance = BOUNDS[capture.dtype].stages
        self.arrays: dict[str, Array] = {name: x.astype(np.float64) for name, x in kit.params.items()}
        self.errors: dict[str, float] = {}
        self.search = Search()

    def verdict(self, done: Callable[[str], None]) -> Verdict:
        lines: list[Line] = []
        for part in parts(self.kit, self.capture):
            off, found = self.part(part)
            shaped = off if math.isfinite(off) else None
            lines += [Line((place,), text, shaped, text != UNKNOWN) for place, text in found]
            done(part.name)
        right = not lines
        hints = list(self.hints([line for line in lines if not line.known]))
        training, notes = judge_training(self.kit, self.capture, right=right, errors=self.errors)
        lines += [Line((place,), text, off, known) for place, text, off, known in training]
        return Verdict(
            self.kit, self.capture.dtype, self.capture.layout, self.errors, _grouped(lines), (*hints, *notes)
        )

    def hints(self, unknown: list[Line]) -> Iterator[str]:
        """What may be behind numbers that no mistake gives."""
        if unknown and all(line.off is not None and line.off < _COARSE for line in unknown):
            yield f"what no mistake explains is off by less than {_COARSE:g}, as by products in TF32 or 16 bits"
        drops = {node.stage for node in spec.layers(self.kit.config) if node.dropout is not None}
        usual = spec.PRESETS[self.kit.config.preset]
        if (usual.dropout or usual.aux_dropout) and (at := sorted(drops & {line.places[0] for line in unknown})):
            yield f"{', '.join(at)}: dropout that is on gives other numbers each time, which nothing can repeat"

    def part(self, part: Part) -> tuple[float, Found]:
        """How far it is off, and what is wrong; nothing where it is right."""
        evidence = self.evidence(part, self.tolerance)
        self.errors.update({f"{which}/{part.name}": one.error for which, one in evidence.items()})
        worst = max(one.error for one in evidence.values())
        if worst <= self.tolerance:
            return worst, []
        found = self.explained(part, list(evidence.values()))
        if (not found or _unknown(found)) and self.tolerance < _SINGLE:
            loose = list(self.evidence(part, _SINGLE).values())
            if all(one.right for one in loose):
                return worst, [(part.place, "it is right to the digits of float32 only")]
            if (coarse := self.explained(part, loose)) and not _unknown(coarse):
                return worst, [(place, f"{text}; computed in float32") for place, text in coarse]
        return worst, found or [(part.place, UNKNOWN)]

    def evidence(self, part: Part, tolerance: float) -> dict[str, Evidence]:
        """What was seen of it, by size."""
        return {which: Evidence(part.chain(which), x, y, self.arrays, tolerance) for which, (x, y) in part.seen.items()}

    def explained(self, part: Part, evidence: list[Evidence]) -> Found:
        """What is wrong, where a mistake explains it."""
        found = self.search.explain(evidence, first=part.reads == IMAGES)
        return [(place, text.format(reference=self.kit.config.preset)) for place, text in found]


def _unknown(found: Found) -> bool:
    return any(text == UNKNOWN for _, text in found)


def _grouped(lines: Sequence[Line]) -> tuple[Line, ...]:
    groups: dict[tuple[str, bool], list[Line]] = {}
    for line in lines:
        groups.setdefault((line.text, line.known), []).append(line)
    return tuple(
        Line(
            tuple(dict.fromkeys(place for line in group for place in line.places)),
            text,
            None if any(line.off is None for line in group) else max(line.off or 0.0 for line in group),
            known,
        )
        for (text, known), group in groups.items()
    )
