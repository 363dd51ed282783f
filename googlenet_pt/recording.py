"""What a PyTorch model does, whoever wrote it: one eager pass is recorded as a `harness.check.graph.Graph`."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

import spec
from googlenet_pt.files import read_file
from googlenet_pt.programs import run_program, trains
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
    NotSeen,
    Padding,
    Recording,
    Scale,
    Softmax,
    Unknown,
    samples,
)
from harness.check.readers.rewriting import Channels, ChannelSum, Power, Product, rewritten
from harness.check.readers.written_norm import NUMBERS, ByChannel, batch_mean, batch_var
from harness.weights.checkpoint import read_safetensors
from spec.network import LRN, Add, AveragePool, Concat, Pads, Pair

DTYPES = ("float64", "float32")  # to try, in this order
TRAINING = True  # a training pass is recorded, too


def build(made: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    """Call a class or a function, with the same first weights each time."""
    torch.manual_seed(0)
    return made(**arguments)


def settle(model: nn.Module, dtype: str, seed: int | None) -> nn.Module:
    """Give a model its dtype. With a seed no parameter and no statistic stays neutral: what ignores one would pass."""
    if dtype == "float64" and not any(True for _ in model.parameters()):
        raise spec.InvalidInput("its numbers are constants, which stay what they are")
    model.to(torch.float64 if dtype == "float64" else torch.float32)
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for x in (*model.parameters(), *model.buffers()) if seed is not None else ():
            if x.is_floating_point() and not isinstance(x, nn.parameter.UninitializedTensorMixin) and x.numel():
                if bool((x == x.flatten()[0]).all()):
                    x += torch.from_numpy(0.1 * rng.random(tuple(x.shape))).to(x.dtype)
    return model


def load(model: nn.Module, path: Path) -> None:
    """Load a file of weights, a state dict or safetensors, by the model's own names; wrappers' prefixes may precede.

    Raises:
        spec.InvalidInput: when the file cannot be read, or an array is missing, left over or of another shape.
    """
    arrays = read_safetensors(path)[0] if path.suffix == ".safetensors" else read_file(path)
    own = {name for name in model.state_dict() if not name.endswith("num_batches_tracked")}
    arrays = {name: x for name, x in arrays.items() if not name.endswith("num_batches_tracked")}
    first = next(iter(own), "")
    prefixes = ["", *(name.removesuffix(first) for name in arrays if name.endswith(f".{first}"))]
    named = [
        {name.removeprefix(prefix): x for name, x in arrays.items() if name.startswith(prefix)} for prefix in prefixes
    ]
    state = max(named, key=lambda found: len(own & found.keys()))
    if wrong := sorted(own ^ state.keys()):
        raise spec.InvalidInput(
            f"it does not hold the model's own arrays: {len(own - state.keys())} are missing, "
            f"{len(state.keys() - own)} are left over, {', '.join(wrong[:3])} among them"
        )
    try:
        model.load_state_dict({name: torch.from_numpy(np.array(x)) for name, x in state.items()}, strict=False)
    except RuntimeError as error:
        raise spec.InvalidInput(" ".join(str(error).split())[:300]) from error


def parameters(model: nn.Module) -> int:
    """How many numbers are trained."""
    return sum(x.numel() for x in model.parameters())


def record(model: nn.Module, images: spec.Array, *, training: bool) -> Recording:
    """Run a model once on images (N, C, H, W), with dropout that drops nothing.

    The modules' flags are set, since `train` may be overridden.

    Raises:
        NotSeen: for a training pass of a program that knows no training.
    """
    program = isinstance(model, torch.jit.ScriptModule)
    if program and training and not trains(model):
        raise NotSeen
    for module in model.modules():
        module.training = training
    dtype = next((x.dtype for x in model.parameters()), torch.float32)
    x = torch.from_numpy(images).to(dtype)
    with torch.no_grad(), _places(model) as places:
        buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
        mode = _Recorder(model, x, places, training=training)
        with mode:
            y = run_program(model, x, places) if program else model(x)
        mode.measure_momentum(model, buffers)
    ends = [(mode.known[id(end)], end) for end in _leaves(y) if id(end) in mode.known]
    graph = Graph(_placed(mode.nodes, model), tuple(number for number, _ in ends), mode.arrays)
    outputs = [end.to(torch.float64).numpy().copy() for _, end in ends]
    if program and not training:  # in training it drops
        with torch.no_grad():
            outputs = [end.to(torch.float64).numpy() for end in _leaves(model(torch.from_numpy(images).to(dtype)))]
    return rewritten(Recording(graph, outputs, mode.samples))


def _placed(nodes: list[Node], model: nn.Module) -> tuple[Node, ...]:
    """Operations by the modules that are theirs alone; others, such as functions, by those whose output they read."""
    runs = Counter(node.place for node in nodes)
    own = {name for name, module in model.named_modules() if not any(module.children()) and runs[name] < 2}
    placed: list[Node] = []
    for node in nodes:
        before = zip(*(placed[number].place.split(".") for number in node.reads), strict=False)
        shared = ".".join(parts[0] for parts in takewhile(lambda parts: len(set(parts)) == 1, before))
        alone = node.place in own or node.arrays or not shared
        placed.append(node if alone else replace(node, place=shared))
    return tuple(placed)


@contextmanager
def _places(model: nn.Module) -> Iterator[list[str]]:
    """Yields the names of the modules that are running, the innermost last."""
    running = [""]
    hooks = []
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            continue  # it has none
        hooks.append(module.register_forward_pre_hook(lambda *_, name=name: running.append(name)))
        hooks.append(module.register_forward_hook(lambda *_: _leave(running), always_call=True))
    try:
        yield running
    finally:
        for hook in hooks:
            hook.remove()


def _leave(running: list[str]) -> None:
    running.pop()


def _leaves(y: Any) -> Iterator[Tensor]:
    """The tensors in what a model returns."""
    if isinstance(y, Tensor):
        yield y
    elif isinstance(y, Mapping):
        yield from (leaf for value in y.values() for leaf in _leaves(value))
    elif isinstance(y, tuple | list):
        yield from (leaf for value in y for leaf in _leaves(value))
    elif hasattr(y, "__dict__"):
        yield from _leaves(vars(y))


class _Recorder(TorchFunctionMode):
    """Notes each of PyTorch's functions that is called from outside PyTorch on what comes from the images."""

    def __init__(self, model: nn.Module, x: Tensor, places: list[str], *, training: bool) -> None:
        super().__init__()
        self.training = training
        self.places = places
        self.names = {id(array): name for name, array in (*model.named_parameters(), *model.named_buffers())}
        self.arrays: dict[str, spec.Array] = {}
        self.nodes: list[Node] = []
        self.samples: list[spec.Array] = []
        self.known: dict[int, int] = {}  # nodes by the identity of their tensors
        self.sources: dict[int, dict[str, Tensor]] = {}  # the named tensors that others are computed from
        self.kept: list[Tensor] = []  # an identity is a tensor's own as long as it lives
        self.end(x, self.node(Input(), [], x))

    def end(self, y: Tensor, number: int) -> None:
        """From now on this tensor is what that node puts out."""
        self.known[id(y)] = number
        self.kept.append(y)

    def node(self, op: Any, reads: list[int], y: Tensor, arrays: Mapping[str, Tensor] | None = None) -> int:
        """Note an operation and what it puts out."""
        named = {role: self.named(array) for role, array in (arrays or {}).items()}
        self.nodes.append(Node(op, tuple(reads), self.places[-1], tuple(y.shape[1:]), named))
        numbers = y.detach().real if y.is_complex() else y.detach()
        self.samples.append(samples(numbers.to(torch.float64).numpy()))
        return len(self.nodes) - 1

    def named(self, array: Tensor) -> str:
        """The name of an array, which is kept."""
        name = self.names.get(id(array), f"constant {len(self.arrays)}")  # equal ones may be one in a frozen program
        if name not in self.arrays:
            self.kept.append(array)
            self.arrays[name] = array.detach().to(torch.float64).numpy().copy()
        return name

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", str(func)).partition(".")[0]  # of TorchScript's with their overload
        read = [self.known[id(x)] for x in _leaves([args, kwargs]) if id(x) in self.known]
        dropping = name.rstrip("_") in _DROPOUTS and read
        # Shapes and numbers of a tensor are none; before an operation in place its input is still what it was.
        x = args[0] if args else kwargs.get("input")
        y = (x if name.endswith("_") else x.clone()) if dropping else func(*args, **kwargs)
        if read and isinstance(y, Tensor) and (statistic := self.statistic(name, x, y)):
            self.names[id(y)] = statistic
            self.kept.append(y)
        elif read and isinstance(y, Tensor):
            self.end(y, self.operation(name, args, kwargs, read, y))
        elif isinstance(y, Tensor):
            found = {name: x for part in _leaves([args, kwargs]) for name, x in self.named_in(part).items()}
            self.sources[id(y)] = self.sources.get(id(y), {}) | found
            self.kept.append(y)
        elif read and isinstance(y, tuple | list):
            for part in _leaves(y):
                self.end(part, self.node(Unknown(name), read, part))
        return y

    def operation(self, name: str, args: Any, kwargs: Any, read: list[int], y: Tensor) -> int:
        """Note a function; it is unknown where it is called in a way that no handler knows."""
        name = {"__get__": "data", "__getitem__": "index"}.get(name, name).strip("_")
        handler: Callable[..., Any] | None = _HANDLERS.get(name.removeprefix("i") if name in _IN_PLACE else name)
        try:
            made = handler and handler(self, y, *args, **kwargs)
        except (TypeError, ValueError, AttributeError, IndexError):
            made = None
        if isinstance(made, int):
            return made
        if not made:
            return self.node(Unknown(name), read, y)
        op, *arrays = made
        return self.node(op, read, y, *arrays)

    def named_in(self, x: Tensor) -> dict[str, Tensor]:
        """The named tensors that one which does not come from the images is computed from."""
        return {self.names[id(x)]: x} if id(x) in self.names else self.sources.get(id(x), {})

    def statistic(self, name: str, x: Any, y: Tensor) -> str | None:
        """The name of a mean over the batch and the map, or of the variance that is one of squares around it."""
        if name != "mean" or id(x) not in self.known or x.dim() < 2 or y.numel() != x.shape[1]:
            return None
        if not torch.equal(y.flatten(), x.mean((0, *range(2, x.dim())))):
            return None
        number = self.known[id(x)]
        if self.nodes[number].op == Power(exponent=2.0):
            centered = self.nodes[self.nodes[number].reads[0]]
            mean = batch_mean(centered.reads[0]) if centered.op == ByChannel("sub") else ""
            return batch_var(centered.reads[0]) if mean in centered.arrays else None
        return batch_mean(number)

    def measure_momentum(self, model: nn.Module, before: Mapping[str, Tensor]) -> None:
        """The share of batches' means in the running means, which are computed from them."""
        for name, running in model.named_buffers():
            for source, batch in self.sources.get(id(running), {}).items() if name in before else ():
                users = [i for i, node in enumerate(self.nodes) if source in node.arrays]
                if not users or source != batch_mean(self.nodes[users[0]].reads[0]):
                    continue
                apart = batch.flatten() - before[name].flatten()
                share = ((running.flatten() - before[name].flatten()) / apart)[apart.abs() > _APART].median()
                for i in users:
                    op = replace(self.nodes[i].op, momentum=float(f"{float(share):.4g}"))
                    self.nodes[i] = replace(self.nodes[i], op=op)

    def before(self, x: Any) -> Node:
        """The node that a tensor comes from."""
        return self.nodes[self.known[id(x)]]


_APART = 1e-6  # of a batch's mean and the running one, which are to be told apart
_IN_PLACE = ("iadd", "isub", "imul", "itruediv")
_DROPOUTS = ("dropout", "dropout2d", "feature_dropout")
Made = Any  # an operation, and its arrays by role where it has some; the number of a node; None: it is unknown


def _pair(x: Any) -> Pair:
    height, width = (x, x) if isinstance(x, int) else (x[0], x[-1])
    return int(height), int(width)


def _pads(x: Any) -> Pads:
    height, width = _pair(x)
    return (height, height), (width, width)


def _arrays(**roles: Tensor | None) -> dict[str, Tensor]:
    return {role: array for role, array in roles.items() if array is not None}


def _conv2d(
    r: _Recorder, y: Tensor, input: Tensor, weight: Tensor, bias=None, stride=1, padding=0, dilation=1, groups=1
) -> Made:
    kernel, dilation = _pair(weight.shape[2:]), _pair(dilation)
    if padding == "same":
        whole = [(side - 1) * step for side, step in zip(kernel, dilation, strict=True)]
        pads = tuple((n // 2, n - n // 2) for n in whole)
    else:
        pads = _pads(0 if padding == "valid" else padding)
    op = Convolution(len(weight), kernel, _pair(stride), pads, dilation, groups, bias is not None)
    return op, _arrays(weight=weight, bias=bias)


def _linear(r: _Recorder, y: Tensor, input: Tensor, weight: Tensor, bias=None) -> Made:
    return (Linear(len(weight), bias is not None), _arrays(weight=weight, bias=bias)) if input.dim() == 2 else None


def _max_pool2d(
    r, y, input, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False
) -> Made:
    if _pair(dilation) != (1, 1):
        return None
    kernel = _pair(kernel_size)
    made = spec.MaxPool(kernel, _pair(stride or kernel), _pads(padding), ceil=bool(ceil_mode))
    # PyTorch leaves out a last window that would begin behind the map and its padding.
    size = tuple(y.shape[2:])
    exact = [op for op in (made, spec.MaxPool(*_settings(made))) if op.output_sizes(tuple(input.shape[1:])) == size]
    return (exact[0],) if exact else None


def _settings(pool: Any) -> tuple[Any, ...]:
    return pool.kernel, pool.stride, pool.pad


def _avg_pool2d(
    r, y, input, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None
) -> Made:
    kernel = _pair(kernel_size)
    op = AveragePool(kernel, _pair(stride or kernel), _pads(padding), bool(count_include_pad))
    if divisor_override is not None:
        return None
    if op.output_sizes(tuple(input.shape[1:])) == tuple(y.shape[2:]):
        return (op,)
    if _pair(padding) != (0, 0):
        return None
    over = [
        (count - 1) * step + side - size
        for count, step, side, size in zip(y.shape[2:], op.strides, op.sides, input.shape[2:], strict=True)
    ]  # a last window that hangs over the edge is divided by its pixels
    return (AveragePool(kernel, op.stride, ((0, max(over[0], 0)), (0, max(over[1], 0))), count_pad=False),)


def _adaptive_avg_pool2d(r, y, input, output_size) -> Made:
    height, width = y.shape[2:]
    return (spec.AdaptiveAverage(int(height)),) if height == width else None


def _mean(r, y, input, dim=None, keepdim=False, dtype=None) -> Made:
    axes = {axis % 4 for axis in ([dim] if isinstance(dim, int) else dim or ())}
    if input.dim() != 4 or axes != {2, 3}:
        return None
    whole = r.node(spec.AdaptiveAverage(1), [r.known[id(input)]], y.reshape(*y.shape[:2], 1, 1))
    return whole if keepdim else r.node(Flatten(), [whole], y)


def _batch_norm(
    r, y, input, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5
) -> Made:
    op = Norm(eps, momentum, weight is not None, bias is not None, of_batch=bool(training))
    return op, _arrays(weight=weight, bias=bias, mean=running_mean, var=running_var)


def _local_response_norm(r, y, input, size, alpha=1e-4, beta=0.75, k=1.0) -> Made:
    return (LRN(int(size), float(alpha), float(beta), float(k)),) if size % 2 else None


def _dropout(r, y, input, p=0.5, training=True, inplace=False) -> Made:
    return (Dropout(float(p), always=not r.training),) if training else r.known[id(input)]


def _dropout2d(r, y, input, p=0.5, training=True, inplace=False) -> Made:
    return (
        (Dropout(float(p), always=not r.training, channels=math.prod(y.shape[2:]) > 1),)
        if training
        else r.known[id(input)]
    )


def _cat(r, y, tensors, dim=0) -> Made:
    traced = all(id(x) in r.known for x in tensors)
    return (Concat(),) if traced and dim % y.dim() == 1 and y.dim() in (2, 4) else None


def _concat(r, y, tensors, dim=0, axis=None) -> Made:
    return _cat(r, y, tensors, dim if axis is None else axis)


def _number(x: Any) -> float | None:
    """A number, which may be a tensor of its own."""
    return float(x) if not isinstance(x, Tensor) or (x.dim() == 0 and not x.requires_grad) else None


def _by_channel(r: _Recorder, name: str, input: Any, other: Any) -> Made:
    """Arithmetic with one number for each channel."""
    x, numbers = (input, other) if id(input) in r.known else (other, input)
    if id(numbers) in r.known or (x is other and name in ("sub", "div")):
        return None
    shape = (*(1,) * (x.dim() - numbers.dim()), *numbers.shape)
    if shape[1] != x.shape[1] or math.prod(shape) != x.shape[1]:
        return None
    return ByChannel(name), {NUMBERS: numbers, **r.named_in(numbers)}


def _add(r, y, input, other, alpha=1) -> Made:
    if id(input) in r.known and id(other) in r.known:
        return (Add(activation=None),) if alpha == 1 and input.shape == other.shape else None
    number = _number(other)
    return _by_channel(r, "add", input, other) if number is None else (Scale(shift=number * alpha),)


def _sub(r, y, input, other) -> Made:
    number = _number(other)
    return _by_channel(r, "sub", input, other) if number is None else (Scale(shift=-number),)


def _mul(r, y, input, other) -> Made:
    return _of_two(r, input, other, inverted=False)


def _truediv(r, y, input, other, rounding_mode=None) -> Made:
    return _of_two(r, input, other, inverted=True) if rounding_mode is None else None


def _of_two(r: _Recorder, input: Any, other: Any, *, inverted: bool) -> Made:
    if (number := _number(other)) is not None:
        return (Scale(factor=1 / number if inverted else number),)
    if id(input) in r.known and id(other) in r.known:
        return (Product(inverted=inverted),) if input.shape == other.shape else None
    return _by_channel(r, "div" if inverted else "mul", input, other)


def _power(exponent: float | None = None) -> Callable[..., Made]:
    """Numbers to the same power; without an `exponent` that is the second argument."""

    def made(r, y, input, *others) -> Made:
        power = _number(*others) if exponent is None else exponent
        return None if power is None or id(input) not in r.known else (Power(exponent=power),)

    return made


def _pad(r, y, input, pad, mode="constant", value=None) -> Made:
    left, right, above, below, before, behind = [*pad, *[0] * 6][:6]
    if mode != "constant" or len(pad) > 6 or min(pad) < 0:
        return None
    if before or behind:  # around the channels
        alone = not (value or left or right or above or below)
        return _over_channels(r, y, input, Channels(start=-before)) if alone else None
    return (Padding(((above, below), (left, right)), float(value or 0)),)


def _index(r, y, input, index) -> Made:
    """Neighboring channels of all pictures."""
    slices = index if isinstance(index, tuple) else (index,)
    if len(slices) < 2 or any(not isinstance(x, slice) or x.step not in (None, 1) for x in slices):
        return None
    return _slice(r, y, input, 1, slices[1].start or 0)


def _slice(r, y, input, dim=0, start=0, end=None, step=1) -> Made:
    if y.shape == input.shape:
        return r.known[id(input)]
    alone = dim == 1 and step == 1 and (y.shape[0], *y.shape[2:]) == (input.shape[0], *input.shape[2:])
    start = start + input.shape[1] if start < 0 else start
    return (Channels(start=int(start)),) if alone else None


def _avg_pool3d(
    r, y, input, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None
) -> Made:
    """A sum over channels, where these are the depth."""
    (size, *kernel), (pad, *pads) = ([x] * 3 if isinstance(x, int) else list(x) for x in (kernel_size, padding))
    single = (stride if isinstance(stride, int) else {*(stride or kernel_size)}) in (1, {1})
    if not single or kernel != [1, 1] or pads != [0, 0] or ceil_mode or (pad and not count_include_pad):
        return None
    return _over_channels(r, y, input, ChannelSum(size=size, before=pad, factor=1 / (divisor_override or size)))


def _over_channels(r: _Recorder, y: Tensor, input: Tensor, op: Any) -> Made:
    """An operation over the channels, which may be the depth of one channel."""
    if y.dim() == 4:
        return (op,)
    return r.node(op, [r.known[id(input)]], y[:, 0]) if y.dim() == 5 and y.shape[1] == 1 else None


def _softmax(r, y, input, dim=None, *_, **__) -> Made:
    return (Softmax(),) if y.dim() == 2 and dim in (None, 1, -1) else None


def _log_softmax(r, y, input, dim=None, *_, **__) -> Made:
    return (Softmax(log=True),) if y.dim() == 2 and dim in (None, 1, -1) else None


def _clamp(r, y, input, min=None, max=None, inplace=False) -> Made:
    kind = {(0, None): "relu", (0, 6): "relu6"}.get((min, max))
    return (Activation(kind),) if kind else None


def _leaky_relu(r, y, input, negative_slope=0.01, inplace=False) -> Made:
    return (Activation("leaky_relu", float(negative_slope)),)


def _pointwise(kind: str) -> Callable[..., Made]:
    return lambda r, y, input, inplace=False: (Activation(kind),)


def _same(r, y, input, *_, **__) -> Made:
    """What changes no number."""
    return r.known[id(input)] if y.shape == input.shape else None


def _reshaped(r, y, input, *_, **__) -> Made:
    """Another shape of the same numbers in the same order."""
    before = r.before(input)
    if len(y) != len(input) or math.prod(y.shape) != math.prod(input.shape):
        return None
    if y.dim() == 2 and isinstance(before.op, Unknown) and before.op.name == "to HWC":
        return r.node(Flatten(last=True), list(before.reads), y)
    depth = {4: input.shape[1:], 5: input.shape[2:]}.get(input.dim()), {4: y.shape[1:], 5: y.shape[2:]}.get(y.dim())
    if y.shape == input.shape or (y.dim() + input.dim() == 9 and depth[0] == depth[1]):  # channels as the depth of one
        return r.known[id(input)]
    if y.dim() == 2 and input.dim() == 4:
        return (Flatten(),)
    return (Flatten(),) if y.dim() == 4 and input.dim() == 2 and y.shape[2:] == (1, 1) else None


def _permute(r, y, input, *dims) -> Made:
    order = tuple(dims[0]) if len(dims) == 1 else dims
    return (Unknown("to HWC" if order == (0, 2, 3, 1) else "permute"),)


_HANDLERS: dict[str, Callable[..., Made]] = {
    "conv2d": _conv2d,
    "linear": _linear,
    "max_pool2d": _max_pool2d,
    "avg_pool2d": _avg_pool2d,
    "adaptive_avg_pool2d": _adaptive_avg_pool2d,
    "mean": _mean,
    "batch_norm": _batch_norm,
    "local_response_norm": _local_response_norm,
    "dropout": _dropout,
    "dropout2d": _dropout2d,
    "feature_dropout": _dropout2d,
    "cat": _concat,
    "concat": _concat,
    "concatenate": _concat,
    "add": _add,
    "radd": _add,
    "sub": _sub,
    "mul": _mul,
    "rmul": _mul,
    "multiply": _mul,
    "divide": _truediv,
    "pow": _power(),
    "square": _power(2.0),
    "sqrt": _power(0.5),
    "rsqrt": _power(-0.5),
    "reciprocal": _power(-1.0),
    "index": _index,
    "slice": _slice,
    "narrow": lambda r, y, input, dim, start, length: _slice(r, y, input, dim, start),
    "avg_pool3d": _avg_pool3d,
    "truediv": _truediv,
    "div": _truediv,
    "pad": _pad,
    "constant_pad_nd": lambda r, y, input, pad, value=0: _pad(r, y, input, pad, "constant", value),
    "softmax": _softmax,
    "log_softmax": _log_softmax,
    "clamp": _clamp,
    "clip": _clamp,
    "hardtanh": _clamp,
    "leaky_relu": _leaky_relu,
    "permute": _permute,
    **{kind: _pointwise(kind) for kind in ("relu", "relu6", "sigmoid", "silu", "tanh")},
    **dict.fromkeys(("contiguous", "clone", "to", "float", "double", "type", "detach", "data", "requires_grad"), _same),
    **dict.fromkeys(("flatten", "view", "reshape", "squeeze", "unsqueeze"), _reshaped),
}
