"""TorchScript programs, run step by step: each operation of their graph is called as PyTorch's function of that name.

So a recorder sees a program as it sees a module that is written in Python. Inside PyTorch's own interpreter it would
see nothing.

Source: torch/csrc/jit/OVERVIEW.md of PyTorch 2.13.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_FUNCTIONAL = "__torch__.torch.nn.functional."


def load_program(path: Path) -> torch.jit.ScriptModule:
    """A program on the CPU."""
    program: torch.jit.ScriptModule = torch.jit.load(str(path), map_location="cpu")
    return program


def trains(program: torch.jit.ScriptModule) -> bool:
    """Whether a program asks if it is in training; one that was traced or frozen does not."""
    inlined = program.inlined_graph
    return any(node.s("name") == "training" for node in inlined.findAllNodes("prim::GetAttr"))


def run_program(program: torch.jit.ScriptModule, x: Tensor, places: list[str]) -> Any:
    """What a program puts out for images (N, C, H, W).

    Args:
        program: The program.
        x: The images.
        places: Takes the names of the parts that are running, the innermost last.

    Raises:
        NotImplementedError: for a step of the language that is unknown here.
    """
    names = {id(part): name for name, part in program.named_modules()}
    return _Interpreter(names, places).method(program, "forward", [x])


class _Interpreter:
    def __init__(self, names: dict[int, str], places: list[str]) -> None:
        self.names = names
        self.places = places

    def method(self, part: torch.jit.ScriptModule, name: str, inputs: list[Any]) -> Any:
        """Call a method of a part."""
        graph = part._c._get_method(name).graph
        if any(not _qualified(node).startswith(_FUNCTIONAL) for node in graph.findAllNodes("prim::CallFunction")):
            graph = graph.copy()
            torch._C._jit_pass_inline(graph)  # functions of somebody's own
        self.places.append(self.names.get(id(part), self.places[-1]))
        values = dict(zip(_names(graph.inputs()), [part, *inputs], strict=True))
        outputs = self.block(graph, values)
        self.places.pop()
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def block(self, block: Any, values: dict[str, Any]) -> list[Any]:
        """Run the steps of a graph or a block, and return what it puts out."""
        for node in block.nodes():
            # By number: one of PyTorch's iterators takes 0.2 ms and more in a process where JAX has compiled a lot.
            inputs = [values.get(node.inputsAt(i).debugName()) for i in range(node.inputsSize())]
            outputs = self.step(node, inputs, values)
            names = [node.outputsAt(i).debugName() for i in range(node.outputsSize())]
            values |= dict(zip(names, outputs, strict=True))
        return [values[name] for name in _names(block.outputs())]

    def step(self, node: Any, inputs: list[Any], values: dict[str, Any]) -> list[Any]:
        """Run one step."""
        kind = node.kind()
        if kind == "prim::If":
            yes, no = node.blocks()
            return self.block(yes if inputs[0] else no, values)
        if kind == "prim::Loop":
            return self.loop(node, *inputs, values=values)
        if kind == "prim::CallMethod":
            part, *others = inputs
            return [self.method(part, node.s("name"), others)]
        if kind == "prim::CallFunction":
            function, arguments = getattr(F, _qualified(node).rpartition(".")[2]), inputs[1:]
            return [function(*arguments)]
        if kind in _STEPS:
            return _STEPS[kind](node, inputs)
        if kind.startswith("aten::"):
            y = _operation(node, inputs)
            return [y] if node.outputsSize() == 1 else list(y or ())
        raise NotImplementedError(f"{kind} in TorchScript")

    def loop(self, node: Any, most: int, going: bool, *carried: Any, values: dict[str, Any]) -> list[Any]:
        """Run a block until its condition is false, `most` times at most."""
        (block,) = node.blocks()
        names, state = _names(block.inputs()), list(carried)
        for turn in range(most):
            if not going:
                break
            values |= dict(zip(names, [turn, *state], strict=True))
            going, *state = self.block(block, values)
        return state


def _names(values: Any) -> list[str]:
    return [value.debugName() for value in values]


def _qualified(node: Any) -> str:
    """The whole name of the function that a step calls."""
    return str(next(node.inputs()).type().annotation_str)


def _operation(node: Any, inputs: list[Any]) -> Any:
    """One of PyTorch's operations, as the function by which modules call it."""
    name = node.kind().removeprefix("aten::")
    schema = torch._C.parse_schema(node.schema())
    arguments = schema.arguments
    named = {x.name: value for x, value in zip(arguments, inputs, strict=True)}
    if name == "batch_norm":
        order = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
        return F.batch_norm(*(named[key] for key in order))
    if name == "_convolution" and not named["transposed"]:
        order = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
        return F.conv2d(*(named[key] for key in order))
    plain = [value for x, value in zip(arguments, inputs, strict=True) if not x.kwarg_only]
    exactly = getattr(getattr(torch.ops.aten, name), schema.overload_name or "default")
    return exactly(*plain, **{x.name: named[x.name] for x in arguments if x.kwarg_only})


def _constant(node: Any, inputs: list[Any]) -> list[Any]:
    return [None if node.output().type().kind() == "FunctionType" else node.output().toIValue()]


def _raised(node: Any, inputs: list[Any]) -> list[Any]:
    raise RuntimeError(inputs[0])


_STEPS: dict[str, Callable[[Any, list[Any]], list[Any]]] = {
    "prim::Constant": _constant,
    "prim::GetAttr": lambda node, inputs: [getattr(inputs[0], node.s("name"))],
    "prim::ListConstruct": lambda node, inputs: [inputs],
    "prim::TupleConstruct": lambda node, inputs: [tuple(inputs)],
    "prim::DictConstruct": lambda node, inputs: [dict(zip(inputs[::2], inputs[1::2], strict=True))],
    "prim::ListUnpack": lambda node, inputs: list(inputs[0]),
    "prim::TupleUnpack": lambda node, inputs: list(inputs[0]),
    "prim::TupleIndex": lambda node, inputs: [inputs[0][inputs[1]]],
    "prim::NumToTensor": lambda node, inputs: [torch.tensor(inputs[0])],
    "prim::Uninitialized": lambda node, inputs: [None],
    "prim::unchecked_cast": lambda node, inputs: inputs,
    "prim::RaiseException": _raised,
    "prim::dtype": lambda node, inputs: [inputs[0].dtype],
    "prim::device": lambda node, inputs: [inputs[0].device],
    "aten::__getitem__": lambda node, inputs: [inputs[0][inputs[1]]],
    "aten::__contains__": lambda node, inputs: [inputs[1] in inputs[0]],
    "aten::__is__": lambda node, inputs: [inputs[0] is inputs[1]],
    "aten::__isnot__": lambda node, inputs: [inputs[0] is not inputs[1]],
    "aten::append": lambda node, inputs: [inputs[0].append(inputs[1]) or inputs[0]],
    "aten::len": lambda node, inputs: [len(inputs[0])],
    "aten::warn": lambda node, inputs: [],
    "aten::format": lambda node, inputs: [""],
}
