"""What a Gluon model or a symbol does, whoever wrote it: one pass, operator by operator, is recorded as a graph."""

from __future__ import annotations

import ast
import ctypes
import json
import math
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import mxnet as mx
import numpy as np
from mxnet import autograd, gluon
from mxnet.base import _LIB, check_call, py_str
from mxnet.ndarray import NDArray, register

import spec
from harness.check.graph import (
    Activation,
    Convolution,
    Dropout,
    Flatten,
    Graph,
    Input,
    Linear,
    Node,
    Norm,
    Padding,
    Recording,
    Scale,
    Softmax,
    Unknown,
    samples,
)
from harness.check.readers.rewriting import ChannelSum, Power, Product, rewritten
from harness.weights.formats import gluon as params_file
from spec.network import LRN, Add, AveragePool, Concat, Pads, Pair

DTYPES = ("float64", "float32")  # to try, in this order: MXNet's own LRN refuses float64
TRAINING = True  # a training pass is recorded, too

# ------------------------------------------------------------------------------------------------------- the model


def build(made: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    """Call a class or a function."""
    return made(**arguments)


def settle(model: gluon.Block, dtype: str, seed: int | None) -> gluon.Block:
    """The model in a dtype, and arrays where it has none. With a seed nothing trained and no statistic stays neutral.

    What ignores a parameter would pass if it were. Arrays whose shapes only a pass shows are moved once they are made.
    """
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


def _moved(x: NDArray, rng: np.random.Generator) -> NDArray:
    """The array, or if its numbers are all alike, one that is a little off."""
    numbers = x.asnumpy()
    if numbers.size and (numbers == numbers.reshape(-1)[0]).all():
        return _array(numbers + 0.1 * rng.random(x.shape), x.dtype)
    return x


def _array(x: spec.Array, dtype: Any) -> NDArray:
    """The array, of the kind that MXNet's NumPy mode wants where it is on."""
    y = mx.nd.array(x, dtype=dtype)
    return y.as_np_ndarray() if mx.util.is_np_array() else y


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
    _fill(own, arrays)


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
        parameter._load_init(_array(x, x.dtype), mx.cpu(), cast_dtype=True, dtype_source="saved")
    if wrong:
        raise spec.InvalidInput(f"{len(wrong)} arrays have other shapes than the model's: {'; '.join(wrong[:3])}")


def parameters(model: gluon.Block) -> int:
    """How many numbers are trained."""
    return sum(math.prod(x.shape) for x in set(_made(model).values()) if x.grad_req != "null")


def _made(model: gluon.Block) -> dict[str, gluon.Parameter]:
    """The parameters that have their arrays, by the names of the attributes."""
    return {name: x for name, x in model._collect_params_with_prefix().items() if x._data is not None}


class Symbol(gluon.SymbolBlock):
    """A graph that was exported, ``NAME-symbol.json``, with the parameters beside it, ``NAME-0000.params``.

    Labels, which a loss in it reads, are zeros.

    Raises:
        spec.InvalidInput: when a file cannot be read, an array is missing or has another shape, or it reads more than
            images.
    """

    def __init__(self, path: Path) -> None:
        stem = re.escape(path.name.removesuffix("-symbol.json"))
        files = [file for file in path.parent.iterdir() if re.fullmatch(rf"{stem}-\d{{4}}\.params", file.name)]
        if len(files) != 1:
            expected = path.name.replace("-symbol.json", "-0000.params")
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
            if node["op"] == "BatchNorm" and _settings(node.get("attrs", {})).get("fix_gamma", True):
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
    x = _array(images, dtype)
    kept = {parameter: parameter.data().copy() for parameter in _made(model).values()}
    with autograd.train_mode() if training else autograd.predict_mode():
        usual = [_numbers(y) for y in _leaves(model(x))]  # from here on every parameter that is used has its shape
        recorder = _Recorder(model, x, training=training)
        with recorder.watching():
            ends = list(_leaves(model(x)))
    recorder.measure_momentum()
    for parameter, before in kept.items():
        parameter.set_data(before)
    known = [i for i, end in enumerate(ends) if id(end) in recorder.known]
    drops = any(isinstance(node.op, Dropout) and node.op.always for node in recorder.nodes)
    outputs = [_numbers(ends[i]) if training or drops else usual[i] for i in known]
    graph = Graph(tuple(recorder.nodes), tuple(recorder.known[id(ends[i])] for i in known), recorder.arrays)
    return rewritten(Recording(graph, outputs, recorder.samples))


def _numbers(x: NDArray) -> spec.Array:
    return x.asnumpy().astype(np.float64)


def _leaves(y: Any) -> Iterator[NDArray]:
    """The arrays in what a model returns."""
    if isinstance(y, NDArray):
        yield y
    elif isinstance(y, Mapping):
        yield from (leaf for value in y.values() for leaf in _leaves(value))
    elif isinstance(y, tuple | list):
        yield from (leaf for value in y for leaf in _leaves(value))


@cache
def _operators() -> dict[str, ctypes.c_void_p]:
    """The handle of every operator; several names can have the same."""
    names, count = ctypes.POINTER(ctypes.c_char_p)(), ctypes.c_uint()
    check_call(_LIB.MXListAllOpNames(ctypes.byref(count), ctypes.byref(names)))
    handles = {}
    for i in range(count.value):
        handle = ctypes.c_void_p()
        check_call(_LIB.NNGetOpHandle(names[i], ctypes.byref(handle)))
        handles[py_str(names[i])] = handle
    return handles


@cache
def _names() -> dict[int | None, str]:
    """The name of every operator by its handle: of several the one that it has here."""
    here = {*_HANDLERS, *_RANDOM, *_COMPARISONS}
    operators = sorted(_operators().items(), key=lambda item: item[0] in here)
    return {handle.value: name for name, handle in operators}


def _settings(texts: Mapping[str, Any]) -> dict[str, Any]:
    """An operator's settings, which arrive as texts in part; without those that are not set."""
    values = {name: _value(str(text)) for name, text in texts.items()}
    return {name: value for name, value in values.items() if value is not None}


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(re.sub(r"(?<=\d)L\b", "", text))  # Python 2 wrote (3L, 3L)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text


class _Call(NamedTuple):
    """One use of an operator."""

    inputs: Sequence[NDArray]
    settings: Mapping[str, Any]
    y: NDArray  # what it puts out first

    def get(self, name: str, default: Any) -> Any:
        return self.settings.get(name, default)


class _Unmoved(NamedTuple):
    """A batch norm whose operator leaves the running mean alone: somebody else may move it."""

    node: int
    mean: NDArray
    before: spec.Array
    batch: spec.Array  # its own mean


class _Recorder:
    """Notes each of MXNet's operators that is called on what comes from the images."""

    def __init__(self, model: gluon.Block, x: NDArray, *, training: bool) -> None:
        self.model = model
        self.training = training
        self.dtype = x.dtype
        self.places = [""]
        self.parameters = {id(parameter.data()): parameter for parameter in _made(model).values()}
        self.names = {id(parameter.data()): name for name, parameter in _made(model).items()}
        self.arrays: dict[str, spec.Array] = {}
        self.nodes: list[Node] = []
        self.samples: list[spec.Array] = []
        self.known: dict[int, int] = {}  # nodes by the identity of their arrays
        self.kept: list[NDArray] = []  # an identity is an array's own as long as it lives
        self.random: set[int] = set()  # arrays of random numbers from 0 to 1
        self.masks: dict[int, float] = {}  # the share that is dropped by masks, which have their mean everywhere here
        self.unmoved: list[_Unmoved] = []
        self.end(x, self.node(Input(), [], x))

    # ------------------------------------------------------------------------------------------------ nodes

    def end(self, y: NDArray, number: int) -> None:
        """From now on this array is what that node puts out."""
        self.known[id(y)] = number
        self.kept.append(y)

    def node(
        self,
        op: Any,
        reads: Sequence[int],
        y: NDArray,
        arrays: Mapping[str, NDArray] | None = None,
        shape: spec.Shape | None = None,
    ) -> int:
        """Note an operation and what it puts out."""
        named = {role: self.named(array) for role, array in (arrays or {}).items()}
        self.nodes.append(Node(op, tuple(reads), self.places[-1], shape or tuple(y.shape[1:]), named))
        self.samples.append(samples(_numbers(y)))
        return len(self.nodes) - 1

    def named(self, array: NDArray) -> str:
        """The name of an array, which is kept."""
        if id(array) in self.known:
            raise ValueError("a parameter that comes from the images")
        name = self.names.setdefault(id(array), f"constant {len(self.arrays)}")
        if name not in self.arrays:
            self.kept.append(array)
            self.arrays[name] = _numbers(array)
        return name

    def before(self, x: NDArray) -> Node:
        """The node that an array comes from."""
        return self.nodes[self.known[id(x)]]

    def learned(self, array: NDArray, neutral: float) -> bool:
        """Whether a scale or a shift is one: it is trained, or not what changes nothing."""
        parameter = self.parameters.get(id(array))
        return (parameter is not None and parameter.grad_req != "null") or bool((_numbers(array) != neutral).any())

    def measure_momentum(self) -> None:
        """Share of the batch in the running means that somebody else than the operator has moved."""
        for number, mean, before, batch in self.unmoved:
            apart = np.abs(batch - before) > 1e-6
            share = np.median(((_numbers(mean) - before) / (batch - before))[apart]) if apart.any() else 0.0
            node = self.nodes[number]
            self.nodes[number] = replace(node, op=replace(node.op, momentum=float(f"{share:.4g}")))

    # ------------------------------------------------------------------------------------------- operators

    @contextmanager
    def watching(self) -> Iterator[None]:
        """A context in which every operator is noted, one by one, also of blocks that are hybridized."""
        self.invoke = register._imperative_invoke
        reshape = NDArray.reshape

        def reshaped(x: NDArray, *shape: Any, **settings: Any) -> NDArray:  # no operator of MXNet does that
            y = reshape(x, *shape, **settings)
            if id(x) in self.known:
                self.end(y, self.operation("Reshape", _Call([x], {}, y)))
            return y

        def same(changed: Callable[[NDArray], NDArray]) -> Callable[[NDArray], NDArray]:
            def made(x: NDArray) -> NDArray:
                y = changed(x)
                if id(x) in self.known:
                    self.end(y, self.known[id(x)])
                return y

            return made

        never = property(lambda block: False, lambda block, value: None)
        with ExitStack() as stack:
            stack.enter_context(_set(register, "_imperative_invoke", self.noted))
            stack.enter_context(_set(NDArray, "reshape", reshaped))
            for name in ("as_np_ndarray", "as_nd_ndarray", "detach"):
                stack.enter_context(_set(NDArray, name, same(getattr(NDArray, name))))
            stack.enter_context(_set(gluon.SymbolBlock, "forward", lambda block, *inputs: self.symbol(block, inputs)))
            stack.enter_context(_set(gluon.HybridBlock, "_active", never))
            self.name_places("", self.model, stack)
            yield

    def name_places(self, name: str, block: gluon.Block, stack: ExitStack) -> None:
        """Note which blocks are running, the innermost last."""
        stack.callback(block.register_forward_pre_hook(lambda *_: self.places.append(name)).detach)
        stack.callback(block.register_forward_hook(lambda *_: self.leave()).detach)
        for key, child in block._children.items():
            self.name_places(f"{name}.{key}" if name else key, child, stack)

    def leave(self) -> None:
        self.places.pop()

    def symbol(self, block: gluon.SymbolBlock, inputs: Sequence[NDArray]) -> Any:
        """Call the operators of a graph, one after the other."""
        variables, graph = block._cached_graph
        given = {variable.name: x for variable, x in zip(variables, inputs, strict=True)}
        stored, values, place = json.loads(graph.tojson()), [], self.places[-1]
        for node in stored["nodes"]:
            name = node["name"]
            if node["op"] == "null":
                values.append([given[name] if name in given else block.params[name].data()])
                continue
            self.places[-1] = f"{place}.{name}" if place else name
            settings = {key: text for key, text in node.get("attrs", {}).items() if not key.startswith("__")}
            read = [values[i][output] for i, output, *_ in node["inputs"]]
            handle = _operators()[node["op"]].value
            y = self.noted(handle, read, list(settings), list(settings.values()), None, False, False)
            values.append(y if isinstance(y, list) else [y])
        self.places[-1] = place
        ends = [values[i][output] for i, output, *_ in stored["heads"]]
        return ends[0] if len(ends) == 1 else ends

    def noted(
        self, handle: int, inputs: Sequence[NDArray], keys: Sequence[str], texts: Sequence[Any], out: Any, *rest: Any
    ) -> Any:
        """Do what an operator of MXNet does, and note it where it reads what comes from the images."""
        name = _names()[handle]
        settings = _settings(dict(zip(keys, texts, strict=True)))
        traced = [x for x in inputs if id(x) in self.known]
        if name == "Dropout" and traced:  # it drops nothing
            y = self.invoke(_operators()["_copy"].value, inputs, [], [], out, *rest)
        else:
            y = self.invoke(handle, inputs, keys, texts, out, *rest)
        several = list(y) if isinstance(y, list | tuple) else [y]
        if not traced:
            return self.drawn(name, inputs, settings, y) if len(several) == 1 else y
        self.end(several[0], self.operation(name, _Call(inputs, settings, several[0])))
        for other in several[1:]:
            self.end(other, self.node(Unknown(name), [self.known[id(x)] for x in traced], other))
        return y

    def drawn(self, name: str, inputs: Sequence[NDArray], settings: Mapping[str, Any], y: NDArray) -> NDArray:
        """What does not come from the images: of random numbers and masks it is remembered that they are."""
        if name in _RANDOM and (settings.get("low", 0), settings.get("high", 1)) == (0, 1):
            self.random.add(id(y))
            self.kept.append(y)
        if name in _COMPARISONS and id(inputs[0]) in self.random:
            share = float(settings["scalar"])
            share = 1 - share if "less" in name else share
            y = _array(np.full(y.shape, 1 - share), self.dtype)
            self.masks[id(y)] = share
        for x in inputs:
            if id(x) in self.masks:
                self.masks[id(y)] = self.masks[id(x)]
        if id(y) in self.masks:
            self.kept.append(y)
        return y

    def operation(self, name: str, call: _Call) -> int:
        """Note an operator; it is unknown where it is called in a way that no handler knows."""
        handler: Callable[[_Recorder, _Call], Made] | None = _HANDLERS.get(name)
        try:
            made = handler and handler(self, call)
        except (KeyError, TypeError, ValueError, IndexError):
            made = None
        if isinstance(made, int):
            return made
        op, *arrays = made or (Unknown(name),)
        return self.node(op, [self.known[id(x)] for x in call.inputs if id(x) in self.known], call.y, *arrays)


@contextmanager
def _set(owner: Any, name: str, value: Any) -> Iterator[None]:
    """A context in which an attribute is something else."""
    before = vars(owner).get(name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if before is None:
            delattr(owner, name)
        else:
            setattr(owner, name, before)


_RANDOM = ("_random_uniform", "_random_uniform_like", "_npi_uniform")
_COMPARISONS = ("_greater_scalar", "_greater_equal_scalar", "_lesser_scalar", "_lesser_equal_scalar")
_COMPARISONS += ("_npi_greater_scalar", "_npi_greater_equal_scalar", "_npi_less_scalar", "_npi_less_equal_scalar")
Made = Any  # an operation, and its arrays by role where it has some; the number of a node; None: it is unknown


def _layer(r: _Recorder, call: _Call, *roles: str) -> dict[str, NDArray]:
    """The arrays of a layer by role, whose first input comes from the images."""
    arrays = dict(zip(roles, call.inputs[1:], strict=False))
    if id(call.inputs[0]) not in r.known or any(id(x) in r.known for x in arrays.values()):
        raise ValueError("weights that come from the images")
    return arrays


def _pair(x: Any) -> Pair:
    height, width = (x, x) if isinstance(x, int) else x
    return int(height), int(width)


def _pads(x: Any) -> Pads:
    height, width = _pair(x)
    return (height, height), (width, width)


def _in_order(call: _Call) -> bool:
    return bool(call.get("layout", "NCHW") == "NCHW")


def _convolution(r: _Recorder, call: _Call) -> Made:
    arrays = _layer(r, call, "weight", "bias")
    kernel, stride, dilation = (_pair(call.get(name, None) or 1) for name in ("kernel", "stride", "dilate"))
    pads, groups = _pads(call.get("pad", None) or 0), int(call.get("num_group", 1))
    op = Convolution(len(call.inputs[1]), kernel, stride, pads, dilation, groups, "bias" in arrays)
    return (op, arrays) if _in_order(call) else None


def _dense(r: _Recorder, call: _Call) -> Made:
    arrays = _layer(r, call, "weight", "bias")
    whole = call.get("flatten", True) or call.inputs[0].ndim == 2
    return (Linear(len(call.inputs[1]), "bias" in arrays), arrays) if whole else None


def _pooling(r: _Recorder, call: _Call) -> Made:
    x, kind = call.inputs[0], call.get("pool_type", "max")
    if x.ndim != 4 or not _in_order(call) or kind not in ("max", "avg", "sum"):
        return None
    if call.get("global_pool", False):
        return {"avg": (spec.AdaptiveAverage(1),), "max": (spec.MaxPool(x.shape[2:], 1),)}.get(kind)
    kernel, stride = _pair(call.get("kernel", 1)), _pair(call.get("stride", None) or 1)
    pads, counted = _pads(call.get("pad", None) or 0), bool(call.get("count_include_pad", True))
    if r.before(x).op == _ROWS:
        return _channel_sum(r, call, kernel, pads) if stride == (1, 1) and counted and kind != "max" else None
    if kind == "sum":
        return None
    sizes = call.y.shape[2:]
    if kind == "max":
        ops = [
            spec.MaxPool(kernel, stride, pads, ceil=ceil)
            for ceil in (call.get("pooling_convention", "valid") == "full", False)
        ]
    else:
        ops = [AveragePool(kernel, stride, pads, counted)]
        over = [
            max((count - 1) * step + side - size, 0)
            for count, step, side, size in zip(sizes, stride, kernel, x.shape[2:], strict=True)
        ]
        if pads == _pads(0):  # a last window that hangs over the edge is divided by its pixels
            ops.append(AveragePool(kernel, stride, ((0, over[0]), (0, over[1])), count_pad=False))
    exact = [op for op in ops if op.output_sizes(x.shape[1:]) == sizes]
    return (exact[0],) if exact else None


_ROWS = Unknown("the channels as rows")


def _channel_sum(r: _Recorder, call: _Call, kernel: Pair, pads: Pads) -> Made:
    """A pool over the channels, which are the rows of the only map."""
    size, (before, after) = kernel[0], pads[0]
    map_ = r.before(call.inputs[0]).reads[0]
    if kernel[1] != 1 or before + after != size - 1 or pads[1] != (0, 0):
        return None
    op = ChannelSum(size=size, before=before, factor=1.0 if call.get("pool_type", "max") == "sum" else 1 / size)
    return r.node(op, [map_], call.y, shape=r.nodes[map_].shape)


def _adaptive(r: _Recorder, call: _Call) -> Made:
    height, width = call.y.shape[2:]
    return (spec.AdaptiveAverage(int(height)),) if height == width else None


def _mean(r: _Recorder, call: _Call) -> Made:
    x, axis = call.inputs[0], call.get("axis", ())
    axes = {int(side) % 4 for side in ((axis,) if isinstance(axis, int) else axis)}
    if x.ndim != 4 or axes != {2, 3} or call.get("exclude", False):
        return None
    whole = r.node(spec.AdaptiveAverage(1), [r.known[id(x)]], call.y, shape=(x.shape[1], 1, 1))
    return whole if call.y.ndim == 4 else r.node(Flatten(), [whole], call.y)


def _batch_norm(r: _Recorder, call: _Call) -> Made:
    arrays = _layer(r, call, "weight", "bias", "mean", "var")
    x, mean = call.inputs[0], arrays["mean"]
    if call.get("axis", 1) % x.ndim != 1:
        return None
    for role, neutral in (("weight", 1), ("bias", 0)):
        fixed = role == "weight" and call.get("fix_gamma", True)
        if fixed or not r.learned(arrays[role], neutral):
            del arrays[role]
    kept = float(call.get("momentum", 0.9))
    of_batch = r.training and not call.get("use_global_stats", False)
    if of_batch and kept == 1 and not isinstance(r.model, gluon.SymbolBlock):  # as our own symbols have it
        batch = _numbers(x).mean((0, *range(2, x.ndim)))
        r.unmoved.append(_Unmoved(len(r.nodes), mean, _numbers(mean), batch))
    momentum = None if kept == 1 else round(1 - kept, 12)
    epsilon = float(call.get("eps", np.float32(1e-3)))  # its default is a number in float32
    return Norm(epsilon, momentum, "weight" in arrays, "bias" in arrays, of_batch=of_batch), arrays


def _lrn(r: _Recorder, call: _Call) -> Made:
    size = int(call.settings["nsize"])
    numbers = (float(call.get(name, usual)) for name, usual in (("alpha", 1e-4), ("beta", 0.75), ("knorm", 2)))
    return (LRN(size, *numbers),) if size % 2 else None


def _dropout(r: _Recorder, call: _Call) -> Made:
    x, always = call.inputs[0], call.get("mode", "training") == "always"
    axes = call.get("axes", ())
    if not (always or r.training):  # a symbol says what it drops in training, and at inference it is nothing
        return r.known[id(x)]
    channels = bool(axes) and {axis % x.ndim for axis in axes} == {2, 3}
    op = Dropout(float(call.get("p", 0.5)), always=always and not r.training, channels=channels)
    return (op,) if channels or not axes else None


def _concat(r: _Recorder, call: _Call) -> Made:
    axis = call.get("dim", call.get("axis", 1))
    joins = all(id(x) in r.known for x in call.inputs) and call.y.ndim in (2, 4) and axis % call.y.ndim == 1
    return (Concat(),) if joins else None


def _same_maps(r: _Recorder, call: _Call) -> bool:
    return all(id(x) in r.known and x.shape == call.y.shape for x in call.inputs)


def _add(r: _Recorder, call: _Call) -> Made:
    return (Add(activation=None),) if _same_maps(r, call) else None


def _product(*, inverted: bool = False) -> Callable[[_Recorder, _Call], Made]:
    def made(r: _Recorder, call: _Call) -> Made:
        if _same_maps(r, call):
            return (Product(inverted=inverted),)
        x, mask = call.inputs if id(call.inputs[0]) in r.known else call.inputs[::-1]
        if inverted or id(mask) not in r.masks or mask.shape[:2] != x.shape[:2]:
            return None
        channels = mask.shape != x.shape
        dropped = r.node(Dropout(r.masks[id(mask)], always=not r.training, channels=channels), [r.known[id(x)]], x)
        factor = str(mask.asnumpy().reshape(-1)[0])  # 0.6 is 0.6 in float32 too
        return r.node(Scale(float(factor)), [dropped], call.y)

    return made


def _scalar(made: Callable[[float], Any]) -> Callable[[_Recorder, _Call], Made]:
    return lambda r, call: (made(float(call.settings["scalar"])),)


def _pad(r: _Recorder, call: _Call) -> Made:
    *others, above, below, left, right = call.settings["pad_width"]
    if call.settings["mode"] != "constant" or any(others) or len(others) != 4:
        return None
    value = call.get("constant_value", 0.0)
    return (Padding(((above, below), (left, right)), float(value)),)


def _softmax(*, log: bool = False) -> Callable[[_Recorder, _Call], Made]:
    def made(r: _Recorder, call: _Call) -> Made:
        plain = call.y.ndim == 2 and call.get("axis", -1) in (1, -1) and call.get("temperature", 1.0) == 1
        return (Softmax(log),) if plain else None

    return made


def _clip(r: _Recorder, call: _Call) -> Made:
    kind = {(0, 6): "relu6"}.get((call.get("a_min", None), call.get("a_max", None)))
    return (Activation(kind),) if kind else None


def _activation(r: _Recorder, call: _Call) -> Made:
    kind = call.settings["act_type"]
    return (Activation(kind),) if kind in ("relu", "sigmoid", "tanh") else None


def _leaky(r: _Recorder, call: _Call) -> Made:
    leaky = call.get("act_type", "leaky") == "leaky"
    return (Activation("leaky_relu", float(call.get("slope", 0.25))),) if leaky else None


def _pointwise(op: Any) -> Callable[[_Recorder, _Call], Made]:
    return lambda r, call: (op,)


def _same(r: _Recorder, call: _Call) -> Made:
    """What changes no number."""
    return r.known[id(call.inputs[0])]


def _reshaped(r: _Recorder, call: _Call) -> Made:
    """Another shape of the same numbers in the same order."""
    x, y = call.inputs[0], call.y
    before = r.before(x)
    if len(y) != len(x):
        return None
    if y.ndim == 2 and before.op == _TO_HWC:
        return r.node(Flatten(last=True), before.reads, y)
    if y.shape == x.shape or (isinstance(before.op, ChannelSum) and y.shape[1:] == before.shape):
        return r.known[id(x)]
    if x.ndim == 4 and y.ndim == 4 and y.shape[1:3] == (1, x.shape[1]):
        return (_ROWS,)
    if y.ndim == 2 and x.ndim == 4:
        return (Flatten(),)
    return (Flatten(),) if y.ndim == 4 and x.ndim == 2 and y.shape[2:] == (1, 1) else None


_TO_HWC = Unknown("to HWC")


def _transpose(r: _Recorder, call: _Call) -> Made:
    return (_TO_HWC if tuple(call.get("axes", ())) == (0, 2, 3, 1) else Unknown("transpose"),)


_HANDLERS: dict[str, Callable[[_Recorder, _Call], Made]] = {
    "Convolution": _convolution,
    "FullyConnected": _dense,
    "Pooling": _pooling,
    "_contrib_AdaptiveAvgPooling2D": _adaptive,
    "BatchNorm": _batch_norm,
    "LRN": _lrn,
    "Dropout": _dropout,
    "Activation": _activation,
    "LeakyReLU": _leaky,
    "clip": _clip,
    "Pad": _pad,
    "SoftmaxOutput": _softmax(),
    "SoftmaxActivation": _softmax(),
    "softmax": _softmax(),
    "log_softmax": _softmax(log=True),
    "transpose": _transpose,
    "_np_transpose": _transpose,
    "square": _pointwise(Power(exponent=2.0)),
    "sqrt": _pointwise(Power(exponent=0.5)),
    "rsqrt": _pointwise(Power(exponent=-0.5)),
    **{
        name: _pointwise(Activation(name.removeprefix("_npx_")))
        for name in ("relu", "sigmoid", "tanh", "_npx_relu", "_npx_sigmoid")
    },
    **dict.fromkeys(("Concat", "_npi_concatenate"), _concat),
    **dict.fromkeys(("mean", "_npi_mean"), _mean),
    **dict.fromkeys(("elemwise_add", "broadcast_add", "_npi_add", "add_n"), _add),
    **dict.fromkeys(("elemwise_mul", "broadcast_mul", "_npi_multiply"), _product()),
    **dict.fromkeys(("elemwise_div", "broadcast_div", "_npi_true_divide"), _product(inverted=True)),
    **dict.fromkeys(("_plus_scalar", "_npi_add_scalar"), _scalar(lambda number: Scale(shift=number))),
    **dict.fromkeys(("_minus_scalar", "_npi_subtract_scalar"), _scalar(lambda number: Scale(shift=-number))),
    **dict.fromkeys(("_rminus_scalar", "_npi_rsubtract_scalar"), _scalar(lambda number: Scale(-1.0, number))),
    **dict.fromkeys(("_mul_scalar", "_npi_multiply_scalar"), _scalar(lambda number: Scale(number))),
    **dict.fromkeys(("_div_scalar", "_npi_true_divide_scalar"), _scalar(lambda number: Scale(1 / number))),
    **dict.fromkeys(("_power_scalar", "_npi_power_scalar"), _scalar(lambda number: Power(exponent=number))),
    **dict.fromkeys(("_copy", "_copyto", "_np_copy", "BlockGrad", "Cast", "amp_cast"), _same),
    **dict.fromkeys(("Flatten", "Reshape", "reshape_like", "_npx_reshape", "_np_reshape"), _reshaped),
    **dict.fromkeys(("expand_dims", "squeeze", "_np_squeeze"), _reshaped),
}
