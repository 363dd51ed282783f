"""What a PyTorch model does, whoever wrote it: one eager pass is recorded as a `harness.check.graph.Graph`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import spec
from googlenet_pt.files import read_file
from googlenet_pt.functions.recorder import Recorder, leaves, plain_tensors, statistics
from googlenet_pt.programs import run_program, trains
from harness.check.graph import Graph, Node, NotSeen, Recording
from harness.check.readers.rewriting import rewritten
from harness.weights.checkpoint import read_safetensors

DTYPES = ("float64", "float32")  # to try, in this order


def build(made: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    """Call a class or a function, with the same first weights each time."""
    torch.manual_seed(0)
    return made(**arguments)


def settle(model: nn.Module, dtype: str, seed: int | None, images: spec.Array) -> nn.Module:
    """Give a model its dtype, whatever images it will see.

    With a seed no parameter and no statistic stays neutral: what ignores one would pass.
    """
    if dtype == "float64" and not any(True for _ in model.parameters()):
        raise spec.InvalidInput("its numbers are constants, which stay what they are")
    numbers = torch.float64 if dtype == "float64" else torch.float32
    model.to(numbers)
    for module in model.modules():
        vars(module).update({key: x.to(numbers) for key, x in plain_tensors(module).items()})
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for x in (*model.parameters(), *statistics(model).values()) if seed is not None else ():
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

    The modules' flags are set, since `train` may be overridden; some ask whether there are gradients instead.

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
    with torch.set_grad_enabled(training), _places(model) as places:
        before = {name: x.clone() for name, x in statistics(model).items()}
        mode = Recorder(model, x, places, training=training)
        with mode:
            y = run_program(model, x, places) if program else model(x)
        mode.measure_momentum(model, before)
    ends = [(mode.known[id(end)], end) for end in leaves(y) if id(end) in mode.known]
    graph = Graph(_placed(mode.nodes, model), tuple(number for number, _ in ends), mode.arrays)
    outputs = [end.detach().to(torch.float64).numpy().copy() for _, end in ends]
    if program and not training:  # in training it drops
        with torch.no_grad():
            outputs = [end.to(torch.float64).numpy() for end in leaves(model(torch.from_numpy(images).to(dtype)))]
    return rewritten(Recording(graph, outputs, mode.samples, single=mode.single))


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
