"""One pass of a model, function by function."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

import spec
from googlenet_pt.functions.handlers import HANDLERS
from harness.check.graph import Input, Node, Unknown, samples
from harness.check.readers.rewriting import Power
from harness.check.readers.written_norm import ByChannel, batch_mean, batch_var

_APART = 1e-6  # of a batch's mean and the running one, which are to be told apart
_IN_PLACE = ("iadd", "isub", "imul", "itruediv")
_DROPOUTS = ("dropout", "dropout2d", "feature_dropout")


def leaves(y: Any) -> Iterator[Tensor]:
    """The tensors in what a model returns."""
    if isinstance(y, Tensor):
        yield y
    elif isinstance(y, Mapping):
        yield from (leaf for value in y.values() for leaf in leaves(value))
    elif isinstance(y, tuple | list):
        yield from (leaf for value in y for leaf in leaves(value))
    elif hasattr(y, "__dict__"):
        yield from leaves(vars(y))


def statistics(model: nn.Module) -> dict[str, Tensor]:
    """What a model has beside its parameters, by name: buffers, and tensors that are plain attributes."""
    plain = {
        f"{name}.{key}" if name else key: x
        for name, module in model.named_modules()
        for key, x in plain_tensors(module).items()
    }
    return dict(model.named_buffers()) | plain


def plain_tensors(module: nn.Module) -> dict[str, Tensor]:
    """The tensors of floats that are a module's plain attributes, as running statistics are in textbooks."""
    return {key: x for key, x in vars(module).items() if isinstance(x, Tensor) and x.is_floating_point()}


class Recorder(TorchFunctionMode):
    """Notes each of PyTorch's functions that is called from outside PyTorch on what comes from the images."""

    def __init__(self, model: nn.Module, x: Tensor, places: list[str], *, training: bool) -> None:
        super().__init__()
        self.training = training
        self.places = places
        self.names = {id(array): name for name, array in (*model.named_parameters(), *statistics(model).items())}
        self.arrays: dict[str, spec.Array] = {}
        self.nodes: list[Node] = []
        self.samples: list[spec.Array] = []
        self.known: dict[int, int] = {}  # nodes by the identity of their tensors
        self.sources: dict[int, dict[str, Tensor]] = {}  # the named tensors that others are computed from
        self.kept: list[Tensor] = []  # an identity is a tensor's own as long as it lives
        self.single = False  # whether a part is computed in float32
        self.end(x, self.node(Input(), [], x))

    def end(self, y: Tensor, number: int) -> None:
        """From now on this tensor is what that node puts out."""
        self.known[id(y)] = number
        self.kept.append(y)
        self.single = self.single or y.dtype == torch.float32

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
        read = [self.known[id(x)] for x in leaves([args, kwargs]) if id(x) in self.known]
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
            found = {name: x for part in leaves([args, kwargs]) for name, x in self.named_in(part).items()}
            self.sources[id(y)] = self.sources.get(id(y), {}) | found
            self.kept.append(y)
        elif read and isinstance(y, tuple | list):
            for part in leaves(y):
                self.end(part, self.node(Unknown(name), read, part))
        return y

    def operation(self, name: str, args: Any, kwargs: Any, read: list[int], y: Tensor) -> int:
        """Note a function; it is unknown where it is called in a way that no handler knows."""
        name = {"__get__": "data", "__getitem__": "index"}.get(name, name).strip("_")
        handler: Callable[..., Any] | None = HANDLERS.get(name.removeprefix("i") if name in _IN_PLACE else name)
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

    @torch.no_grad()
    def measure_momentum(self, model: nn.Module, before: Mapping[str, Tensor]) -> None:
        """The share of batches' means in the running means, which are computed from them."""
        for name, running in statistics(model).items():
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
