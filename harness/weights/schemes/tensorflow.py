"""The Inception family as Keras and TF-slim have it: names by rules, and batch norm without a scale.

Sources: keras/src/applications/{inception_v3,inception_resnet_v2}.py and keras/src/saving/saving_lib.py of Keras 3.15;
research/slim/nets/inception_{v3,v4,resnet_v2}.py of tensorflow/models.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping

import spec
from harness.weights.schemes.inceptions import Place, places
from harness.weights.schemes.scheme import CHANNELS_LAST, Kind, Scheme

Names = dict[str, str]  # of a layer, by its canonical name; of its batch norm, by that and ``.norm``

KERAS = ("inception-v3-tf", "inception-resnet-v2")
SLIM = {"inception-v3-tf": "InceptionV3", "inception-v4": "InceptionV4", "inception-resnet-v2": "InceptionResnetV2"}


def numbered(kind: str, number: int) -> str:
    """Keras' name of the layer of a kind with that number, from 0."""
    return f"{kind}_{number}" if number else kind


def _keras_layers(preset: str) -> Names:
    """The layers' own names: numbers in forward order, except where the code that makes the network names a layer.

    They are those of the first model of a session; Keras goes on counting in the next.
    """
    names: Names = {}
    count = 0
    for place in places(spec.preset(preset, aux=False)):
        if place.stage == "fc":
            names[place.layer] = "predictions"
        elif place.leaf == "up":
            names[place.layer] = f"{place.stage}_conv"
        elif place.stage == "conv7b":
            names |= {place.layer: "conv_7b", f"{place.layer}.norm": "conv_7b_bn"}
        else:
            names[place.layer] = numbered("conv2d", count)
            names[f"{place.layer}.norm"] = numbered("batch_normalization", count)
            count += 1
    return names


def _keras_saved(preset: str) -> Names:
    """The names of the layers' variables in a ``.weights.h5``: a number for each class of layers, in order of depth.

    They look like the layers' own names, and are not. Layers with names of their own are counted, too.
    """
    config = spec.preset(preset, aux=False)
    layers = {layer.name: layer for layer in spec.layers(config)}
    stages: dict[str, list[Place]] = defaultdict(list)
    for place in places(config):
        stages[place.stage].append(place)
    names: Names = {}
    counts: Counter[str] = Counter()
    for stage in stages.values():
        for place in sorted(stage, key=_depth(stage), reverse=True):  # forward order where they are equal
            layer = layers[place.layer]
            kinds = {place.layer: "dense" if layer.is_dense else "conv2d"}
            if layer.norm:
                kinds[f"{place.layer}.norm"] = "batch_normalization"
            for name, kind in kinds.items():
                names[name] = f"layers/{numbered(kind, counts[kind])}/vars"
                counts[kind] += 1
    return names


def _depth(stage: list[Place]) -> Callable[[Place], int]:
    """How many of Keras' layers are from a layer to the end of its branch.

    A convolution is three of them, with batch norm and activation; what joins the two of a split is one more.
    """
    lengths: Counter[int] = Counter()
    for place in stage:
        lengths[place.branch] = max(lengths[place.branch], place.count + 1)

    def depth(place: Place) -> int:
        return -1 if place.leaf == "up" else 3 * (lengths[place.branch] - place.count) + place.splits

    return depth


_SLIM_OWN = {  # where slim's code departs from its own rule, by preset and layer
    ("inception-v3-tf", "mixed5c.branch5x5_reduce"): "Conv2d_0b_1x1",
    ("inception-v3-tf", "mixed5c.branch5x5"): "Conv_1_0c_5x5",
    ("inception-v3-tf", "mixed6a.branch3x3"): "Conv2d_1a_1x1",
    ("inception-v3-tf", "mixed6a.branch3x3dbl_2"): "Conv2d_1a_1x1",
    ("inception-v3-tf", "mixed7b.branch3x3_b"): "Conv2d_0b_3x1",
    ("inception-v3-tf", "fc"): "Conv2d_1c_1x1",
    ("inception-v4", "mixed3a.branch3x3"): "Conv2d_0a_3x3",
}
_SLIM_REPEATS = {"block35": "Repeat", "block17": "Repeat_1", "block8": "Repeat_2"}


def _slim(preset: str) -> Names:
    """The scopes of the variables: ``InceptionV3/Mixed_5b/Branch_1/Conv2d_0b_5x5``."""
    config = spec.preset(preset, aux=False)
    layers = {layer.name: layer for layer in spec.layers(config)}
    names: Names = {}
    for place in places(config):
        scope = f"{SLIM[preset]}/{_slim_scope(place)}"
        names[place.layer] = scope + (
            _SLIM_OWN.get((preset, place.layer)) or _slim_layer(preset, layers[place.layer], place)
        )
        if layers[place.layer].norm:
            names[f"{place.layer}.norm"] = f"{names[place.layer]}/BatchNorm"
    return names


def _slim_scope(place: Place) -> str:
    if place.stage == "fc":
        return "Logits/"
    if not place.leaf:
        return ""
    kind = place.stage.partition("_")[0]
    stage = f"{_SLIM_REPEATS[kind]}/{place.stage}" if kind in _SLIM_REPEATS else place.stage.replace("mixed", "Mixed_")
    stage = "Block8" if place.stage == "block8_10" else stage
    return f"{stage}/" if place.leaf == "up" else f"{stage}/Branch_{place.branch}/"


def _slim_layer(preset: str, layer: spec.Node, place: Place) -> str:
    """``Conv2d_0b_3x3``: the letter is the place in the branch; a 3x3 without padding is ``1a``."""
    if layer.is_dense:
        return "Logits"
    kernel = "x".join(map(str, layer.op.sides))
    if not place.leaf:
        return f"Conv2d_{place.stage.removeprefix('conv')}_{kernel}"
    if kernel == "3x3" and layer.op.symmetric_pads == (0, 0):
        return f"Conv2d_1a_{kernel}"
    if place.leaf == "up" or (place.alone and preset == "inception-resnet-v2"):
        return f"Conv2d_{kernel}"
    return f"Conv2d_0{'abcdef'[place.step + (place.half or 0)]}_{kernel}"


# -------------------------------------------------------------------------------------------------------- the schemes

# fmt: off
_LEAVES = {
    #                     Keras' layers           Keras' files  slim
    "weight":            ("kernel",               "0",          "weights"),
    "bias":              ("bias",                 "1",          "biases"),
    "norm.bias":         ("norm.beta",            "norm.0",     "norm.beta"),
    "norm.running_mean": ("norm.moving_mean",     "norm.1",     "norm.moving_mean"),
    "norm.running_var":  ("norm.moving_variance", "norm.2",     "norm.moving_variance"),
}
# fmt: on
# Auxiliary heads, and whatever is no layer's variable: counts of steps, constants of a graph, what an optimizer and
# averages keep for each variable, below its name.
_SLIM_BESIDES = r".*/AuxLogits/.*|(?!.*/(weights|biases|beta|moving_mean|moving_variance)$).*"


def _scheme(
    name: str,
    column: int,
    layers: Callable[[str], Names],
    presets: Iterable[str],
    layout: Mapping[int, str] = CHANNELS_LAST,
    besides: str = "",
    kind: Kind = "tensorflow",
) -> Scheme:
    return Scheme(
        name,
        kind,
        {preset: layers(preset) for preset in presets},
        leaves := {leaf: columns[column] for leaf, columns in _LEAVES.items()},
        leaves,
        layout,
        heads=False,
        separator="/",
        besides=besides,
    )


TENSORFLOW_SCHEMES = (
    # What is in no layer is the optimizer's; a layer of dropout has a generator.
    _scheme("keras", 1, _keras_saved, KERAS, besides=r"(?!layers/).*|.*/seed_generator/.*", kind="keras"),
    _scheme("keras-layers", 0, _keras_layers, KERAS),
    _scheme("slim", 2, _slim, ("inception-v4", "inception-resnet-v2"), besides=_SLIM_BESIDES),
    # Its last layer is a convolution of 1x1.
    _scheme("slim-v3", 2, _slim, ("inception-v3-tf",), CHANNELS_LAST | {2: "HWIO"}, _SLIM_BESIDES),
)
