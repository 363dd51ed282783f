"""What a file of weights holds, as far as it can be told without running it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import spec
from harness.weights import names
from harness.weights.convert import understood
from harness.weights.formats import FORMATS, Work, detect
from harness.weights.preprocessing import preprocessing_of
from spec import Array, Config, InvalidInput

_WIDTH = 130  # characters: names are long, and half a name is none


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
    not_finite: int  # how many


@dataclass(frozen=True)
class Inspection:
    """A whole file."""

    path: Path
    form: str
    bytes: int
    tensors: list[Tensor]
    scheme: str  # whose names these are
    fits: list[Config]  # empty where no network has these names and shapes
    nearest: str | None = None  # where none does: the scheme and preset that are nearest
    differences: tuple[str, ...] = ()
    sha256: str | None = None  # of a file that says itself what it holds, and is as it says
    problem: str | None = None  # why it is not
    preprocessing: dict[str, Any] | None = None

    @property
    def sound(self) -> bool:
        """Whether it fits a network, and every number is finite."""
        return bool(self.fits) and self.problem is None and not any(tensor.not_finite for tensor in self.tensors)

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "file": str(self.path),
            "format": self.form,
            "bytes": self.bytes,
            "names": self.scheme,
            "fits": [
                {"preset": c.preset, "channels": c.in_channels, "classes": c.num_classes, "auxiliary_heads": c.aux}
                for c in self.fits
            ],
            "nearest": self.nearest,
            "differences": list(self.differences),
            "sha256": self.sha256,
            "problem": self.problem,
            "preprocessing": self.preprocessing,
            "sound": self.sound,
            "tensors": [vars(tensor) | {"shape": list(tensor.shape)} for tensor in self.tensors],
        }


def examine(path: Path, work: Work, form: str | None = None) -> Inspection:
    """Look into a file of weights.

    Raises:
        InvalidInput: when it cannot be read at all.
    """
    form = form or detect(path)
    found = FORMATS[form].read(path, work)
    size = sum(file.stat().st_size for file in [path, *path.rglob("*")] if file.is_file())
    tensors = [_tensor(name, x) for name, x in found.arrays.items()]
    if "format" in found.texts:
        try:
            weights = understood(found, FORMATS[form].scheme, None)
        except InvalidInput as error:
            problem: str | None = str(error)
        else:
            preprocessing = preprocessing_of(weights)
            table = preprocessing.as_json() | {"labels": list(preprocessing.labels)}
            sha256 = found.texts["sha256"]
            return Inspection(
                path, form, size, tensors, FORMATS[form].scheme, [weights.config], sha256=sha256, preprocessing=table
            )
    else:
        problem = None
    try:
        scheme, configs = names.identify(found.arrays)
        return Inspection(path, form, size, tensors, scheme.name, configs, problem=problem)
    except InvalidInput:
        scheme, config, differences = names.nearest(found.arrays)
        return Inspection(path, form, size, tensors, scheme.name, [], str(config), tuple(differences), problem=problem)


def _tensor(name: str, x: Array) -> Tensor:
    if not np.issubdtype(x.dtype, np.floating) or x.size == 0:
        return Tensor(name, x.shape, str(x.dtype), None, None, None, None, 0)
    finite = np.isfinite(x)
    bad = x.size - int(finite.sum())
    y = (x if bad == 0 else x[finite]).astype(np.float64)
    if y.size == 0:
        return Tensor(name, x.shape, str(x.dtype), None, None, None, None, bad)
    return Tensor(name, x.shape, str(x.dtype), float(y.mean()), float(y.std()), float(y.min()), float(y.max()), bad)


def render(found: Inspection, console: Console) -> None:
    """Print it: the tensors, then what they are."""
    table = Table(box=None, pad_edge=False)
    table.add_column("tensor", no_wrap=True)
    for heading in ("shape", "dtype", "mean", "deviation", "least", "largest"):
        table.add_column(heading, justify="right", no_wrap=True)
    for tensor in found.tensors:
        statistics = [tensor.mean, tensor.std, tensor.least, tensor.largest]
        cells = ["" if x is None else f"{x:.3g}" for x in statistics]
        note = f" [red]{tensor.not_finite} not finite[/]" if tensor.not_finite else ""
        shape = " x ".join(map(str, tensor.shape)) or "one number"
        table.add_row(escape(tensor.name) + note, shape, tensor.dtype, *cells)
    Console(file=console.file, width=max(console.width, _WIDTH)).print(table)

    def say(text: str, style: str | None = None) -> None:
        console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)

    numbers = sum(math.prod(tensor.shape) for tensor in found.tensors)
    say(
        f"{found.path}: {FORMATS[found.form].title}, {found.bytes:,} bytes, "
        f"{len(found.tensors)} tensors, {numbers:,} numbers"
    )
    for config in found.fits:
        say(f"fits {config}: {spec.parameter_count(config):,} parameters; names of {found.scheme}")
    if len(found.fits) > 1:
        say("these differ in what has no parameters: which one it is, --preset must say")
    if found.nearest is not None:
        say(f"fits no network; nearest is {found.nearest} in the names of {found.scheme}:", "red")
        for difference in found.differences:
            say(f"  {difference}", "red")
    if found.sha256 is not None:
        say(f"as written: SHA-256 {found.sha256}", "green")
    if found.problem is not None:
        say(found.problem, "red")
    if found.preprocessing is not None:
        say(
            "pictures: "
            + ", ".join(f"{name} {value}" for name, value in found.preprocessing.items() if name != "labels")
        )
