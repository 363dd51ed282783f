"""Optimizers in PyTorch: the rows of `spec.optimizers`, and their state by canonical name."""

from __future__ import annotations

import numpy as np
import torch

import spec
from googlenet_pt.network import Network

_NATIVE = {"momentum": "momentum_buffer", "m": "exp_avg", "v": "exp_avg_sq"}  # canonical: PyTorch's


def make_optimizer(model: Network, optimizer: spec.Optimizer) -> torch.optim.Optimizer:
    """PyTorch's optimizer for one of `spec.optimizers`; its SGD, Adam and AdamW are the textbook's."""
    groups = {True: [], False: []}
    for name, parameter in model.named_parameters():
        groups[spec.is_decayed(name)].append(parameter)
    decay = getattr(optimizer, "weight_decay", 0.0)
    params = [{"params": groups[True], "weight_decay": decay}, {"params": groups[False], "weight_decay": 0.0}]
    if isinstance(optimizer, spec.SGD):
        native = torch.optim.SGD(
            params, lr=optimizer.rate, momentum=optimizer.momentum, nesterov=optimizer.nesterov, fused=True
        )
    else:
        kind = torch.optim.AdamW if isinstance(optimizer, spec.AdamW) else torch.optim.Adam
        betas = (optimizer.beta1, optimizer.beta2)
        native = kind(params, lr=optimizer.rate, betas=betas, eps=optimizer.epsilon, fused=True)
    if optimizer.clip_norm is not None:
        native.register_step_pre_hook(lambda native, *_: _clip(native, optimizer.clip_norm))
    return native


@torch.no_grad()
def _clip(optimizer: torch.optim.Optimizer, norm: float) -> None:
    """`spec.optimizers.clip`; PyTorch's own adds 1e-6 to the denominator."""
    grads = [p.grad for group in optimizer.param_groups for p in group["params"]]
    scale = (norm / torch.nn.utils.get_total_norm(grads)).clamp(max=1.0)
    torch._foreach_mul_(grads, scale)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """The rate of the steps to come."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def dump_optimizer(model: Network, optimizer: torch.optim.Optimizer) -> dict[str, spec.Array]:
    """New canonical arrays with the optimizer's state, as `spec.state_shapes` says; zeros before the first step."""
    arrays, slots = {}, _slots(optimizer)
    for name, parameter in model.named_parameters():
        state = optimizer.state.get(parameter, {})
        if "t" in slots:
            arrays["t"] = np.array(float(state.get("step", 0.0)))
        for slot in _NATIVE.keys() & slots:
            native = state[_NATIVE[slot]] if state else torch.zeros_like(parameter)
            arrays[f"{slot}/{name}"] = native.cpu().numpy().copy()
    return {name: arrays[name] for name in spec.state_shapes(model.config, slots)}


def load_optimizer(model: Network, optimizer: torch.optim.Optimizer, state: spec.Arrays) -> None:
    """Copy canonical arrays into the optimizer, converting to the model's dtype.

    Raises:
        spec.InvalidInput: naming every array that is missing, unexpected or misshapen; nothing is then changed.
    """
    slots = _slots(optimizer)
    spec.check_state(model.config, slots, state)
    for name, parameter in model.named_parameters():
        native = optimizer.state[parameter] = {}
        if "t" in slots:
            native["step"] = torch.tensor(float(state["t"]), device=parameter.device)
        for slot in _NATIVE.keys() & slots:
            value = torch.from_numpy(np.array(state[f"{slot}/{name}"]))
            native[_NATIVE[slot]] = torch.empty_like(parameter, requires_grad=False).copy_(value)


def _slots(optimizer: torch.optim.Optimizer) -> tuple[str, ...]:
    """The optimizer's slots, by the names of `spec.optimizers`."""
    if isinstance(optimizer, torch.optim.SGD):
        return ("momentum",) if optimizer.defaults["momentum"] else ()
    return ("t", "m", "v")
