"""OpenVINO with the functions of a backend that a benchmark of inference needs: on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import spec
from harness.backends.registry import Description, processors
from harness.bench.worker.onnx_session import images_to_device, peak_memory, wait
from harness.weights.formats.onnx_file import build as build_graph
from harness.weights.formats.onnx_file import load_package
from harness.weights.onnx_run import compile_graph
from spec import Array, Arrays

__all__ = ["build", "describe", "images_to_device", "peak_memory", "predictor", "wait"]


def build(config: spec.Config, dtype: str, device: str, params: Arrays) -> Any:
    """The compiled graph of `harness.weights.formats.onnx_file`, computed by a thread for each processor.

    Raises:
        spec.InvalidInput: for a GPU, when OpenVINO is not installed, or for bfloat16 where the processor has none.
    """
    if device == "gpu":
        raise spec.InvalidInput("openvino: measured on the CPU only, got device gpu")
    return compile_graph(build_graph(config, params).SerializeToString(), dtype)


def predictor(graph: Any, x: Array) -> Callable[[Array], Array]:
    """A function from such images to logits, which the next call overwrites."""
    request = graph.create_infer_request()
    logits = graph.output("logits")
    return lambda images: np.asarray(request.infer([images], share_inputs=True, share_outputs=True)[logits])


def describe(device: str) -> Description:
    """The version, and the number of threads that the graph was compiled for."""
    return Description(
        framework="OpenVINO",
        version=load_package("openvino").__version__.split("-")[0],
        device="cpu",
        devices=["cpu"],
        threads=processors(),
        built_for="CPU only",
    )
