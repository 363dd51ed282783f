"""What networks cost, side by side: a table, a picture, plain values. matplotlib, imported when it is needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from harness.curves import save_figure
from spec import PRESETS, InvalidInput, preset
from spec.shapes import fits, input_sizes
from spec.sizes import PARTS, Part, Sizes, measure

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
