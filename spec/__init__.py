"""What the network is, independent of any framework. NumPy and the standard library only.

Read in this order: `python -m spec` prints the table; `spec/network.py` is the table as data, `spec/shapes.py` what
follows from an image's size; `spec/reference.py` is the network as arithmetic, forward and backward;
`spec/optimizers.py` is one training step.
"""

from spec.arrays import Array, Arrays
from spec.errors import InvalidInput
from spec.init import SCHEMES, init_params
from spec.inputs import check_images, check_labels, check_training_batch
from spec.network import (
    PRESETS,
    BatchNorm,
    Config,
    Inception,
    Layer,
    Outputs,
    Pool,
    is_statistic,
    layers,
    param_shapes,
    parameter_count,
    preset,
)
from spec.optimizers import SGD, Adam, Optimizer
from spec.params import check_params
from spec.shapes import layer_costs, minimum_input_size, stage_names, stage_shapes

__all__ = [
    "PRESETS",
    "SCHEMES",
    "SGD",
    "Adam",
    "Array",
    "Arrays",
    "BatchNorm",
    "Config",
    "Inception",
    "InvalidInput",
    "Layer",
    "Optimizer",
    "Outputs",
    "Pool",
    "check_images",
    "check_labels",
    "check_params",
    "check_training_batch",
    "init_params",
    "is_statistic",
    "layer_costs",
    "layers",
    "minimum_input_size",
    "param_shapes",
    "parameter_count",
    "preset",
    "stage_names",
    "stage_shapes",
]
