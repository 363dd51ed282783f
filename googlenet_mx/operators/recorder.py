"""One pass of a Gluon model, operator by operator."""

from __future__ import annotations

import ctypes
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
from mxnet import gluon
from mxnet.base import _LIB, check_call, py_str
from mxnet.ndarray import NDArray, register

import spec
from googlenet_mx.operators.handlers import HANDLERS, Made
from googlenet_mx.operators.values import Call, Unmoved, array_of, made_parameters, numbers_of, settings_of
from harness.check.graph import Input, Node, Unknown, samples

RANDOM = ("_random_uniform", "_random_uniform_like", "_npi_uniform")
COMPARISONS = ("_greater_scalar", "_greater_equal_scalar", "_lesser_scalar", "_lesser_equal_scalar")
COMPARISONS += ("_npi_greater_scalar", "_npi_greater_equal_scalar", "_npi_less_scalar", "_npi_less_equal_scalar")


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
    here = {*HANDLERS, *RANDOM, *COMPARISONS}
    operators = sorted(_operators().items(), key=lambda item: item[0] in here)
    return {handle.value: name for name, handle in operators}


class Recorder:
    """Notes each of MXNet's operators that is called on what comes from the images."""

    def __init__(self, model: gluon.Block, x: NDArray, *, training: bool) -> None:
        self.model = model
        self.training = training
        self.dtype = x.dtype
        self.places = [""]
        self.parameters = {id(parameter.data()): parameter for parameter in made_parameters(model).values()}
        self.names = {id(parameter.data()): name for name, parameter in made_parameters(model).items()}
        self.arrays: dict[str, spec.Array] = {}
        self.nodes: list[Node] = []
        self.samples: list[spec.Array] = []
        self.known: dict[int, int] = {}  # nodes by the identity of their arrays
        self.kept: list[NDArray] = []  # an identity is an array's own as long as it lives
        self.single = False  # whether a part is computed in float32
        self.random: set[int] = set()  # arrays of random numbers from 0 to 1
        self.masks: dict[int, float] = {}  # the share that is dropped by masks, which have their mean everywhere here
        self.unmoved: list[Unmoved] = []
        self.end(x, self.node(Input(), [], x))

    # ------------------------------------------------------------------------------------------------ nodes

    def end(self, y: NDArray, number: int) -> None:
        """From now on this array is what that node puts out."""
        self.known[id(y)] = number
        self.kept.append(y)
        self.single = self.single or y.dtype == np.float32

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
        self.samples.append(samples(numbers_of(y)))
        return len(self.nodes) - 1

    def named(self, array: NDArray) -> str:
        """The name of an array, which is kept."""
        if id(array) in self.known:
            raise ValueError("a parameter that comes from the images")
        name = self.names.setdefault(id(array), f"constant {len(self.arrays)}")
        if name not in self.arrays:
            self.kept.append(array)
            self.arrays[name] = numbers_of(array)
        return name

    def before(self, x: NDArray) -> Node:
        """The node that an array comes from."""
        return self.nodes[self.known[id(x)]]

    def learned(self, array: NDArray, neutral: float) -> bool:
        """Whether a scale or a shift is one: it is trained, or not what changes nothing."""
        parameter = self.parameters.get(id(array))
        return (parameter is not None and parameter.grad_req != "null") or bool((numbers_of(array) != neutral).any())

    def measure_momentum(self) -> None:
        """Share of the batch in the running means that somebody else than the operator has moved."""
        for number, mean, before, batch in self.unmoved:
            node, apart = self.nodes[number], np.abs(batch - before) > 1e-6
            if apart.any():
                share = np.median(((numbers_of(mean) - before) / (batch - before))[apart])
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
                self.end(y, self.operation("Reshape", Call([x], {}, y)))
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
        settings = settings_of(dict(zip(keys, texts, strict=True)))
        traced = [x for x in inputs if id(x) in self.known]
        if name == "Dropout" and traced:  # it drops nothing
            y = self.invoke(_operators()["_copy"].value, inputs, [], [], out, *rest)
        else:
            y = self.invoke(handle, inputs, keys, texts, out, *rest)
        several = list(y) if isinstance(y, list | tuple) else [y]
        if not traced:
            return self.drawn(name, inputs, settings, y) if len(several) == 1 else y
        self.end(several[0], self.operation(name, Call(inputs, settings, several[0])))
        for other in several[1:]:
            self.end(other, self.node(Unknown(name), [self.known[id(x)] for x in traced], other))
        return y

    def drawn(self, name: str, inputs: Sequence[NDArray], settings: Mapping[str, Any], y: NDArray) -> NDArray:
        """What does not come from the images: of random numbers and masks it is remembered that they are."""
        if name in RANDOM and (settings.get("low", 0), settings.get("high", 1)) == (0, 1):
            self.random.add(id(y))
            self.kept.append(y)
        if name in COMPARISONS and id(inputs[0]) in self.random:
            share = float(settings["scalar"])
            share = 1 - share if "less" in name else share
            y = array_of(np.full(y.shape, 1 - share), self.dtype)
            self.masks[id(y)] = share
        for x in inputs:
            if id(x) in self.masks:
                self.masks[id(y)] = self.masks[id(x)]
        if id(y) in self.masks:
            self.kept.append(y)
        return y

    def operation(self, name: str, call: Call) -> int:
        """Note an operator; it is unknown where it is called in a way that no handler knows."""
        handler: Callable[[Recorder, Call], Made] | None = HANDLERS.get(name)
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
