"""How far a backend may be from the referee, and the measurement that each bound was set from.

An error is max |backend - referee| / max |referee| of one array; of a set of arrays the largest counts. In float64 at
these bounds nothing but rounding passes: a wrong pad or a lost ReLU shows as 0.01 to 1.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Tolerances:
    """Bounds for one dtype."""

    activations: float  # every stage, inference mode
    logits: float
    loss: float
    gradients: float  # every array
    step: float  # every array after one optimizer step


TOLERANCES = {
    "float64": Tolerances(activations=1e-12, logits=1e-12, loss=1e-12, gradients=1e-11, step=1e-12),
    "float32": Tolerances(activations=5e-6, logits=5e-6, loss=5e-6, gradients=2e-5, step=2e-5),
}

# Pictures have flat areas, on which max pools meet values that are equal but for rounding: float32 rounds them apart
# differently in each framework, and the gradient then goes to another pixel. In float64 it makes no difference.
ON_PICTURES = {
    "float64": TOLERANCES["float64"],
    "float32": replace(TOLERANCES["float32"], gradients=5e-2, step=5e-2),
}
