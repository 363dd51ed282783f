"""The workloads of `harness.backends.ceilings` in MXNet."""

from __future__ import annotations

import numpy as np
from mxnet import nd

from googlenet_mx.device import select_device, select_dtype, wait
from harness.backends import ceilings
from harness.backends.ceilings import CHANNELS, KERNEL, PIXELS, Workload


def workloads(device: str, dtype: str) -> list[Workload]:
    """The product, the convolution and the copy. A device that is not there and an unknown dtype are refused."""
    on = {"ctx": select_device(device), "dtype": select_dtype(dtype)}

    def random(*shape: int) -> nd.NDArray:
        return nd.random.uniform(-1, 1, shape=shape, **on)

    def product() -> nd.NDArray:
        # oneDNN computes this, as in the dense layers. `nd.dot` takes OpenBLAS, four times as slow in float32.
        return nd.FullyConnected(a, b, num_hidden=ceilings.SIDE, no_bias=True)

    def convolution(x: nd.NDArray) -> nd.NDArray:
        sides = {"kernel": (KERNEL,) * 2, "pad": (KERNEL // 2,) * 2}
        return nd.Convolution(x, weight, num_filter=CHANNELS, no_bias=True, **sides)

    a = random(ceilings.SIDE, ceilings.SIDE)
    b = random(ceilings.SIDE, ceilings.SIDE)
    weight = random(CHANNELS, CHANNELS, KERNEL, KERNEL)
    # A convolution's output stays in oneDNN's own layout, which the next convolution reads as it is.
    x = convolution(random(ceilings.IMAGES, CHANNELS, PIXELS, PIXELS))
    source = random(ceilings.BYTES // np.dtype(on["dtype"]).itemsize)
    target = nd.zeros_like(source)
    wait(a, b, weight, x, source, target)
    return ceilings.workloads(
        product=lambda: wait(product()),
        convolution=lambda: wait(convolution(x)),
        copy=lambda: wait(source.copyto(target)),
    )
