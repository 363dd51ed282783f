"""Three plain workloads that show what a machine can do at its best. Every backend does them in its own way."""

from __future__ import annotations

from collections.abc import Callable

Workload = tuple[str, int, Callable[[], None]]  # name, amount, and the call that does it once and waits

SIDE = 2048  # of the square matrices
IMAGES, CHANNELS, PIXELS, KERNEL = 64, 128, 28, 3  # of the convolution, whose output has the input's size
BYTES = 256 * 2**20  # copied

# The amounts: floating point operations, two for a multiply-add; for the copy bytes read and written.
PRODUCT = 2 * SIDE**3
CONVOLUTION = 2 * IMAGES * PIXELS**2 * CHANNELS**2 * KERNEL**2
COPY = 2 * BYTES


def workloads(product: Callable[[], None], convolution: Callable[[], None], copy: Callable[[], None]) -> list[Workload]:
    """The three calls of a backend, with their names and amounts."""
    return [("matrix product", PRODUCT, product), ("convolution", CONVOLUTION, convolution), ("copy", COPY, copy)]
