"""What the three modules that write the textbooks' network share: which networks it is, and what it trains with.

Their parameters have the textbooks' names, for which `harness.weights.names` has the tables.
"""

from __future__ import annotations

import spec

_LEAVES = ("branch1x1", "branch3x3_reduce", "branch3x3", "branch5x5_reduce", "branch5x5", "pool_proj")


def check_config(config: spec.Config, dtype: str) -> None:
    """Make sure that the textbooks have such a network: the preset d2l, of any number of channels and classes.

    Raises:
        spec.InvalidInput: otherwise.
    """
    plain = spec.preset("d2l", in_channels=config.in_channels, num_classes=config.num_classes)
    beside = ("preset", "source", "table")  # the first two differ without making a difference
    other = [name for name, value in vars(plain).items() if name not in beside and getattr(config, name) != value]
    here, there = dict(config.stages), dict(plain.stages)
    other += [name for name in here | there if here.get(name) != there.get(name)]
    if dtype == "bfloat16":
        other.append("dtype")
    if other:
        raise spec.InvalidInput(
            f"the textbooks' network is preset d2l in float32 or float64, and {config} in {dtype} differs in "
            f"{', '.join(other)}; use --variant tuned"
        )


def block_widths(nodes: spec.Nodes, name: str) -> tuple[int, tuple[int, int], tuple[int, int], int]:
    """Of an Inception block, branch by branch, as the textbooks pass them."""
    one, three_reduce, three, five_reduce, five, proj = (nodes[f"{name}.{leaf}"].out_channels for leaf in _LEAVES)
    return one, (three_reduce, three), (five_reduce, five), proj


def check_optimizer(optimizer: spec.Optimizer) -> None:
    """Make sure that it is what the textbooks train with: plain SGD.

    Raises:
        spec.InvalidInput: otherwise.
    """
    if optimizer != spec.SGD(rate=optimizer.rate, momentum=0.0):
        raise spec.InvalidInput(f"the textbooks' optimizer is plain SGD, got {optimizer}; use --variant tuned")
