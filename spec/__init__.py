"""What the network is, independent of any framework. NumPy and the standard library only, but for checkpoints.

Read in this order: `python -m spec` prints the table; `spec/googlenet.py` is the table as data,
`spec/sequences.py` the textbook ancestors; `spec/network.py` is what networks are made of, `spec/shapes.py` what
follows from an image's size; `spec/reference.py` is the networks as arithmetic, forward and backward;
`spec/optimizers.py` is one training step, `spec/recipe.py` a whole training. `spec/checkpoint.py` is networks in files;
it needs safetensors, and is imported by whoever wants it.
"""

from spec.arrays import Array, Arrays, array_dtype
from spec.errors import InvalidInput
from spec.googlenet import GoogLeNetConfig, Inception
from spec.init import SCHEMES, init_params
from spec.inputs import check_images, check_labels, check_training_batch
from spec.masks import check_masks, dropout_masks, dropout_rates, mask_shapes
from spec.network import (
    BatchNorm,
    Config,
    Layer,
    Outputs,
    Pool,
    Shape,
    Step,
    is_decayed,
    is_statistic,
    layers,
    param_shapes,
    parameter_count,
)
from spec.optimizers import SGD, Adam, AdamW, Optimizer
from spec.params import check_params, check_state, state_shapes
from spec.presets import PRESETS, preset
from spec.recipe import Recipe
from spec.sequences import SequenceConfig
from spec.shapes import layer_costs, minimum_input_size, stage_inputs, stage_names, stage_shapes

__all__ = [
    "PRESETS",
    "SCHEMES",
    "SGD",
    "Adam",
    "AdamW",
    "Array",
    "Arrays",
    "BatchNorm",
    "Config",
    "GoogLeNetConfig",
    "Inception",
    "InvalidInput",
    "Layer",
    "Optimizer",
    "Outputs",
    "Pool",
    "Recipe",
    "SequenceConfig",
    "Shape",
    "Step",
    "array_dtype",
    "check_images",
    "check_labels",
    "check_masks",
    "check_params",
    "check_state",
    "check_training_batch",
    "dropout_masks",
    "dropout_rates",
    "init_params",
    "is_decayed",
    "is_statistic",
    "layer_costs",
    "layers",
    "mask_shapes",
    "minimum_input_size",
    "param_shapes",
    "parameter_count",
    "preset",
    "stage_inputs",
    "stage_names",
    "stage_shapes",
    "state_shapes",
]
