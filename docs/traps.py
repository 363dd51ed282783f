"""The traps of porting a network: each is fallen into on purpose, and how far the network is then off is measured.

    python docs/traps.py                # every trap, as a Markdown table: about a minute
    python docs/traps.py pool-floor     # only those that are named

A trap takes a whole network and makes one mistake, in a framework where that is easily made; the NumPy referee does it
right. All is float64, so nothing of the error is rounding. Weights are He's (`spec/init.py`), which keep the scale of
what passes through them; biases and batch norm are away from 0 and 1, running statistics those of real pictures.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from types import ModuleType
from typing import Any, NamedTuple
from unittest import mock

import numpy as np

import spec
from harness.agreement import probe_params, relative_error
from harness.backends.registry import load
from harness.images.sources import load_batch, scikit_learn
from spec import Array, reference

Stages = dict[str, Array]  # by name, in forward order; of a loss, that alone

# -------------------------------------------------------------------------------------------- networks and pictures


class Scene(NamedTuple):
    """A network with all its arrays right, and pictures as it wants them."""

    config: spec.Config
    params: dict[str, Array]
    images: Array
    labels: Array

    def right(self) -> Stages:
        """What the referee computes."""
        return reference.activations(self.config, self.params, self.images)

    def model(self, backend: str) -> Any:
        """The network in a framework, in float64, on the CPU."""
        package = load(backend)
        model = package.GoogLeNet(self.config, dtype="float64", device="cpu")
        package.load_params(model, self.params)
        return model


CAFFE_MEAN = np.array([104.0, 117.0, 123.0])  # of blue, green and red, 0 to 255: BVLC's train_val.prototxt


@lru_cache
def scene(preset: str, size: int) -> Scene:
    """A preset at a size, and two pictures: digits, or the two photographs that come with scikit-learn."""
    try:
        config = spec.preset(preset, dropout=0.0)
        spec.stage_shapes(config, (config.in_channels, size, size))
    except spec.InvalidInput:  # the auxiliary heads need larger pictures
        config = spec.preset(preset, dropout=0.0, aux=False)
    pictures = load_batch([_source(config)], config, size, 2)
    images, params = pictures.images, _parameters(config)
    if preset == "bvlc":
        images = 255 * images[:, ::-1] - CAFFE_MEAN[:, None, None]
    elif preset == "torchvision":
        images, params = 2 * images - 1, params | _statistics(config)
    return Scene(config, params, images, pictures.labels)


def _source(config: spec.Config) -> str:
    return "digits" if config.in_channels == 1 else str(scikit_learn("images"))


def _parameters(config: spec.Config) -> dict[str, Array]:
    weights = {name: x for name, x in spec.init_params(config, 0, "he").items() if x.ndim > 1}
    return probe_params(config, 0) | weights


@lru_cache
def _statistics(config: spec.Config) -> dict[str, Array]:
    """Running statistics as training leaves them: those of the photographs, cut into eight of 64 x 64 pixels."""
    photographs = load_batch([_source(config)], config, 128, 2).images
    tiles = photographs.reshape(2, 3, 2, 64, 2, 64).transpose(0, 2, 4, 1, 3, 5).reshape(8, 3, 64, 64)
    moved = replace(config, batch_norm=replace(config.batch_norm, momentum=1.0))
    return reference.loss_and_grads(moved, _parameters(config), 2 * tiles - 1, np.arange(8)).statistics


@lru_cache
def untrained(size: int) -> Scene:
    """torchvision's network with the statistics that every network starts from: means 0, variances 1."""
    found = scene("torchvision", size)
    start = {name: x for name, x in spec.init_params(found.config).items() if spec.is_statistic(name)}
    return found._replace(params=found.params | start)


def after_one_pass(found: Scene) -> Scene:
    """The same with the running statistics that one training pass on its pictures leaves."""
    return found._replace(params=found.params | reference.loss_and_grads(*found).statistics)


@contextmanager
def replaced(package: str, place: str, other: Callable) -> Iterator[ModuleType]:
    """A backend that has something else at a place in its files, such as ``layers.MaxPool.forward``."""
    backend = load(package)
    with mock.patch(f"{backend.__name__}.{place}", other):
        yield backend


def pt_stages(model: Any, images: Array) -> Stages:
    """Every stage of a PyTorch model, in the mode that it is in."""
    import torch

    stages: Stages = {}

    def watch(stage, x):
        stages[stage] = x.numpy().copy()
        return x

    with torch.inference_mode():
        model(torch.from_numpy(images), watch=watch)
    return stages


def jax_stages(model: Any, images: Array) -> Stages:
    """Every stage of a JAX model, compiled afresh: what is compiled already does not know of a mistake."""
    from flax import nnx

    from googlenet_jax.probe import watched

    stages = nnx.jit(lambda model, x: watched(model, x))(model, images.transpose(0, 2, 3, 1))
    arrays = {name: np.asarray(x) for name, x in stages.items()}
    return {name: x.transpose(0, 3, 1, 2) if x.ndim == 4 else x for name, x in arrays.items()}


# ------------------------------------------------------------------------------------------------------- bookkeeping


@dataclass(frozen=True)
class Trap:
    """One mistake."""

    name: str
    mistake: str
    backend: str
    network: str
    of: str  # what is compared: the classifier's logits, a head's, or a loss
    fall: Callable[[], tuple[Stages, Stages]]  # wrong and right


@dataclass(frozen=True)
class Measured:
    """What a mistake does."""

    error: float  # max |wrong - right| / max |right|
    stage: str  # the first that differs
    misshapen: str  # the first whose shape differs; empty where all shapes are right


TRAPS: dict[str, Trap] = {}


def trap(backend: str, network: str, of: str = "fc") -> Callable:
    """Enter a function into the table, by its name and its docstring."""

    def enter(fall: Callable[[], tuple[Stages, Stages]]) -> Callable[[], tuple[Stages, Stages]]:
        name = fall.__name__.replace("_", "-")
        TRAPS[name] = Trap(name, (fall.__doc__ or "").rstrip("."), backend, network, of, fall)
        return fall

    return enter


def measure(found: Trap) -> Measured:
    """Fall into it.

    Raises:
        spec.InvalidInput: when its framework is not installed.
    """
    load(found.backend)  # which also sees to what MXNet needs before it is imported
    wrong, right = found.fall()
    differ = [name for name in right if relative_error(wrong[name], right[name]) > 1e-12]
    misshapen = [name for name in right if wrong[name].shape != right[name].shape]
    return Measured(relative_error(wrong[found.of], right[found.of]), (differ or [""])[0], (misshapen or [""])[0])


# ---------------------------------------------------------------------------------------------------------- pictures


@trap("pt", "d2l, 96 px")
def pixels_255() -> tuple[Stages, Stages]:
    """Pixels from 0 to 255 for a network that wants 0 to 1."""
    right = scene("d2l", 96)
    return load("pt").activations(right.model("pt"), 255 * right.images), right.right()


@trap("pt", "bvlc, 96 px")
def channels_rgb() -> tuple[Stages, Stages]:
    """Red, green, blue for a network that wants blue, green, red."""
    right = scene("bvlc", 96)
    return load("pt").activations(right.model("pt"), right.images[:, ::-1].copy()), right.right()


@trap("pt", "torchvision, 64 px")
def transform_input() -> tuple[Stages, Stages]:
    """ImageNet's means and deviations, where torchvision's weights want pixels from -1 to 1."""
    right = scene("torchvision", 64)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    pixels = (right.images + 1) / 2
    normalized = (pixels - mean[:, None, None]) / std[:, None, None]
    return load("pt").activations(right.model("pt"), normalized), right.right()


# ------------------------------------------------------------------------------------------------------ convolutions


@trap("jax", "d2l, 96 px")
def same_padding() -> tuple[Stages, Stages]:
    """`padding="SAME"` in the layers with stride 2."""
    from flax import nnx

    def max_pool(self, x):
        return nnx.max_pool(x, self.op.sides, self.op.strides, "SAME")

    right = scene("d2l", 96)
    model = right.model("jax")
    model.conv1.padding = "SAME"
    with replaced("jax", "fast_cpu.MaxPool.__call__", max_pool):
        return jax_stages(model, right.images), right.right()


@trap("pt", "d2l, 96 px")
def kernel_square() -> tuple[Stages, Stages]:
    """The one kernel that has as many inputs as outputs, `conv2_reduce`, not transposed."""
    right = scene("d2l", 96)
    wrong = right._replace(params={**right.params})
    for name, x in right.params.items():
        if x.ndim > 1 and x.shape == x.swapaxes(0, 1).shape:
            wrong.params[name] = x.swapaxes(0, 1)
    return load("pt").activations(wrong.model("pt"), right.images), right.right()


@trap("pt", "d2l, 96 px")
def kernel_reshaped() -> tuple[Stages, Stages]:
    """Flax's kernels brought to PyTorch's shape by `reshape` instead of `transpose`."""
    right = scene("d2l", 96)
    wrong = right._replace(params={**right.params})
    for name, x in right.params.items():
        if x.ndim > 1:
            in_flax = x.transpose(2, 3, 1, 0) if x.ndim == 4 else x.T
            wrong.params[name] = in_flax.reshape(x.shape)
    return load("pt").activations(wrong.model("pt"), right.images), right.right()


@trap("pt", "d2l, 96 px")
def relu_missing() -> tuple[Stages, Stages]:
    """No ReLU after the two convolutions of stage 2."""
    right = scene("d2l", 96)
    model = right.model("pt")
    model.conv2_reduce.activation = model.conv2.activation = None
    return load("pt").activations(model, right.images), right.right()


@trap("pt", "d2l, 96 px")
def default_biases() -> tuple[Stages, Stages]:
    """`torch.nn.init.xavier_uniform_` for the weights, and the biases left as PyTorch draws them, not at 0."""
    config, _, images, _ = right = scene("d2l", 96)
    xavier, torch = (spec.init_params(config, 0, scheme) for scheme in ("xavier", "torch"))
    biases = {name: x for name, x in torch.items() if name.endswith(".bias")}
    model = right._replace(params=xavier | biases).model("pt")
    return load("pt").activations(model, images), right._replace(params=xavier).right()


# ------------------------------------------------------------------------------------------------------------- pools


@trap("pt", "bvlc, 96 px")
def pool_floor() -> tuple[Stages, Stages]:
    """Max pools that round their size down, as is the default, instead of up."""
    from torch.nn.functional import max_pool2d

    def max_pool(self, x):
        return max_pool2d(x, self.op.sides, self.op.strides, self.pads)

    right = scene("bvlc", 96)
    with replaced("pt", "layers.MaxPool.forward", max_pool) as backend:
        return backend.activations(right.model("pt"), right.images), right.right()


@trap("pt", "d2lzh, 96 px")
def pool_zeros() -> tuple[Stages, Stages]:
    """Zeros around a max pool's input, which is negative in places, instead of minus infinity."""
    from torch.nn.functional import max_pool2d, pad

    def max_pool(self, x):
        return max_pool2d(pad(x, [self.op.pad] * 4), self.op.sides, self.op.strides)

    right = scene("d2lzh", 96)
    with replaced("pt", "layers.MaxPool.forward", max_pool) as backend:
        return backend.activations(right.model("pt"), right.images), right.right()


@trap("pt", "d2l, 256 px")
def pool_fixed() -> tuple[Stages, Stages]:
    """An average over 7 x 7 pixels for the global one, where the last map has 8 x 8."""
    from torch import nn

    right = scene("d2l", 256)
    model = right.model("pt")
    model.pool5 = nn.AvgPool2d(7)
    return load("pt").activations(model, right.images), right.right()


@trap("pt", "torchvision, 224 px", of="aux1")
def adaptive_pool() -> tuple[Stages, Stages]:
    """The paper's 5 x 5 pool with stride 3 in the heads, where torchvision's is adaptive."""
    from torch.nn.functional import avg_pool2d

    def adaptive(x, side):
        return avg_pool2d(x, 5, 3) if side == 4 else x.mean((2, 3), keepdim=True)

    right = scene("torchvision", 224)
    with mock.patch("torch.nn.functional.adaptive_avg_pool2d", adaptive):
        return load("pt").activations(right.model("pt"), right.images), right.right()


@trap("mx", "bvlc, 96 px")
def pool_divisor() -> tuple[Stages, Stages]:
    """An average pool that does not count its padding, as ONNX's does not, over the channels of an LRN."""
    right = scene("bvlc", 96)
    lrn = dict(right.config.stages)["norm1"]

    def norm(self, F, x):
        rows = F.reshape(x**2, shape=(0, -4, 1, -1, -3))  # N x 1 x C x HW
        how = {"kernel": (lrn.size, 1), "pad": (lrn.size // 2, 0), "pool_type": "avg", "count_include_pad": False}
        return x * (lrn.k + lrn.alpha * F.reshape_like(F.Pooling(rows, **how), x)) ** -lrn.beta

    with replaced("mx", "layers.LRN.hybrid_forward", norm) as backend:
        return backend.activations(right.model("mx"), right.images), right.right()


# --------------------------------------------------------------------------------------- local response normalization


@trap("pt", "bvlc, 96 px")
def lrn_alpha() -> tuple[Stages, Stages]:
    """LRN's alpha not divided by the number of channels, as TensorFlow's is not."""
    right = scene("bvlc", 96)
    lrn = dict(right.config.stages)["norm1"]
    model = right.model("pt")
    model.norm1.op = model.norm2.op = replace(lrn, alpha=lrn.alpha * lrn.size)
    return load("pt").activations(model, right.images), right.right()


@trap("mx", "bvlc, 96 px")
def lrn_k() -> tuple[Stages, Stages]:
    """LRN's k left at MXNet's default, 2, where Caffe's, PyTorch's and ONNX's is 1."""
    right = scene("bvlc", 96)
    lrn = dict(right.config.stages)["norm1"]

    def norm(self, F, x):
        y = F.LRN(x.astype("float32"), nsize=lrn.size, alpha=lrn.alpha, beta=lrn.beta)  # it refuses float64
        return y.astype("float64")

    with replaced("mx", "layers.LRN.hybrid_forward", norm) as backend:
        return backend.activations(right.model("mx"), right.images), right.right()


# -------------------------------------------------------------------------------------------------------- batch norm


@trap("pt", "torchvision, 64 px")
def norm_epsilon() -> tuple[Stages, Stages]:
    """PyTorch's default epsilon, 1e-5, where the network has 1e-3."""
    right = scene("torchvision", 64)
    model = right.model("pt")
    for conv in _with_norm(model):
        conv.norm.eps = 1e-5
    return load("pt").activations(model, right.images), right.right()


def _with_norm(model: Any) -> list[Any]:
    return [layer for layer in model.modules() if getattr(layer, "norm", None) is not None]


@trap("pt", "torchvision, 64 px")
def norm_epsilon_float32() -> tuple[Stages, Stages]:
    """Epsilon rounded to float32, as ONNX holds the attributes of its operators."""
    right = scene("torchvision", 64)
    model = right.model("pt")
    for conv in _with_norm(model):
        conv.norm.eps = float(np.float32(conv.norm.eps))
    return load("pt").activations(model, right.images), right.right()


@trap("mx", "torchvision, 64 px")
def norm_gamma() -> tuple[Stages, Stages]:
    """MXNet's `BatchNorm` operator with its defaults, which put every gamma to 1."""
    from mxnet.gluon import nn

    class BatchNorm(nn.BatchNorm):
        def __init__(self, channels, settings):
            super().__init__(epsilon=settings.epsilon, in_channels=channels)

        def hybrid_forward(self, F, x, gamma, beta, running_mean, running_var):
            return F.BatchNorm(x, gamma, beta, running_mean, running_var)

    right = scene("torchvision", 64)
    with replaced("mx", "layers.BatchNorm", BatchNorm) as backend:
        return backend.activations(right.model("mx"), right.images), right.right()


@trap("pt", "torchvision, 64 px")
def norm_training() -> tuple[Stages, Stages]:
    """Prediction in training mode, with the statistics of the two pictures at hand."""
    right = scene("torchvision", 64)
    return pt_stages(right.model("pt").train(), right.images), right.right()


@trap("pt", "torchvision, 64 px, one pass")
def norm_momentum() -> tuple[Stages, Stages]:
    """Gluon's momentum of 0.9 given to PyTorch, which calls the same 0.1; after one training pass."""
    import torch

    start = untrained(64)
    model = start.model("pt").train()
    for conv in _with_norm(model):
        conv.norm.momentum = 0.9
    model(torch.from_numpy(start.images))
    return load("pt").activations(model, start.images), after_one_pass(start).right()


@trap("jax", "torchvision, 64 px, one pass")
def norm_biased() -> tuple[Stages, Stages]:
    """Flax's own `BatchNorm`, whose running variance is the biased one; after one training pass on two pictures."""
    from flax import nnx

    def batch_norm(channels, settings):
        how = {"momentum": 1 - settings.momentum, "epsilon": settings.epsilon, "use_fast_variance": False}
        return nnx.BatchNorm(channels, **how, rngs=nnx.Rngs(0))

    start = untrained(64)
    with replaced("jax", "layers.BatchNorm", batch_norm) as backend:
        model = start.model("jax")
        model.train()
        jax_stages(model, start.images)
        trained = start._replace(params=backend.dump_params(model))
    return trained.right(), after_one_pass(start).right()


@trap("mx", "torchvision, 64 px, one pass")
def norm_forward_only() -> tuple[Stages, Stages]:
    """Gluon's own `BatchNorm`, whose statistics move in the backward pass, after a training pass without one."""
    from mxnet import autograd, nd
    from mxnet.gluon import nn

    def batch_norm(channels, settings):
        return nn.BatchNorm(momentum=1 - settings.momentum, epsilon=settings.epsilon, in_channels=channels)

    start = untrained(64)
    with replaced("mx", "layers.BatchNorm", batch_norm) as backend:
        model = start.model("mx")
        with autograd.record():
            model(nd.array(start.images, dtype="float64"), watch=lambda stage, x: x)
        nd.waitall()
        return backend.activations(model, start.images), after_one_pass(start).right()


# ---------------------------------------------------------------------------------------- blocks, heads, losses


@trap("pt", "d2l, 96 px")
def branch_order() -> tuple[Stages, Stages]:
    """The 5x5 branch before the 3x3 branch, as in Inception v3."""
    import torch

    def swapped(self, x):
        y5 = self.branch5x5(self.branch5x5_reduce(x))
        y3 = self.branch3x3(self.branch3x3_reduce(x))
        return torch.cat([self.branch1x1(x), y5, y3, self.pool_proj(self.pool(x))], dim=1)

    right = scene("d2l", 96)
    with replaced("pt", "googlenet.Inception.forward", swapped) as backend:
        return backend.activations(right.model("pt"), right.images), right.right()


@trap("jax", "torchvision, 64 px", of="aux1")
def flatten_order() -> tuple[Stages, Stages]:
    """(H, W, C) flattened before the heads' dense layer, whose weights are over (C, H, W)."""
    found = scene("torchvision", 64)
    right, head = found.right(), found.model("jax").aux1
    x = head.conv(right["inception4a"].transpose(0, 2, 3, 1))  # 4 x 4 pixels, which an adaptive pool leaves alone
    y = head.fc2(head.fc1(x.reshape(len(x), -1)))
    return right | {"aux1": np.asarray(y)}, right


@trap("pt", "bvlc, 96 px")
def dropout_on() -> tuple[Stages, Stages]:
    """Dropout of 0.4 still on at prediction: `model.eval()` forgotten."""
    import torch

    right = scene("bvlc", 96)
    model = right.model("pt").train()
    model.fc.dropout.p = 0.4
    torch.manual_seed(0)
    return pt_stages(model, right.images), right.right()


@trap("pt", "d2l, 96 px", of="loss")
def loss_probabilities() -> tuple[Stages, Stages]:
    """The network ends in a softmax, and PyTorch's `cross_entropy` takes another."""
    import torch
    from torch.nn.functional import cross_entropy

    found = scene("d2l", 96)
    logits = torch.from_numpy(found.right()["fc"])
    wrong = cross_entropy(logits.softmax(1), torch.from_numpy(found.labels))
    return {"loss": wrong.numpy()}, {"loss": _loss(found)}


@trap("mx", "d2l, 96 px", of="loss")
def loss_from_logits() -> tuple[Stages, Stages]:
    """`from_logits=True` for Gluon's loss, where it means that the softmax has been taken already."""
    from mxnet import gluon, nd

    found = scene("d2l", 96)
    logits = nd.array(found.right()["fc"], dtype="float64")
    wrong = gluon.loss.SoftmaxCrossEntropyLoss(from_logits=True)(logits, nd.array(found.labels)).mean()
    return {"loss": np.array(wrong.asscalar())}, {"loss": _loss(found)}


def _loss(found: Scene) -> Array:
    return np.array(reference.softmax_cross_entropy(found.right()["fc"], found.labels)[0])


# ------------------------------------------------------------------------------------------------------------- table

FRAMEWORKS = {"pt": "PyTorch", "mx": "MXNet", "jax": "JAX"}
WHAT = {"fc": "", "aux1": " (of `aux1`)", "loss": " (the loss)"}


def row(found: Trap, measured: Measured) -> str:
    """One line of the table."""
    where = f"{FRAMEWORKS[found.backend]}, {found.network}"
    error = f"{two_digits(measured.error)}{WHAT[found.of]}"
    shapes = f"differ from `{measured.misshapen}` on" if measured.misshapen else "equal"
    return f"| `{found.name}` | {found.mistake} | {where} | {error} | `{measured.stage}` | {shapes} |"


def two_digits(error: float) -> str:
    """0.29, 14, 260, 3.4e-05."""
    if not 1e-3 <= error < 1e4:
        return f"{error:.1e}"
    rounded = float(f"{error:.1e}")
    return f"{rounded:.0f}" if rounded >= 10 else f"{rounded:#.2g}"


HEADER = """\
| trap | what one does wrong | where | error of the logits | first stage that differs | shapes of the stages |
|---|---|---|---|---|---|"""


def main(names: list[str]) -> int:
    """Print the table; 1 when a framework is missing, 2 for a trap that there is not."""
    unknown = [name for name in names if name not in TRAPS]
    if unknown:
        print(f"unknown trap: expected one or more of {', '.join(TRAPS)}, got {', '.join(unknown)}", file=sys.stderr)
        return 2
    os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=1")  # JAX compiles in half the time
    print(HEADER)
    status = 0
    for name in names or TRAPS:
        try:
            print(row(TRAPS[name], measure(TRAPS[name])), flush=True)
        except spec.InvalidInput as error:
            print(f"{name}: {error}", file=sys.stderr)
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
