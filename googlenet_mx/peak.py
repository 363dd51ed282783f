"""What MXNet reaches on this device in the workloads of `harness.backends.ceilings`."""

from __future__ import annotations

import numpy as np
from mxnet import nd

from googlenet_mx.device import select_device, select_dtype, wait
from harness.backends.ceilings import (
    BYTES,
    CHANNELS,
    CONVOLUTION,
    COPY,
    IMAGES,
    KERNEL,
    PIXELS,
    PRODUCT,
    SIDE,
    Workload,
)


def workloads(device: str, dtype: str) -> list[Workload]:
    """The product, the convolution and the copy.

    Raises:
        spec.InvalidInput: for a device that is not there or an unknown dtype.
    """
    context, dtype = select_device(device), select_dtype(dtype)

    def random(*shape: int) -> nd.NDArray:
        return nd.random.uniform(-1, 1, shape=shape, dtype=dtype, ctx=context)

    def product(a: nd.NDArray, b: nd.NDArray) -> nd.NDArray:
        # By oneDNN, as in the dense layers; `nd.dot` is OpenBLAS's, and four times as slow in float32.
        return nd.FullyConnected(a, b, num_hidden=SIDE, no_bias=True)

    def convolution(x: nd.NDArray) -> nd.NDArray:
        sides = {"kernel": (KERNEL,) * 2, "pad": (KERNEL // 2,) * 2}
        return nd.Convolution(x, weight, num_filter=CHANNELS, no_bias=True, **sides)

    a, b = random(SIDE, SIDE), random(SIDE, SIDE)
    weight = random(CHANNELS, CHANNELS, KERNEL, KERNEL)
    # What a convolution returns stays in oneDNN's own layout, which the next one reads as it is.
    x = convolution(random(IMAGES, CHANNELS, PIXELS, PIXELS))
    source = random(BYTES // np.dtype(dtype).itemsize)
    target = nd.zeros_like(source)
    wait(a, b, weight, x, source, target)
    return [
        ("matrix product", PRODUCT, lambda: wait(product(a, b))),
        ("convolution", CONVOLUTION, lambda: wait(convolution(x))),
        ("copy", COPY, lambda: wait(source.copyto(target))),
    ]
