"""Answers in Flax."""

from __future__ import annotations

from answers.answer import ALL, Table, add, differs, missing

ANSWERS: Table = {}

_JAX = """
import jax.numpy as jnp
from flax import nnx

class Conv(nnx.Module):
    def __init__(self, into, out, kernel=(1, 1), pad=0, stride=1, *, rngs):
        self.conv = nnx.Conv(into, out, kernel, strides=stride, padding=pad, rngs=rngs)

    def __call__(self, x):
        return nnx.relu(self.conv(x))

def pool(x, stride=2, pad=((1, 1), (1, 1))):
    return nnx.max_pool(x, (3, 3), (stride, stride), pad)

class Inception(nnx.Module):
    def __init__(self, into, one, three, five, proj, *, rngs):
        self.one = Conv(into, one, rngs=rngs)
        self.reduce3 = Conv(into, three[0], rngs=rngs)
        self.three = Conv(three[0], three[1], (3, 3), 1, rngs=rngs)
        self.reduce5 = Conv(into, five[0], rngs=rngs)
        self.five = Conv(five[0], five[1], (5, 5), 2, rngs=rngs)
        self.proj = Conv(into, proj, rngs=rngs)

    def __call__(self, x):
        three, five = self.three(self.reduce3(x)), self.five(self.reduce5(x))
        return jnp.concatenate([self.one(x), three, five, self.proj(pool(x, 1))], axis=-1)
"""
_JAX_NORM = _JAX.replace("padding=pad, rngs", "padding=pad, use_bias=False, rngs").replace(
    """
    def __call__(self, x):
        return nnx.relu(self.conv(x))
""",
    """        self.norm = nnx.BatchNorm(out, momentum=0.9, epsilon=1e-3, rngs=rngs)

    def __call__(self, x):
        return nnx.relu(self.norm(self.conv(x)))
""",
)
_STEM_JAX = """
class Stem(nnx.Module):
    def __init__(self, rngs):
        self.conv1 = Conv(1, 64, (7, 7), 3, 2, rngs=rngs)
        self.reduce = Conv(64, 64, rngs=rngs)
        self.conv2 = Conv(64, 192, (3, 3), 1, rngs=rngs)

    def __call__(self, x):
        return pool(self.conv2(self.reduce(pool(self.conv1(x)))))
"""

add(
    ANSWERS,
    "port-the-stem",
    "jax",
    _JAX + _STEM_JAX,
    ("(7, 7), 3, 2", '(7, 7), "SAME", 2', differs("conv1", "padding (2, 3)")),
    ("self.reduce = Conv(64, 64, rngs", "self.reduce = nnx.Conv(64, 64, (1, 1), rngs", missing("conv2_reduce")),
)
add(
    ANSWERS,
    "port-an-inception-block",
    "jax",
    _JAX
    + """
def Block(rngs):
    return Inception(192, 64, (96, 128), (16, 32), 32, rngs=rngs)
""",
    (
        "[self.one(x), three, five,",
        "[three, self.one(x), five,",
        (("inception3a", "its branches are joined in another order"),),
    ),
    (
        "self.one = Conv(into, one, rngs",
        "self.one = nnx.Conv(into, one, (1, 1), rngs",
        missing("inception3a.branch1x1"),
    ),
)
add(
    ANSWERS,
    "port-the-network",
    "jax",
    _JAX
    + _STEM_JAX
    + """
ROWS = [
    (192, 64, (96, 128), (16, 32), 32), (256, 128, (128, 192), (32, 96), 64), None,
    (480, 192, (96, 208), (16, 48), 64), (512, 160, (112, 224), (24, 64), 64), (512, 128, (128, 256), (24, 64), 64),
    (512, 112, (144, 288), (32, 64), 64), (528, 256, (160, 320), (32, 128), 128), None,
    (832, 256, (160, 320), (32, 128), 128), (832, 384, (192, 384), (48, 128), 128),
]

class GoogLeNet(nnx.Module):
    def __init__(self, rngs):
        self.stem = Stem(rngs)
        self.blocks = nnx.List([pool if row is None else Inception(*row, rngs=rngs) for row in ROWS])
        self.fc = nnx.Linear(1024, 10, rngs=rngs)

    def __call__(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.fc(x.mean((1, 2)))
""",
    ("self.fc(x.mean((1, 2)))", "nnx.softmax(self.fc(x.mean((1, 2))))", (("fc", "softmax is extra"),)),
    ("(7, 7), 3, 2", '(7, 7), "SAME", 2', differs("conv1", "padding (2, 3)")),
)
add(
    ANSWERS,
    "port-caffes-stem",
    "jax",
    _JAX.replace("pad=((1, 1), (1, 1))):", "pad=((0, 1), (0, 1))):")
    + """
def lrn(x, k=1):
    squares = jnp.pad(x**2, ((0, 0), (0, 0), (0, 0), (2, 2)))
    sums = sum(squares[..., i : i + x.shape[-1]] for i in range(5))
    return x / (k + 1e-4 / 5 * sums) ** 0.75
"""
    + _STEM_JAX.replace("Conv(1, 64", "Conv(3, 64").replace(
        "pool(self.conv2(self.reduce(pool(self.conv1(x)))))",
        "pool(lrn(self.conv2(self.reduce(lrn(pool(self.conv1(x)))))))",
    ),
    ("1e-4 / 5 * sums", "1e-4 * sums", differs("norm1, norm2", "local response norm with alpha 0.0005")),
    ("pool(lrn(self.conv2", "pool((self.conv2", missing("norm2")),
)
add(
    ANSWERS,
    "batch-norm",
    "jax",
    _JAX_NORM
    + """
def Block(rngs):
    return Inception(192, 64, (96, 128), (16, 32), 32, rngs=rngs)
""",
    ("epsilon=1e-3", "epsilon=1e-5", differs(ALL, "epsilon 1e-05")),
    ("momentum=0.9, ", "", differs(ALL, "momentum 0.01")),
    (
        "return nnx.relu(self.norm(self.conv(x)))",
        "return self.norm(nnx.relu(self.conv(x)))",
        ((ALL, "ReLU is extra"), *missing(ALL)),
    ),
)
add(
    ANSWERS,
    "factorization",
    "jax",
    _JAX_NORM
    + """
ROW, COLUMN = ((1, 7), (0, 3)), ((7, 1), (3, 0))

class Mixed(nnx.Module):
    def __init__(self, rngs):
        self.one = Conv(768, 192, rngs=rngs)
        self.single = nnx.Sequential(
            Conv(768, 128, rngs=rngs), Conv(128, 128, *ROW, rngs=rngs), Conv(128, 192, *COLUMN, rngs=rngs),
        )
        self.double = nnx.Sequential(
            Conv(768, 128, rngs=rngs), Conv(128, 128, *COLUMN, rngs=rngs), Conv(128, 128, *ROW, rngs=rngs),
            Conv(128, 128, *COLUMN, rngs=rngs), Conv(128, 192, *ROW, rngs=rngs),
        )
        self.proj = Conv(768, 192, rngs=rngs)

    def __call__(self, x):
        means = nnx.avg_pool(x, (3, 3), (1, 1), "SAME")
        return jnp.concatenate([self.one(x), self.single(x), self.double(x), self.proj(means)], axis=-1)
""",
    (
        '(1, 1), "SAME")',
        '(1, 1), "SAME", count_include_pad=False)',
        differs("mixed6b.pool", "padding that does not count"),
    ),
    (
        "self.single(x), self.double(x)",
        "self.double(x), self.single(x)",
        (("mixed6b", "its branches are joined in another order"),),
    ),
)
add(
    ANSWERS,
    "residual-connection",
    "jax",
    _JAX_NORM
    + """
class Block(nnx.Module):
    def __init__(self, rngs):
        self.one = Conv(320, 32, rngs=rngs)
        self.reduce = Conv(320, 32, rngs=rngs)
        self.three = Conv(32, 32, (3, 3), 1, rngs=rngs)
        self.double = nnx.Sequential(
            Conv(320, 32, rngs=rngs), Conv(32, 48, (3, 3), 1, rngs=rngs), Conv(48, 64, (3, 3), 1, rngs=rngs),
        )
        self.up = nnx.Conv(128, 320, (1, 1), rngs=rngs)

    def __call__(self, x):
        y = jnp.concatenate([self.one(x), self.three(self.reduce(x)), self.double(x)], axis=-1)
        return nnx.relu(x + 0.17 * self.up(y))
""",
    ("0.17 * ", "0.1 * ", differs("block35_1", "factor 0.1")),
    ("self.up(y)", "nnx.relu(self.up(y))", (("block35_1.up", "ReLU is extra"),)),
)
