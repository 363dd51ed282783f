"""What networks cost, counted from the spec, side by side: a table, a picture, plain values.

Auxiliary heads are left out: they stand beside the trunk, and nobody who classifies images computes them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from harness.figures import save_figure
from spec import PRESETS, Config, InvalidInput, Shape, param_shapes, preset, walk
from spec.network import Concat
from spec.shapes import fits, input_sizes, layer_costs

FLOAT = 4  # bytes of a float32
PARTS = ("convolutions", "dense layers", "pools")
COMPARED = ("lenet", "alexnet", "vgg11", "vgg11-narrow", "nin", "d2l")  # in the textbook's order
FORMATS = ("png", "svg", "pdf")
_WIDTH = 100  # columns that the table needs, where the output is not a terminal
# Told apart by the color-blind (Okabe and Ito), and without any color by the hatches.
_STYLES = {
    "convolutions": {"facecolor": "#56B4E9", "edgecolor": "black", "linewidth": 0.6},
    "dense layers": {"facecolor": "#D55E00", "edgecolor": "black", "linewidth": 0.6, "hatch": "////"},
    "pools": {"facecolor": "#DDDDDD", "edgecolor": "black", "linewidth": 0.6, "hatch": "...."},
}
_BYTES = {"GB": 10**9, "MB": 10**6, "kB": 10**3, "B": 1}
_COUNTS = {"billion": 10**9, "million": 10**6, "thousand": 10**3}
_PANELS = {  # what is drawn, its title, and what it is counted in
    "parameters": ("parameters", _COUNTS),
    "multiply_adds": ("multiply-adds for one image", _COUNTS),
    "activation_bytes": ("activations of one image, float32", _BYTES),
}


class Part(NamedTuple):
    """What some of a network's operations cost, for one image; bytes are those of float32."""

    parameters: int = 0  # trained scalars
    multiply_adds: int = 0  # of convolutions and dense layers; those with a padding's zeros count
    weight_bytes: int = 0  # of everything that a file of weights holds: parameters and running statistics
    activation_bytes: int = 0  # of everything put out, as training keeps it; inference may use memory again


@dataclass(frozen=True)
class Sizes:
    """The costs of one network for one image."""

    config: Config  # without auxiliary heads
    size: int  # of the image, pixels a side
    depth: int
    fitting: tuple[int, int | None]  # smallest and largest image, pixels a side; None: there is no largest
    parts: Mapping[str, Part]  # by the names of `PARTS`, in that order

    @property
    def total(self) -> Part:
        """Of the whole network."""
        return _sum(self.parts.values())


def measure(config: Config, size: int | None = None) -> Sizes:
    """Count what a network costs.

    Batch norm and the activation function are taken as part of the layer that they follow: it puts out one array.
    Local response normalization puts out an array of its own, and counts with the pools.

    Args:
        config: The network; auxiliary heads are left out.
        size: Of the image, pixels a side; None takes the preset's.

    Raises:
        InvalidInput: when an image of that size does not fit.
    """
    config = replace(config, aux=False)
    side = config.input_size if size is None else size
    costs = list(_costs(config, (config.in_channels, side, side)))
    parts = {kind: _sum(cost for of, cost in costs if of == kind) for kind in PARTS}
    return Sizes(config, side, depth(config), input_sizes(config), parts)


def depth(config: Config) -> int:
    """Layers with weights on the longest way from the image to the logits."""
    depths: dict[str, int] = {}
    for node in walk(replace(config, aux=False)):
        depths[node.name] = node.has_weights + max(depths.get(name, 0) for name in node.reads)
    return depths[config.logits]


def _costs(config: Config, shape: Shape) -> Iterator[tuple[str, Part]]:
    """The cost of every operation that puts out an array of its own, with the part that it belongs to."""
    costs, arrays = layer_costs(config, shape), param_shapes(config)
    for node in walk(config, shape):
        activations = FLOAT * math.prod(node.out)
        if node.has_weights:
            cost = costs[node.name]
            stored = sum(math.prod(array) for name, array in arrays.items() if name.startswith(f"{node.name}."))
            kind = "dense layers" if node.is_dense else "convolutions"
            yield kind, Part(cost.parameters, cost.multiply_adds, FLOAT * stored, activations)
        elif not isinstance(node.op, Concat):  # its branches are counted
            yield "pools", Part(activation_bytes=activations)


def _sum(parts: Iterable[Part]) -> Part:
    return Part(*map(sum, zip(Part(), *parts, strict=True)))


def measure_all(names: Sequence[str], size: int | None = None) -> list[Sizes]:
    """What each network costs, without auxiliary heads.

    Args:
        names: Presets; none stands for `COMPARED`, ``all`` alone for every one. A name that comes again is left out.
        size: Of the image, pixels a side; None takes each preset's own.

    Raises:
        InvalidInput: for an unknown name, and naming every network that does not take the size.
    """
    chosen = PRESETS if list(names) == ["all"] else dict.fromkeys(names or COMPARED)
    configs = [preset(name, aux=False) for name in chosen]
    if size is not None:
        misfits = [config for config in configs if not fits(config, size)]
        if misfits:
            takes = "; ".join(f"{config.preset} takes {_range(*input_sizes(config))} pixels" for config in misfits)
            raise InvalidInput(f"--size {size}: expected a size that every network takes, but {takes}")
    return [measure(config, size) for config in configs]


def _range(low: int, high: int | None) -> str:
    return f"{low} or more" if high is None else f"{low} to {high}"


def as_json(found: Sequence[Sizes]) -> list[dict[str, Any]]:
    """Plain values: the whole network's, then those of its parts."""
    return [
        {
            "preset": sizes.config.preset,
            "input": [sizes.config.in_channels, sizes.size, sizes.size],
            "classes": sizes.config.num_classes,
            "minimum_input_size": sizes.fitting[0],
            "maximum_input_size": sizes.fitting[1],
            "depth": sizes.depth,
            **sizes.total._asdict(),
            "parts": {name: part._asdict() for name, part in sizes.parts.items()},
        }
        for sizes in found
    ]


def render(found: Sequence[Sizes], console: Console) -> None:
    """Print a table: of each network a row for the whole, and one for each part that it has."""
    table = Table(box=None, pad_edge=False)
    table.add_column("network", no_wrap=True)
    for heading in ("pixels", "takes", "depth", "parameters", "multiply-adds", "weights", "activations"):
        table.add_column(heading, justify="right", no_wrap=True)
    for sizes in found:
        own = (sizes.config.preset, str(sizes.size), _range(*sizes.fitting), str(sizes.depth))
        table.add_row(*own, *_cells(sizes.total), style="bold")
        for name, part in sizes.parts.items():
            if any(part):
                table.add_row(f"  {name}", "", "", "", *_cells(part))
    Console(file=console.file, width=max(console.width, _WIDTH), highlight=False).print(table)


def _cells(part: Part) -> tuple[str, ...]:
    counts = (f"{n:,}" if n else "" for n in (part.parameters, part.multiply_adds))
    return (*counts, *(_scaled(n, _BYTES) if n else "" for n in (part.weight_bytes, part.activation_bytes)))


def _scaled(count: int, units: Mapping[str, int]) -> str:
    """The count in the largest of the units, which come largest first, that it reaches: ``46.8 million``."""
    unit = next((unit for unit, size in units.items() if count >= size), list(units)[-1])
    return f"{count / units[unit]:,.{1 if units[unit] > 1 else 0}f} {unit}"


def draw(found: Sequence[Sizes], path: Path) -> None:
    """Parameters, multiply-adds and activations as bars, a color for each part; the format is the suffix's.

    Raises:
        InvalidInput: for an unknown suffix, or when the picture cannot be written; a file that was there is unchanged.
    """
    if path.suffix[1:].lower() not in FORMATS:
        known = ", ".join(f".{name}" for name in FORMATS)
        raise InvalidInput(f"{path}: expected a picture's name, which ends in one of {known}")
    import matplotlib
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 1.7 + 0.5 * len(found)), layout="constrained")
    axes = list(figure.subplots(1, len(_PANELS), sharey=True))
    for axis, (what, (title, units)) in zip(axes, _PANELS.items(), strict=True):
        axis.set_title(title, loc="left")
        _bars(axis, found, what, units)
    axes[0].set_yticks(range(len(found)), [f"{s.config.preset}\n{s.size} x {s.size} pixels" for s in found])
    axes[0].invert_yaxis()
    handles, labels = axes[-1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(PARTS), frameon=False)
    figure.suptitle("Where are a network's parameters, and what do they cost?", fontsize="x-large")
    with matplotlib.rc_context({"svg.hashsalt": "sizes", "hatch.linewidth": 0.6}):
        save_figure(figure, path)


def _bars(axis: Any, found: Sequence[Sizes], what: str, units: Mapping[str, int]) -> None:
    """One figure of every network: its parts end to end, and what they come to written beside them."""
    ends = [0] * len(found)
    for name in PARTS:
        widths = [getattr(sizes.parts[name], what) for sizes in found]
        axis.barh(range(len(found)), widths, left=ends, height=0.6, label=name, **_STYLES[name])
        ends = [end + width for end, width in zip(ends, widths, strict=True)]
    for y, (sizes, end) in enumerate(zip(found, ends, strict=True)):
        text = _scaled(end, units)
        if what == "parameters":
            text += f", {sizes.parts['dense layers'].parameters / end:.1%} dense"
        axis.annotate(text, (end, y), xytext=(4, 0), textcoords="offset points", va="center")
    axis.set_xlim(0, 1.7 * max(ends))  # room for what is written beside the longest bar
    axis.set_xticks([])  # every bar says its length
    axis.spines[["top", "right", "bottom"]].set_visible(False)
