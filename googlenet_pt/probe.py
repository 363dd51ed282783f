"""NumPy in, NumPy out: what the network computes, for comparing and for predicting."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call

import spec
from googlenet_pt.device import autocast, full_precision
from googlenet_pt.model import Conv, Inception
from googlenet_pt.network import Network, max_pool
from googlenet_pt.train import images_to_device, loss, to_device
from spec.googlenet import BRANCH_POOL


def predict(model: Network, images: spec.Array) -> spec.Array:
    """Logits (N, num_classes) of images (N, C, H, W), in inference mode.

    Raises:
        spec.InvalidInput: when the images do not fit.
    """
    with _mode(model, training=False), torch.inference_mode(), full_precision():
        return _numpy(model(images_to_device(model, images)).logits)


def predictor(model: Network, x: Tensor) -> Callable[[Tensor], Tensor]:
    """What computes logits (N, num_classes) of images of the shape of `x`, both on the device, again and again.

    It keeps the weights as they are now.
    """
    frozen = copy.deepcopy(model).eval()
    if _fusible(frozen, x):
        _fuse(frozen)

    @torch.inference_mode()
    def logits(x: Tensor) -> Tensor:
        return frozen(x).logits

    return logits


def _fusible(model: Network, x: Tensor) -> bool:
    """Whether oneDNN computes in the model's dtype here, which PyTorch has for CPUs."""
    if x.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    has_bfloat16 = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return model.dtype == torch.float32 or (model.dtype == torch.bfloat16 and has_bfloat16)


def _fuse(model: Network) -> None:
    """Put what is made for inference in the place of every convolution and Inception block."""
    for name, layer in list(model.named_children()):
        if isinstance(layer, Conv):
            setattr(model, name, _Fused([layer], model.dtype))
        elif isinstance(layer, Inception):
            setattr(model, name, _FusedInception(layer, model.dtype))


class _FusedInception(nn.Module):
    """An `Inception` whose three 1x1 convolutions of the same input are one: a single image takes 0.87 of the time."""

    def __init__(self, block: Inception, dtype: torch.dtype) -> None:
        super().__init__()
        first = [block.branch1x1, block.branch3x3_reduce, block.branch5x5_reduce]
        self.channels = [conv.out_channels for conv in first]
        self.first = _Fused(first, dtype)
        self.branch3x3, self.branch5x5 = _Fused([block.branch3x3], dtype), _Fused([block.branch5x5], dtype)
        self.pool_proj = _Fused([block.pool_proj], dtype)

    def forward(self, x: Tensor) -> Tensor:
        branch1x1, reduced3x3, reduced5x5 = self.first(x).split(self.channels, dim=1)
        pooled = self.pool_proj(max_pool(x, BRANCH_POOL))
        return torch.cat([branch1x1, self.branch3x3(reduced3x3), self.branch5x5(reduced5x5), pooled], dim=1)


class _Fused(nn.Module):
    """For inference: one `Conv`, or several of the same input as one; batch norm in the weights, ReLU on the way.

    The weights are laid out once as oneDNN wants them, else it does so in every call. The operators are those that
    torch.compile puts into its programs.
    """

    def __init__(self, convs: list[Conv], dtype: torch.dtype) -> None:
        super().__init__()
        weights, biases = zip(*map(_folded, convs), strict=True)
        self.weight, self.bias = torch.cat(weights).to(dtype), torch.cat(biases).to(dtype)
        conv = convs[0]
        self.window = (conv.padding, conv.stride, conv.dilation, conv.groups)
        self.relu = "relu" if conv.relu else "none"
        self.laid_out = False

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(self.weight.dtype)
        if not self.laid_out:  # as is best for the shape of the first images
            layout = torch.ops.aten.mkldnn_reorder_conv2d_weight
            self.weight, self.laid_out = layout(self.weight.to_mkldnn(), *self.window, list(x.shape)), True
        return torch.ops.mkldnn._convolution_pointwise(x, self.weight, self.bias, *self.window, self.relu, [], "")


def _folded(conv: Conv) -> tuple[Tensor, Tensor]:
    """Weight and bias of the convolution, with its batch norm's in them."""
    if conv.norm is None:
        return conv.weight.detach(), conv.bias.detach()
    norm = conv.norm
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    weight, bias = conv.weight * scale[:, None, None, None], norm.bias - norm.running_mean * scale
    return weight.detach(), bias.detach()


def activations(model: Network, images: spec.Array) -> dict[str, spec.Array]:
    """Every stage's output in inference mode, auxiliary heads included: (N, C, H, W) or (N, C).

    Raises:
        spec.InvalidInput: when the images do not fit.
    """
    x = images_to_device(model, images)
    with _mode(model, training=False), torch.inference_mode(), full_precision(), autocast(model):
        return {name: _numpy(x) for name, x in model.stages(x, heads=True)}


def loss_and_grads(model: Network, images: spec.Array, labels: spec.Array) -> tuple[float, dict[str, spec.Array]]:
    """The training loss and its gradients by canonical name; the model stays as it was.

    Training mode: batch norm uses the batch's statistics, dropout drops as the configuration says, and the
    auxiliary losses are weighted in.

    Raises:
        spec.InvalidInput: when images or labels do not fit.
    """
    x, y = to_device(model, images, labels)
    parameters = dict(model.named_parameters())
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}  # the pass updates these copies
    with _mode(model, training=True), full_precision():
        value = loss(model.config, functional_call(model, buffers, (x,)), y)
        grads = torch.autograd.grad(value, list(parameters.values()))
    by_name = dict(zip(parameters, grads, strict=True))
    trained = (name for name in spec.param_shapes(model.config) if not spec.is_statistic(name))
    return value.item(), {name: _numpy(by_name[name]) for name in trained}


@contextmanager
def _mode(model: Network, *, training: bool) -> Iterator[None]:
    before = model.training
    model.train(training)
    try:
        yield
    finally:
        model.train(before)


def _numpy(x: Tensor) -> spec.Array:
    if x.dtype == torch.bfloat16:
        x = x.float()  # NumPy has no bfloat16
    return x.detach().cpu().numpy().copy()
