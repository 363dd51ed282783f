"""What the publishers' own Inceptions compute, recorded: their logits.

This remakes `inceptions.npz` beside it. It needs torch 2.13, torchvision 0.28, timm 1.0.31, pretrainedmodels 0.7.4 (by
Cadene), pytorch-fid 0.3, Keras 3.15, MXNet 1.9.1, and a file that no package holds: symbols/inception-bn.py, of the
example image-classification in the source of MXNet:

    PYTHONPATH=. python tests/recorded/inceptions.py path/to/inception-bn.py

No weights are recorded: `weights` makes them again, each array from its canonical name, with NumPy alone. All networks
with one topology get the same arrays, so that their logits differ by what their publishers chose.

Batch norm's statistics are random, about those that the publisher's own package computes: one training pass over the
recorded images. Their numbers would take 700 kB, so that what is recorded is a mean and a variance for each layer.
"""

from __future__ import annotations

import hashlib
import importlib.util
import math
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

import spec
from spec.network import is_statistic

RECORDED = Path(__file__).with_suffix(".npz")
SEED = 2015


@dataclass(frozen=True)
class Record:
    """One publisher's network, and the images it is given."""

    preset: str
    size: tuple[int, int]  # height and width
    settings: Mapping[str, Any] = field(default_factory=dict)  # of the preset
    dtype: str = "float64"  # that the publisher computes in
    epsilon: float | None = None  # of batch norm, where it is not the preset's

    @property
    def config(self) -> spec.Config:
        """The network in this project's words."""
        return spec.preset(self.preset, **{"num_classes": 10, **self.settings})


# 107 pixels are the fewest at which every tap of every kernel meets a pixel; the sides differ where the publisher lets
# them, to tell height from width. The first of each family is one in torch.
SMALL = (107, 139)
RECORDS = {
    "torchvision-v3": Record("inception-v3", (299, 299)),  # its head takes no less
    "gluon-v3": Record("inception-v3", (299, 299), {"aux": False}),  # its last pool is 8x8
    "keras-v3": Record("inception-v3-tf", SMALL, dtype="float32"),  # its batch norm is in float32 always
    "pytorch-fid": Record("inception-v3-fid", SMALL, {"num_classes": 1008}),
    "timm-v4": Record("inception-v4", SMALL),
    "timm-resnet-v2": Record("inception-resnet-v2", SMALL),
    "keras-resnet-v2": Record("inception-resnet-v2", SMALL, {"norm_scale": False}, dtype="float32"),
    "cadene-bn": Record("inception-bn", (224, 224)),  # the last pool of both is 7x7
    "mxnet-bn": Record("inception-bn-mxnet", (224, 224), epsilon=1e-5 + 1e-10),
}


def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers from -1 to below 1: the same for the same name, as `Generator.random` is in every version of NumPy."""
    key = int.from_bytes(hashlib.sha256(f"{SEED} {name}".encode()).digest()[:16], "big")
    return 2 * np.random.Generator(np.random.Philox(key=key)).random(shape) - 1


def images(record: Record) -> np.ndarray:
    """One image, of squares of 8x8 pixels with noise on top, as float32."""
    height, width = record.size
    squares = draw("squares", (1, 3, math.ceil(height / 8), math.ceil(width / 8))).repeat(8, 2).repeat(8, 3)
    return (0.7 * squares[..., :height, :width] + 0.3 * draw("noise", (1, 3, height, width))).astype(np.float32)


def weights(record: Record, statistics: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Arrays by canonical name as float32, none of them at a neutral value.

    Kernels and matrices have variance 2 / fan_in; scales are within 0.25 of 1, biases within 0.1 of 0. A running mean
    is within a standard deviation of its layer's mean, a running variance within half of its layer's variance.

    Args:
        record: What the arrays are for.
        statistics: As recorded, by family: the mean and the variance of what each batch norm is given.
    """
    layers = dict(zip(_norms(record.config.family), statistics[record.config.family].astype(np.float64), strict=True))
    arrays = {}
    for name, shape in spec.param_shapes(record.config).items():
        layer, _, leaf = name.rpartition(".")
        x = draw(name, shape)
        if len(shape) > 1:
            x *= math.sqrt(6 / math.prod(shape[1:]))
        elif leaf == "running_mean":
            mean, var = layers[layer]
            x = mean + math.sqrt(var) * x
        elif leaf == "running_var":
            x = layers[layer][1] * (1 + x / 2)
        elif leaf == "weight":
            x = 1 + x / 4
        else:
            x /= 10
        arrays[name] = x.astype(np.float32)
    return arrays


def _norms(family: str) -> list[str]:
    """Every batch norm of the family's first network, which has all that the others have."""
    first = next(record.config for record in RECORDS.values() if record.config.family == family)
    names = spec.param_shapes(first)
    return [name.removesuffix(".running_var") for name in names if name.endswith(".running_var")]


def main(symbol: Path) -> None:
    networks = {
        "torchvision-v3": _torchvision,
        "pytorch-fid": _pytorch_fid,
        "timm-v4": partial(_timm, "inception_v4"),
        "timm-resnet-v2": partial(_timm, "inception_resnet_v2"),
        "cadene-bn": _cadene,
    }
    others = {
        "gluon-v3": _gluon,
        "keras-v3": partial(_keras, "InceptionV3"),
        "keras-resnet-v2": partial(_keras, "InceptionResNetV2"),
        "mxnet-bn": partial(_mxnet, symbol),
    }
    recorded: dict[str, np.ndarray] = {}
    for publisher, record in RECORDS.items():
        config, x = record.config, images(record)
        if publisher in others:
            logits = others[publisher](config.num_classes, weights(record, recorded), x)
            outputs = {config.logits: logits}
        else:
            network = networks[publisher](config.num_classes).double()
            if config.family not in recorded:
                recorded[config.family] = _statistics(network, record, x)
            outputs = _in_torch(network, weights(record, recorded), x)
        for stage, y in outputs.items():
            assert y.dtype == record.dtype
            recorded[f"{publisher}/{stage}"] = y
    np.savez_compressed(RECORDED, **recorded)
    print(f"{RECORDED}: {RECORDED.stat().st_size} bytes")


def _statistics(network: Any, record: Record, x: np.ndarray) -> np.ndarray:
    """The mean and the variance of what each batch norm is given, over all its channels: (layers, 2) as float32.

    One pass in training mode, over the image and its mirror image: torch's batch norm refuses a lone value.
    """
    import torch

    norms = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    _load(network, weights(record, {record.config.family: np.ones((len(norms), 2))}))
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        network.train()(torch.from_numpy(np.concatenate([x, x[..., ::-1]])).double())
    rows = []
    for norm in norms:
        mean = norm.running_mean.mean()
        rows.append((mean, (norm.running_var + (norm.running_mean - mean) ** 2).mean()))
    return np.array(rows, dtype=np.float32)


def _load(network: Any, arrays: dict[str, np.ndarray]) -> None:
    """The arrays into a network in torch, whose state dict has them in the same order."""
    import torch

    names = [name for name in network.state_dict() if not name.endswith("num_batches_tracked")]
    state = {name: torch.from_numpy(x) for name, x in zip(names, arrays.values(), strict=True)}
    network.load_state_dict(state, strict=False)


def _in_torch(network: Any, arrays: dict[str, np.ndarray], x: np.ndarray) -> dict[str, np.ndarray]:
    """Logits, and those of the auxiliary head where there is one."""
    import torch

    _load(network, arrays)
    network.eval()
    with torch.no_grad():
        logits = network(torch.from_numpy(x).double())
        if not getattr(network, "aux_logits", False):
            return {"fc": logits.numpy()}
        # torchvision runs its head in training mode only. The mode is a flag of each module: the outermost one alone
        # decides on the head.
        network.training = True
        outputs = network(torch.from_numpy(x).double())
    assert torch.equal(outputs.logits, logits)
    return {"fc": logits.numpy(), "aux1": outputs.aux_logits.numpy()}


def _torchvision(classes: int) -> Any:
    from torchvision.models import Inception3

    return Inception3(classes, init_weights=False)


def _pytorch_fid(classes: int) -> Any:
    from pytorch_fid import inception
    from torchvision.models import Inception3

    # It makes its network with the published weights only, which it would fetch: these have the same shapes.
    of_torchvision = Inception3(classes, aux_logits=False, init_weights=False).state_dict()
    inception.load_state_dict_from_url = lambda *_, **__: of_torchvision
    return inception.fid_inception_v3()


def _timm(name: str, classes: int) -> Any:
    import timm

    return timm.create_model(name, num_classes=classes)


def _cadene(classes: int) -> Any:
    from pretrainedmodels.models.bninception import BNInception

    return BNInception(classes)


def _gluon(classes: int, arrays: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    mx = _mxnet_package()
    given = mx.nd.array(x, dtype="float64")
    network = mx.gluon.model_zoo.vision.Inception3(classes)
    network.cast("float64")
    network.initialize()
    network(given)  # the first images fix the shapes
    for parameter, array in zip(network.collect_params().values(), arrays.values(), strict=True):
        parameter.set_data(mx.nd.array(array, dtype="float64"))
    return network(given).asnumpy()


def _mxnet(symbol: Path, classes: int, arrays: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    mx = _mxnet_package()
    found = importlib.util.spec_from_file_location("symbol", symbol)
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    logits = module.get_symbol(classes, ",".join(map(str, x.shape[1:]))).get_internals()["fullyconnected0_output"]

    def named(names: list[str], values: list[np.ndarray]) -> dict[str, Any]:
        return {name: mx.nd.array(value, dtype="float64") for name, value in zip(names, values, strict=True)}

    # Both lists are in forward order, the images first.
    trained = [array for name, array in arrays.items() if not is_statistic(name)]
    statistics = [array for name, array in arrays.items() if is_statistic(name)]
    executor = logits.bind(
        mx.cpu(),
        named(logits.list_arguments(), [x, *trained]),
        aux_states=named(logits.list_auxiliary_states(), statistics),
    )
    return executor.forward(is_train=False)[0].asnumpy()


def _mxnet_package() -> Any:
    np.bool = bool  # MXNet reads a name that NumPy has no more
    import mxnet

    return mxnet


def _keras(name: str, classes: int, arrays: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    os.environ["KERAS_BACKEND"] = "torch"
    import keras

    made: list[Any] = []  # front to back: `network.layers` has another order
    begin = keras.layers.Layer.__init__

    def noted(layer: Any, *given: Any, **named: Any) -> None:
        begin(layer, *given, **named)
        made.append(layer)

    with patch.object(keras.layers.Layer, "__init__", noted):
        network = getattr(keras.applications, name)(
            weights=None, classes=classes, classifier_activation=None, input_shape=(*x.shape[2:], x.shape[1])
        )
    left = iter(arrays.values())
    for layer in sorted(network.layers, key=made.index):
        layer.set_weights([_in_keras(next(left)) for _ in layer.weights])
    assert next(left, None) is None
    return network(x.transpose(0, 2, 3, 1), training=False).detach().numpy()


def _in_keras(x: np.ndarray) -> np.ndarray:
    """(h, w, in, out) and (in, out)."""
    return x.transpose(2, 3, 1, 0) if x.ndim == 4 else x.T


if __name__ == "__main__":
    main(Path(sys.argv[1]))
