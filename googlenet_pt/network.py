"""What every network is in PyTorch: stages, one after the other. Memory layout (N, C, H, W)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import spec
from googlenet_pt.device import autocast, keep_memory, select_device, select_dtype
from googlenet_pt.params import load_params

Layer = Callable[[Tensor], Tensor]


def max_pool(x: Tensor, pool: spec.Pool) -> Tensor:
    """Largest value of each window; minus infinity outside the image."""
    return F.max_pool2d(x, pool.kernel, pool.stride, pool.pad, ceil_mode=pool.ceil)


class Dropout(nn.Dropout):
    """Dropout that can be told what to keep; else PyTorch's generator decides."""

    def forward(self, x: Tensor, kept: Tensor | None = None) -> Tensor:
        return super().forward(x) if kept is None else x * kept / (1 - self.p)


class Network(nn.Module):
    """A network of a `spec.Config`, with the initial parameters of `spec.init_params(config, seed)`.

    In training mode the auxiliary heads run as well, where there are some. Dropout keeps what `masks` says (see
    `spec.dropout_masks`), or draws from PyTorch's own generator (``torch.manual_seed``).

    Args:
        config: From `spec.preset`.
        dtype: ``float32``, ``float64``, or ``bfloat16``: to compute in; the parameters are then float32.
        device: ``auto`` (a GPU where there is one), ``cpu`` or ``gpu``.
        seed: Of the initial parameters.

    Raises:
        spec.InvalidInput: for a device that is not there, an unknown dtype, or a network of the other kind.
    """

    takes: type[spec.Config]

    def __init__(self, config: spec.Config, dtype: str = "float32", device: str = "auto", seed: int = 0) -> None:
        if not isinstance(config, self.takes):
            raise spec.InvalidInput(f"{type(self).__name__} is not the network of {config}: build(config) makes that")
        super().__init__()
        self.config, self.dtype = config, select_dtype(dtype)
        self.add_layers()
        # Kernels laid out (out, height, width, in) make the images so too: on a CPU a training step is 1.2 times as
        # fast at 28 pixels, 1.5 times at 96.
        stored = torch.float32 if self.dtype == torch.bfloat16 else self.dtype
        self.to(device=select_device(device), dtype=stored, memory_format=torch.channels_last)
        if self.parameter.device.type == "cpu":
            keep_memory()
        load_params(self, spec.init_params(config, seed))

    def add_layers(self) -> None:
        """Make every layer that has weights or drops, by its canonical name."""
        raise NotImplementedError

    def layers(self, masks: Mapping[str, Tensor] | None = None) -> list[tuple[str, Layer]]:
        """Every stage's name and what computes it, in forward order; ``aux1`` and ``aux2`` lie beside the trunk."""
        raise NotImplementedError

    @property
    def parameter(self) -> nn.Parameter:
        """One of them: its dtype and device are the images'."""
        return next(self.parameters())

    def stages(
        self, x: Tensor, *, heads: bool, masks: Mapping[str, Tensor] | None = None
    ) -> Iterator[tuple[str, Tensor]]:
        """Every stage's name and output, in forward order; the auxiliary heads if asked for."""
        for name, layer in self.layers(masks):
            if name not in ("aux1", "aux2"):
                yield name, (x := layer(x))
            elif heads:
                yield name, layer(x)

    def forward(self, x: Tensor, masks: Mapping[str, Tensor] | None = None) -> spec.Outputs:
        """Images (N, C, H, W) to logits (N, num_classes); in training mode the auxiliary logits too."""
        with autocast(self):
            stages = self.stages(x, heads=self.training, masks=masks)
            ends = {name: y.to(x.dtype) for name, y in stages if name in ("aux1", "aux2", self.config.logits)}
        return spec.Outputs(ends[self.config.logits], ends.get("aux1"), ends.get("aux2"))
