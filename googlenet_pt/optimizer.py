"""Optimizers in PyTorch: the rows of `spec.optimizers`, and their state by canonical name."""

from __future__ import annotations

import numpy as np
import torch

import spec
from googlenet_pt.graphs import Graph, graph_on
from googlenet_pt.network import Network

_NATIVE = {"momentum": "momentum_buffer", "m": "exp_avg", "v": "exp_avg_sq"}  # canonical: PyTorch's


class TextbookRMSProp(torch.optim.Optimizer):
    """`spec.RMSProp`. PyTorch's own adds epsilon outside the root, begins with v = 0, and has the rate outside m."""

    def __init__(self, params: list[dict], textbook: spec.RMSProp, rate: float | torch.Tensor) -> None:
        super().__init__(params, {"lr": rate})
        self.textbook = textbook
        for p in (p for group in self.param_groups for p in group["params"]):
            self.state[p] = {"exp_avg_sq": torch.ones_like(p)}
            if textbook.momentum:
                self.state[p]["momentum_buffer"] = torch.zeros_like(p)

    @torch.no_grad()
    def step(self) -> None:
        """One step of all parameters, in place."""
        row = self.textbook
        for group in self.param_groups:
            params = group["params"]
            grads = [p.grad for p in params]
            if group["weight_decay"]:
                grads = torch._foreach_add(grads, params, alpha=group["weight_decay"])
            squares = [self.state[p]["exp_avg_sq"] for p in params]
            torch._foreach_mul_(squares, row.decay)
            torch._foreach_addcmul_(squares, grads, grads, 1 - row.decay)
            roots = torch._foreach_add(squares, row.epsilon)
            torch._foreach_sqrt_(roots)
            moves = torch._foreach_div(grads, roots)
            torch._foreach_mul_(moves, group["lr"])
            if row.momentum:
                buffers = [self.state[p]["momentum_buffer"] for p in params]
                torch._foreach_mul_(buffers, row.momentum)
                torch._foreach_add_(buffers, moves)
                moves = buffers
            torch._foreach_sub_(params, moves)


class Average:
    """The running average of the parameters, and the number of steps that it has seen."""

    def __init__(self, decay: float, params: list[torch.Tensor]) -> None:
        self.decay, self.params = decay, params
        self.t = torch.zeros((), dtype=torch.float64, device=params[0].device)  # a CUDA graph counts there
        self.values = {p: p.detach().clone() for p in params}

    @torch.no_grad()
    def update(self, *_: object) -> None:
        """Average the parameters in, after a step."""
        self.t += 1
        share = 1 - ((1 + self.t) / (10 + self.t)).clamp(max=self.decay)  # `spec.averaging_decay`
        shares = [share.to(self.params[0].dtype)] * len(self.params)
        torch._foreach_lerp_(list(self.values.values()), self.params, shares)


def make_optimizer(model: Network, optimizer: spec.Optimizer) -> torch.optim.Optimizer:
    """PyTorch's optimizer for one of `spec.optimizers`; its SGD, Adam and AdamW are the textbook's.

    Its attribute `graph` is what `update` captures steps with, or None.
    """
    graph = _graph(model)
    rate: float | torch.Tensor = optimizer.rate
    if graph is not None:  # the rate is read there in every step, in float32 as PyTorch's kernels want it
        rate = torch.tensor(optimizer.rate, dtype=torch.float32, device=model.parameter.device)
    groups = {True: [], False: []}
    for name, parameter in model.named_parameters():
        groups[spec.is_decayed(name)].append(parameter)
    decay = getattr(optimizer, "weight_decay", 0.0)
    params = [{"params": groups[True], "weight_decay": decay}, {"params": groups[False], "weight_decay": 0.0}]
    if isinstance(optimizer, spec.SGD):
        native = torch.optim.SGD(params, lr=rate, momentum=optimizer.momentum, nesterov=optimizer.nesterov, fused=True)
    elif isinstance(optimizer, spec.RMSProp):
        native = TextbookRMSProp(params, optimizer, rate)
    else:
        kind = torch.optim.AdamW if isinstance(optimizer, spec.AdamW) else torch.optim.Adam
        betas = (optimizer.beta1, optimizer.beta2)
        capturable = graph is not None
        native = kind(params, lr=rate, betas=betas, eps=optimizer.epsilon, fused=True, capturable=capturable)
    native.textbook, native.graph = optimizer, graph
    if optimizer.clip_norm is not None or optimizer.clip_value is not None:
        native.register_step_pre_hook(lambda native, *_: _clip(native))
    if optimizer.average is not None:
        native.average = Average(optimizer.average, groups[True] + groups[False])
        native.register_step_post_hook(native.average.update)
    return native


def _graph(model: Network) -> Graph | None:
    """What captures the model's steps. In float64 nothing does: a rate of float32 would be off by 1e-8."""
    return None if model.dtype == torch.float64 else graph_on(model.parameter.device)


@torch.no_grad()
def _clip(optimizer: torch.optim.Optimizer) -> None:
    """`spec.optimizers.clip`; PyTorch's own adds 1e-6 to the norm in the denominator."""
    norm, value = optimizer.textbook.clip_norm, optimizer.textbook.clip_value
    params = [p for group in optimizer.param_groups for p in group["params"]]
    if value is not None:
        torch.nn.utils.clip_grad_value_(params, value)
    if norm is not None:
        grads = [p.grad for p in params]
        scale = (norm / torch.nn.utils.get_total_norm(grads)).clamp(max=1.0)
        torch._foreach_mul_(grads, scale)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """The rate of the steps to come."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def dump_optimizer(model: Network, optimizer: torch.optim.Optimizer) -> dict[str, spec.Array]:
    """New canonical arrays with the optimizer's state, as `spec.state_shapes` says, also before the first step."""
    arrays, slots = {}, optimizer.textbook.slots
    for name, parameter in model.named_parameters():
        state = optimizer.state.get(parameter, {})
        if "t" in slots:
            arrays["t"] = np.array(float(optimizer.average.t if "average" in slots else state.get("step", 0.0)))
        for slot in _NATIVE.keys() & slots:
            native = state[_NATIVE[slot]] if state else torch.zeros_like(parameter)
            arrays[f"{slot}/{name}"] = native.cpu().numpy().copy()
        if "average" in slots:
            arrays[f"average/{name}"] = optimizer.average.values[parameter].cpu().numpy().copy()
    return {name: arrays[name] for name in spec.state_shapes(model.config, slots)}


def load_optimizer(model: Network, optimizer: torch.optim.Optimizer, state: spec.Arrays) -> None:
    """Copy canonical arrays into the optimizer, converting to the model's dtype.

    Raises:
        spec.InvalidInput: naming every array that is missing, unexpected or misshapen; nothing is then changed.
    """
    slots = optimizer.textbook.slots
    spec.check_state(model.config, slots, state)
    for name, parameter in model.named_parameters():
        native = optimizer.state[parameter] = {}
        if isinstance(optimizer.textbook, spec.Adam):
            native["step"] = torch.tensor(float(state["t"]), device=parameter.device)
        for slot in _NATIVE.keys() & slots:
            value = torch.from_numpy(np.array(state[f"{slot}/{name}"]))
            native[_NATIVE[slot]] = torch.empty_like(parameter, requires_grad=False).copy_(value)
        if "average" in slots:
            optimizer.average.values[parameter].copy_(torch.from_numpy(np.array(state[f"average/{name}"])))
    if "average" in slots:
        optimizer.average.t.fill_(float(state["t"]))
    optimizer.graph = _graph(model)  # one that was captured has the state's old place
