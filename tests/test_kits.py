"""Conformance kits, and what is said of captures: every mistake that a port makes is named from its numbers alone."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from networks import thin, with_stages
from safetensors.numpy import load_file, save_file
from short import short
from support import ROOT, TESTED, googlenet, loaded, traps

import spec
from harness.backends.registry import load
from harness.check.kits.capture import FIRST, Capture, read_capture
from harness.check.kits.judging import judge
from harness.check.kits.kit import ADAM, SGD, STEPS, Kit, expected, kit_of
from harness.check.kits.writing import write_kit
from harness.worker import probe
from spec import AdaptiveAverage, MaxPool, reference
from spec.network import CLASSES, LRN, AveragePool, Block, Conv, Dense, Head, Residual, named

slow = pytest.mark.slow


@pytest.fixture(scope="module")
def lenet(tmp_path_factory) -> Path:
    """The kit of LeNet with batch norm, as the command writes it."""
    folder = tmp_path_factory.mktemp("kits")
    told = googlenet("vectors", "lenet-bn", "--out", "kit", "--json", cwd=folder).stdout
    facts = json.loads(told)
    assert (facts["sizes"], facts["parameters"], facts["stages"]) == ({"even": 28, "odd": 29}, "written", "whole")
    return folder / "kit"


def test_anybody_can_draw_the_inputs(lenet):
    """By the few lines of the kit's own page."""
    (code,) = re.findall(r"```python\n(.*?)```", (lenet / "README.md").read_text(), flags=re.DOTALL)
    names: dict = {}
    with mock.patch("builtins.open", lambda name: (lenet / name).open()):
        exec(code, names)
    written = load_file(lenet / "inputs.safetensors")
    drawn = names["arrays"]
    assert set(drawn) == {*spec.param_shapes(spec.preset("lenet-bn")), "even/images", "odd/images"}
    assert all(x.dtype == np.float32 and np.array_equal(x, written[name]) for name, x in drawn.items())
    flat = np.concatenate([drawn[name].reshape(-1) for name in ("even/images", "odd/images")])
    assert abs(flat.mean()) < 0.03
    assert flat.std() == pytest.approx(3**-0.5, rel=0.02)


def test_kit_holds_what_the_referee_computes(lenet):
    config, got = spec.preset("lenet-bn"), load_file(lenet / "expected.safetensors")
    inputs = load_file(lenet / "inputs.safetensors")
    params = {name: inputs[name] for name in spec.param_shapes(config)}
    for which in ("even", "odd"):
        stages = reference.activations(config, params, inputs[f"{which}/images"])
        assert all(np.array_equal(got[f"{which}/{name}"], x) for name, x in stages.items())
    training = reference.loss_and_grads(config, params, inputs["even/images"], inputs["labels"])
    assert got["loss"] == training.loss
    large = training.grads["fc3.weight"]
    assert got["gradient/fc3.weight:norm"] == pytest.approx(np.linalg.norm(large), rel=1e-14)
    places = got["gradient/fc3.weight:places"]
    assert (len(set(places)), places.max() < large.size) == (256, True)
    assert np.array_equal(got["gradient/fc3.weight:values"], large.reshape(-1)[places])
    assert np.array_equal(got["statistics/fc3.norm.running_var"], training.statistics["fc3.norm.running_var"])
    assert np.array_equal(got["sgd/conv1.weight"], params["conv1.weight"] - 0.0625 * training.grads["conv1.weight"])
    assert "adam/fc3.bias" not in got  # batch norm follows: its gradient is rounding
    assert "adam/fc3.norm.bias" in got


def _checked(folder: Path, arrays: dict[str, np.ndarray], *words: str) -> tuple[int, str]:
    save_file({name: np.ascontiguousarray(x) for name, x in arrays.items()}, folder / "capture.safetensors")
    words = (sys.executable, "check.py", "capture.safetensors", *words)
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True)
    assert not done.stderr
    return done.returncode, done.stdout


@slow
def test_checker_of_the_kit_tells_right_from_wrong(lenet):
    assert len((lenet / "check.py").read_text().splitlines()) <= 40
    right = dict(expected(kit_of("lenet-bn")))
    last = {name: x.transpose(0, 2, 3, 1) if x.ndim == 4 and "/" in name else x for name, x in right.items()}
    last |= {name: x for name, x in right.items() if name.startswith(("gradient", "sgd", "adam"))}
    for arrays in (right, last):
        status, told = _checked(lenet, arrays)
        assert (status, "differs" in told) == (0, False)
    single = {name: x.astype(np.float32) for name, x in right.items()}
    assert _checked(lenet, single)[0] == 1
    assert _checked(lenet, single, "1e-5")[0] == 0
    wrong = right | {"gradient/fc3.weight": right["gradient/fc3.weight"] * 2, "even/conv9": right["loss"]}
    status, told = _checked(lenet, wrong)
    assert status == 1
    assert re.findall(r"(.*?) .*   differs", told) == ["gradient/fc3.weight"]
    assert "even/conv9: not in this kit" in told


def test_kit_of_a_large_network_leaves_out_what_can_be_drawn(tmp_path):
    kit = kit_of("lenet")
    with mock.patch.multiple("harness.check.kits.writing", _PARAMETERS=100_000, LIMIT=4_020_000):
        facts = write_kit(kit, tmp_path / "kit")
    assert (facts["parameters"], facts["stages"]) == ("to be drawn", "indexed")
    assert "draw them" in (tmp_path / "kit" / "README.md").read_text()
    assert set(load_file(tmp_path / "kit" / "inputs.safetensors")) == {"even/images", "odd/images", "labels"}
    assert "even/conv1:values" in load_file(tmp_path / "kit" / "expected.safetensors")
    facts = write_kit(kit, tmp_path / "full", full=True)
    assert (facts["parameters"], facts["stages"], facts["gradients"]) == ("written", "whole", "whole")


def test_kit_is_written_whole_or_not_at_all(tmp_path):
    (tmp_path / "there").mkdir()
    told = googlenet("vectors", "lenet", "--out", "there", status=2, cwd=tmp_path).stderr
    assert "there: expected the name of a new folder, and this exists" in told
    assert "no folder gone" in googlenet("vectors", "lenet", "--out", "gone/kit", status=2, cwd=tmp_path).stderr
    told = googlenet("vectors", "lenet", "--size", "99", "--out", "kit", status=2, cwd=tmp_path).stderr
    assert "preset lenet cannot take 99 x 99 pixels" in told
    full = mock.patch("harness.check.kits.writing.save", side_effect=OSError(28, "No space left on device"))
    with full, pytest.raises(spec.InvalidInput, match="No space left on device"):
        write_kit(Kit(spec.preset("lenet"), {"even": 28}), tmp_path / "kit")
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


# ----------------------------------------------------------------------------------------------------- captures

SIZES = {"even": 48, "odd": 49}
KEPT = ("conv1", "pool1", "norm1", "conv2_reduce", "conv2", "pool2", "inception3a", "pool5", "fc")


def small(preset: str = "bvlc", **changed: Any) -> spec.Config:
    """A thin network with one block of a preset, and other stages where some are named."""
    config = thin(preset, aux=False if preset == "bvlc" else None, dropout=0.0)
    table = {name: part for name, part in config.table if name in KEPT}
    convs = {name: replace(part, channels=8) for name, part in table.items() if isinstance(part, Conv)}
    return with_stages(replace(config, input_size=48, table=tuple((table | convs).items())), **changed)


def kit_with(config: spec.Config) -> Kit:
    """Its kit."""
    return Kit(config, SIZES)


Ports = Callable[[spec.Config, int], spec.Config]


def computed(
    config: spec.Config, other: Ports | None = None, changed: Callable[[str, np.ndarray], Any] = lambda name, x: x
) -> dict[str, np.ndarray]:
    """What a port puts out on a kit: with another table at a size, and with other parameters or ``images``."""
    kit, arrays = kit_with(config), {}
    for which, side in SIZES.items():
        own = config if other is None else other(config, side)
        params = {name: changed(name, x.astype(float)) for name, x in kit.params.items()}
        images = changed("images", kit.images(which).astype(float))
        stages = reference.activations(own, {name: params[name] for name in spec.param_shapes(own)}, images)
        arrays |= {f"{which}/{name}": x for name, x in stages.items()}
    return arrays


def up_to(config: spec.Config, stage: str, wrong: Callable[[np.ndarray], np.ndarray]) -> dict[str, np.ndarray]:
    """What a port puts out that computes one stage in another way, and nothing behind it."""
    names, right = spec.stage_names(config), computed(config)
    before = names[names.index(stage) - 1]
    arrays = {}
    for which in SIZES:
        arrays[f"{which}/{before}"] = right[f"{which}/{before}"]
        arrays[f"{which}/{stage}"] = wrong(right[f"{which}/{before}"])
    return arrays


def judged(config: spec.Config, arrays: dict[str, np.ndarray], dtype: str = "float64") -> list[tuple[Any, str]]:
    """What is said of arrays: places and words of every line."""
    verdict = judge(kit_with(config), Capture(arrays, dtype, FIRST))
    assert verdict.status == bool(verdict.lines)
    return [(line.places, line.text) for line in verdict.lines]


def stages(**changed: Any) -> Ports:
    """Other operations for some stages."""
    return lambda config, side: with_stages(config, **changed)


def block(change: Callable[[tuple[Any, ...]], tuple[Any, ...]]) -> Ports:
    """Other branches in the block."""
    return lambda config, side: with_stages(
        config, inception3a=Block(change(dict(config.table)["inception3a"].branches))
    )


CONV1 = dict(small().table)["conv1"]
LRNS = ("norm1", "norm2")
HAS = "bvlc has local response norm with"
IN_BLOCK = ("branch1x1", "branch3x3_reduce", "branch3x3", "branch5x5_reduce", "branch5x5", "pool_proj")
EVERY = ("conv1", "conv2_reduce", "conv2", *(f"inception3a.{leaf}" for leaf in IN_BLOCK))
TABLES = [  # a port's table by a trap of docs/traps.py, or in words, and what is said of it
    ("relu-missing", stages(conv2=Conv(8, 3, pad=1, activation=None)), [(("conv2",), "ReLU is missing")]),
    (
        "same-padding",
        lambda config, side: with_stages(config, conv1=replace(CONV1, pad=((2, 3), (2, 3)) if side == 48 else 3)),
        [(("conv1",), "padding (2, 3), bvlc has padding 3")],
    ),
    (
        "pool-floor",
        stages(pool1=MaxPool(3, 2), pool2=MaxPool(3, 2)),
        [(("pool1", "pool2"), "size rounded down, bvlc has size rounded up")],
    ),
    ("lrn-k", stages(norm1=LRN(k=2.0)), [(("norm1",), f"local response norm with k 2, {HAS} k 1")]),
    (
        "lrn-alpha",
        stages(norm1=LRN(alpha=5e-4)),
        [(("norm1",), f"local response norm with alpha 0.0005, {HAS} alpha 0.0001")],
    ),
    (
        "branch-order",
        block(lambda branches: tuple(branches[i] for i in (0, 2, 1, 3))),
        [(("inception3a",), "the order of its branches is 1, 3, 2, 4")],
    ),
    (
        "branch pool unused",
        block(lambda branches: (*branches[:3], branches[3][1:])),
        [(("inception3a.pool",), "3 x 3 max pool, stride 1, padding 1 is missing")],
    ),
    (
        "pool-fixed",
        stages(pool5=AveragePool(5, 5)),
        [(("pool5",), "5 x 5 average pool, stride 5, bvlc has average of the whole map")],
    ),
]


@pytest.mark.parametrize(("other", "told"), [pytest.param(*row[1:], id=row[0]) for row in TABLES])
def test_mistake_in_the_table_is_named_by_its_numbers(other, told):
    assert judged(small(), computed(small(), other)) == told


def test_activation_is_the_simplest_that_gives_the_numbers():
    """No map of it is above 6, so that ReLU and ReLU6 give the same."""
    plain = small("d2l")
    config = with_stages(plain, conv1=replace(dict(plain.table)["conv1"], activation="sigmoid"))
    made = computed(config, lambda _, side: plain)
    assert max(x.max() for name, x in made.items() if name.endswith("/conv1")) < 6
    assert judged(config, made)[0] == (("conv1",), "ReLU, d2l has sigmoid")


def test_rules_that_agree_at_an_even_size_are_told_apart_at_the_odd_one():
    """SAME and rounding up read the same pixels of an even map; at the odd size SAME is what the book has."""
    lines = judged(small("d2l"), computed(small("d2l"), stages(pool1=MaxPool(3, 2, ceil=True))))
    text = "3 x 3 max pool, stride 2, rounded up, d2l has 3 x 3 max pool, stride 2, padding 1"
    assert lines == [(("pool1",), text)]


def norm(**settings: Any) -> Ports:
    """Other settings of batch norm."""
    return lambda config, side: replace(config, batch_norm=replace(config.batch_norm, **settings))


def of(change: Callable[[np.ndarray], np.ndarray], end: str) -> Callable[[str, np.ndarray], np.ndarray]:
    """Arrays whose names end so are others."""
    return lambda name, x: change(x) if name.endswith(end) else x


def new(name: str, x: np.ndarray) -> np.ndarray:
    """Running statistics as they begin."""
    return x * 0 + name.endswith("var") if spec.is_statistic(name) else x


def reshaped(name: str, x: np.ndarray) -> np.ndarray:
    """Kernels of Flax, brought to the right shape."""
    return x.transpose(2, 3, 1, 0).reshape(x.shape) if x.ndim == 4 and name != "images" else x


IMAGENET = np.array([[[0.485]], [[0.456]], [[0.406]]]), np.array([[[0.229]], [[0.224]], [[0.225]]])
BATCH_NORM = [  # of a network with batch norm: another table, other arrays, and what is said of them everywhere
    ("norm-epsilon", norm(epsilon=1e-5), None, "epsilon 1e-05, torchvision has epsilon 0.001"),
    ("norm-epsilon-float32", norm(epsilon=float(np.float32(1e-3))), None, "epsilon is rounded to float32"),
    ("norm-gamma", None, of(np.ones_like, ".norm.weight"), "no scale, torchvision has scale"),
    ("new statistics", None, new, "running statistics of a network that is new: means 0, variances 1"),
]


@pytest.mark.parametrize(("other", "changed", "text"), [pytest.param(*row[1:], id=row[0]) for row in BATCH_NORM])
def test_mistake_in_batch_norm_is_named_in_every_layer(other, changed, text):
    config = small("torchvision")
    arrays = computed(config, other, changed or (lambda name, x: x))
    assert judged(config, arrays) == [(EVERY, text)]


ARRAYS = [  # what is done to the arrays, and what is said
    ("pixels-255", of(lambda x: 255 * x, "images"), ("images",), "the pictures are 255 times as large"),
    (
        "channels-rgb",
        of(lambda x: x[:, ::-1], "images"),
        ("images",),
        "the pictures' channels are in the opposite order",
    ),
    (
        "transform-input",
        of(lambda x: ((x + 1) / 2 - IMAGENET[0]) / IMAGENET[1], "images"),
        ("images",),
        "the pictures are moved to 0 to 1, and normalized by ImageNet's means",
    ),
    (
        "kernel-square",
        of(lambda x: x.swapaxes(0, 1), "conv2_reduce.weight"),
        ("conv2_reduce",),
        "inputs and outputs of its kernel are exchanged",
    ),
    ("kernel-reshaped", reshaped, EVERY, "its kernel was reshaped into another layout, not transposed"),
    (
        "true convolution",
        of(lambda x: x[..., ::-1, ::-1], "conv2.weight"),
        ("conv2",),
        "its kernel is turned by half a turn, as in a convolution of mathematics",
    ),
]


@pytest.mark.parametrize(("changed", "places", "text"), [pytest.param(*row[1:], id=row[0]) for row in ARRAYS])
def test_mistake_in_arrays_is_named_by_its_numbers(changed, places, text):
    config = replace(small("torchvision"), batch_norm=None)
    assert judged(config, computed(config, None, changed)) == [(places, text)]


def test_bias_that_is_another_one_is_told_from_a_bias_that_is_missing():
    """The trap default-biases."""
    config = small()
    arrays = computed(config, None, of(lambda x: x + np.arange(8) / 8, "conv2.bias"))
    assert judged(config, arrays) == [(("conv2",), "another bias")]
    arrays = computed(config, None, of(np.zeros_like, "conv2.bias"))
    assert judged(config, arrays) == [(("conv2",), "no bias, bvlc has bias")]


def softmax(x: np.ndarray) -> np.ndarray:
    """Probabilities."""
    return np.exp(x) / np.exp(x).sum(1, keepdims=True)


def logits(config: spec.Config) -> Callable[[np.ndarray], np.ndarray]:
    """The last layer."""
    params = kit_with(config).params
    return lambda x: x.reshape(len(x), -1) @ params["fc.weight"].T.astype(float) + params["fc.bias"]


def edges(x: np.ndarray) -> np.ndarray:
    """Local response norm by an average that does not count what is outside."""
    squares = np.stack([(x[:, max(c - 2, 0) : c + 3] ** 2).mean(1) for c in range(x.shape[1])], 1)
    return x * (1 + 1e-4 * squares) ** -0.75


def zeros(x: np.ndarray) -> np.ndarray:
    """A max pool of 3 x 3 with stride 2 over a map with zeros around it."""
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    return reference.max_pool(padded, MaxPool(3, 2))[0]


def of_batch(x: np.ndarray) -> np.ndarray:
    """The first layer of torchvision's network in training mode."""
    params = {name: x.astype(float) for name, x in kit_with(small("torchvision")).params.items()}
    y = reference.convolution(x, params["conv2_reduce.weight"], None, 1, 0)[0]
    mean, var = y.mean((0, 2, 3)), y.var((0, 2, 3))
    gain, shift = params["conv2_reduce.norm.weight"], params["conv2_reduce.norm.bias"]
    return np.maximum(reference.batch_norm(y, gain, shift, mean, var, 1e-3, of_batch=True)[0], 0)


LINEAR = with_stages(small("d2lzh"), conv1=replace(CONV1, activation=None))
STAGES = [  # one stage of a network, how a port computes it, and what is said
    ("pool-divisor", small(), "norm1", edges, "local response norm with fewer channels in its mean at both ends"),
    ("pool-zeros", LINEAR, "pool1", zeros, "zeros stand around its map, in place of minus infinity"),
    ("no LRN", small(), "norm1", lambda x: x, "local response norm is missing"),
    ("softmax inside", small(), "fc", lambda x: softmax(logits(small())(x)), "softmax is extra"),
    ("norm-training", small("torchvision"), "conv2_reduce", of_batch, "statistics of the batch, torchvision has"),
]


@pytest.mark.parametrize(("config", "stage", "wrong", "text"), [pytest.param(*row[1:], id=row[0]) for row in STAGES])
def test_mistake_in_one_stage_is_named_by_its_numbers(config, stage, wrong, text):
    ((places, told),) = judged(config, up_to(config, stage, wrong))
    assert (places, told[: len(text)]) == ((stage,), text)


def test_flattening_in_another_order_is_named():
    """The trap flatten-order; it is the same as columns of the next dense layer in another order."""
    kit, arrays = kit_of("lenet"), {}
    w = kit.params["fc3.weight"]
    params = kit.params | {"fc3.weight": w.reshape(120, 4, 4, 16).transpose(0, 3, 1, 2).reshape(w.shape)}
    for which in kit.sizes:
        found = reference.activations(kit.config, params, kit.images(which))
        arrays |= {f"{which}/{name}": x for name, x in found.items()}
    ((line),) = judge(kit, Capture(arrays, "float64", FIRST)).lines
    assert (line.places, line.text) == (("fc3",), "flattening with the channels last is extra")


def with_head(pool: Any = None) -> spec.Config:
    """A network with batch norm and an auxiliary head."""
    config = small("torchvision")
    *table, pool5, fc = config.table
    head = named(pool=pool or AdaptiveAverage(1), conv=Conv(8), fc2=Dense(CLASSES, activation=None, drop_input=True))
    return replace(config, aux=True, table=(*table, ("aux1", Head(head)), pool5, fc))


def test_mistake_in_a_head_is_named():
    """The trap adaptive-pool."""
    text = "5 x 5 average pool, stride 5, torchvision has average of the whole map"
    assert judged(with_head(), computed(with_head(), lambda config, side: with_head(AveragePool(5, 5)))) == [
        (("aux1.pool",), text)
    ]


def mapped(config: spec.Config, change: Callable[[Any], Any]) -> spec.Config:
    """A network with other operations, blocks and residuals."""

    def other(part: Any) -> Any:
        if isinstance(part, Block):
            part = Block(tuple(tuple((leaf, other(op)) for leaf, op in branch) for branch in part.branches))
        elif isinstance(part, Residual):
            part = replace(part, chain=tuple((leaf, other(op)) for leaf, op in part.chain))
        return change(part)

    return replace(config, table=tuple((name, other(part)) for name, part in config.table))


def residual(**settings: Any) -> Callable[[Any], Any]:
    """Other residuals."""
    return lambda part: replace(part, **settings) if isinstance(part, Residual) else part


FAMILY = [  # a preset, what is changed, at how many places, and what is said
    ("inception-resnet-v2", residual(shortcut=False), 4, "its shortcut is missing"),
    ("inception-resnet-v2", residual(activation=None), 3, "ReLU is missing"),
    (
        "inception-v3-tf",
        lambda part: replace(part, count_pad=True) if isinstance(part, AveragePool) else part,
        3,
        "padding that counts, inception-v3-tf has padding that does not count",
    ),
    (
        "inception-v3-tf",  # two of the five layers of a branch
        lambda part: replace(part, activation=None) if isinstance(part, Conv) and part.sides == (1, 7) else part,
        4,
        "ReLU is missing",
    ),
]


@slow
@pytest.mark.parametrize(("preset", "change", "number", "text"), FAMILY)
def test_mistakes_in_the_inception_family_are_named(preset, change, number, text):
    config = short(preset, dropout=0.0)
    kit, arrays = Kit(config, {"even": 76, "odd": 75}), {}
    params = {name: x.astype(float) for name, x in kit.params.items()}
    for which in kit.sizes:
        found = reference.activations(mapped(config, change), params, kit.images(which).astype(float))
        arrays |= {f"{which}/{name}": x for name, x in found.items()}
    (line,) = judge(kit, Capture(arrays, "float64", FIRST)).lines
    assert (len(line.places), line.text) == (number, text)


def test_stages_that_are_not_captured_are_judged_with_the_next():
    arrays = computed(small(), stages(conv2=Conv(8, 3, pad=1, activation=None)))
    few = {name: x for name, x in arrays.items() if name.split("/")[1] in ("norm1", "pool2", "fc")}
    assert judged(small(), few) == [(("conv2",), "ReLU is missing")]


@slow
def test_stages_that_no_mistake_explains_are_told_from_the_first_to_the_last():
    arrays = computed(small())
    few = {name: x for name, x in arrays.items() if name.split("/")[1] in ("norm1", "pool2")}
    odd = {name: x**2 if name.endswith("pool2") else x for name, x in few.items()}
    assert judged(small(), odd) == [(("conv2_reduce to pool2",), "no known mistake gives these numbers")]


def test_stage_that_is_right_to_the_digits_of_float32_is_told_so():
    right = computed(small())
    single = {name: x.astype(np.float32).astype(float) if "conv" in name else x for name, x in right.items()}
    lines = judged(small(), single)
    assert ((lines[0][1]), "norm1" in lines[0][0]) == ("it is right to the digits of float32 only", False)
    assert judged(small(), {name: x.astype(np.float32).astype(float) for name, x in right.items()}, "float32") == []
    other = computed(small(), stages(norm1=LRN(k=2.0)))
    half = {name: x.astype(np.float32).astype(float) if "norm1" in name else x for name, x in other.items()}
    lines = judged(small(), {name: x for name, x in half.items() if name.split("/")[1] in ("pool1", "norm1")})
    assert lines == [(("norm1",), f"local response norm with k 2, {HAS} k 1; computed in float32")]


def test_what_no_mistake_explains_is_told_with_what_may_be_behind_it():
    """Products in fewer digits, and the trap dropout-on, which no second pass repeats."""
    right = computed(small())
    noise = np.random.default_rng(0)
    coarse = {n: x * (1 + 1e-3 * noise.normal(size=x.shape)) if "conv1" in n else x for n, x in right.items()}
    few = {name: x.astype(np.float32) for name, x in coarse.items() if name.split("/")[1] == "conv1"}
    (note,) = judge(kit_with(small()), Capture(few, "float32", FIRST)).notes
    assert note == "what no mistake explains is off by less than 0.01, as by products in TF32 or 16 bits"
    dropped = up_to(small(), "fc", lambda x: logits(small())(x * (noise.random(x.shape) > 0.4) / 0.6))
    verdict = judge(kit_with(small()), Capture(dropped, "float64", FIRST))
    assert [line.text for line in verdict.lines] == ["no known mistake gives these numbers"]
    assert verdict.notes == ("fc: dropout that is on gives other numbers each time, which nothing can repeat",)


# ------------------------------------------------------------------------------------------------------ training


@pytest.fixture(scope="module")
def trained() -> dict[str, np.ndarray]:
    """All that a right port computes of a network with batch norm and a head."""
    return dict(expected(kit_with(with_head())))


def test_port_that_is_right_is_the_same(trained):
    kit = kit_with(with_head())
    own = {name: x for name, x in trained.items() if not name.endswith("logits")}
    verdict = judge(kit, Capture(own, "float64", FIRST))
    assert (verdict.status, verdict.lines, verdict.notes) == (0, (), ())
    assert verdict.errors.keys() == own.keys()


def told(trained: dict[str, np.ndarray], changed: dict[str, np.ndarray], **settings: Any) -> list[tuple[Any, str]]:
    """What is said of a port that computes some arrays in another way; nothing of inference."""
    config = replace(with_head(), **settings)
    kinds = {name.partition("/")[0] for name in changed}
    same = {name: x for name, x in trained.items() if name.partition("/")[0] in kinds}
    return judged(config, same | changed)


def all_of(trained: dict[str, np.ndarray], kind: str, change: Callable[[str, np.ndarray], Any]) -> dict[str, Any]:
    """The arrays of a kind, changed."""
    return {name: change(name.partition("/")[2], x) for name, x in trained.items() if name.startswith(kind)}


def statistics(momentum: float, *, unbiased: bool = True) -> dict[str, np.ndarray]:
    """Running statistics by another rule."""
    config = with_head()
    other = replace(config, batch_norm=replace(config.batch_norm, momentum=momentum, unbiased=unbiased))
    return {name: x for name, x in expected(kit_with(other)) if name.startswith("statistics")}


IN_ALL = tuple(node.name for node in spec.layers(with_head()) if node.norm)


def test_rules_of_running_statistics_are_told_apart(trained):
    """The traps norm-momentum, norm-biased and norm-forward-only."""
    momentum = "momentum 0.9, torchvision has momentum 0.1"
    assert told(trained, statistics(0.9)) == [(IN_ALL, momentum)]
    assert told(trained, statistics(0.1, unbiased=False)) == [(IN_ALL, "the running variance is the biased one")]
    both = f"{momentum}, and the running variance is the biased one"
    assert told(trained, statistics(0.9, unbiased=False)) == [(IN_ALL, both)]
    params = kit_with(with_head()).params
    still = all_of(trained, "statistics", lambda name, x: params[name].astype(float))
    assert told(trained, still) == [(IN_ALL, "running statistics do not move in a training pass")]


def test_loss_that_is_another_one_is_named():
    """The traps loss-probabilities and loss-from-logits."""
    config = small()
    kit, arrays = kit_with(config), computed(config)
    x, labels = arrays["even/fc"], kit.labels
    losses = {
        "it is the sum over the pictures, not the mean": 2 * reference.softmax_cross_entropy(x, labels)[0],
        "the softmax is taken twice: its logits are probabilities": reference.softmax_cross_entropy(softmax(x), labels)[
            0
        ],
        "the softmax is never taken: its logits count as logarithms of probabilities": -x[[0, 1], labels].mean(),
        "no known mistake gives this loss": 77.0,
    }
    for words, loss in losses.items():
        assert judged(config, arrays | {"loss": np.array(loss)}) == [(("loss",), words)]


def test_loss_of_a_network_with_batch_norm_is_that_of_its_training_mode(trained):
    """And the heads' losses are in it."""
    kit = kit_with(with_head())
    alone = reference.loss_and_grads(replace(with_head(), aux_weight=0.0), kit.params, kit.images("even"), kit.labels)
    assert told(trained, {"loss": np.array(alone.loss)}) == [(("loss",), "the losses of the heads are missing")]


def test_gradients_that_are_other_ones_are_named(trained):
    kit = kit_with(with_head())
    double = all_of(trained, "gradient", lambda name, x: 2 * x)
    assert told(trained, double) == [(("gradients",), "they are those of the sum over the pictures, not of the mean")]
    weights = {name: 0.01 * x.astype(float) for name, x in kit.params.items() if spec.is_decayed(name)}
    decayed = all_of(trained, "gradient", lambda name, x: x + weights.get(name, 0.0))
    assert told(trained, decayed) == [(("gradients",), "a decay of the weights by 0.01 is in them")]
    alone = dict(expected(kit_with(replace(with_head(), aux_weight=0.0))))
    alone = {name: x for name, x in alone.items() if name.startswith("gradient")}
    assert told(trained, alone) == [(("gradients",), "the heads' losses are missing in them")]
    turned = all_of(trained, "gradient/conv1.weight", lambda name, x: x.transpose(2, 3, 1, 0).reshape(x.shape))
    text = "its gradient was reshaped into another layout, not transposed"
    assert told(trained, turned) == [(("conv1.weight",), text)]
    odd = all_of(trained, "gradient/conv", lambda name, x: x**2)
    ((places, text),) = told(trained, odd)
    assert places == ("conv2.norm.bias",)
    assert text.startswith("its gradient is wrong, the first on the way back; 8 gradients before it are wrong too")


def test_steps_that_are_other_ones_are_named(trained):
    kit = kit_with(with_head())
    params = {name: x.astype(float) for name, x in kit.params.items()}
    grads = {name: x for name, x in trained.items() if name.startswith("gradient")}
    sgd = all_of(trained, "sgd", lambda name, x: params[name] + 3 * (x - params[name]))
    assert told(trained, sgd | grads) == [(("sgd",), "it goes 3 times as far")]
    sgd = all_of(trained, "sgd", lambda name, x: 2 * params[name] - x)
    assert told(trained, sgd) == [(("sgd",), "it goes up, not down")]
    paper = spec.Adam(rate=2.0**-10, epsilon=2.0**-10 / np.sqrt(1 - 0.999))
    adam = all_of(trained, "adam", lambda name, x: paper.update(params, {name: grads[f"gradient/{name}"]}, {})[name])
    ((places, text),) = told(trained, adam)
    assert (places, text[:33]) == (("adam",), "epsilon weighs 31.6 times as much")
    assert told(trained, all_of(trained, "adam", lambda name, x: x + 1)) == [
        (("adam",), "no known mistake gives this step; first conv1.weight")
    ]


def test_what_follows_from_wrong_stages_is_not_judged(trained):
    kit = kit_with(with_head())
    wrong = trained | {"even/fc": trained["even/fc"] + 1}
    wrong = {name: x for name, x in wrong.items() if not name.endswith("logits")}
    verdict = judge(kit, Capture(wrong, "float64", FIRST))
    assert [line.text for line in verdict.lines] == ["no known mistake gives these numbers"]
    assert [note.split(" is not judged")[0] for note in verdict.notes[1:]] == ["the loss", "statistics", "gradient"]


# ----------------------------------------------------------------------------------------------------- the command


def _written(folder: Path, arrays: dict[str, np.ndarray]) -> str:
    save_file({name: np.ascontiguousarray(x) for name, x in arrays.items()}, folder / "mine.safetensors")
    return "mine.safetensors"


def test_command_judges_a_capture(lenet, tmp_path):
    right = dict(expected(kit_of("lenet-bn")))
    last = {
        name: x.transpose(0, 2, 3, 1) if x.ndim == 4 and name[:3] in ("eve", "odd") else x for name, x in right.items()
    }
    told = googlenet("check", _written(tmp_path, last), "--against", "lenet-bn", cwd=tmp_path).stdout
    assert told.startswith("stages: 7 at 28 pixels, 7 at 29 pixels; loss; ")
    assert (
        "float64, channels last\nThe same function as lenet-bn at 28 and 29, in inference and in training: no" in told
    )
    few = {name: right[name] for name in ("even/conv1", "odd/conv1", "even/logits", "loss")}
    told = googlenet("check", _written(tmp_path, few), "--against", "lenet-bn", cwd=tmp_path).stdout
    assert "What was captured is right: no array" in told
    assert told.endswith("The logits were not captured at both sizes, so that nothing is said of the whole.\n")
    wrong = {name: right[name] for name in ("even/conv1", "odd/conv1", "odd/logits")}
    wrong["even/conv1"] = 1 - wrong["even/conv1"]
    words = ("check", _written(tmp_path, wrong), "--against", str(lenet), "--json")
    found = json.loads(googlenet(*words, status=1, cwd=tmp_path).stdout)
    assert (found["verdict"], found["dtype"], found["layout"]) == ("differs", "float64", "channels first")
    assert found["differences"][0]["places"] == ["conv1"]


REFUSED = [  # what is wrong with a capture, and what is said of it
    ({"even/conv1": np.zeros((2, 6, 24, 24), np.float16)}, "even/conv1: expected float64 or float32, got F16"),
    ({"even/conv9": np.zeros(3)}, "even/conv9: no such name in this kit; did you mean even/conv"),
    ({"even/conv1": np.zeros((2, 7, 24, 24))}, "even/conv1: expected (2, 6, 24, 24), got (2, 7, 24, 24)"),
    ({"even/conv1": np.zeros((1, 6, 24, 24))}, "even/conv1: expected (2, 6, 24, 24), got (1, 6, 24, 24)"),
    ({"even/conv1": np.zeros((2, 6, 24, 57))}, "even/conv1: expected (2, 6, 24, 24), got (2, 6, 24, 57)"),
    (
        {"gradient/conv1.weight": np.zeros((5, 5, 1, 6))},
        "gradient/conv1.weight: expected (6, 1, 5, 5), got (5, 5, 1, 6)",
    ),
    ({"even/conv1": np.full((2, 6, 24, 24), np.nan)}, "even/conv1: NaN or infinity"),
    ({"\x1b[31m": np.zeros(3)}, r"\x1b[31m: no such name in this kit"),
    ({}, "it has no arrays"),
]


def test_capture_that_is_none_is_refused_with_all_its_problems(tmp_path):
    kit = kit_of("lenet")
    for arrays, said in REFUSED:
        with pytest.raises(spec.InvalidInput, match=re.escape(said)):
            read_capture(tmp_path / _written(tmp_path, arrays), kit)
    both = {"even/pool1": np.zeros((2, 6, 12, 12)), "odd/pool1": np.zeros((2, 12, 12, 6)), "even/x": np.zeros(1)}
    with pytest.raises(spec.InvalidInput) as refused:
        read_capture(tmp_path / _written(tmp_path, both), kit)
    assert "even/pool1 has its channels first and odd/pool1 has them last" in str(refused.value)
    assert "even/x: no such name" in str(refused.value)
    twice = {"even/logits": np.ones((2, 10)), "even/fc5": np.zeros((2, 10)), "odd/fc5": np.full((2, 10), np.inf)}
    with pytest.raises(spec.InvalidInput) as refused:
        read_capture(tmp_path / _written(tmp_path, twice), kit)
    assert "even/logits: expected the same as even/fc5" in str(refused.value)
    assert "odd/fc5: NaN or infinity" in str(refused.value)
    with pytest.raises(spec.InvalidInput, match="there is no such file"):
        read_capture(tmp_path / "none.safetensors", kit)
    (tmp_path / "mine.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(spec.InvalidInput, match="not a safetensors file"):
        read_capture(tmp_path / "mine.safetensors", kit)


def test_command_refuses_what_it_cannot_judge(tmp_path):
    name = _written(tmp_path, {"loss": np.zeros(1)})
    assert "expected --against" in googlenet("check", name, status=2, cwd=tmp_path).stderr
    words = ("check", name, "--against", "lenet", "--inference")
    assert "alone are for captures" in googlenet(*words, status=2, cwd=tmp_path).stderr
    (tmp_path / "kit").mkdir()
    for content in ("{}", "[" * 9999, '{"format": "googlenet-kit-1", "config": 5}', "\xff"):
        (tmp_path / "kit" / "kit.json").write_text(content)
        told = googlenet("check", name, "--against", "kit", status=2, cwd=tmp_path).stderr
        assert "kit: expected a folder that `googlenet vectors` has written" in told


# ------------------------------------------------------------------------------------------------------- the page

PAGE = (ROOT / "docs" / "kits.md").read_text()
SHOWN = re.findall(r"^\$ googlenet (.*)$", PAGE, re.MULTILINE)


@pytest.mark.parametrize("command", SHOWN)
def test_shown_command_reaches_the_kit(command, monkeypatch, tmp_path):
    """The rest takes seconds."""
    reached = mock.Mock(side_effect=spec.InvalidInput("it is reached"))
    monkeypatch.setattr("harness.check.kits.writing.write_kit", reached)
    monkeypatch.setattr("harness.check.kits.capture.read_capture", reached)
    monkeypatch.setattr("harness.check.kits.writing.read_kit", lambda folder: kit_of("lenet"))
    if command.startswith("check"):
        (tmp_path / "small").mkdir()
    assert "it is reached" in googlenet(*command.split(), status=2, cwd=tmp_path).stderr


def test_page_says_how_many_traps_are_named():
    rows = {row[0] for table in (TABLES, BATCH_NORM, ARRAYS, STAGES) for row in table} | TRAPS.keys()
    rows |= {"default-biases", "flatten-order", "adaptive-pool", "norm-momentum", "norm-biased", "norm-forward-only"}
    names = traps().TRAPS.keys()
    assert names - rows == {"dropout-on"}
    assert f"{len(names) - 1} of the {len(names)} traps" in PAGE
    assert f"{len((ROOT / 'harness/check/kits/checker.py').read_text().splitlines())} lines of NumPy" in PAGE


# --------------------------------------------------------------------------------- frameworks that compute on a kit


TRAPS = {  # of PyTorch and MXNet: where, or at how many places, and what is said
    "pixels-255": (("images",), "the pictures are 255 times as large"),
    "channels-rgb": (("images",), "the pictures' channels are in the opposite order"),
    "transform-input": (("images",), "the pictures are moved to 0 to 1, and normalized by ImageNet's means"),
    "kernel-square": (("conv2_reduce",), "inputs and outputs of its kernel are exchanged"),
    "kernel-reshaped": (None, "its kernel was reshaped into another layout, not transposed"),
    "relu-missing": (("conv2_reduce", "conv2"), "ReLU is missing"),
    "pool-floor": (None, "size rounded down, bvlc has size rounded up"),
    "pool-zeros": (None, "zeros stand around its map, in place of minus infinity"),
    "lrn-alpha": (LRNS, f"local response norm with alpha 0.0005, {HAS} alpha 0.0001"),
    "norm-epsilon": (None, "epsilon 1e-05, torchvision has epsilon 0.001"),
    "norm-epsilon-float32": (None, "epsilon is rounded to float32"),
    "norm-training": (None, "statistics of the batch, torchvision has running statistics"),
    "branch-order": (None, "the order of its branches is 1, 3, 2, 4"),
    "loss-probabilities": (("loss",), "the softmax is taken twice: its logits are probabilities"),
    "loss-from-logits": (
        ("loss",),
        "the softmax is never taken: its logits count as logarithms of probabilities",
    ),
    "pool-divisor": (LRNS, "local response norm with fewer channels in its mean at both ends"),
    "lrn-k": (LRNS, f"local response norm with k 2, {HAS} k 1; computed in float32"),
}


@slow
@pytest.mark.parametrize("name", TRAPS)
def test_trap_that_a_framework_falls_into_is_named(name):
    """The framework itself computes on the kit, and nothing else is said of what it computes."""
    trap = traps().TRAPS[name]
    if trap.backend not in TESTED:
        pytest.skip(f"{trap.backend} is not tested")
    preset = trap.network.partition(",")[0]
    config = thin(preset, aux=None if preset.startswith("d2l") else False, dropout=0.0)
    kit, arrays = Kit(config, {"even": 64, "odd": 65}), {}
    load(trap.backend)
    for which in kit.sizes:
        params = {name: x.astype(float) for name, x in kit.params.items()}
        scene = traps().Scene(config, params, kit.images(which).astype(float), kit.labels)
        with mock.patch.object(traps(), "scene", lambda preset, size, scene=scene: scene):
            wrong, _ = trap.fall()
        of_loss = trap.of == "loss"
        arrays |= {f"{which}/{stage}": x for stage, x in (scene.right() if of_loss else wrong).items()}
        if of_loss and which == "even":
            arrays["loss"] = wrong["loss"]
    (line,) = judge(kit, Capture(arrays, "float64", FIRST)).lines
    places, text = TRAPS[name]
    assert (line.text, line.known) == (text, True)
    assert line.places == places or (places is None and len(line.places) >= 2)


@slow
def test_networks_of_the_frameworks_are_the_same(tmp_path):
    """All that a framework computes of LeNet with batch norm, with a training step, through the command."""
    kit = kit_of("lenet-bn")
    params = {name: x.astype(float) for name, x in kit.params.items()}
    for name in TESTED:
        backend = load(name)
        model = loaded(backend, kit.config, params)
        odd = backend.activations(model, kit.images("odd").astype(float))
        facts, found = probe(backend, model, kit.images("even").astype(float), kit.labels, SGD)
        arrays = {f"odd/{stage}": x for stage, x in odd.items()} | {"loss": np.array(facts["loss"])}
        for key, x in found.items():
            kind, _, array = key.partition("/")
            kind = {"stage": "even", "step": "statistics" if spec.is_statistic(array) else "sgd"}.get(kind, kind)
            arrays |= {f"{kind}/{array}": x} if array else {}
        words = ("check", _written(tmp_path, arrays), "--against", "lenet-bn")
        told = googlenet(*words, cwd=tmp_path).stdout
        assert "The same function as lenet-bn at 28 and 29, in inference and in training" in told


@slow
@pytest.mark.skipif("pt" not in TESTED, reason="the textbook's network is PyTorch's")
def test_network_of_the_textbook_is_the_same(tmp_path):
    """Written by the book, with hooks where a stage ends: everything that a port can capture."""
    import torch

    from googlenet_pt import textbook

    kit = kit_of("d2l", size=48)
    model = textbook.build(kit.config, "float64", "cpu", {name: x.astype(float) for name, x in kit.params.items()})
    b1, b2, b3, b4, b5, fc = model
    ends = [b1[1], b1[2], b2[1], b2[3], b2[4], *b3, *b4, *b5[:3], fc]
    stages, arrays = {}, {}
    for stage, module in zip(spec.stage_names(kit.config), ends, strict=True):
        module.register_forward_hook(
            lambda module, x, y, stage=stage: stages.update({stage: y.detach().numpy().copy()})
        )
    for which in kit.sizes:
        textbook.predict(model, kit.images(which).astype(float))
        arrays |= {f"{which}/{stage}": x for stage, x in stages.items()}
    images = kit.images("even").astype(float)
    loss, grads = textbook.loss_and_grads(model, images, kit.labels)
    arrays |= {"loss": np.array(loss)} | {f"gradient/{name}": x for name, x in grads.items()}
    before = {name: x.clone() for name, x in model.state_dict().items()}
    optimizers = {"sgd": torch.optim.SGD, "adam": partial(torch.optim.Adam, eps=ADAM.epsilon)}
    for kind, optimizer in optimizers.items():
        model.load_state_dict(before)
        x, y = textbook.to_device(model, images, kit.labels)
        textbook.update(model, optimizer(model.parameters(), lr=STEPS[kind].rate), x, y, {})
        arrays |= {f"{kind}/{name}": x for name, x in textbook.dump_params(model).items()}
    kit_folder = ("vectors", "d2l", "--size", "48", "--out", "kit")
    googlenet(*kit_folder, cwd=tmp_path)
    words = ("check", _written(tmp_path, arrays), "--against", "kit", "--json")
    found = json.loads(googlenet(*words, cwd=tmp_path).stdout)
    assert (found["verdict"], found["dtype"], len(found["errors"])) == ("same", "float64", 2 * 18 + 1 + 3 * 116)
    status, told = _checked(tmp_path / "kit", arrays)
    assert (status, "differs" in told) == (0, False)
