"""ONNX Runtime with the functions of a backend that a benchmark of inference needs: float32, on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import spec
from harness.backends.registry import Description, processors
from harness.weights.formats.onnx_file import build as build_graph
from harness.weights.formats.onnx_file import load_package
from harness.weights.onnx_run import open_session
from spec import Array, Arrays


def build(config: spec.Config, dtype: str, device: str, params: Arrays) -> Any:
    """A session with a thread for each processor, which runs the graph of `harness.weights.formats.onnx_file`.

    Raises:
        spec.InvalidInput: for another dtype or device, or when ONNX Runtime is not installed.
    """
    if dtype != "float32" or device == "gpu":
        raise spec.InvalidInput(f"onnx: measured in float32 on the CPU only, got {dtype} and device {device}")
    return open_session(build_graph(config, params).SerializeToString())


def images_to_device(session: Any, images: Array) -> Array:
    """The images, as the session takes them."""
    return np.ascontiguousarray(images, np.float32)


def predictor(session: Any, x: Array) -> Callable[[Array], Array]:
    """A function from such images to logits."""
    name = session.get_inputs()[0].name
    return lambda images: np.asarray(session.run(["logits"], {name: images})[0])


def wait(*results: object) -> None:
    """Nothing: a session returns when it is done."""


def peak_memory(device: str) -> None:
    """None: ONNX Runtime counts no memory."""


def describe(device: str) -> Description:
    """The version, and the number of threads that the session was told to take."""
    return Description(
        framework="ONNX Runtime",
        version=load_package("onnxruntime").__version__,
        device="cpu",
        devices=["cpu"],
        threads=processors(),
        built_for="CPU only",
    )
