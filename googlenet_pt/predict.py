"""Images in, logits out: the network as it is, and one made for inference that computes the same."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

import spec
from googlenet_pt.googlenet import Inception
from googlenet_pt.graphs import WARM_UPS, Graph, graph_on
from googlenet_pt.layers import Conv, Dense
from googlenet_pt.network import Network
from googlenet_pt.train import images_to_device


def predict(model: Network, images: spec.Array) -> spec.Array:
    """Logits (N, num_classes) of images (N, C, H, W), in inference mode.

    Raises:
        spec.InvalidInput: when the images do not fit.
    """
    with mode(model, training=False), torch.inference_mode():
        return to_numpy(model(images_to_device(model, spec.check_images(model.config, images))).logits)


def predictor(model: Network, x: Tensor) -> Callable[[Tensor], Tensor]:
    """A function from images of the shape of `x`, on the device, to logits (N, num_classes).

    It keeps the weights as they are now. On a GPU it is a CUDA graph.
    """
    frozen = copy.deepcopy(model).eval()
    if _fusible(frozen, x):
        _fuse(frozen, frozen.dtype)
    elif x.device.type == "cuda":
        _fold(frozen)

    @torch.inference_mode()
    def logits(x: Tensor) -> Tensor:
        return frozen(x).logits

    return captured(logits, x, graph_on(x.device))


def captured(function: Callable[[Tensor], Tensor], x: Tensor, graph: Graph | None) -> Callable[[Tensor], Tensor]:
    """The function, captured for tensors of the shape of `x` where there is a graph."""
    if graph is None:
        return function

    def replay(x: Tensor) -> Tensor:
        (y,) = graph(lambda x: (function(x),), (x,))
        return y

    for _ in range(WARM_UPS + 1):
        replay(x)
    return replay


def _fusible(model: Network, x: Tensor) -> bool:
    """Whether oneDNN, PyTorch's library for CPUs, computes in the model's dtype here."""
    if x.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    has_bfloat16 = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return model.dtype == torch.float32 or (model.dtype == torch.bfloat16 and has_bfloat16)


def _fuse(module: nn.Module, dtype: torch.dtype) -> None:
    """Replace every convolution, at any depth, and every block of GoogLeNet by its fused form."""
    for name, layer in list(module.named_children()):
        if isinstance(layer, Conv):
            if _foldable(layer):
                setattr(module, name, _Fused([layer], dtype))
        elif isinstance(layer, Inception):
            setattr(module, name, _FusedInception(layer, dtype))
        else:
            _fuse(layer, dtype)


def _fold(model: Network) -> None:
    """Put batch norm into the convolutions' weights, and round all weights to the model's dtype once."""
    for layer in [module for module in model.modules() if isinstance(module, Conv | Dense)]:
        if isinstance(layer, Conv) and isinstance(layer.norm, nn.BatchNorm2d):
            weight, bias = _folded(layer)
            layer.weight, layer.bias, layer.norm = nn.Parameter(weight), nn.Parameter(bias), None
        if layer.norm is None:
            layer.to(model.dtype)


def _foldable(conv: Conv) -> bool:
    """Whether a fused operator has its activation, and its batch norm, if any, is PyTorch's own."""
    return conv.activation in (None, "relu") and isinstance(conv.norm, nn.BatchNorm2d | None)


class _FusedInception(nn.Module):
    """An `Inception` whose three 1x1 convolutions of the same input are one: a single image takes 0.87 of the time."""

    def __init__(self, block: Inception, dtype: torch.dtype) -> None:
        super().__init__()
        first = [block.branch1x1, block.branch3x3_reduce, block.branch5x5_reduce]
        self.channels = [conv.out_channels for conv in first]
        self.first = _Fused(first, dtype)
        self.branch3x3, self.branch5x5 = _Fused([block.branch3x3], dtype), _Fused([block.branch5x5], dtype)
        self.pool, self.pool_proj = block.pool, _Fused([block.pool_proj], dtype)

    def forward(self, x: Tensor) -> Tensor:
        branch1x1, reduced3x3, reduced5x5 = self.first(x).split(self.channels, dim=1)
        pooled = self.pool_proj(self.pool(x))
        return torch.cat([branch1x1, self.branch3x3(reduced3x3), self.branch5x5(reduced5x5), pooled], dim=1)


class _Fused(nn.Module):
    """One `Conv`, or several of the same input as one, with batch norm in the weights and ReLU in the operator.

    The weights are put into oneDNN's layout once, not in every call. torch.compile uses the same operators.
    """

    def __init__(self, convs: list[Conv], dtype: torch.dtype) -> None:
        super().__init__()
        weights, biases = zip(*map(_folded, convs), strict=True)
        self.weight, self.bias = torch.cat(weights).to(dtype), torch.cat(biases).to(dtype)
        conv = convs[0]
        self.window = (conv.padding, conv.stride, conv.dilation, conv.groups)
        self.activation = conv.activation or "none"
        self.laid_out = False

    def forward(self, x: Tensor, mask: None = None) -> Tensor:
        x = x.to(self.weight.dtype)
        if not self.laid_out:  # the best layout depends on the shape of the images
            layout = torch.ops.aten.mkldnn_reorder_conv2d_weight
            self.weight, self.laid_out = layout(self.weight.to_mkldnn(), *self.window, list(x.shape)), True
        return torch.ops.mkldnn._convolution_pointwise(x, self.weight, self.bias, *self.window, self.activation, [], "")


def _folded(conv: Conv) -> tuple[Tensor, Tensor]:
    """Weight and bias of the convolution, with its batch norm's in them."""
    weight, norm = conv.weight.detach(), conv.norm
    bias = torch.zeros_like(weight[:, 0, 0, 0]) if conv.bias is None else conv.bias.detach()
    if norm is None:
        return weight, bias
    scale = 1 / torch.sqrt(norm.running_var + norm.eps)
    if norm.weight is not None:
        scale = scale * norm.weight
    shift = 0 if norm.bias is None else norm.bias
    return (weight * scale[:, None, None, None]).detach(), ((bias - norm.running_mean) * scale + shift).detach()


@contextmanager
def mode(model: Network, *, training: bool) -> Iterator[None]:
    before = model.training
    model.train(training)
    try:
        yield
    finally:
        model.train(before)


def to_numpy(x: Tensor) -> spec.Array:
    if x.dtype == torch.bfloat16:
        x = x.float()  # NumPy has no bfloat16
    return x.detach().cpu().numpy().copy()
