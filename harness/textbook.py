"""What the three modules that write the textbooks' network share: which networks it is, and what it trains with.

Their parameters have the textbooks' names, for which `harness.names` has the tables.
"""

from __future__ import annotations

import spec


def check_config(config: spec.Config, dtype: str) -> None:
    """Make sure that the textbooks have such a network: the preset d2l, of any number of channels and classes.

    Raises:
        spec.InvalidInput: otherwise.
    """
    plain = spec.preset("d2l", in_channels=config.in_channels, num_classes=config.num_classes)
    names = ("preset", "source")  # which differ without making a difference
    missing = object()  # a plain sequence has none of a GoogLeNet's fields
    other = [
        field for field, value in vars(plain).items() if field not in names and getattr(config, field, missing) != value
    ]
    if dtype == "bfloat16":
        other.append("dtype")
    if other:
        raise spec.InvalidInput(
            f"the textbooks' network is preset d2l in float32 or float64, and {config} in {dtype} differs in "
            f"{', '.join(other)}; use --variant tuned"
        )


def check_optimizer(optimizer: spec.Optimizer) -> None:
    """Make sure that it is what the textbooks train with: plain SGD.

    Raises:
        spec.InvalidInput: otherwise.
    """
    if optimizer != spec.SGD(rate=optimizer.rate, momentum=0.0):
        raise spec.InvalidInput(f"the textbooks' optimizer is plain SGD, got {optimizer}; use --variant tuned")
