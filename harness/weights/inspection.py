"""What a file of weights holds, without running it."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.text import Text

import spec
from harness.agreement import finite
from harness.atomic import StrPath
from harness.screen import cell, new_table, print_table, say
from harness.shown import shown
from harness.weights.checkpoint import Checkpoint
from harness.weights.convert import fingerprint, foreign_source, prepared, understood
from harness.weights.equivalence import Distance, measured, to_fold
from harness.weights.formats import FORMATS, RunTask, read
from harness.weights.names import told
from harness.weights.preprocessing import preprocessing_of
from harness.weights.recognition import Recognized, nearest, recognize
from spec import Array, Arrays, Config, InvalidInput


@dataclass(frozen=True)
class Tensor:
    """One array of a file. Statistics are over its finite numbers, and None where it has none."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    mean: float | None
    std: float | None
    least: float | None
    largest: float | None
    not_finite: int  # how many numbers


@dataclass(frozen=True)
class Inspection:
    """A whole file."""

    path: Path
    format: str
    bytes: int
    tensors: list[Tensor]
    names: str  # the scheme
    fits: list[Config]  # empty where no network has these names and shapes
    nearest: str | None = None  # the preset that comes nearest, where none fits
    differences: tuple[str, ...] = ()
    sha256: str | None = None  # verified; None for foreign or damaged files
    problem: str | None = None  # why verification failed
    preprocessing: dict[str, Any] | None = None
    converts_to: tuple[str, ...] = ()  # SHA-256 of what `convert` makes of it, for each that fits
    notes: tuple[str, ...] = ()  # what stood around the network, a line each
    told_by: str = ""  # what tells the network from others with the same arrays
    distances: tuple[Distance, ...] = ()  # between the first that fits and each of the others

    @property
    def sound(self) -> bool:
        """Whether it fits a network, and every number is finite."""
        return bool(self.fits) and self.problem is None and not any(tensor.not_finite for tensor in self.tensors)

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        table = {"file": str(self.path)} | vars(self) | {"sound": self.sound}
        del table["path"]
        table["fits"] = [
            {"preset": c.preset, "channels": c.in_channels, "classes": c.num_classes, "auxiliary_heads": c.aux}
            for c in self.fits
        ]
        table["distances"] = [finite(asdict(distance)) for distance in self.distances]
        return table | {"tensors": [asdict(tensor) for tensor in self.tensors]}


def examine(path: StrPath, run_task: RunTask, form: str | None = None) -> Inspection:
    """Look into a file of weights.

    Raises:
        InvalidInput: when it cannot be read at all.
    """
    path = Path(path)
    path, form, contents = read(path, run_task, form)
    size = sum(file.stat().st_size for file in [path, *path.rglob("*")] if file.is_file())
    about_file = (path, form, size)
    tensors = _tensors(contents.arrays)
    problem = None
    if contents.ours:
        try:
            weights, naming = understood(contents, FORMATS[form].scheme)
        except InvalidInput as error:
            problem = str(error)
        else:
            preprocessing = preprocessing_of(weights)
            return Inspection(
                *about_file,
                tensors,
                naming.name,
                [weights.config],
                sha256=contents.texts["sha256"],
                preprocessing=preprocessing.as_json() | {"labels": list(preprocessing.labels)},
            )
    try:
        network = recognize(contents.arrays)
    except InvalidInput:
        best = nearest(contents.arrays)
        differences = tuple(filter(None, [*best.lines(), contents.remedy]))
        return Inspection(*about_file, tensors, best.scheme.name, [], str(best.config), differences, problem=problem)
    if network.notes():
        tensors = _tensors(network.arrays)
    remedies = tuple(dict.fromkeys(filter(None, map(to_fold, network.configs))))
    converted = [foreign_source(path, form, network, config) for config in network.configs if not to_fold(config)]
    return Inspection(
        *about_file,
        tensors,
        network.scheme.name,
        network.configs,
        converts_to=tuple(fingerprint(prepared(source, None, aux=True)) for source in converted),
        notes=(*network.notes(), *remedies),
        told_by=told(network.configs)[1],
        distances=_distances(network),
        problem=problem,
    )


def _distances(network: Recognized) -> tuple[Distance, ...]:
    """How far apart the networks are that a file may be; nothing where its numbers are not finite."""
    first, *others = network.configs
    if not others or not all(np.isfinite(x).all() for x in network.params(first).values()):
        return ()
    return tuple(
        measured(Checkpoint(network.params(first), first), Checkpoint(network.params(other), other)) for other in others
    )


def _tensors(arrays: Arrays) -> list[Tensor]:
    return [_tensor(name, x) for name, x in arrays.items()]


def _tensor(name: str, x: Array) -> Tensor:
    if not np.issubdtype(x.dtype, np.floating):
        return Tensor(name, x.shape, str(x.dtype), None, None, None, None, 0)
    finite = x[np.isfinite(x)].astype(np.float64)
    mean = std = least = largest = None
    if finite.size:
        mean, std, least, largest = (float(f(finite)) for f in (np.mean, np.std, np.min, np.max))
    return Tensor(name, x.shape, str(x.dtype), mean, std, least, largest, not_finite=x.size - finite.size)


def render(inspection: Inspection, console: Console) -> None:
    """Print the tensors, then what is known of the whole file."""
    table = new_table("tensor", "shape", "dtype", "mean", "deviation", "least", "largest")
    for tensor in inspection.tensors:
        statistics = [tensor.mean, tensor.std, tensor.least, tensor.largest]
        cells = ["" if x is None else f"{x:.3g}" for x in statistics]
        warning = Text(f" {tensor.not_finite} not finite" if tensor.not_finite else "", style="red")
        shape = " x ".join(map(str, tensor.shape)) or "one number"
        table.add_row(cell(tensor.name) + warning, shape, tensor.dtype, *cells)
    print_table(console, table)
    tell = partial(say, console)
    numbers = sum(math.prod(tensor.shape) for tensor in inspection.tensors)
    tell(
        f"{shown(inspection.path)}: {FORMATS[inspection.format].title}, {inspection.bytes:,} bytes, "
        f"{len(inspection.tensors)} tensors, {numbers:,} numbers"
    )
    for note in inspection.notes:
        tell(note)
    for config in inspection.fits:
        tell(f"fits {config}: {spec.parameter_count(config):,} parameters; names of {inspection.names}")
    for sha256 in inspection.converts_to if len(inspection.fits) == 1 else ():
        tell(f"what convert makes of it has SHA-256 {sha256}")
    if inspection.told_by:
        tell(inspection.told_by)
    for distance in inspection.distances:
        tell(str(distance))
    if len(inspection.fits) > 1:
        tell("these differ in what has no parameters: which one it is, --preset must say")
    if inspection.nearest is not None:
        tell(f"fits no network; nearest is {inspection.nearest} in the names of {inspection.names}:", "red")
        for difference in inspection.differences:
            tell(f"  {shown(difference)}", "red")
        tell("what to do: give the arrays these names and shapes in the program that wrote them, and save them again")
    if inspection.sha256 is not None:
        tell(f"as written: SHA-256 {inspection.sha256}", "green")
    if inspection.problem is not None:
        tell(inspection.problem, "red")
    if inspection.preprocessing is not None:
        values = [f"{name} {value}" for name, value in inspection.preprocessing.items() if name != "labels"]
        tell("pictures: " + ", ".join(values))
