"""Small files in place of Fashion-MNIST's official ones, which take 30 MB and may not be there."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

import numpy as np
import pytest

from harness.images import sources


def stand_in(
    folder: Path, monkeypatch: pytest.MonkeyPatch, train: int = 7, test: int = 5
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Write four files of random pictures which count as the official ones from now on.

    Returns:
        Images (N, 28, 28), uint8, and labels (N,) of ``train`` and ``t10k``.
    """
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    parts, official = {}, {}
    for part, count in (("train", train), ("t10k", test)):
        images, labels = rng.integers(0, 256, (count, 28, 28), np.uint8), rng.integers(0, 10, count, np.uint8)
        parts[part] = images, labels
        for name, array in ((f"{part}-images-idx3-ubyte.gz", images), (f"{part}-labels-idx1-ubyte.gz", labels)):
            # The format's header: two zeros, 8 for bytes, the number of dimensions, and each of them, big-endian.
            header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
            packed = gzip.compress(header + array.tobytes())
            (folder / name).write_bytes(packed)
            official[name] = hashlib.md5(packed).hexdigest(), array.shape
    monkeypatch.setattr(sources, "_FASHION_FILES", official)
    return parts
