"""The base of every network in PyTorch. Arrays are (N, C, H, W)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

import spec
from googlenet_pt.device import (
    autocast,
    keep_memory,
    memory_format,
    precision,
    rounds,
    select_device,
    select_dtype,
)
from googlenet_pt.params import load_params

Masks = Mapping[str, Tensor]  # what dropout keeps, by stage
Watch = Callable[[str, Tensor], Tensor]  # takes every stage's name and output, and returns the output


def ignore(stage: str, x: Tensor) -> Tensor:
    """Watch nothing."""
    return x


class Network(nn.Module):
    """A network of a `spec.Config`.

    In training mode the auxiliary heads run as well, where there are some. Dropout keeps what `masks` says (see
    `spec.dropout_masks`), or draws from PyTorch's own generator (``torch.manual_seed``).
    """

    def __init__(self, config: spec.Config) -> None:
        if config.family != type(self).__name__:
            raise spec.InvalidInput(f"{type(self).__name__} is not the network of {config}: build(config) makes that")
        super().__init__()
        self.config = config

    def finish(
        self,
        dtype: str = "float32",
        device: str = "auto",
        seed: int = 0,
        params: spec.Arrays | None = None,
        *,
        tuned: bool = True,
    ) -> None:
        """Give the layers their dtype, device and parameters.

        Args:
            dtype: ``float32``, ``tf32``, ``float64`` or ``bfloat16``, to compute in. With tf32, which rounds what
                convolutions and products read, and with bfloat16 parameters are float32.
            device: ``auto`` (a GPU where there is one), ``cpu`` or ``gpu``.
            seed: Of `spec.init_params`, where no parameters are given.
            params: By canonical name.
            tuned: False leaves out everything that is there for speed.

        Raises:
            spec.InvalidInput: for a device that is not there, an unknown dtype, or parameters that do not fit.
        """
        self.dtype = select_dtype(dtype)
        selected = select_device(device)
        self.tf32 = rounds(dtype, selected)
        self.to(device=selected, dtype=getattr(torch, spec.array_dtype(dtype)))
        if tuned:
            self.to(memory_format=memory_format(selected, self.dtype, self.tf32))
        if tuned and selected.type == "cpu":
            keep_memory()
        load_params(self, spec.init_params(self.config, seed) if params is None else params)

    @property
    def parameter(self) -> nn.Parameter:
        """Any parameter: its dtype and device are the images'."""
        return next(self.parameters())

    def runs_heads(self, watch: Watch) -> bool:
        """Whether the auxiliary heads run: in training, and where the stages are watched."""
        return self.config.aux and (self.training or watch is not ignore)

    def __call__(self, x: Tensor, masks: Masks | None = None, watch: Watch = ignore) -> spec.Outputs:
        """Images (N, C, H, W) to logits (N, num_classes); in training mode those of the auxiliary heads too.

        Outputs have the dtype of the images, also where the model computes in bfloat16.
        """
        with precision(self.tf32), autocast(self, x):
            logits, heads = super().__call__(x, masks or {}, watch)
        return spec.Outputs(logits.to(x.dtype), {name: y.to(x.dtype) for name, y in heads.items()})
