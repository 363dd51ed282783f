"""Three plain workloads that say what a machine can do at its best; every backend does them in its own way."""

from __future__ import annotations

from collections.abc import Callable

Workload = tuple[str, int, Callable[[], None]]  # name, amount, and what does it once and waits for it

SIDE = 2048  # of the square matrices
IMAGES, CHANNELS, PIXELS, KERNEL = 64, 128, 28, 3  # of the convolution, which keeps the size; the last two are sides
BYTES = 256 * 2**20  # that are copied

# The amounts: floating point operations, two for a multiply-add; of the copy bytes, read and written.
PRODUCT = 2 * SIDE**3
CONVOLUTION = 2 * IMAGES * PIXELS**2 * CHANNELS**2 * KERNEL**2
COPY = 2 * BYTES
