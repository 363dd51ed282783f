"""The paper's Table 1 for any preset and image size, with parameters and multiply-adds counted, not copied."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from spec.googlenet import AUX_POOL_KERNEL, AUX_POOL_STRIDE, AUX_SIDE, GoogLeNetConfig
from spec.network import Config, Shape, is_statistic, layers, param_shapes
from spec.sequences import Conv, GlobalAverage, MaxPool, SequenceConfig
from spec.shapes import layer_costs, stage_shapes


@dataclass(frozen=True)
class Row:
    """One stage: sizes in pixels and channels, costs for one image."""

    stage: str
    kernel: str  # "7x7/2": window and stride; empty where there is none
    shape: Shape  # (channels, height, width), or (num_classes,)
    branches: tuple[int, ...]  # the six widths of an Inception row, else empty
    parameters: int
    multiply_adds: int


def table(config: Config, shape: Shape) -> list[Row]:
    """A row for each stage, in forward order, for images of (channels, height, width).

    Raises:
        InvalidInput: when the image does not fit.
    """
    costs = layer_costs(config, shape)
    rows = []
    for stage, out in stage_shapes(config, shape).items():
        own = [cost for name, cost in costs.items() if name.split(".")[0] == stage]
        kernel, branches = _KINDS[type(config)](config, stage)
        parameters = sum(cost.parameters for cost in own)
        rows.append(Row(stage, kernel, out, branches, parameters, sum(cost.multiply_adds for cost in own)))
    return rows


def _of_googlenet(config: GoogLeNetConfig, stage: str) -> tuple[str, tuple[int, ...]]:
    """Window and stride, and the six widths of an Inception row."""
    if stage.startswith("inception"):
        return "", _widths(config, stage)
    return _kernel(config, stage), ()


def _of_sequence(config: SequenceConfig, stage: str) -> tuple[str, tuple[int, ...]]:
    row = next(row for row in config.rows if row.name == stage)
    if isinstance(row, Conv):
        return f"{row.kernel}x{row.kernel}/{row.stride}", ()
    if isinstance(row, MaxPool):
        return f"{row.pool.kernel}x{row.pool.kernel}/{row.pool.stride}", ()
    return "global" if isinstance(row, GlobalAverage) else "", ()


_KINDS: dict[type[Config], Callable[[Any, str], tuple[str, tuple[int, ...]]]] = {
    GoogLeNetConfig: _of_googlenet,
    SequenceConfig: _of_sequence,
}


def _widths(config: GoogLeNetConfig, name: str) -> tuple[int, ...]:
    row = config.inception(name)
    return row.branch1x1, row.branch3x3_reduce, row.branch3x3, row.branch5x5_reduce, row.branch5x5, row.pool_proj


def _kernel(config: GoogLeNetConfig, stage: str) -> str:
    pool = config.pool4 if stage == "pool4" else config.pool
    fixed = {
        "conv1": "7x7/2",
        "conv2_reduce": "1x1/1",
        "conv2": "3x3/1",
        "pool5": "global" if config.head_pool is None else f"{config.head_pool}x{config.head_pool}/{config.head_pool}",
    }
    if stage.startswith("pool") and stage not in fixed:
        return f"{pool.kernel}x{pool.kernel}/{pool.stride}"
    if stage.startswith("aux"):
        window = f"{AUX_POOL_KERNEL}x{AUX_POOL_KERNEL}/{AUX_POOL_STRIDE}"
        return f"to {AUX_SIDE}x{AUX_SIDE}" if config.aux_adaptive else window
    return fixed.get(stage, "")


_BRANCHES = ("1x1", "3x3 red", "3x3", "5x5 red", "5x5", "pool proj")


def render(config: Config, shape: Shape) -> str:
    """The table as text, sizes written as the paper does: height x width x channels.

    Raises:
        InvalidInput: when the image does not fit.
    """
    rows = table(config, shape)
    branches = _BRANCHES if any(row.branches for row in rows) else ()
    lines: list[tuple[str, ...]] = [("stage", "kernel", "output", *branches, "parameters", "multiply-adds")]
    for row in rows:
        out = " x ".join(str(n) for n in (*row.shape[1:], row.shape[0]))
        widths = [str(n) for n in row.branches] or [""] * len(branches)
        lines.append((row.stage, row.kernel, out, *widths, _count(row.parameters), _count(row.multiply_adds)))
    total = sum(row.parameters for row in rows), sum(row.multiply_adds for row in rows)
    lines.append(("total", "", "", *[""] * len(branches), *(_count(n) for n in total)))
    columns = [max(map(len, column)) for column in zip(*lines, strict=True)]
    aligned = [[cell.rjust(n) for cell, n in zip(line, columns, strict=True)] for line in lines]
    names = [[cell.ljust(n) for cell, n in zip(line[:2], columns[:2], strict=True)] for line in lines]
    text = ["  ".join(left + right[2:]) for left, right in zip(names, aligned, strict=True)]
    channels, height, width = shape
    head = [f"{config.preset}: {config.source}", f"input {height} x {width} x {channels}, {config.num_classes} classes"]
    features = _features(config)
    if features:
        head.append(features)
    rule = "-" * len(text[0])
    return "\n".join(line.rstrip() for line in [*head, "", text[0], rule, *text[1:-1], rule, text[-1]])


def _features(config: Config) -> str:
    """What the table's columns do not show."""
    statistics = sum(shape[0] for name, shape in param_shapes(config).items() if is_statistic(name))
    learned = " without scale and shift" if config.batch_norm and not config.batch_norm.affine else ""
    own = {}
    if isinstance(config, GoogLeNetConfig):
        own = {
            "no ReLU after conv2_reduce and conv2": not config.stem_relu,
            "max pools round up": config.pool.ceil,
            f"the '5x5' branch is {config.branch5x5_kernel}x{config.branch5x5_kernel}": config.branch5x5_kernel != 5,
        }
    if isinstance(config, SequenceConfig):
        own = {f"{kind} activations": True for layer in layers(config) if (kind := layer.activation)}
    said = own | {
        "local response normalization": config.lrn is not None,
        f"batch norm{learned} ({statistics:,} running statistics beside the parameters)": config.batch_norm is not None,
        f"dropout {config.dropout}": config.dropout > 0,
        f"auxiliary heads (loss weight {config.aux_weight}, dropout {config.aux_dropout})": config.aux,
    }
    return "; ".join(what for what, holds in said.items() if holds)


def _count(n: int) -> str:
    return f"{n:,}" if n else ""
