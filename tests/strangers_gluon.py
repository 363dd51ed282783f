"""The small GoogLeNet of `stranger_table` as a stranger writes it in Gluon, with the mistakes that strangers make."""

from __future__ import annotations

from mxnet import autograd
from mxnet.gluon import HybridBlock, nn
from stranger_table import WIDTHS


class Function(HybridBlock):
    """A function of F and a map as a block."""

    def __init__(self, function: object) -> None:
        super().__init__()
        self.function = function

    def hybrid_forward(self, F, x):
        return self.function(F, x)


def _drop(F, x):
    """Dropout as a textbook writes it out."""
    if not autograd.is_training():
        return x
    mask = F.random.uniform(0, 1, x.shape) > 0.4
    return mask.astype(x.dtype) * x / (1 - 0.4)


class DefaultNorm(nn.BatchNorm):
    """Batch norm as a block of the operator with its defaults, which put every scale to 1."""

    def hybrid_forward(self, F, x, gamma, beta, running_mean, running_var):
        return F.BatchNorm(x, gamma, beta, running_mean, running_var)


class Block4(HybridBlock):
    """Four branches."""

    def __init__(self, net: Stranger, name: str, widths: tuple[int, ...]) -> None:
        super().__init__()
        one, reduce3, three, reduce5, five, proj = widths
        self.mistake = net.mistake
        self.one = net.conv(f"{name}.branch1x1", one, 1)
        self.three = net.row(net.conv(f"{name}.branch3x3_reduce", reduce3, 1), net.conv("", three, 3, padding=1))
        self.five = net.row(net.conv("", reduce5, 1), net.conv(f"{name}.branch5x5", five, 5, padding=2))
        if self.mistake in ("block-average", "not-counted"):
            self.pool = nn.AvgPool2D(3, 1, 1, count_include_pad=self.mistake == "block-average")
        else:
            self.pool = nn.MaxPool2D(3, 1, 1)
        self.proj = net.conv("", proj, 1)

    def hybrid_forward(self, F, x):
        pooled = self.pool(x)
        parts = [self.one(x), self.three(x), self.five(x), self.proj(x if self.mistake == "pool-unused" else pooled)]
        if self.mistake == "order":
            parts = [parts[i] for i in (0, 2, 1, 3)]
        return F.concat(*parts, dim=1)


class Stranger(HybridBlock):
    """The network; `mistake` names one, or something that is none."""

    def __init__(self, mistake: str = "", norm: bool = False) -> None:
        super().__init__()
        self.mistake = mistake
        self.norm = {"epsilon": 1e-3} if norm else {}  # Gluon's default is 1e-5
        self.norm |= {"epsilon": {"epsilon": 1e-5}, "no-scale": {"scale": False}}.get(mistake, {})
        self.norm |= {"momentum": {"momentum": 0.1}, "frozen": {"use_global_stats": True}}.get(mistake, {})
        up = {"pool_size": 3, "strides": 2, "ceil_mode": mistake != "floor"}
        lrn = Function(self.lrn) if not norm and mistake != "no-lrn" else None
        padded = Function(lambda F, x: F.pad(x, "constant", pad_width=(0, 0, 0, 0, 2, 3, 2, 3), constant_value=0))
        self.stem = self.row(
            padded if mistake == "pad" else None,
            self.conv("conv1", 8, 7, strides=2, padding=3),
            nn.MaxPool2D(**up),
            lrn,
            None if mistake == "no-reduce" else self.conv("conv2_reduce", 8, 1),
            self.conv("conv2", 12, 3, padding=1),
            lrn,
            nn.MaxPool2D(**up),
        )
        widths = WIDTHS | ({"inception3b": (5, 4, 6, 3, 9, 4)} if mistake == "width" else {})
        for name, row in widths.items():
            setattr(self, name, Block4(self, name, row))
        self.aux = self.row(
            Function(lambda F, x: F.contrib.AdaptiveAvgPooling2D(x, output_size=2))
            if mistake == "head-adaptive"
            else nn.AvgPool2D(5, 3),
            self.conv("aux1.conv", 6, 1),
            Function(lambda F, x: F.transpose(x, axes=(0, 2, 3, 1))) if mistake == "flatten" else None,
            nn.Flatten(),
            nn.Dropout(0.5) if mistake == "head-dropout" else None,
            nn.Dense(12, activation="relu"),
            nn.Dropout(0.5 if mistake == "head-share" else 0.7),
            nn.Dense(10),
        )
        self.pool = nn.AvgPool2D(8) if mistake == "fixed-average" else nn.GlobalAvgPool2D()
        drops = {
            "no-dropout": lambda F, x: x,
            "always-drops": lambda F, x: F.Dropout(x, p=0.4, mode="always"),
            "written-dropout": _drop,
        }
        self.drop = Function(drops[mistake]) if mistake in drops else nn.Dropout(0.4)
        self.fc = nn.Dense(10)

    def row(self, *blocks: HybridBlock | None) -> nn.HybridSequential:
        """Those of the blocks that are there, one after the other."""
        made = nn.HybridSequential()
        made.add(*(block for block in blocks if block is not None))
        return made

    def conv(self, name: str, channels: int, kernel: int, **settings: object) -> nn.HybridSequential:
        """Convolution, batch norm where there is some, and ReLU, where the mistake is not in one of them."""
        changed: dict[tuple[str, str], dict] = {
            ("pad", "conv1"): {"padding": 0},
            ("no-bias", "conv2"): {"use_bias": False},
            ("dilation", "conv2"): {"dilation": 2, "padding": 2},
        }
        settings |= changed.get((self.mistake, name), {}) | ({"use_bias": False} if self.norm else {})
        activations = {("sigmoid", "conv1"): nn.Activation("sigmoid"), ("leaky", "conv1"): nn.LeakyReLU(0.1)}
        lost = {"no-relu": "conv2", "no-relu-branch": "branch1x1"}.get(self.mistake)
        relu = None if lost and name.endswith(lost) else nn.Activation("relu")
        kind = DefaultNorm if self.mistake == "default-norm" else nn.BatchNorm
        norm = kind(**self.norm) if self.norm else None
        return self.row(nn.Conv2D(channels, kernel, **settings), norm, activations.get((self.mistake, name), relu))

    def lrn(self, F, x):
        """MXNet's own, or one written out."""
        if self.mistake == "lrn-k":
            return F.LRN(x, nsize=5)  # k is 2 by default
        if not self.mistake.startswith("written-l"):
            return F.LRN(x, nsize=5, alpha=5e-4 if self.mistake == "lrn-alpha" else 1e-4, beta=0.75, knorm=1)
        rows = F.reshape(F.square(x), shape=(0, -4, 1, -1, -3))
        counted = self.mistake != "written-lrn-divisor"
        mean = F.Pooling(rows, kernel=(5, 1), pad=(2, 0), pool_type="avg", count_include_pad=counted)
        return x / (1 + 1e-4 * F.reshape_like(mean, x)) ** (0.5 if self.mistake == "written-lrn-beta" else 0.75)

    def forward(self, x):
        x, side = self.stem(x), None
        for name in WIDTHS:
            x = getattr(self, name)(x)
            if name == "inception4a" and autograd.is_training() and self.mistake != "no-head":
                side = self.aux(x)
        x = self.fc(self.drop(self.pool(x).flatten()))
        if self.mistake == "softmax":
            x = x.softmax()
        return x if side is None else (x, side)
