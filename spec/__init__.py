"""The networks and one training step, independent of any framework. NumPy and the standard library.

Read in this order: `python -m spec` prints the table; `spec/googlenet.py` is the table as data,
`spec/ancestors.py` the textbook ancestors; `spec/network.py` is what networks are made of, and the walk through one;
`spec/shapes.py` is what follows from an image's size; `spec/reference.py` is arithmetic, forward and backward;
`spec/optimizers.py` is one training step.
"""

from spec.arrays import Array, Arrays, array_dtype
from spec.errors import InvalidInput
from spec.init import SCHEMES, init_params
from spec.inputs import check_batch, check_images, check_labels, check_training_batch
from spec.masks import check_masks, dropout_masks, dropout_rates, mask_shapes
from spec.network import (
    AdaptiveAverage,
    BatchNorm,
    Config,
    GlobalAverage,
    MaxPool,
    Node,
    Nodes,
    Outputs,
    Shape,
    Step,
    head_names,
    is_decayed,
    is_statistic,
    layers,
    loss_weights,
    nodes,
    param_shapes,
    parameter_count,
    walk,
)
from spec.optimizers import SGD, Adam, AdamW, Optimizer, RMSProp, averaging_decay
from spec.params import check_params, check_state, state_shapes
from spec.presets import PRESETS, preset
from spec.shapes import fits, layer_costs, minimum_input_size, stage_names, stage_shapes

__all__ = [
    "PRESETS",
    "SCHEMES",
    "SGD",
    "Adam",
    "AdamW",
    "AdaptiveAverage",
    "Array",
    "Arrays",
    "BatchNorm",
    "Config",
    "GlobalAverage",
    "InvalidInput",
    "MaxPool",
    "Node",
    "Nodes",
    "Optimizer",
    "Outputs",
    "RMSProp",
    "Shape",
    "Step",
    "array_dtype",
    "averaging_decay",
    "check_batch",
    "check_images",
    "check_labels",
    "check_masks",
    "check_params",
    "check_state",
    "check_training_batch",
    "dropout_masks",
    "dropout_rates",
    "fits",
    "head_names",
    "init_params",
    "is_decayed",
    "is_statistic",
    "layer_costs",
    "layers",
    "loss_weights",
    "mask_shapes",
    "minimum_input_size",
    "nodes",
    "param_shapes",
    "parameter_count",
    "preset",
    "stage_names",
    "stage_shapes",
    "state_shapes",
    "walk",
]
