"""A small GoogLeNet as a stranger writes it in PyTorch, with the mistakes that strangers make."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from stranger_table import SIZE, WIDTHS, small, small_with_norm
from torch import nn

__all__ = ["SIZE", "Stranger", "small", "small_with_norm"]


class BasicConv(nn.Module):
    """Convolution, batch norm where there is some, and ReLU."""

    def __init__(self, net: Stranger, into: int, out: int, kernel: int, name: str, **settings: object) -> None:
        super().__init__()
        net.says(name, settings)
        self.conv = nn.Conv2d(into, out, kernel, **settings)
        self.bn = nn.BatchNorm2d(out, **net.norm) if net.norm else nn.Identity()
        if net.mistake == "norm-gamma":
            self.bn.weight = None
        self.relu = net.activation(name)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.relu(self.bn(self.conv(x)))


class Block4(nn.Module):
    """Four branches."""

    def __init__(self, net: Stranger, name: str, into: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        one, reduce3, three, reduce5, five, proj = widths
        self.mistake = net.mistake
        self.one = BasicConv(net, into, one, 1, f"{name}.branch1x1")
        self.three = nn.Sequential(
            BasicConv(net, into, reduce3, 1, f"{name}.branch3x3_reduce"),
            BasicConv(net, reduce3, three, 3, f"{name}.branch3x3", padding=1),
        )
        self.five = nn.Sequential(
            BasicConv(net, into, reduce5, 1, f"{name}.branch5x5_reduce"),
            BasicConv(net, reduce5, five, 5, f"{name}.branch5x5", padding=2),
        )
        self.pool = nn.AvgPool2d(3, 1, 1) if net.mistake == "block-average" else nn.MaxPool2d(3, 1, 1)
        self.proj = BasicConv(net, into, proj, 1, f"{name}.pool_proj")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pooled = self.pool(x)
        if self.mistake == "pool-unused":
            pooled = x
        if self.mistake == "pool-zeros":
            pooled = F.max_pool2d(F.pad(x, (1, 1, 1, 1)), 3, 1)
        parts = [self.one(x), self.three(x), self.five(x), self.proj(pooled)]
        if self.mistake == "order":
            parts = [parts[i] for i in (0, 2, 1, 3)]
        if self.mistake == "branch-missing":
            parts = parts[:3]
        return torch.cat(parts, 1)


class Stranger(nn.Module):
    """The network; `mistake` names one, or something that is none."""

    def __init__(self, mistake: str = "", norm: bool = False) -> None:
        super().__init__()
        self.mistake = mistake
        epsilon, momentum = 1e-5 if mistake == "epsilon" else 1e-3, 0.01 if mistake == "momentum" else 0.1
        self.norm = {"eps": epsilon, "momentum": momentum} if norm else {}
        if mistake == "norm-training":
            self.norm["track_running_stats"] = False
        ceil = mistake != "floor"
        alpha = 5e-4 if mistake == "lrn-alpha" else 1e-4
        lrn = nn.LocalResponseNorm(5, alpha, 0.75, 2.0 if mistake == "lrn-k" else 1.0)
        lrn = _WrittenOut(mistake) if mistake in ("lrn-pool", "lrn-slices", "lrn-divisor") else lrn
        lrn = nn.Identity() if mistake == "no-lrn" or norm else lrn
        reduce = BasicConv(self, 8, 8, 1, "conv2_reduce")
        pool = nn.AvgPool2d if mistake == "stage-average" else nn.MaxPool2d
        if mistake == "relu-after-pool":
            pool1 = nn.Sequential(nn.MaxPool2d(3, 2, ceil_mode=True), nn.ReLU())
        elif mistake == "same-pool":
            pool1 = nn.Sequential(nn.ConstantPad2d((0, 1, 0, 1), -torch.inf), nn.MaxPool2d(3, 2))
        else:
            pool1 = pool(3, 2, ceil_mode=ceil)
        self.stem = nn.Sequential(
            nn.ZeroPad2d((2, 3, 2, 3)) if mistake.startswith("pad-") or mistake == "pad" else nn.Identity(),
            BasicConv(self, 3, 8, 7, "conv1", stride=2, padding=3),
            pool1,
            lrn,
            nn.Identity() if mistake == "no-reduce" else reduce,
            BasicConv(self, 8, 12, 3, "conv2", padding=1),
            lrn,
            nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.MaxPool2d(3, 2))
            if mistake in ("pool-zeros-stage", "pool-zeros-negative")
            else nn.MaxPool2d(3, 2, ceil_mode=ceil),
        )
        widths = dict(WIDTHS)
        if mistake == "width":
            widths["inception3b"] = (5, 4, 6, 3, 9, 4)
        if mistake == "reduce-width":
            widths["inception4a"] = (6, 9, 7, 4, 8, 5)
        into = 12
        for name, row in widths.items():
            self.add_module(name, Block4(self, name, into, row))
            into = sum(row[i] for i in (0, 2, 4)) + (mistake != "branch-missing") * row[5]
        at = {"head-place": "inception3b"}.get(mistake, "inception4a")
        self.at = at
        channels = sum(widths[at][i] for i in (0, 2, 4)) + (mistake != "branch-missing") * widths[at][5]
        self.aux = nn.Sequential(
            nn.AdaptiveAvgPool2d(2) if mistake == "head-adaptive" else nn.AvgPool2d(5, 3),
            BasicConv(self, channels, 6, 1, "aux1.conv"),
            {"flatten": _LastFlatten(), "conv-head": nn.Identity()}.get(mistake, nn.Flatten()),
            nn.Dropout(0.5) if mistake == "head-dropout" else nn.Identity(),
            *(
                (nn.Conv2d(6, 12, 2), nn.Flatten())
                if mistake == "conv-head"
                else (nn.Linear({"stride": 96, "floor": 6}.get(mistake, 24), 12),)
            ),
            nn.ReLU(inplace=True),
            nn.Dropout(0.5 if mistake == "head-share" else 0.7),
            nn.Linear(12, 10),
        )
        self.drop = nn.Dropout(0.4)
        self.fc = nn.Conv2d(into, 10, 1) if mistake in ("conv-fc", "conv-first") else nn.Linear(into, 10)

    def says(self, name: str, settings: dict) -> None:
        """Change a convolution's settings where the mistake is in them."""
        if self.norm:
            settings["bias"] = (self.mistake, name) == ("norm-bias", "conv2")
        if self.mistake == "no-bias" and name == "conv2":
            settings["bias"] = False
        if self.mistake in ("pad", "pad-and-bias") and name == "conv1":
            settings |= {"padding": 0, "bias": self.mistake == "pad"}
        if self.mistake == "padded-1x1" and name == "conv2_reduce":
            settings["padding"] = 1
        if self.mistake == "stride" and name == "conv1":
            settings["stride"] = 1
        if self.mistake == "dilation" and name == "conv2":
            settings |= {"dilation": 2, "padding": 2}
        if self.mistake == "groups" and name == "conv2":
            settings["groups"] = 2

    def activation(self, name: str) -> nn.Module:
        """ReLU, where the mistake is not that it is none."""
        leaf = name.partition(".")[2]
        lost = {"no-relu": "conv2", "pool-zeros-negative": "conv2", "no-relu-reduce": "conv2_reduce"}
        if lost.get(self.mistake) == name:
            return nn.Identity()
        if self.mistake == "no-relu-branch" and leaf == "branch1x1":
            return nn.Identity()
        if self.mistake == "sigmoid" and name == "conv1":
            return nn.Sigmoid()
        return nn.LeakyReLU(0.1) if self.mistake == "leaky" and name == "conv1" else nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> object:
        x = self.stem(x)
        side = None
        for name in ("inception3a", "inception3b", "inception4a", "inception4b"):
            x = getattr(self, name)(x)
            if name == self.at and self.training and self.mistake != "no-head":
                side = self.aux(x)
        if self.mistake == "conv-first":
            x = F.adaptive_avg_pool2d(self.fc(x), 1).flatten(1)
            return x if side is None else (x, side)
        x = F.avg_pool2d(x, 8) if self.mistake == "fixed-average" else F.adaptive_avg_pool2d(x, 1)
        x = x if self.mistake == "conv-fc" else torch.flatten(x, 1)
        if self.mistake == "always-drops":
            x = F.dropout(x, 0.4)
        elif self.mistake != "no-dropout":
            x = self.drop(x)
        x = torch.flatten(self.fc(x), 1)
        if self.mistake in ("softmax", "log-softmax"):
            x = F.softmax(x, 1) if self.mistake == "softmax" else F.log_softmax(x, dim=1)
        return x if side is None else (x, side)


class _WrittenOut(nn.Module):
    """Local response normalization as it was written before PyTorch had it, or by slices."""

    def __init__(self, mistake: str) -> None:
        super().__init__()
        average = nn.AvgPool3d((5, 1, 1), 1, (2, 0, 0), count_include_pad=mistake != "lrn-divisor")
        self.average = None if mistake == "lrn-slices" else average

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.average is not None:
            return x.div(self.average(x.pow(2).unsqueeze(1)).squeeze(1).mul(1e-4).add(1.0).pow(0.75))
        squares = F.pad(x * x, (0, 0, 0, 0, 2, 2))
        total = sum(squares[:, i : i + x.shape[1]] for i in range(5))
        return x / (1 + 1e-4 / 5 * total) ** 0.75


class _LastFlatten(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.permute(0, 2, 3, 1).reshape(len(x), -1)
