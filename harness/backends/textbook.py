"""What the backends' `textbook` and `published` modules share: which networks there are, and their optimizer."""

from __future__ import annotations

import spec

PUBLISHED = ("InceptionBN", "InceptionV3", "InceptionV4", "InceptionResNetV2")  # families of the module `published`
_LEAVES = ("branch1x1", "branch3x3_reduce", "branch3x3", "branch5x5_reduce", "branch5x5", "pool_proj")


def check_config(config: spec.Config, dtype: str) -> None:
    """Make sure that the textbooks have such a network, of any number of channels and classes.

    They have the preset d2l; of the Inception family the publishers' own code takes their place.

    Raises:
        spec.InvalidInput: otherwise.
    """
    if config.family in PUBLISHED and dtype != "bfloat16":
        return
    plain = spec.preset("d2l", in_channels=config.in_channels, num_classes=config.num_classes)
    ignored = ("preset", "source", "table")  # the stages below are the table's
    other = [name for name, value in vars(plain).items() if name not in ignored and getattr(config, name) != value]
    stages = dict(config.stages)
    plain_stages = dict(plain.stages)
    other += [name for name in stages | plain_stages if stages.get(name) != plain_stages.get(name)]
    if dtype == "bfloat16":
        other.append("dtype")
    if other:
        raise spec.InvalidInput(
            f"the textbooks' network is preset d2l or one of the Inception family in float32 or float64, and {config} "
            f"in {dtype} differs from d2l in {', '.join(other)}; use --variant tuned"
        )


def module(config: spec.Config) -> str:
    """Which module of a backend's package has that network as others write it."""
    return "published" if config.family in PUBLISHED else "textbook"


def block_widths(nodes: spec.Nodes, name: str) -> tuple[int, tuple[int, int], tuple[int, int], int]:
    """The widths of an Inception block, branch by branch, as the textbooks pass them."""
    one, three_reduce, three, five_reduce, five, proj = (nodes[f"{name}.{leaf}"].out_channels for leaf in _LEAVES)
    return one, (three_reduce, three), (five_reduce, five), proj


def check_optimizer(optimizer: spec.Optimizer) -> None:
    """Make sure that it is what the textbooks train with: plain SGD.

    Raises:
        spec.InvalidInput: otherwise.
    """
    if optimizer != spec.SGD(rate=optimizer.rate, momentum=0.0):
        raise spec.InvalidInput(f"the textbooks' optimizer is plain SGD, got {optimizer}; use --variant tuned")
