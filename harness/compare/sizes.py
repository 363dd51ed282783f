"""`googlenet sizes`: the costs of networks, counted from the spec, as a table, a figure or plain values.

Auxiliary heads do not count: they stand beside the trunk, and classification does not compute them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from harness.atomic import StrPath
from harness.figures import new_figure, save_figure
from harness.screen import new_table, print_table
from spec import PRESETS, Config, InvalidInput, Shape, param_shapes, preset, walk
from spec.network import Concat
from spec.shapes import InputSizes, fits, input_sizes, layer_costs

FLOAT = 4  # bytes of a float32
PARTS = ("convolutions", "dense layers", "pools")
COMPARED = ("lenet", "alexnet", "vgg11", "vgg11-narrow", "nin", "d2l")  # in the textbook's order
# Colors for the color-blind (Okabe and Ito); the hatches show without color.
_STYLES = {
    "convolutions": {"facecolor": "#56B4E9"},
    "dense layers": {"facecolor": "#D55E00", "hatch": "////"},
    "pools": {"facecolor": "#DDDDDD", "hatch": "...."},
}
_BYTES = {"GB": 10**9, "MB": 10**6, "kB": 10**3, "B": 1}
_COUNTS = {"billion": 10**9, "million": 10**6, "thousand": 10**3}
_PANELS = {  # field of `Part`: title and units
    "parameters": ("parameters", _COUNTS),
    "multiply_adds": ("multiply-adds for one image", _COUNTS),
    "activation_bytes": ("activations of one image, float32", _BYTES),
}


class Part(NamedTuple):
    """The costs of some operations of a network, for one image in float32."""

    parameters: int = 0  # trained scalars
    multiply_adds: int = 0  # convolutions and dense layers; products with the zeros of a padding count
    weight_bytes: int = 0  # parameters and running statistics
    activation_bytes: int = 0  # all outputs; training keeps them


@dataclass(frozen=True)
class Sizes:
    """The costs of one network for one image."""

    config: Config  # without auxiliary heads
    size: int  # side of the image in pixels
    depth: int
    fitting: InputSizes
    parts: Mapping[str, Part]  # by the names of `PARTS`, in that order

    @property
    def total(self) -> Part:
        """The costs of the whole network."""
        return _sum(self.parts.values())


def measure(config: Config, size: int | None = None) -> Sizes:
    """Count the costs of a network without its auxiliary heads; without a size, at the preset's.

    Batch norm and the activation function belong to the layer before them: together they put out one array. Local
    response normalization puts out its own array, and counts with the pools.

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
    """The cost of every operation, with the name of its part."""
    costs = layer_costs(config, shape)
    arrays = param_shapes(config)
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
    """The costs of each network.

    Args:
        names: Presets; none means `COMPARED`, ``all`` alone means every preset. Repeated names count once.
        size: Side of the image in pixels; None takes the size of each preset.

    Raises:
        InvalidInput: for an unknown name, and naming every network that does not take the size.
    """
    chosen = PRESETS if list(names) == ["all"] else dict.fromkeys(names or COMPARED)
    configs = [preset(name, aux=False) for name in chosen]
    if size is not None:
        misfits = [config for config in configs if not fits(config, size)]
        if misfits:
            takes = "; ".join(f"{config.preset} takes {input_sizes(config)} pixels" for config in misfits)
            raise InvalidInput(f"--size {size}: expected a size that every network takes, but {takes}")
    return [measure(config, size) for config in configs]


def as_json(networks: Sequence[Sizes]) -> list[dict[str, Any]]:
    """Plain values: the costs of each network, and of its parts."""
    return [
        {
            "preset": sizes.config.preset,
            "input": [sizes.config.in_channels, sizes.size, sizes.size],
            "classes": sizes.config.num_classes,
            "minimum_input_size": sizes.fitting.low,
            "maximum_input_size": sizes.fitting.high,
            "sizes_repeat_every": sizes.fitting.period,
            "depth": sizes.depth,
            **sizes.total._asdict(),
            "parts": {name: part._asdict() for name, part in sizes.parts.items()},
        }
        for sizes in networks
    ]


def render(networks: Sequence[Sizes], console: Console) -> None:
    """Print a table: for each network a row for the whole, and one for each part that it has."""
    headings = ("pixels", "takes", "depth", "parameters", "multiply-adds", "weights", "activations")
    table = new_table("network", *headings)
    for sizes in networks:
        network = (sizes.config.preset, str(sizes.size), str(sizes.fitting), str(sizes.depth))
        table.add_row(*network, *_cells(sizes.total), style="bold")
        for name, part in sizes.parts.items():
            if any(part):
                table.add_row(f"  {name}", "", "", "", *_cells(part))
    print_table(console, table)


def _cells(part: Part) -> tuple[str, ...]:
    counts = (f"{n:,}" if n else "" for n in (part.parameters, part.multiply_adds))
    return (*counts, *(_scaled(n, _BYTES) if n else "" for n in (part.weight_bytes, part.activation_bytes)))


def _scaled(count: int, units: Mapping[str, int]) -> str:
    """The count in the largest unit that it reaches: ``46.8 million``."""
    unit = next((unit for unit, size in units.items() if count >= size), list(units)[-1])
    return f"{count / units[unit]:,.{1 if units[unit] > 1 else 0}f} {unit}"


def draw(networks: Sequence[Sizes], path: StrPath) -> None:
    """Draw parameters, multiply-adds and activations as bars; raises as `save_figure` does."""
    path = Path(path)
    import matplotlib

    figure, axes = new_figure(len(_PANELS), (12, 1.7 + 0.5 * len(networks)), share_y=True)
    for axis, (field, (title, units)) in zip(axes, _PANELS.items(), strict=True):
        axis.set_title(title, loc="left")
        _bars(axis, networks, field, units)
    axes[0].set_yticks(range(len(networks)), [f"{s.config.preset}\n{s.size} x {s.size} pixels" for s in networks])
    axes[0].invert_yaxis()
    handles, labels = axes[-1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(PARTS), frameon=False)
    figure.suptitle("Where are a network's parameters, and what do they cost?", fontsize="x-large")
    with matplotlib.rc_context({"svg.hashsalt": "sizes", "hatch.linewidth": 0.6}):
        save_figure(figure, path)


def _bars(axis: Any, networks: Sequence[Sizes], field: str, units: Mapping[str, int]) -> None:
    """A bar for each network: its parts end to end, and their sum beside them."""
    ends = [0] * len(networks)
    outline = {"edgecolor": "black", "linewidth": 0.6}
    for name in PARTS:
        widths = [getattr(sizes.parts[name], field) for sizes in networks]
        axis.barh(range(len(networks)), widths, left=ends, height=0.6, label=name, **outline, **_STYLES[name])
        ends = [end + width for end, width in zip(ends, widths, strict=True)]
    for y, (sizes, end) in enumerate(zip(networks, ends, strict=True)):
        text = _scaled(end, units)
        if field == "parameters":
            text += f", {sizes.parts['dense layers'].parameters / end:.1%} dense"
        axis.annotate(text, (end, y), xytext=(4, 0), textcoords="offset points", va="center")
    axis.set_xlim(0, 1.7 * max(ends))  # room for the text beside the longest bar
    axis.set_xticks([])  # the texts have the numbers
    axis.spines[["top", "right", "bottom"]].set_visible(False)
