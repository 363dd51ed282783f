"""What a Gluon model or a symbol does, whoever wrote it: one pass, operator by operator, is recorded as a graph."""

from __future__ import annotations

import json
import math
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
from mxnet import autograd, gluon
from mxnet.ndarray import NDArray

import spec
from googlenet_mx.operators.recorder import Recorder
from googlenet_mx.operators.values import array_of, made_parameters, numbers_of, settings_of
from harness.check import SYMBOL
from harness.check.graph import Dropout, Graph, Recording
from harness.check.readers.rewriting import rewritten
from harness.weights.formats import gluon as params_file

DTYPES = ("float64", "float32")  # to try, in this order: MXNet's own LRN refuses float64

# ------------------------------------------------------------------------------------------------------- the model


def build(made: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    """Call a class or a function."""
    return made(**arguments)


def settle(model: gluon.Block, dtype: str, seed: int | None, images: spec.Array) -> gluon.Block:
    """The model in a dtype, and arrays where it has none, whatever images it will see.

    With a seed nothing trained and no statistic stays neutral: what ignores one would pass. Arrays whose shapes only a
    pass shows are moved once they are made.

    Raises:
        spec.InvalidInput: for convolutions that MXNet does not run on a CPU.
    """
    if last := [name for name, block in _named_blocks("", model) if _kernel_layout(block) == "NHWC"]:
        raise spec.InvalidInput(
            f"MXNet runs convolutions whose channels are last on GPUs alone, {last[0]} among them: "
            "build the model with layout='NCHW'"
        )
    mx.random.seed(0)
    rng = None if seed is None else np.random.default_rng(seed)
    for parameter in model.collect_params().values():
        if parameter._data is None and not parameter._deferred_init:
            parameter.initialize(ctx=mx.cpu(), default_init=mx.init.MSRAPrelu())
    model.cast(dtype)
    for parameter in model.collect_params().values():
        # The scale and the shift of a batch norm that has none are there, too, and are not trained.
        fixed = parameter.grad_req == "null" and parameter.name.endswith(("gamma", "beta"))
        if parameter._deferred_init:
            own, place, default, data = parameter._deferred_init
            parameter._deferred_init = own, place, _Settled(default, None if fixed else rng), data
        elif rng is not None and not fixed:
            parameter.set_data(_moved(parameter.data(), rng))
    return model


def _named_blocks(name: str, block: gluon.Block) -> Iterator[tuple[str, gluon.Block]]:
    yield name, block
    for key, child in block._children.items():
        yield from _named_blocks(f"{name}.{key}" if name else key, child)


def _kernel_layout(block: gluon.Block) -> str:
    """Of a convolution."""
    return str(block._kwargs["layout"]) if isinstance(block, gluon.nn.Conv2D) else ""


def _moved(x: NDArray, rng: np.random.Generator) -> NDArray:
    """The array, or if its numbers are all alike, one that is a little off."""
    numbers = x.asnumpy()
    if numbers.size and (numbers == numbers.reshape(-1)[0]).all():
        return array_of(numbers + 0.1 * rng.random(x.shape), x.dtype)
    return x


class _Settled(mx.init.Initializer):
    """Another initializer, in float32, since some draw nothing else; with random numbers no array stays neutral."""

    def __init__(self, other: Any, rng: np.random.Generator | None) -> None:
        super().__init__()
        self.other, self.rng = mx.initializer.create(other), rng

    def __call__(self, desc: Any, array: NDArray) -> None:
        single = array.astype("float32")
        self.other(desc, single)
        double = single.astype(array.dtype)
        array[:] = double if self.rng is None else _moved(double, self.rng)


def load(model: gluon.Block, path: Path) -> None:
    """Load a ``.params`` file by the model's own names, those of its attributes or with prefixes.

    Raises:
        spec.InvalidInput: when the file cannot be read, or an array is missing, left over or of another shape.
    """
    if path.suffix != ".params":
        raise spec.InvalidInput("expected a .params file for a model of MXNet")
    arrays = params_file.read(path).arrays
    namings = (model._collect_params_with_prefix(), dict(model.collect_params().items()))
    own = max(namings, key=lambda naming: len(naming.keys() & arrays.keys()))
    if wrong := sorted(own.keys() ^ arrays.keys()):
        raise spec.InvalidInput(
            f"it does not hold the model's own arrays: {len(own.keys() - arrays.keys())} are missing, "
            f"{len(arrays.keys() - own.keys())} are left over, {', '.join(wrong[:3])} among them"
        )
    _fill(own, {name: x.astype(own[name].dtype) for name, x in arrays.items()})


def _fill(parameters: Mapping[str, gluon.Parameter], arrays: spec.Arrays) -> None:
    """Give parameters these arrays, and their dtypes."""
    wrong = []
    for name, parameter in parameters.items():
        x, shape = arrays[name], parameter.shape
        if shape is not None and (
            len(shape) != x.ndim or any(a not in (0, -1, b) for a, b in zip(shape, x.shape, strict=True))
        ):
            wrong.append(f"{name} is {x.shape}, not {tuple(shape)}")
            continue
        parameter._load_init(array_of(x, x.dtype), mx.cpu(), cast_dtype=True, dtype_source="saved")
    if wrong:
        raise spec.InvalidInput(f"{len(wrong)} arrays have other shapes than the model's: {'; '.join(wrong[:3])}")


def parameters(model: gluon.Block) -> int:
    """How many numbers are trained."""
    return sum(math.prod(x.shape) for x in set(made_parameters(model).values()) if x.grad_req != "null")


class Symbol(gluon.SymbolBlock):
    """A graph that was exported, ``NAME-symbol.json``, with the parameters beside it, ``NAME-0000.params``.

    `weights` is another file of its parameters. Labels, which a loss in it reads, are zeros.

    Raises:
        spec.InvalidInput: when a file cannot be read, an array is missing or has another shape, or it reads more than
            images.
    """

    def __init__(self, path: Path, weights: Path | None = None) -> None:
        stem = re.escape(path.name.removesuffix(SYMBOL))
        files = [file for file in path.parent.iterdir() if re.fullmatch(rf"{stem}-\d{{4}}\.params", file.name)]
        files = files if weights is None else [weights]
        if len(files) != 1:
            expected = path.name.replace(SYMBOL, "-0000.params")
            raise spec.InvalidInput(
                f"expected one file of its parameters beside it, {expected}; there are {len(files)}"
            )
        try:
            graph = mx.sym.load_json(path.read_text(encoding="utf-8"))
        except (mx.MXNetError, OSError, ValueError) as error:
            raise spec.InvalidInput("MXNet cannot read it as a symbol") from error
        arrays = params_file.read(files[0]).arrays
        free = [name for name in graph.list_inputs() if name not in arrays]
        labels = [name for name in free if name.endswith("label")]
        images = [name for name in free if name not in labels]
        if len(images) != 1:
            raise spec.InvalidInput(
                f"expected arrays for all its inputs but the images; {files[0].name} has none for {', '.join(images)}"
            )
        with warnings.catch_warnings():
            # MXNet says so of every symbol; the parameters, which come after, decide the type.
            warnings.filterwarnings("ignore", "Cannot decide type", UserWarning)
            super().__init__(graph, [mx.sym.var(name) for name in (*images, *labels)])
        self.labels = len(labels)
        own = dict(self.collect_params().items())
        _fill(own, arrays)
        nodes = json.loads(graph.tojson())["nodes"]
        for node in nodes:
            if node["op"] == "BatchNorm" and settings_of(node.get("attrs", {})).get("fix_gamma", True):
                own[nodes[node["inputs"][1][0]]["name"]].grad_req = "null"  # it is there, and taken for 1

    def forward(self, x: NDArray, *_: Any) -> Any:
        return super().forward(x, *(mx.nd.zeros(len(x), dtype=x.dtype) for _ in range(self.labels)))


# -------------------------------------------------------------------------------------------------------- the pass


def record(model: gluon.Block, images: spec.Array, *, training: bool) -> Recording:
    """Run a model once on images (N, C, H, W), with dropout that drops nothing; its statistics stay as they are.

    Its outputs are those of another pass, as a user makes it: of a hybridized model that of its graph. In training, and
    where dropout never ends, they are those of the recorded pass.
    """
    dtype = next((x.dtype for x in model.collect_params().values()), "float32")
    x = array_of(images, dtype)
    with autograd.train_mode() if training else autograd.predict_mode():
        with _kept(model):
            usual = [numbers_of(y) for y in _leaves(model(x))]  # and whatever it uses has its shape from now on
        with _kept(model):
            recorder = Recorder(model, x, training=training)
            with recorder.watching():
                ends = list(_leaves(model(x)))
            recorder.measure_momentum()
    known = [i for i, end in enumerate(ends) if id(end) in recorder.known]
    drops = any(isinstance(node.op, Dropout) and node.op.always for node in recorder.nodes)
    outputs = [numbers_of(ends[i]) if training or drops else usual[i] for i in known]
    graph = Graph(tuple(recorder.nodes), tuple(recorder.known[id(ends[i])] for i in known), recorder.arrays)
    return rewritten(Recording(graph, outputs, recorder.samples, single=recorder.single))


@contextmanager
def _kept(model: gluon.Block) -> Iterator[None]:
    """A context after which the parameters are what they were: a pass can move statistics."""
    before = [(parameter, parameter.data().copy()) for parameter in made_parameters(model).values()]
    try:
        yield
    finally:
        for parameter, x in before:
            parameter.set_data(x)


def _leaves(y: Any) -> Iterator[NDArray]:
    """The arrays in what a model returns."""
    if isinstance(y, NDArray):
        yield y
    elif isinstance(y, Mapping):
        yield from (leaf for value in y.values() for leaf in _leaves(value))
    elif isinstance(y, tuple | list):
        yield from (leaf for value in y for leaf in _leaves(value))
