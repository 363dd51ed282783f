"""The paper's Table 1 for any preset and image size, with parameters and multiply-adds counted, not copied."""

from __future__ import annotations

from dataclasses import dataclass

from spec.network import (
    LRN,
    AdaptiveAverage,
    Add,
    AveragePool,
    Block,
    Chain,
    Config,
    Conv,
    Dense,
    GlobalAverage,
    Head,
    MaxPool,
    Operation,
    Residual,
    Shape,
    Sliding,
    is_statistic,
    layers,
    param_shapes,
    walk,
)
from spec.shapes import layer_costs, stage_shapes


@dataclass(frozen=True)
class Row:
    """One stage: sizes in pixels and channels, costs for one image."""

    stage: str
    kernel: str  # "7x7/2": window and stride of the operation that it begins with; empty where there is none
    shape: Shape  # (channels, height, width), or (num_classes,)
    branches: dict[str, int]  # the widths of a block's convolutions, by name; else empty
    parameters: int
    multiply_adds: int


def table(config: Config, shape: Shape) -> list[Row]:
    """A row for each stage, in forward order, for images of (channels, height, width).

    Raises:
        InvalidInput: when the image does not fit.
    """
    costs, parts = layer_costs(config, shape), dict(config.stages)
    rows = []
    for stage, out in stage_shapes(config, shape).items():
        layers_of_stage = [cost for name, cost in costs.items() if name.split(".")[0] == stage]
        part, branches = parts[stage], {}
        if isinstance(part, Head):
            part = part.chain[0][1]
        if isinstance(part, Block | Residual):
            convs = [node for node in walk(config) if node.stage == stage and isinstance(node.op, Conv)]
            branches = {node.name.partition(".")[2]: node.out_channels for node in convs}
        parameters = sum(cost.parameters for cost in layers_of_stage)
        multiply_adds = sum(cost.multiply_adds for cost in layers_of_stage)
        rows.append(Row(stage, _kernel(part), out, branches, parameters, multiply_adds))
    return rows


def _kernel(part: Operation | Block | Residual) -> str:
    """Window and stride."""
    if isinstance(part, Sliding):
        (height, width), (down, across) = part.sides, part.strides
        return f"{height}x{width}/{down}" + (f"x{across}" if across != down else "")
    if isinstance(part, AdaptiveAverage) and part.side > 1:
        return f"to {part.side}x{part.side}"
    return "global" if isinstance(part, AdaptiveAverage | GlobalAverage) else ""


def _heading(leaf: str) -> str:
    """``3x3 red`` of ``branch3x3_reduce``."""
    return leaf.removeprefix("branch").replace("_reduce", " red").replace("_", " ")


_COLUMNS = 6  # of a block's convolutions: as many as GoogLeNet's have
_NOTATION = "@ kernel / stride, > then, | beside, {} of one map"


def _written(part: Operation | Block | Residual | Head) -> str:
    """A block's branches side by side: ``64 | 48 > 64@5x5 | avg > 32``; nothing for a single operation."""
    if isinstance(part, Block):
        return " | ".join(_chain(branch) for branch in part.branches)
    if isinstance(part, Residual):
        (_, branches), (_, up) = part.chain
        x = "x + " if part.shortcut else ""
        return f"{x}{part.scale:g} * ({_written(branches)}) > {_one(up)}"
    return _chain(part.chain) if isinstance(part, Head) else ""


def _chain(chain: Chain) -> str:
    return " > ".join(_one(part) for _, part in chain)


def _one(part: Operation | Block | Residual) -> str:
    if isinstance(part, Block):
        return f"{{{', '.join(_chain(branch) for branch in part.branches)}}}"
    if isinstance(part, Conv | Dense):
        kernel = _kernel(part).removesuffix("/1")
        return f"{'classes' if part.channels is None else part.channels}" + (
            f"@{kernel}" if kernel not in ("", "1x1") else ""
        )
    kind = "max" if isinstance(part, MaxPool) else "avg" if isinstance(part, AveragePool) else "mean"
    return kind + (f"/{part.strides[0]}" if isinstance(part, Sliding) and part.strides[0] > 1 else "")


def render(config: Config, shape: Shape) -> str:
    """The table as text, sizes written as the paper does: height x width x channels.

    Raises:
        InvalidInput: when the image does not fit.
    """
    rows = table(config, shape)
    branches = list(dict.fromkeys(leaf for row in rows for leaf in row.branches))
    alike = len(branches) <= _COLUMNS
    headings = map(_heading, branches) if alike else [f"branches, {_NOTATION}"]
    lines: list[tuple[str, ...]] = [("stage", "kernel", "output", *headings, "parameters", "multiply-adds")]
    for row, (_, part) in zip(rows, config.stages, strict=True):
        out = " x ".join(str(n) for n in (*row.shape[1:], row.shape[0]))
        widths = [str(row.branches.get(leaf, "")) for leaf in branches] if alike else [_written(part)]
        lines.append((row.stage, row.kernel, out, *widths, _count(row.parameters), _count(row.multiply_adds)))
    total = sum(row.parameters for row in rows), sum(row.multiply_adds for row in rows)
    lines.append(("total", "", "", *[""] * len(widths), *(_count(n) for n in total)))
    columns = [max(map(len, column)) for column in zip(*lines, strict=True)]
    left = {0, 1} if alike else {0, 1, 3}
    text = [
        "  ".join(
            cell.ljust(n) if i in left else cell.rjust(n) for i, (cell, n) in enumerate(zip(line, columns, strict=True))
        )
        for line in lines
    ]
    channels, height, width = shape
    head = [f"{config.preset}: {config.source}", f"input {height} x {width} x {channels}, {config.num_classes} classes"]
    features = _features(config)
    if features:
        head.append(features)
    rule = "-" * len(text[0])
    return "\n".join(line.rstrip() for line in [*head, "", text[0], rule, *text[1:-1], rule, text[-1]])


def _features(config: Config) -> str:
    """Settings that the columns do not show."""
    nodes, norm = walk(config), config.batch_norm
    statistics = sum(shape[0] for name, shape in param_shapes(config).items() if is_statistic(name))
    fixed = [] if norm is None else ["scale"] * (not norm.scale) + ["shift"] * (not norm.shift)
    learned = f" without {' and '.join(fixed)}" if fixed else ""
    convs = [node for node in nodes if isinstance(node.op, Conv)]
    parts = dict(config.stages)
    plain = [node for node in nodes if isinstance(node.op, Conv | Add) and node.op.activation is None]
    linear = [node.name for node in plain if node.name == node.stage or not isinstance(parts[node.stage], Residual)]
    averages = {node.op.count_pad for node in nodes if isinstance(node.op, AveragePool) and any(map(any, node.op.pads))}
    not_5x5 = {node.op.sides for node in convs if node.name.endswith(".branch5x5")} - {(5, 5)}
    sigmoid = any(node.op.activation == "sigmoid" for node in layers(config))
    features = {
        f"no ReLU after {' and '.join(linear)}": linear,
        "averages divide by the whole window": True in averages,
        "averages divide by the pixels in the window": False in averages,
        "max pools round up": any(isinstance(node.op, MaxPool) and node.op.ceil for node in nodes),
        **{f"the '5x5' branch is {height}x{width}": True for height, width in not_5x5},
        "sigmoid activations": sigmoid,
        "local response normalization": any(isinstance(node.op, LRN) for node in nodes),
        f"batch norm{learned} ({statistics:,} running statistics beside the parameters)": norm,
        f"dropout {config.dropout}": config.dropout,
        f"auxiliary heads (loss weight {config.aux_weight}, dropout {config.aux_dropout})": config.aux,
    }
    return "; ".join(feature for feature, present in features.items() if present)


def _count(n: int) -> str:
    return f"{n:,}" if n else ""
