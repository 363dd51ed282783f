"""tf32 and float32: what convolutions and products may round, in one model and in no other, and memory layouts.

No CPU rounds to TF32. What a GPU computes is in tests/test_gpu.py.
"""

from __future__ import annotations

import re

import numpy as np
import pytest
from networks import Case, expected, material
from support import TESTED, loaded

import spec
from harness.agreement import relative_error
from harness.backends.registry import check_tf32
from spec.tolerances import TOLERANCES

SMALL = spec.preset("lenet", num_classes=10)
IMAGES, LABELS = np.random.default_rng(1).random((2, 1, 28, 28)), np.array([3, 7])

only_pt = pytest.mark.parametrize("backend", [name for name in TESTED if name == "pt"], indirect=True)
only_jax = pytest.mark.parametrize("backend", [name for name in TESTED if name == "jax"], indirect=True)


def test_tf32_is_refused_where_no_device_rounds_to_it(backend):
    with pytest.raises(spec.InvalidInput, match=r"dtype tf32: .*take float32"):
        backend.build(SMALL, dtype="tf32", device="cpu")


@pytest.mark.parametrize(("capability", "has"), [(None, False), ((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_compute_capability_8_has_tf32(capability, has):
    assert not check_tf32("float32", capability)
    if has:
        assert check_tf32("tf32", capability)
    else:
        with pytest.raises(spec.InvalidInput, match=r"an NVIDIA GPU of compute capability 8\.0 or newer"):
            check_tf32("tf32", capability)


def _flags() -> tuple[bool, bool]:
    import torch

    return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32


@only_pt
@pytest.mark.parametrize("tf32", [False, True])
def test_pytorch_rounds_both_or_neither_in_every_pass_and_leaves_its_flags_alone(tf32, backend, monkeypatch):
    model = backend.build(SMALL, device="cpu")
    model.tf32 = tf32  # as on a GPU
    optimizer = backend.make_optimizer(model, spec.SGD())
    seen = {"forward": set(), "backward": set()}
    model.fc4.register_forward_hook(lambda *_: seen["forward"].add(_flags()))
    model.fc4.register_full_backward_hook(lambda *_: seen["backward"].add(_flags()))
    monkeypatch.setattr("torch.cuda.is_initialized", lambda: True)
    before = _flags()
    x, y = backend.to_device(model, IMAGES, LABELS)

    backend.update(model, optimizer, x, y, {})
    backend.loss_and_grads(model, IMAGES, LABELS)
    assert seen == {"forward": {(tf32, tf32)}, "backward": {(tf32, tf32)}}
    backend.predict(model, IMAGES)
    backend.activations(model, IMAGES)
    backend.predictor(model, x)(x)
    assert seen["forward"] == {(tf32, tf32)}
    with pytest.raises(RuntimeError):
        model(x[:, :, :1])
    assert _flags() == before == (True, False)  # PyTorch's defaults, which are neither


@only_jax
@pytest.mark.parametrize("precision", ["HIGH", "HIGHEST"])
def test_jax_tells_every_convolution_and_product_of_a_step(precision, backend, monkeypatch):
    import jax
    from flax import nnx

    import googlenet_jax.network
    from googlenet_jax.train import value_and_grads

    chosen = jax.lax.Precision[precision]
    monkeypatch.setattr(googlenet_jax.network, "select_precision", lambda dtype, device: chosen)
    monkeypatch.setattr("googlenet_jax.fast_cpu.make_fast", lambda model: None)  # a GPU gets XLA's own operations
    model = backend.build(SMALL, device="cpu")
    x, y = backend.to_device(model, IMAGES, LABELS)
    graph, state = nnx.split(model)
    text = str(jax.make_jaxpr(lambda state: value_and_grads(nnx.merge(graph, state), x, y, {}))(state))
    told = re.findall(r"precision=(\S+ Precision\.\w+\)|\(?[\w.]+)", text)
    assert text.count("conv_general_dilated[") + text.count("dot_general[") == len(told) == 14
    assert {name for found in told for name in re.findall(r"\w+", found)} == {"Precision", precision}, set(told)


@only_jax
def test_jax_chooses_by_dtype_and_device(backend):
    from types import SimpleNamespace

    from jax.lax import Precision

    from googlenet_jax.device import select_precision

    cpu, h100 = (SimpleNamespace(platform=name) for name in ("cpu", "gpu"))
    h100.compute_capability = "9.0"
    assert select_precision("float32", cpu) is None
    assert select_precision("float32", h100) == Precision.HIGHEST
    assert select_precision("tf32", h100) == Precision.HIGH == Precision("tensorfloat32")
    with pytest.raises(spec.InvalidInput, match="got a CPU"):
        select_precision("tf32", cpu)
    h100.compute_capability = "7.5"
    with pytest.raises(spec.InvalidInput, match=r"got one of 7\.5"):
        select_precision("tf32", h100)


@only_pt
def test_pytorch_lays_out_memory_by_device_and_dtype(backend):
    import torch

    from googlenet_pt.device import memory_format

    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    channels_last, plain = torch.channels_last, torch.contiguous_format
    assert memory_format(cpu, torch.float32, False) == channels_last
    assert memory_format(cpu, torch.float64, False) == channels_last
    assert memory_format(gpu, torch.float32, False) == plain
    assert memory_format(gpu, torch.float64, False) == plain
    assert memory_format(gpu, torch.float32, True) == channels_last
    assert memory_format(gpu, torch.bfloat16, False) == channels_last


@only_pt
def test_rounding_to_tf32_stays_within_its_bounds(backend, monkeypatch):
    """PyTorch in float32, where convolutions and products read numbers of 10 bits, forward and backward."""
    import torch
    import torch.nn.functional as F

    def rounded(x):
        bits = x.detach().contiguous().view(torch.int32)
        return ((bits + 0xFFF + ((bits >> 13) & 1)) & ~0x1FFF).view(torch.float32)

    class Read(torch.autograd.Function):
        forward = staticmethod(lambda ctx, x: rounded(x))
        backward = staticmethod(lambda ctx, dy: dy)

    class Written(torch.autograd.Function):
        forward = staticmethod(lambda ctx, x: x.view_as(x))
        backward = staticmethod(lambda ctx, dy: rounded(dy))

    def convolve(self, x, weight, bias):
        y = F.conv2d(Read.apply(x), Read.apply(weight), None, self.stride, self.padding)
        return Written.apply(y) + bias[:, None, None]

    monkeypatch.setattr(torch.nn.Conv2d, "_conv_forward", convolve)
    linear = F.linear
    monkeypatch.setattr(F, "linear", lambda x, w, bias: Written.apply(linear(Read.apply(x), Read.apply(w))) + bias)
    case = Case("d2l", 28, 4, dtype="float32")
    config, params, images, labels = material(case)
    right, bounds = expected(case), TOLERANCES["tf32"]
    model = loaded(backend, config, params, "float32")
    loss, grads = backend.loss_and_grads(model, images, labels)
    error = relative_error(backend.predict(model, images), right.stages[config.logits])
    assert TOLERANCES["float32"].logits < error < bounds.logits
    assert abs(loss - right.loss) < bounds.loss * right.loss
    assert max(relative_error(grad, right.grads[name]) for name, grad in grads.items()) < bounds.gradients
