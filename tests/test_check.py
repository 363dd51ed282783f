"""`googlenet check`: every mistake is found and named, nothing else is, and what is right is not told off."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import ClassVar
from unittest import mock

import numpy as np
import pytest
from networks import thin
from short import model as short_model
from short import short
from support import TESTED, googlenet, here, traps

import spec
from harness.agreement import probe_params, relative_error
from harness.check.align import align, weights
from harness.check.arithmetic import Run
from harness.check.checking import check, understood
from harness.check.conversion import accepted, converted, transferred, with_names
from harness.check.graph import (
    Flatten,
    Graph,
    Input,
    Linear,
    Node,
    Norm,
    NotUnderstood,
    Padding,
    Scale,
    Unknown,
    enlarged,
    probe_images,
)
from harness.check.readers.onnx_graph import read_onnx
from harness.check.reference import Effects, Reference, graph_of_table
from harness.check.report.page import write_page
from harness.check.tree import read
from harness.check.trial import LARGER, Task, Trial, attempt, run_trial
from harness.weights.checkpoint import Checkpoint, load
from harness.weights.formats import FORMATS

if "pt" not in TESTED:
    pytest.skip("only models of PyTorch are read so far", allow_module_level=True)

import strangers
import torch
import torch.nn.functional as F
from torch import nn

from googlenet_pt import build, recording
from googlenet_pt.functions.handlers import HANDLERS

IMAGES = probe_images((1, 2, 2))  # which show a model of PyTorch nothing before it runs
BLOCKS = ("inception3a", "inception3b", "inception4a", "inception4b")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """What is computed here is small."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def trial(model: nn.Module, shape: spec.Shape, *, seed: int | None = 0, passes: tuple[str, ...] = ()) -> Trial:
    """What `run_trial` gives, in this process."""
    recording.settle(model, "float64", seed, IMAGES)
    sizes = {"inference": shape, LARGER: enlarged(shape), "training": shape}
    recordings, failed = {}, {}
    for kind in passes or sizes:
        try:
            recordings[kind] = recording.record(model, probe_images(sizes[kind]), training=kind == "training")
        except RuntimeError as error:
            failed[kind] = str(error)
    return Trial(shape, "torch", "float64", recording.parameters(model), recordings, failed)


def judged(mistake: str = "", *, inference: bool = False):
    """The report on a stranger's network."""
    norm = mistake in ("epsilon", "momentum", "norm", "norm-training", "norm-gamma", "norm-bias")
    config = strangers.small_with_norm() if norm else strangers.small()
    if mistake == "pool-zeros-negative":
        config = _other(config, conv2=spec.network.Conv(12, 3, pad=1, activation=None))
    with mock.patch.dict(spec.PRESETS, {"bvlc": config}, clear=True):
        done = trial(strangers.Stranger(mistake, norm), (3, strangers.SIZE, strangers.SIZE))
        return check(done, "bvlc", inference=inference)


slow = pytest.mark.slow
LRN, RELU, DROPOUT = ("norm1", "norm2"), "ReLU is missing", "training only"
EVERYWHERE = tuple(node.name for node in spec.layers(strangers.small_with_norm()) if node.norm)
MISTAKES = [  # what is wrong, where, in these words, what it does, and what would have shown it
    pytest.param("no-lrn", LRN, "local response norm is missing", "off by", "nothing"),
    pytest.param("head-dropout", ("aux1.fc1",), "dropout 0.5 is extra", DROPOUT, "nothing"),
    pytest.param("head-share", ("aux1.fc2",), "dropout 0.5, bvlc has dropout 0.7", DROPOUT, "nothing", marks=slow),
    pytest.param("no-reduce", ("conv2_reduce",), "1 x 1 convolution is missing", "other weights", "count", marks=slow),
    pytest.param("no-relu", ("conv2",), RELU, "off by", "nothing", marks=slow),
    pytest.param("no-relu-reduce", ("conv2_reduce",), RELU, "off by", "nothing", marks=slow),
    pytest.param("no-relu-branch", tuple(f"{b}.branch1x1" for b in BLOCKS), RELU, "off by", "nothing", marks=slow),
    pytest.param(
        "width", ("inception3b.branch5x5",), "9 channels, bvlc has 4 channels", "other weights", "count", marks=slow
    ),
    pytest.param(
        "reduce-width",
        ("inception4a.branch3x3_reduce",),
        "9 channels, bvlc has 5 channels",
        "other weights",
        "count",
        marks=slow,
    ),
    pytest.param("pad", ("conv1",), "padding (2, 3), bvlc has padding 3", "off by", "shapes"),
    pytest.param("padded-1x1", ("conv2_reduce",), "padding 1, bvlc has padding 0", "off by", "shapes", marks=slow),
    pytest.param("softmax", ("fc",), "softmax is extra", "off by", "nothing", marks=slow),
    pytest.param("log-softmax", ("fc",), "log softmax is extra", "off by", "nothing", marks=slow),
    pytest.param(
        "pool-unused",
        tuple(f"{b}.pool" for b in BLOCKS),
        "3 x 3 max pool, stride 1, padding 1 is missing",
        "off by",
        "nothing",
        marks=slow,
    ),
    pytest.param(
        "floor", ("pool1", "pool2"), "size rounded down, bvlc has size rounded up", "off by", "shapes", marks=slow
    ),
    pytest.param(
        "fixed-average",
        ("pool5",),
        "8 x 8 average pool, stride 8, bvlc has average of the whole map",
        "none at 64 and 65, at other sizes there is one",
        "nothing",
        marks=slow,
    ),
    pytest.param("order", BLOCKS, "the order of its branches is 1, 3, 2, 4", "off by", "nothing"),
    pytest.param("no-bias", ("conv2",), "no bias, bvlc has bias", "other weights", "count", marks=slow),
    pytest.param("stride", ("conv1",), "stride 1, bvlc has stride 2", "off by", "shapes", marks=slow),
    pytest.param(
        "dilation",
        ("conv2",),
        "padding 2, dilation 2, bvlc has padding 1, dilation 1",
        "off by",
        "nothing",
        marks=slow,
    ),
    pytest.param("groups", ("conv2",), "groups 2, bvlc has groups 1", "other weights", "count", marks=slow),
    pytest.param(
        "block-average",
        tuple(f"{b}.pool" for b in BLOCKS),
        "3 x 3 average pool, stride 1, padding 1, bvlc has 3 x 3 max pool, stride 1, padding 1",
        "off by",
        "nothing",
        marks=slow,
    ),
    pytest.param(
        "lrn-alpha",
        LRN,
        "local response norm with alpha 0.0005, bvlc has local response norm with alpha 0.0001",
        "off by",
        "nothing",
        marks=slow,
    ),
    pytest.param(
        "lrn-k",
        LRN,
        "local response norm with k 2, bvlc has local response norm with k 1",
        "off by",
        "nothing",
        marks=slow,
    ),
    pytest.param(
        "always-drops",
        ("fc",),
        "dropout 0.4 at inference too is extra",
        "another result each time",
        "nothing",
        marks=slow,
    ),
    pytest.param(
        "flatten", ("aux1.conv",), "flattening with the channels last is extra", DROPOUT, "nothing", marks=slow
    ),
    pytest.param("no-head", ("aux1",), "auxiliary head is missing", DROPOUT, "nothing", marks=slow),
    pytest.param(
        "head-adaptive",
        ("aux1.pool",),
        "2 x 2 averages of the map, bvlc has 5 x 5 average pool, stride 3",
        DROPOUT,
        "nothing",
        marks=slow,
    ),
    pytest.param("sigmoid", ("conv1",), "sigmoid, bvlc has ReLU", "off by", "nothing", marks=slow),
    pytest.param("leaky", ("conv1",), "leaky ReLU of slope 0.1, bvlc has ReLU", "off by", "nothing", marks=slow),
    pytest.param("branch-missing", BLOCKS, "branch 4 is missing", "other weights", "count", marks=slow),
    pytest.param("no-dropout", ("fc",), "dropout 0.4 is missing", DROPOUT, "nothing", marks=slow),
    pytest.param("epsilon", EVERYWHERE, "epsilon 1e-05, bvlc has epsilon 0.001", "off by", "nothing", marks=slow),
    pytest.param("momentum", EVERYWHERE, "momentum 0.01, bvlc has momentum 0.1", DROPOUT, "nothing", marks=slow),
    pytest.param("norm-gamma", EVERYWHERE, "no scale, bvlc has scale", "other weights", "count", marks=slow),
    pytest.param(
        "norm-training",
        tuple(name for name in EVERYWHERE if not name.startswith("aux")),
        "statistics of the batch, bvlc has running statistics",
        "another result in another batch",
        "nothing",
        marks=slow,
    ),
    pytest.param(
        "pool-zeros-negative",
        ("pool2",),
        "3 x 3 max pool, stride 2, padding (0, 1) with zeros, bvlc has 3 x 3 max pool, stride 2, rounded up",
        "off by",
        "nothing",
        marks=slow,
    ),
]


@pytest.mark.parametrize(
    ("mistake", "places", "text", "effect", "shown_by"),
    [pytest.param(*row.values, marks=row.marks, id=row.values[0]) for row in MISTAKES],
)
def test_mistake_is_found_and_nothing_else(mistake, places, text, effect, shown_by):
    report = judged(mistake)
    assert report.status == 1
    assert [(line.places, line.text, line.shown_by) for line in report.lines] == [(places, text, shown_by)]
    assert effect in report.lines[0].effect
    assert report.not_understood is None


TRAPS = {  # by the name of a trap, the mistake above that it is
    "same-padding": "pad",
    "relu-missing": "no-relu",
    "pool-floor": "floor",
    "pool-zeros": "pool-zeros-negative",
    "pool-fixed": "fixed-average",
    "adaptive-pool": "head-adaptive",
    "lrn-alpha": "lrn-alpha",
    "lrn-k": "lrn-k",
    "norm-epsilon": "epsilon",
    "norm-gamma": "norm-gamma",
    "norm-training": "norm-training",
    "norm-momentum": "momentum",
    "branch-order": "order",
    "flatten-order": "flatten",
    "dropout-on": "always-drops",
    "loss-probabilities": "softmax",
}
NO_OPERATION = {"pixels-255", "channels-rgb", "transform-input", "kernel-square", "kernel-reshaped", "default-biases"}
NO_OPERATION |= {"norm-epsilon-float32", "norm-biased", "norm-forward-only", "loss-from-logits", "pool-divisor"}


def test_phrasebook_has_the_line_for_every_trap():
    """What is printed is what the test of the mistake asserts."""
    docs = Path(spec.__file__).parent.parent / "docs"
    section = (docs / "porting.md").read_text().partition("### What `check` says of them\n")[2].partition("\n## ")[0]
    told = dict(re.findall(r"^\| `([\w-]+)` \| `(.+?)` \|$", section, re.MULTILINE))
    words = {row.values[0]: row.values[2] for row in MISTAKES}
    assert told == {trap: words[mistake] for trap, mistake in TRAPS.items()}
    assert traps().TRAPS.keys() == told.keys() | NO_OPERATION
    assert all(f"`{name}`" in section for name in NO_OPERATION)


@pytest.mark.slow
def test_average_that_does_not_count_its_padding_is_no_local_response_norm():
    """The trap pool-divisor."""
    assert judged("lrn-divisor").not_understood == "the operation power at stem.2"


@pytest.mark.slow
def test_two_mistakes_in_one_layer_are_two_lines():
    """A padding has its effect, whatever else is wrong with the weights."""
    bias, pad = judged("pad-and-bias").lines
    assert (bias.text, bias.effect) == ("no bias, bvlc has bias", "other weights")
    assert (pad.text, pad.places) == ("padding (2, 3), bvlc has padding 3", ("conv1",))
    assert pad.measured == judged("pad").lines[0].measured


@pytest.mark.slow
def test_head_at_another_place_is_one_more_and_one_less():
    found = [(line.places, line.text) for line in judged("head-place").lines]
    assert found == [(("inception3b",), "auxiliary head is extra"), (("aux1",), "auxiliary head is missing")]


@pytest.mark.parametrize(
    "mistake",
    [
        "",
        pytest.param("relu-after-pool", marks=slow),
        "same-pool",
        "conv-fc",
        "lrn-slices",
        *(pytest.param(x, marks=slow) for x in ("norm", "lrn-pool", "pool-zeros", "pool-zeros-stage", "conv-head")),
    ],
)
def test_same_function_in_another_form_is_no_difference(mistake):
    """A second ReLU after a pool changes nothing, SAME at these sizes is ceiling, a pixel's convolution is dense.

    Zeros around a map that is not negative are no maximum; local response normalization is what it computes.
    """
    report = judged(mistake)
    assert (report.status, report.lines, report.not_understood) == (0, (), None)
    assert report.error < 1e-13


@pytest.mark.slow
def test_classifier_before_the_average_is_the_same_but_for_what_dropout_drops():
    (line,) = judged("conv-first").lines
    assert (line.effect, line.text) == (DROPOUT, "dropout 0.4 is missing")
    assert judged("conv-first", inference=True).status == 0


@pytest.mark.slow
def test_bias_before_batch_norm_is_told_and_makes_no_other_function():
    """The running mean takes it, where the weights go to a network without one."""
    report = judged("norm-bias")
    (line,) = report.lines
    assert (line.places, line.text, line.effect) == (
        ("conv2",),
        "bias, bvlc has no bias",
        "none: batch norm takes it away",
    )
    assert (report.status, report.not_understood, line.counts) == (0, None, False)


def test_what_happens_in_training_only_is_no_difference_at_inference():
    assert judged("head-dropout", inference=True).status == 0


# ------------------------------------------------------------------------------------------- a model against a model


class Functional(nn.Module):
    """The small network once more, by somebody else: other names, and functions in place of modules."""

    def __init__(self, share: float = 0.7) -> None:
        super().__init__()
        self.share = share
        self.c1, self.c2, self.c3 = nn.Conv2d(3, 8, 7, 2, 3), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 12, 3, padding=1)
        self.lrn = nn.LocalResponseNorm(5)
        blocks, into = [], 12
        for one, reduce3, three, reduce5, five, proj in strangers.WIDTHS.values():
            sides = [(into, one, 1), (into, reduce3, 1), (reduce3, three, 3), (into, reduce5, 1), (reduce5, five, 5)]
            layers = [nn.Conv2d(*side, padding=side[2] // 2) for side in (*sides, (into, proj, 1))]
            blocks.append(nn.ModuleList(layers))
            into = one + three + five + proj
        self.blocks = nn.ModuleList(blocks)
        self.side, self.side1, self.side2 = nn.Conv2d(26, 6, 1), nn.Linear(24, 12), nn.Linear(12, 10)
        self.last = nn.Linear(into, 10)

    def forward(self, x):
        x = self.lrn(F.max_pool2d(F.relu(self.c1(x)), 3, 2, ceil_mode=True))
        x = F.max_pool2d(self.lrn(F.relu(self.c3(F.relu(self.c2(x))))), 3, 2, ceil_mode=True)
        for number, (one, reduce3, three, reduce5, five, proj) in enumerate(self.blocks):
            three, five = F.relu(three(F.relu(reduce3(x)))), F.relu(five(F.relu(reduce5(x))))
            x = torch.cat((F.relu(one(x)), three, five, F.relu(proj(F.max_pool2d(x, 3, 1, 1)))), 1)
            if number == 2 and self.training:
                y = F.relu(self.side1(F.relu(self.side(F.avg_pool2d(x, 5, 3))).flatten(1)))
                y = self.side2(F.dropout(y, self.share))
        x = self.last(F.dropout(x.mean((2, 3)), 0.4, self.training))
        return (x, y) if self.training else x


PAIRS = {  # a mistake in the first: the places in the second, and what is said
    "": [],
    "no-lrn": [(("c1", "c3"), "local response norm is missing", "nothing")],
    "order": [(tuple(f"blocks.{i}" for i in range(4)), "the order of its branches is 1, 3, 2, 4", "nothing")],
    "head-share": [(("side1",), "dropout 0.5, Net has dropout 0.7", "nothing")],
    "no-relu-branch": [(tuple(f"blocks.{i}.0" for i in range(4)), "ReLU is missing", "nothing")],
    "width": [(("blocks.1.4",), "9 channels, Net has 4 channels", "count")],
}


@pytest.fixture(scope="module")
def functional() -> Trial:
    torch.manual_seed(0)
    return trial(Functional(), (3, strangers.SIZE, strangers.SIZE))


@pytest.mark.parametrize("mistake", [x if x in ("", "no-lrn") else pytest.param(x, marks=slow) for x in PAIRS])
def test_model_is_held_against_another_one(mistake, functional):
    done = trial(strangers.Stranger(mistake), functional.shape)
    with mock.patch.dict(spec.PRESETS, {"bvlc": strangers.small()}, clear=True):
        report = check(done, "Net", inference=False, other=functional)
    assert [(line.places, line.text, line.shown_by) for line in report.lines] == PAIRS[mistake]
    assert (report.status, report.against, report.preset) == (int(bool(mistake)), "Net", "")
    assert set(report.arrays) == set(Functional().state_dict())  # which it is loaded into below


def test_operation_of_no_module_has_the_place_that_what_it_reads_shares():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.ModuleDict({name: nn.ModuleDict({"c": nn.Conv2d(1, 2, 1)}) for name in "xy"})

        def forward(self, x):
            return torch.cat([self.a["x"]["c"](x), F.relu(self.a["y"]["c"](x))], 1) ** torch.ones(1)

    model = Two()
    recording.settle(model, "float64", None, IMAGES)
    nodes = recording.record(model, probe_images((1, 2, 2)), training=False).graph.nodes
    assert [node.place for node in nodes] == ["", "a.x.c", "a.y.c", "a.y.c", "a", "a"]
    assert nodes[-1].op.name == "pow"  # to no power that is one number


def test_weights_go_from_one_model_to_another(functional, tmp_path):
    """The second puts out with them what the first does, and where it does not nothing is written."""
    done = trial(strangers.Stranger(), functional.shape, seed=None)
    report = check(done, "Net", inference=False, other=functional)
    model = Functional()

    def rerun(task):
        recording.load(model, Path(task.weights))
        return trial(model, functional.shape, seed=None)

    task, target = Task("a.py:Net", "", {}, (functional.shape,), True, 3.0), tmp_path / "out.safetensors"
    verification = transferred(report, done, functional, task, target, rerun, here)
    assert verification.passed
    assert verification.logits < 1e-13
    assert target.is_file()
    wrong = replace(report, arrays={**report.arrays, "last.bias": report.arrays["last.bias"] + 1})
    verification = transferred(wrong, done, functional, task, tmp_path / "wrong.safetensors", rerun, here)
    assert (verification.passed, [path.name for path in tmp_path.iterdir()]) == (False, ["out.safetensors"])
    less = {name: x for name, x in report.arrays.items() if name != "side.bias"}
    with pytest.raises(spec.InvalidInput, match=r"1 arrays of Net have none of their size in the model, side\.bias"):
        transferred(replace(report, arrays=less), done, functional, task, target, rerun, here)
    of_jax = replace(functional, framework="flax")
    with pytest.raises(spec.InvalidInput, match="Net is a model of flax; weights are written for those of PyTorch"):
        transferred(report, done, of_jax, task, target, rerun, here)


# ------------------------------------------------------------------------------------------------------- the page


def _page(report, done: Trial, folder: Path, title: str = "a & b") -> str:
    write_page(report, done, title, folder / "page.html")
    page = (folder / "page.html").read_text()
    for outside in ("<script", "http", "src=", "url(", "@import"):
        assert outside not in page
    opened = re.findall(r"<(/?)(html|body|table|tr|td|div|p|small|style|h1|h2)[ >]", page)
    assert Counter(tag for closing, tag in opened if closing) == Counter(tag for closing, tag in opened if not closing)
    return page


def test_page_has_both_networks_and_marks_their_differences(functional, tmp_path):
    """With the places of both, the error of what was run again, and nothing that a name from outside could do."""
    done = trial(strangers.Stranger("no-lrn"), functional.shape)
    with mock.patch.dict(spec.PRESETS, {"bvlc": strangers.small()}, clear=True):
        report = check(done, "<i>Net\x1b", inference=False, other=functional)
    page = _page(report, done, tmp_path, "a <script> & b")
    rows = re.findall(r'<div class="row( marked)?">(.*?)\n</div>', page, flags=re.DOTALL)
    marked = [re.sub(r"<[^>]*>", " ", row).split() for mark, row in rows if mark]
    assert marked == [f"local response norm {place} · {shape}".split() for place, shape in _NORMS.items()]
    assert page.count(f'<a href="#line1">1</a> {report.lines[0].text}: {report.lines[0].effect}') == 2
    assert "<title>a &lt;script&gt; &amp; b</title>" in page
    assert "It differs from &lt;i&gt;Net\\x1b." in page
    assert "blocks.3.5 · 6 x 8 x 8" in page
    errors = [float(error) for error in re.findall(r'<div class="error">(\d.*?)</div>', page)]
    assert len(errors) > 60
    assert max(errors) < 1e-14


_NORMS = {"c1": "8 x 16 x 16", "c3": "12 x 16 x 16"}


def test_page_of_what_was_not_understood_has_the_model_alone(tmp_path):
    done = trial(Odd(), (1, 28, 28))
    page = _page(check(done, "lenet", inference=False), done, tmp_path)
    assert "<p>Not understood: the operation fft_fft at features</p>" in page
    assert "fft_fft<small>features" in page


# ---------------------------------------------------------------------------------------------------- TorchScript


class Scripted(nn.Module):
    """Control flow, functions of PyTorch's and of its own, and a list, in little."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 1)])
        self.norm, self.lrn, self.drop = nn.BatchNorm2d(4), nn.LocalResponseNorm(5, k=2.0), nn.Dropout(0.3)
        self.fc = nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts: list[torch.Tensor] = []
        for layer in self.layers:
            x = F.relu(layer(x), inplace=True)
            parts.append(x)
        if x.size(2) > 3 and not (self.training and x.size(2) < 2):
            x = torch.cat([self.lrn(parts[1]), doubled(self.norm(parts[0]))], 1)
        for _ in range(2):
            x = x + 0.5
        x = F.max_pool2d(x, 3, 2, ceil_mode=True)
        return self.fc(self.drop(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1)))


def doubled(x: torch.Tensor) -> torch.Tensor:
    """A function of somebody's own."""
    return 2 * x


PROGRAMS = {
    "scripted": torch.jit.script,
    "traced": lambda model: torch.jit.trace(model, torch.zeros(1, 1, 9, 9)),
    "frozen": lambda model: torch.jit.freeze(torch.jit.trace(model, torch.zeros(1, 1, 9, 9))),
}


@pytest.mark.filterwarnings("ignore")  # TorchScript is deprecated, and a trace knows no condition
@pytest.mark.parametrize("way", ["scripted", pytest.param("traced", marks=slow), "frozen"])
def test_program_is_read_as_the_module_that_it_was_made_from(way, tmp_path):
    """In training too, where a program asks whether it is in training; in float32, where weights are constants."""
    module = Scripted().eval()
    recording.settle(module, "float32", 0, IMAGES)
    with torch.no_grad():  # equal ones, which freezing keeps once
        module.layers[0].bias.copy_(module.layers[1].bias)
        torch.jit.save(PROGRAMS[way](module), tmp_path / "model.pt")
        module.layers[0].bias += 1
    task = Task("model.pt", str(tmp_path), {}, ((1, 9, 9),), True, 8.0, as_it_is=True)
    done, own = attempt(task), trial(module, (1, 9, 9), seed=None)
    report = check(done, "Net", inference=False, other=own)
    assert (report.status, report.lines, report.not_understood) == (0, (), None)
    assert (done.dtype, done.framework) == (("float32", "torchscript") if way == "frozen" else ("float64", "torch"))
    assert report.compared == (("inference", LARGER, "training") if way == "scripted" else ("inference", LARGER))
    assert report.error < {"float64": 1e-14, "float32": 1e-6}[done.dtype]
    back = check(own, "model.pt", inference=False, other=done)
    assert (back.status, back.lines, back.not_understood) == (0, (), None)


EFFECTS = ["no-lrn", "no-relu", "pad", "order", "pool-unused", "lrn-k", "softmax", "dilation", "floor"]


@pytest.mark.slow
@pytest.mark.parametrize("mistake", EFFECTS)
def test_effect_is_that_of_running_both_networks(mistake):
    """Both with the weights and the pictures that the effect is measured with."""
    shape = (3, strangers.SIZE, strangers.SIZE)
    with mock.patch.dict(spec.PRESETS, {"bvlc": strangers.small()}, clear=True):
        reference = Reference(spec.preset("bvlc", num_classes=10))
        effects = Effects(reference, shape)
        right, wrong = strangers.Stranger(), strangers.Stranger(mistake)
        graph = trial(right, shape, seed=None, passes=("inference",)).recordings["inference"].graph
        _, alignment = align(reference.tree(shape), read(graph, heads=False))
        names = weights(alignment)
        state = {own: torch.from_numpy(effects.arrays[name]) for name, own in names.items()}
        logits = []
        for model in (right, wrong):
            model.double().load_state_dict(state, strict=False)
            model.eval()
            with torch.no_grad():
                logits.append(model(torch.from_numpy(effects.x)).numpy())
    told = judged(mistake).lines[0].measured[strangers.SIZE]
    assert told == pytest.approx(relative_error(logits[1], logits[0]), rel=1e-9)


# ----------------------------------------------------------------------------------------- what is not understood


class Odd(nn.Module):
    """Something that no recorder knows, in the middle."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(1, 4, 3)
        self.fc = nn.Linear(4, 10)

    def forward(self, x):
        x = torch.fft.ifft(torch.fft.fft(self.features(x))).real
        return self.fc(x.mean((2, 3)))


def test_unknown_operation_is_not_understood():
    report = check(trial(Odd(), (1, 28, 28)), "lenet", inference=False)
    assert (report.status, report.lines) == (3, ())
    assert report.not_understood == "the operation fft_fft at features"


def test_functions_take_their_input_by_name_too():
    class Named(strangers.Stranger):
        def forward(self, x):
            return super().forward(nn.functional.dropout(input=torch.clone(input=x), p=0.0, training=self.training))

    with mock.patch.dict(spec.PRESETS, {"bvlc": strangers.small()}, clear=True):
        report = check(trial(Named(), (3, 64, 64)), "bvlc", inference=False)
    assert (report.status, report.lines) == (0, ())


def test_arithmetic_on_a_row_of_numbers_is_unknown():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.weight = nn.Conv2d(1, 2, 3), nn.Parameter(torch.ones(2))

        def forward(self, x):
            return self.conv(x).mean((1, 2, 3)) * self.weight

    with pytest.raises(NotUnderstood, match="the operation"):
        understood(trial(Odd(), (1, 8, 8)).recordings["inference"], probe_images((1, 8, 8)), "float64", heads=False)


def test_unknown_operation_that_nothing_depends_on_is_no_matter():
    class Beside(strangers.Stranger):
        def forward(self, x):
            torch.fft.fft(x)
            return super().forward(x)

    with mock.patch.dict(spec.PRESETS, {"bvlc": strangers.small()}, clear=True):
        report = check(trial(Beside(), (3, 64, 64)), "bvlc", inference=True)
    assert (report.status, report.notes) == (0, ())


def test_recorder_that_sees_something_else_is_not_believed():
    """What is run again is not the model, and nothing is said of it but where."""
    wrong = mock.patch.dict(HANDLERS, {"local_response_norm": lambda r, y, input, *_, **__: (spec.network.LRN(3),)})
    with wrong:
        report = judged()
    assert (report.status, report.lines) == (3, ())
    assert re.fullmatch(r"LRN at stem\.2, run again, is off by .*", report.not_understood)


def test_model_whose_training_cannot_be_seen_is_not_the_same():
    class NeedsLabels(strangers.Stranger):
        def forward(self, x):
            if self.training:
                raise TypeError("labels")
            return super().forward(x)

    with mock.patch.dict(spec.PRESETS, {"bvlc": strangers.small()}, clear=True):
        model = NeedsLabels()
        done = trial(model, (3, 64, 64), passes=("inference", LARGER))
        done = replace(done, failed={"training": "it ran and raised TypeError: labels"})
        report = check(done, "bvlc", inference=False)
        assert report.status == 3
        assert report.not_understood == "its training pass: it ran and raised TypeError: labels"
        assert check(done, "bvlc", inference=True).status == 0


def test_flattening_and_padding_are_read_as_they_are():
    """Channels last, and zeros around negative numbers, which are no minus infinity."""
    around = ((1, 1), (1, 1))
    nodes = (
        Node(Input(), (), "", (2, 2, 2)),
        Node(Padding(around), (0,), "", (2, 4, 4)),
        Node(spec.MaxPool((3, 3), (1, 1)), (1,), "", (2, 2, 2)),
        Node(Flatten(last=True), (2,), "", (8,)),
        Node(Linear(8, bias=False), (3,), "", (8,), {"weight": "w"}),
    )
    x = -np.arange(1.0, 9).reshape(1, 2, 2, 2)
    y = Run({"w": np.eye(8)}).chain(read(Graph(nodes, (4,)), heads=False), x)
    assert np.array_equal(y, np.zeros((1, 8)))  # the largest of each window is a zero outside
    inner = replace(nodes[1], op=Padding(around, -np.inf))
    y = Run({"w": np.eye(8)}).chain(read(Graph((nodes[0], inner, *nodes[2:]), (4,)), heads=False), x)
    assert np.array_equal(y, np.tile([[-1.0, -5.0]], 4))


# ------------------------------------------------------------------------------------------------ no false alarms


QUICK = ("d2l", "torchvision", "lenet-bn", "inception-resnet-v2")


@pytest.mark.parametrize(
    "preset", [name if name in QUICK else pytest.param(name, marks=slow) for name in spec.PRESETS if name != "vgg11"]
)
def test_table_run_as_a_tree_is_the_network(preset):
    config = spec.preset(preset, aux=False)
    side = config.input_size
    if config.family.startswith("Inception"):
        config, side = short(preset, aux=False), 96 if config.family == "InceptionBN" else 75
    elif config.family == "GoogLeNet":
        config = thin(preset, aux=False, dropout=0.0)
        side = side if preset == "cnblogs" else 64
    shape = (config.in_channels, side, side)
    params = probe_params(config, 0)
    x = np.random.default_rng(0).normal(size=(1, *shape))
    y = Run(params).chain(read(graph_of_table(config, shape), heads=False), x)
    assert relative_error(y.reshape(1, -1), spec.reference.predict(config, params, x).reshape(1, -1)) < 1e-14


def _own(config: spec.Config, model: nn.Module, size: int, *, against: str | None = None):
    with mock.patch.dict(spec.PRESETS, {config.preset: config}, clear=against is not None):
        return check(trial(model, (config.in_channels, size, size)), against, inference=False)


@pytest.mark.slow
@pytest.mark.parametrize("tuned", [True, False])
def test_our_own_thin_network_is_the_same(tuned):
    config = thin("d2l")
    report = _own(config, build_of(config, tuned=tuned), 96, against="d2l")
    assert (report.status, report.lines) == (0, ())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, "takes its weights for those of lenet, by their names, canonical"),
        ({"conv2": spec.network.Conv(16, 5, activation="relu")}, "by their names, canonical, and sees nothing of this"),
    ],
)
def test_what_names_would_have_shown_is_said(change, said):
    config = _other(spec.preset("lenet"), **change)
    done = trial(build_of(config), (1, 28, 28), passes=("inference",))
    report = with_names(check(done, "lenet", inference=True), done)
    assert said in report.notes[-1]
    assert report.status == int(bool(change))


def test_names_that_nobody_knows_are_told_where_the_function_is_the_same():
    done = trial(
        nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10)), (1, 28, 28)
    )
    lacking = check(done, "lenet-bn", inference=True)
    assert with_names(lacking, done) == lacking
    same = replace(lacking, lines=())
    assert with_names(same, done).notes == (*same.notes, UNKNOWN)


UNKNOWN = "googlenet convert does not know the names of its parameters; --convert takes its weights along"


def build_of(config: spec.Config, *, tuned: bool = True) -> nn.Module:
    """Our model; the textbook's form is not tuned."""
    model = build(config, dtype="float64", device="cpu")
    if not tuned:
        model.finish(dtype="float64", device="cpu", tuned=False)
    return model


OWN = {"d2l": 96, "d2lzh": 96, "cnblogs": 224, "bvlc": 224, "torchvision": 224}
OWN |= {"lenet": 28, "lenet-bn": 28, "lenet-bn-frozen": 28, "lenet-bn-scratch": 28}


@pytest.mark.slow
@pytest.mark.parametrize("preset", OWN)
def test_our_own_network_is_the_same_and_the_nearest(preset):
    config = spec.preset(preset)
    report = _own(config, build_of(config), OWN[preset])
    assert (report.status, report.lines, report.nearest) == (0, (), preset)


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["inception-bn", "inception-v3", "inception-v4", "inception-resnet-v2"])
def test_our_own_short_inception_is_the_same(preset):
    import googlenet_pt

    config = short(preset)
    model = short_model(googlenet_pt, config, spec.init_params(config, 0))
    report = _own(config, model, 299 if config.aux else 128, against=preset)
    assert report.not_understood is None
    assert (report.status, report.lines) == (0, ())


# ----------------------------------------------------------------------------------------------------- ONNX files


def _onnx(config: spec.Config, folder: Path, **arrays: np.ndarray) -> Path:
    """Our own file of a network, without its heads."""
    config = replace(config, aux=False)
    params = {name: x.astype("float32") for name, x in probe_params(config, 0).items()} | arrays
    with mock.patch.dict(spec.PRESETS, {config.preset: config}):  # which is all that is written
        FORMATS["onnx"].write(folder / "model.onnx", Checkpoint(params, config), here)
    return folder / "model.onnx"


def _other(config: spec.Config, **stages: object) -> spec.Config:
    table = dict(config.table)
    return replace(config, table=tuple((name, stages.get(name, part)) for name, part in table.items()))


ONNX = [  # what is changed in the table, and what is said of it
    ({}, []),
    (
        {"norm2": spec.network.LRN(k=2.0)},
        [(("norm2",), "local response norm with k 2, bvlc has local response norm with k 1")],
    ),
    ({"conv2": spec.network.Conv(12, 3, pad=1, activation=None)}, [(("conv2",), "ReLU is missing")]),
    ({"pool1": spec.MaxPool(3, stride=2)}, [(("pool1",), "size rounded down, bvlc has size rounded up")]),
    (
        {"pool5": spec.network.AveragePool(8, stride=8)},
        [(("pool5",), "8 x 8 average pool, stride 8, bvlc has average of the whole map")],
    ),
    ({"fc": spec.network.Dense(None, activation="relu")}, [(("fc",), "ReLU is extra")]),
]


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        pytest.param(changed, told, id=next(iter(changed), "as it is"), marks=slow if i > 1 else ())
        for i, (changed, told) in enumerate(ONNX)
    ],
)
def test_onnx_file_is_read_as_what_it_computes(changed, told, tmp_path):
    pytest.importorskip("onnxruntime")
    config = strangers.small()
    with mock.patch.dict(spec.PRESETS, {"bvlc": config}, clear=True):
        done = read_onnx(_onnx(_other(config, **changed), tmp_path), [(3, 64, 64)])
        report = check(done, "bvlc", inference=False)
    assert [(line.places, line.text) for line in report.lines] == told
    assert (report.status, report.not_understood) == (int(bool(told)), None)
    assert report.parameters == spec.parameter_count(replace(config, aux=False))
    assert report.notes[0].startswith("training is not to be seen")


@pytest.mark.parametrize("preset", ["lenet-bn", "lenet-bn-frozen"])
def test_scale_that_changes_nothing_is_no_difference_in_an_onnx_file(preset, tmp_path):
    """The operator always has one."""
    pytest.importorskip("onnxruntime")
    learned = probe_params(spec.preset("lenet-bn"), 0).items() if preset == "lenet-bn" else ()
    arrays = {name: np.ones(x.shape, "f4") for name, x in learned if name.endswith("norm.weight")}
    arrays |= {name: np.zeros(x.shape, "f4") for name, x in learned if name.endswith("norm.bias")}
    done = read_onnx(_onnx(spec.preset(preset), tmp_path, **arrays), [(1, 28, 28)])
    for against in ("lenet-bn", "lenet-bn-frozen"):
        report = check(done, against, inference=False)
        assert (report.status, report.lines) == (0, ())


def test_batch_norm_that_was_folded_into_the_layers_is_no_difference(tmp_path):
    pytest.importorskip("onnxruntime")
    config = strangers.small_with_norm()
    with mock.patch.dict(spec.PRESETS, {"bvlc": config}, clear=True):
        done = read_onnx(_onnx(replace(config, batch_norm=None), tmp_path), [(3, 64, 64)])
        report = check(done, "bvlc", inference=False)
    assert (report.status, report.lines) == (0, ())
    assert report.notes[-1] == "batch norm is a part of the layers before it: its epsilon is not to be seen"


@pytest.mark.slow
def test_command_reads_an_onnx_file(tmp_path):
    pytest.importorskip("onnxruntime")
    _onnx(spec.preset("d2lzh"), tmp_path)
    told = googlenet("check", "model.onnx", "--against", "d2lzh", "--convert", "out.npz", cwd=tmp_path).stdout
    assert "The same function as d2lzh at 96 x 96 and one pixel larger, in inference." in told
    assert told.endswith("wrote out.npz\n")
    (tmp_path / "model.onnx").write_bytes(b"no graph")
    assert "model.onnx" in googlenet("check", "model.onnx", status=2, cwd=tmp_path).stderr


# ----------------------------------------------------------------------------------------------------- the weights


def lenet(last: type[nn.Module] = nn.Sigmoid) -> nn.Module:
    """LeNet as a stranger writes it."""
    torch.manual_seed(0)
    first = [nn.Conv2d(1, 6, 5), nn.Sigmoid(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.Sigmoid(), nn.MaxPool2d(2)]
    return nn.Sequential(
        *first, nn.Flatten(), nn.Linear(256, 120), nn.Sigmoid(), nn.Linear(120, 84), last(), nn.Linear(84, 10)
    )


def test_weights_come_out_by_canonical_names(tmp_path):
    model = lenet()
    arrays = [x.detach().numpy().copy() for x in model.parameters()]
    report = check(trial(model, (1, 28, 28), seed=None), None, inference=False)
    target = tmp_path / "out.safetensors"
    assert converted(report, tmp_path, target, here).passed
    written = load(target)
    assert (written.config.preset, list(written.params)) == ("lenet", list(spec.param_shapes(spec.preset("lenet"))))
    assert all(np.array_equal(x, y) for x, y in zip(written.params.values(), arrays, strict=True))


def test_weights_of_another_function_are_written_where_the_difference_is_accepted(tmp_path):
    report = check(trial(lenet(nn.ReLU), (1, 28, 28), seed=None), "lenet", inference=False)
    assert [line.text for line in report.lines] == ["ReLU, lenet has sigmoid"]
    assert (accepted(report, []), accepted(report, ["dropout"]), accepted(report, ["ReLU"])) == (False, False, True)
    narrow = replace(report, arrays={name: x[:5] if name == "conv1.bias" else x for name, x in report.arrays.items()})
    with pytest.raises(
        spec.InvalidInput, match=r"1 arrays of lenet have none of their shape in the model, conv1\.bias"
    ):
        converted(narrow, tmp_path, tmp_path / "out.safetensors", here)
    assert list(tmp_path.iterdir()) == []


def test_weights_are_loaded_by_the_models_own_names(tmp_path):
    model, other = lenet(), lenet()
    with torch.no_grad():
        for x in model.parameters():
            x += 1
    wrapped = {"epoch": 3, "state_dict": {f"module.{name}": x for name, x in model.state_dict().items()}}
    torch.save(wrapped, tmp_path / "w.pt")
    recording.load(other, tmp_path / "w.pt")
    pairs = zip(model.parameters(), other.parameters(), strict=True)
    assert all(torch.equal(x, y) for x, y in pairs)
    torch.save(dict(list(model.state_dict().items())[1:]), tmp_path / "w.pt")
    with pytest.raises(spec.InvalidInput, match=r"1 are missing, 0 are left over, 0\.weight among them"):
        recording.load(other, tmp_path / "w.pt")


# ---------------------------------------------------------------------------------------------- somebody's process

_MODEL = (
    "from torch import nn\nclass Net(nn.Module):\n    def __init__(self, classes=10):\n        super().__init__()\n"
)
_MODEL += "        self.fc = nn.Linear(4, classes)\n"
BEHAVIOR = {  # of the code, and what is said of it; None: nothing, it is judged
    "ends": (
        _MODEL + "    def forward(self, x): import sys; sys.exit(4)\n",
        "the code ended the process, with exit status 4",
    ),
    "dies": (
        _MODEL + "    def forward(self, x): import os; os._exit(5)\n",
        "it ended with exit status 5 before it had run",
    ),
    "asks": (
        _MODEL + "    def forward(self, x): return self.fc(x.flatten(1)) * int(input())\n",
        "the code asked for input",
    ),
    "raises": (
        _MODEL + "    def forward(self, x): raise KeyError('\\x1b[31m')\n",
        r"it ran and raised KeyError: '\x1b",
    ),
    "forks": (  # what its child would answer is nothing that the process has said
        _MODEL + "    def forward(self, x):\n        import os\n        if child := os.fork():\n"
        "            os.waitpid(child, 0)\n            os._exit(7)\n        return self.fc(x.flatten(1))\n",
        "it ended with exit status 7 before it had run",
    ),
    "hangs": (_MODEL + "import time\ntime.sleep(1000)\n", "it did not end within 6 seconds"),
    "eats": (_MODEL + "    def forward(self, x): return x.new_zeros(2, 10**10)\n", "memory ran out"),
    "asserts": (_MODEL + "    def forward(self, x): assert not x.numel()\n", "it ran and raised AssertionError"),
    "does nothing": (
        "from torch import nn\nclass Net(nn.Module): pass\n",
        'it ran and raised NotImplementedError: Module [Net] is missing the required "forward"',
    ),
    "stops": ("raise RuntimeError('no data')\n", "its code raised RuntimeError: no data"),
    "lacks": (_MODEL.replace("Net", "Other"), "expected the name of a class, a function or a model; it defines Other"),
    "is none": ("Net = 5\n", "expected a model of PyTorch, MXNet Gluon, Flax, Equinox or Keras, got int"),
    "moves": (
        _MODEL + "    def train(self, mode=True): print('x' * 10**6); return self\n"
        "    def forward(self, x):\n        import os; os.chdir('/'); print(x); return self.fc(x.flatten(1))\n",
        None,
    ),
}


def _task(folder, code: str) -> Task:
    (folder / "model.py").write_text(code)
    return Task("model.py:Net", str(folder), {}, ((1, 2, 2),), True, 3.0)


@pytest.mark.slow
@pytest.mark.parametrize("behavior", BEHAVIOR)
def test_model_that_misbehaves_is_told_in_one_line(behavior, tmp_path):
    code, said = BEHAVIOR[behavior]
    task = _task(tmp_path, code)
    if said is None:
        done = run_trial(task, 60)
        assert set(done.recordings) == {"inference", LARGER, "training"} - {LARGER}
        assert "cannot be multiplied" in done.failed[LARGER]
        return
    with pytest.raises(spec.InvalidInput) as refused:
        run_trial(task, 6 if behavior == "hangs" else 60)
    assert str(refused.value).startswith(f"model.py:Net: {said}")
    assert "\n" not in str(refused.value)
    assert not str(refused.value).endswith(": ")


@pytest.mark.slow
def test_command_judges_a_model_in_a_process_of_its_own(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n"
        "def net(width):\n"
        "    return nn.Sequential(nn.Conv2d(1, width, 5), nn.Sigmoid(), nn.MaxPool2d(2), nn.Conv2d(width, 16, 5),\n"
        "        nn.Sigmoid(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(256, 120), nn.Sigmoid(), nn.Linear(120, 84),\n"
        "        nn.ReLU(), nn.Linear(84, 10))\n"
    )
    words = ("check", "mine.py:net", "--arg", "width=6", "--json")
    found = json.loads(googlenet(*words, status=1, cwd=tmp_path).stdout)
    assert (found["verdict"], found["preset"], found["input"]) == ("differs", "lenet", [1, 28, 28])
    assert [(line["places"], line["text"]) for line in found["differences"]] == [(["fc4"], "ReLU, lenet has sigmoid")]
    told = googlenet("check", "mine.py:net", "--arg", "width=6", "--against", "lenet", status=1, cwd=tmp_path).stdout
    assert told.startswith(
        "44,426 parameters, as lenet; read 12 operations and ran them again: equal\nfc4   ReLU, lenet"
    )
    assert "Names, shapes and counts show none of these 1." in told
    words = ("check", "mine.py:net", "--arg", "width=6", "--convert", "out.safetensors")
    assert "nothing was written" in googlenet(*words, status=1, cwd=tmp_path).stderr
    assert not (tmp_path / "out.safetensors").exists()
    assert "wrote out.safetensors" in googlenet(*words, "--accept", "ReLU", cwd=tmp_path).stdout
    assert load(tmp_path / "out.safetensors").config.preset == "lenet"


@pytest.mark.slow
def test_command_holds_a_model_against_another_and_hands_weights_over(tmp_path):
    body = "return nn.Sequential({}, nn.Flatten(), nn.Linear(4, 10))\n"
    for name, parts in (("mine", "nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1)"), ("yours", "C(), nn.AvgPool2d(26)")):
        (tmp_path / f"{name}.py").write_text(
            "from torch import nn\nclass C(nn.Conv2d):\n    def __init__(self): super().__init__(1, 4, 3)\n"
            f"def net():\n    {body.format(parts)}"
        )
    words = ("check", "mine.py:net", "--against", "yours.py:net", "--input", "1x28x28", "--convert", "out.pt")
    refused = googlenet(*words, status=1, cwd=tmp_path)
    assert "average of the whole map, yours.py:net has 26 x 26 average pool, stride 26" in refused.stdout
    assert "nothing was written to out.pt" in refused.stderr
    told = googlenet(*words, "--inference", cwd=tmp_path).stdout
    assert "The same function as yours.py:net at 28 x 28, in inference." in told
    assert "wrote out.pt" in told
    assert set(torch.load(tmp_path / "out.pt")) == {"0.weight", "0.bias", "3.weight", "3.bias"}


def test_file_of_weights_is_no_program(tmp_path):
    torch.save({"a": torch.zeros(2)}, tmp_path / "weights.pt")
    told = googlenet("check", "weights.pt", status=2, cwd=tmp_path).stderr
    assert "weights.pt: expected a TorchScript program, got a file without code" in told
    content = (tmp_path / "weights.pt").read_bytes()
    (tmp_path / "weights.pt").write_bytes(content.replace(b"PK\x01\x02", b"PK\x01\x00"))
    told = googlenet("check", "weights.pt", status=2, cwd=tmp_path).stderr
    assert "weights.pt: cannot be read, or is damaged" in told


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            "check model",
            "expected FILE.py:NAME, package.module:NAME, or a name that ends in one of .onnx, -symbol.json, .pt",
        ),
        ("check none.py:Net", "none.py: there is no such file"),
        ("check a.b:Net --input 3x0x5", "--input: expected channels, height and width"),
        ("check a.b:Net --arg five", "--arg: expected NAME=VALUE"),
        ("check a.b:Net --time 0", "--time: expected a number above 0"),
        ("check a.b:Net --convert out.xyz", "out.xyz"),
        ("check a.b:Net --against none.py:Net", "none.py: there is no such file"),
        ("check a.b:Net --against c.d:Net --convert out.onnx", "expected a name that ends in one of .safetensors, .pt"),
        ("check README.md:Net --html README.md", "--html README.md: expected a new name, got that of a source"),
        (
            "check a.b:Net --against c.d:Net --weights README.md --convert README.md",
            "--convert README.md: expected a n",
        ),
        ("check a.safetensors --html a.html", "--against and --json alone are for captures"),
        ("check a.b:Net --weights none.pt", "--weights none.pt: there is no such file"),
        ("check a.onnx --arg b=1", "a.onnx: there is no such file"),
        ("check a.b:Net --against vgg", "unknown preset 'vgg'"),
    ],
)
def test_wrong_usage_of_check_is_refused(words, said):
    assert said in googlenet(*words.split(), status=2).stderr


# ------------------------------------------------------------------------------------- batch norm, written out


class Written(nn.Module):
    """A convolution, and batch norm in somebody's own arithmetic."""

    FORMS: ClassVar = {
        "as in the paper": lambda x, m, v, g, b: (x - m) / torch.sqrt(v + 1e-3) * g + b,
        "scale first": lambda x, m, v, g, b: g * (x - m) * torch.rsqrt(v + 1e-3) + b,
        "a factor and a summand": lambda x, m, v, g, b: x * (g / (v + 1e-3) ** 0.5) + (b - m * g / (v + 1e-3) ** 0.5),
        "no scale": lambda x, m, v, g, b: (x - m) / (v + 1e-3).sqrt() + b,
        "no shift": lambda x, m, v, g, b: (x - m) / (v + 1e-3).sqrt() * g,
        "epsilon outside the root": lambda x, m, v, g, b: (x - m) / (v.sqrt() + 1e-3) * g + b,
        "the scale twice": lambda x, m, v, g, b: (x - m) / (v + 1e-3).sqrt() * g * g + b,
        "a scale of 0": lambda x, m, v, g, b: (x - m) / (v + 1e-3).sqrt() * (g - g) + b,
    }

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form = form
        self.conv = nn.Conv2d(1, 5, 3, bias=False)
        for name in ("m", "v"):
            self.register_buffer(name, torch.ones(5))
        self.g, self.b = nn.Parameter(torch.ones(5)), nn.Parameter(torch.zeros(5))

    def forward(self, x):
        x, axes, shape = self.conv(x), (0, 2, 3), (5, 1, 1)
        m, v = self.m, self.v
        if self.training:
            m = x.mean(axes)
            v = ((x - m.view(shape)) ** 2).mean(axes)
            self.m.mul_(0.75).add_(0.25 * m)
            self.v = 0.75 * self.v + 0.25 * v
        return self.FORMS[self.form](x, *(y.view(shape) for y in (m, v, self.g, self.b)))


OTHER_FORMS = ("epsilon outside the root", "the scale twice", "a scale of 0")


@pytest.mark.parametrize("form", Written.FORMS)
def test_written_batch_norm_is_read(form):
    done = trial(Written(form), (1, 8, 8), passes=("inference", "training"))
    last = {kind: recording.graph.nodes[-1] for kind, recording in done.recordings.items()}
    if form in OTHER_FORMS:
        assert all(isinstance(node.op, Unknown) for node in last.values())
        return
    scale, shift = form != "no scale", form != "no shift"
    learned = ({"weight": "g"} if scale else {}) | ({"bias": "b"} if shift else {})
    epsilon = pytest.approx(1e-3, rel=1e-9)
    assert last["inference"].op == Norm(epsilon, None, scale, shift)
    assert last["inference"].arrays == {**learned, "mean": "m", "var": "v"}
    assert last["training"].op == Norm(epsilon, 0.25, scale, shift, of_batch=True)
    assert last["training"].arrays == learned
    assert understood(done.recordings["training"], probe_images((1, 8, 8)), "float64", heads=True)[1] < 1e-12


def book_norm(x, gamma, beta, mean, var, momentum):
    """As textbooks write it: no module says what mode it is in, and new statistics are what comes back."""
    if not torch.is_grad_enabled():
        y = (x - mean) / torch.sqrt(var + 1e-5)
    else:
        axes, kept = (0 if x.dim() == 2 else (0, 2, 3)), x.dim() == 4
        own = x.mean(dim=axes, keepdim=kept)
        spread = ((x - own) ** 2).mean(dim=axes, keepdim=kept)
        y = (x - own) / torch.sqrt(spread + 1e-5)
        mean, var = (1.0 - momentum) * mean + momentum * own, (1.0 - momentum) * var + momentum * spread
    return gamma * y + beta, mean.data, var.data


class BookNorm(nn.Module):
    """Its statistics are plain attributes."""

    def __init__(self, channels, axes, momentum):
        super().__init__()
        shape = (1, channels, 1, 1)[:axes]
        self.gamma, self.beta = nn.Parameter(torch.ones(shape)), nn.Parameter(torch.zeros(shape))
        self.mean, self.var, self.momentum = torch.zeros(shape), torch.ones(shape), momentum

    def forward(self, x):
        y, self.mean, self.var = book_norm(x, self.gamma, self.beta, self.mean, self.var, self.momentum)
        return y


@pytest.mark.parametrize("momentum", [0.1, 0.25])
def test_batch_norm_that_asks_for_gradients_is_read(momentum):
    """And keeps its statistics beside the module's state."""
    convolutions = [
        part
        for into, out in ((1, 6), (6, 16))
        for part in (nn.Conv2d(into, out, 5), BookNorm(out, 4, momentum), nn.Sigmoid(), nn.MaxPool2d(2, 2))
    ]
    dense = [
        part
        for into, out in ((256, 120), (120, 84))
        for part in (nn.Linear(into, out), BookNorm(out, 2, momentum), nn.Sigmoid())
    ]
    report = check(
        trial(nn.Sequential(*convolutions, nn.Flatten(), *dense, nn.Linear(84, 10)), (1, 28, 28)),
        "lenet-bn",
        inference=False,
    )
    lines = [] if momentum == 0.1 else [("momentum 0.25, lenet-bn has momentum 0.1", "training only")]
    assert [(line.text, line.effect) for line in report.lines] == lines
    assert (report.not_understood, report.parameters) == (None, spec.parameter_count(spec.preset("lenet-bn")))
    assert {"conv1.norm.running_mean", "fc4.norm.running_var"} <= report.arrays.keys()


@pytest.mark.parametrize("divisor", [9, 4])
@pytest.mark.parametrize("settings", [{"padding": 1}, {"padding": 1, "ceil_mode": True}, {"ceil_mode": True}], ids=str)
def test_average_with_a_divisor_of_its_own_is_read(divisor, settings):
    """Every window is divided by it, those at the edge too."""
    pool = nn.AvgPool2d(3, 2, **settings, divisor_override=divisor)
    done = trial(nn.Sequential(nn.Conv2d(1, 2, 1), pool), (1, 6, 6), passes=("inference",)).recordings["inference"]
    factor = [node.op.factor for node in done.graph.nodes if isinstance(node.op, Scale)]
    assert factor == [9 / divisor]
    assert understood(done, probe_images((1, 6, 6)), "float64", heads=False)[1] < 1e-12


def test_written_batch_norm_is_not_read_in_float32():
    """Its epsilon would be told wrong."""
    model = recording.settle(Written("as in the paper"), "float32", 0, IMAGES)
    last = recording.record(model, probe_images((1, 8, 8)), training=False).graph.nodes[-1]
    assert isinstance(last.op, Unknown)


def test_momentum_of_a_written_batch_norm_is_a_difference():
    model = build(spec.preset("lenet-bn-scratch"), dtype="float64", device="cpu")
    report = check(trial(model, (1, 28, 28)), "lenet-bn", inference=False)
    assert [line.text for line in report.lines] == ["momentum 1, lenet-bn has momentum 0.1"]
    assert (report.status, report.nearest) == (1, "lenet-bn-scratch")
