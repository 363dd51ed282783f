"""ONNX Runtime in the shape of a backend, as far as a benchmark of inference needs it: float32, on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import spec
from harness.backends.registry import Description, processors
from harness.weights.formats.onnx_file import build as graph_of
from harness.weights.formats.onnx_file import load_package
from harness.weights.onnx_run import open_session
from spec import Array, Arrays


class Network:
    """The graph of `harness.weights.formats.onnx_file` in a session with a thread for each processor.

    Raises:
        spec.InvalidInput: for another dtype or device, or when ONNX Runtime is not installed.
    """

    def __init__(self, config: spec.Config, dtype: str, device: str, params: Arrays) -> None:
        if dtype != "float32" or device == "gpu":
            raise spec.InvalidInput(f"onnx: measured in float32 on the CPU only, got {dtype} and device {device}")
        self.session: Any = open_session(graph_of(config, params).SerializeToString())


build = Network


def images_to_device(model: Network, images: Array) -> Array:
    """The images, as the session wants them."""
    return np.ascontiguousarray(images, np.float32)


def predictor(model: Network, x: Array) -> Callable[[Array], Array]:
    """What computes logits of such images."""
    name, session = model.session.get_inputs()[0].name, model.session
    return lambda images: np.asarray(session.run(["logits"], {name: images})[0])


def wait(*results: object) -> None:
    """Nothing: a session returns when it is done."""


def peak_memory(device: str) -> None:
    """None: there is no counter but the process's."""


def describe(device: str) -> Description:
    """The version, and the threads that the session was told to take."""
    runtime = load_package("onnxruntime")
    return Description(
        framework="ONNX Runtime",
        version=runtime.__version__,
        device="cpu",
        devices=["cpu"],
        threads=processors(),
        built_for="CPU only",
    )
