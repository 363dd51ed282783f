"""What the referee does when it runs, counted operation by operation: a judge of what the spec says that it costs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from unittest import mock

import numpy as np

import spec
from spec import reference
from spec.network import Add, Conv


@dataclass
class Trace:
    """What one pass for one image did."""

    multiply_adds: int = 0
    inputs: int = 0  # scalars that convolutions, dense layers, pools and normalizations read, each once
    weights: int = 0  # those that convolutions and dense layers read
    outputs: int = 0
    depth: int = 0


@contextmanager
def _traced() -> Iterator[Trace]:
    """The referee's operations in terms of depth: with weights, one more than the largest value read; else its maximum.

    So of an image of zeros the logits say how many layers they lie behind.
    """
    seen = Trace()

    def put_out(x, shape, more):
        y = np.full((1, *shape), x.max() + more)
        seen.inputs += x.size
        seen.outputs += y.size
        seen.depth = int(y.max())
        return y, None

    def convolution(x, w, b, stride, pad):
        y = put_out(x, Conv(len(w), w.shape[2:], stride, pad).output(x.shape[1:]), 1)
        seen.weights += w.size
        seen.multiply_adds += y[0].size * w[0].size
        return y

    def dense(x, w, b):
        seen.weights += w.size
        seen.multiply_adds += w.size
        return put_out(x, (len(w),), 1)

    def max_pool(x, pool):
        return put_out(x, pool.output(x.shape[1:]), 0)

    def average_pool(x, rows, columns, divisors=None):
        return put_out(x, (x.shape[1], len(rows), len(columns)), 0)

    def local_response_norm(x, lrn):
        return put_out(x, x.shape[1:], 0)

    def leave(x, *rest, **options):
        return x, None

    def join(self, node, read):
        """The end of a residual: the way through its branches is the longer one. Branches go side by side as ever."""
        if isinstance(node.op, Add):
            deepest = np.broadcast_to(max(x.max() for x in read), read[0].shape)
            seen.inputs += read[0].size * (len(read) - 1)
            return put_out(deepest, deepest.shape[1:], 0)
        return side_by_side(self, node, read)

    side_by_side = reference._Pass.join
    operations = (convolution, dense, max_pool, average_pool, local_response_norm)
    with (
        mock.patch.multiple(reference, **{operation.__name__: operation for operation in operations}, batch_norm=leave),
        mock.patch.object(reference._Pass, "join", join),
        mock.patch.dict(reference.ACTIVATIONS, sigmoid=leave),
    ):
        yield seen


def trace(config: spec.Config, size: int) -> Trace:
    """What the referee does in inference, for one image of that size; heads, where there are any, included."""
    params = {name: np.broadcast_to(0.0, shape) for name, shape in spec.param_shapes(config).items()}
    with _traced() as seen:
        logits = reference.predict(config, params, np.zeros((1, config.in_channels, size, size)))
    assert seen.depth == logits.max()
    return seen
