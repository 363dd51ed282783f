"""CUDA graphs: what a function launches on a GPU, captured once and from then on launched as one.

A training step of d2l at 96 pixels, batch 128, is hundreds of launches, which take Python and the driver longer than an
H100 takes to compute: captured, it was 2.0 to 2.7 times as fast there.

Source: PyTorch's documentation, "CUDA semantics", section "CUDA Graphs".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import torch
from torch import Tensor

WARM_UPS = 3  # runs before the capture: libraries choose their kernels, optimizers make their state

Function = Callable[..., Sequence[Tensor]]


class Graph:
    """A function of tensors, captured when it has run `WARM_UPS` times in succession with inputs of the same shapes.

    Each of these runs computes, and so does each replay: what a function changes, as a training step does, is changed
    as often as without the graph. It has to stay where it was at the capture. Inputs of other shapes, as those of an
    epoch's last batch, are computed without the graph.
    """

    def __init__(self) -> None:
        self._key: object = None
        self._runs = 0
        self._inputs: list[Tensor] = []
        self._outputs: Sequence[Tensor] = ()
        self._replay: Callable[[], object] | None = None

    def __call__(self, function: Function, inputs: Sequence[Tensor], *settings: object) -> list[Tensor]:
        """The function's outputs, new tensors. It is captured anew for no other settings than those of the first graph.

        Args:
            function: Of the inputs; after the capture it is no longer called for these shapes and settings.
            inputs: Tensors on the device, which are copied.
            settings: What else the function depends on; an address, for one.
        """
        key = (settings, [(x.shape, x.dtype) for x in inputs])
        if self._replay is None:
            self._runs = self._runs + 1 if key == self._key else 1
            self._key = key
            if self._runs <= WARM_UPS:
                return list(self._aside(function, inputs))
            self._inputs = [x.clone() for x in inputs]
            self._replay, self._outputs = self._capture(lambda: function(*self._inputs))
        elif key != self._key:
            return list(function(*inputs))
        for static, x in zip(self._inputs, inputs, strict=True):
            static.copy_(x)
        self._replay()
        return [y.clone() for y in self._outputs]

    @staticmethod
    def _aside(function: Function, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        """Run it on another stream than the current one, as a capture does."""
        stream = _stream(torch.cuda.current_device())
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            outputs = function(*inputs)
        torch.cuda.current_stream().wait_stream(stream)
        return outputs

    @staticmethod
    def _capture(function: Callable[[], Sequence[Tensor]]) -> tuple[Callable[[], object], Sequence[Tensor]]:
        """What launches again all that the function launches, and the outputs that this writes into."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            outputs = function()
        return graph.replay, outputs


@cache
def _stream(device: int) -> torch.cuda.Stream:
    """One for all runs aside: PyTorch keeps what a stream has freed for that stream, and a step takes gigabytes."""
    return torch.cuda.Stream(device)


def graph_on(device: torch.device) -> Graph | None:
    """A graph where the device has them, which are NVIDIA's and AMD's GPUs."""
    return Graph() if device.type == "cuda" else None
