"""`googlenet check` on Gluon's models and MXNet's symbols: read as what they compute, told in PyTorch's words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from networks import thin
from stranger_table import SIZE, small, small_with_norm
from support import TESTED, googlenet, here

import spec
from harness.agreement import probe_params, relative_error
from harness.check.align import align, weights
from harness.check.checking import check, understood
from harness.check.conversion import converted
from harness.check.graph import Norm, enlarged, probe_images
from harness.check.reference import Effects, Reference
from harness.check.tree import read
from harness.check.trial import LARGER, Task, Trial, attempt
from harness.weights.checkpoint import Checkpoint
from harness.weights.formats import FORMATS, gluon

if "mx" not in TESTED:
    pytest.skip("MXNet is not tested", allow_module_level=True)

from googlenet_mx import build, recording
from googlenet_mx.operators.values import made_parameters

mx, nn = recording.mx, recording.mx.gluon.nn  # nothing else may import MXNet first

IMAGES = probe_images((1, 2, 2))  # which show a model of MXNet nothing before it runs

slow = pytest.mark.slow


def passes(model: nn.Block, shape: spec.Shape, dtype: str, kinds: tuple[str, ...]) -> Trial:
    """What `run_trial` gives, in this process and in one dtype."""
    sizes = {"inference": shape, LARGER: enlarged(shape), "training": shape}
    recordings, failed = {}, {}
    for kind in kinds or sizes:
        try:
            recordings[kind] = recording.record(model, probe_images(sizes[kind]), training=kind == "training")
        except mx.MXNetError as error:
            if kind == "inference":
                raise
            failed[kind] = str(error)
    return Trial(shape, "mxnet", dtype, recording.parameters(model), recordings, failed)


def trial(make: Any, shape: spec.Shape, *, seed: int | None = 0, kinds: tuple[str, ...] = ()) -> Trial:
    """The same in the first dtype that the model takes."""
    try:
        return passes(recording.settle(make(), "float64", seed, IMAGES), shape, "float64", kinds)
    except mx.MXNetError:
        return passes(recording.settle(make(), "float32", seed, IMAGES), shape, "float32", kinds)


def stranger(mistake: str) -> nn.Block:
    """A stranger's network."""
    import strangers_gluon

    return strangers_gluon.Stranger(mistake, mistake in OF_NORM)


OF_NORM = ("norm", "epsilon", "momentum", "no-scale", "default-norm", "frozen")


@contextmanager
def table(mistake: str) -> Iterator[None]:
    """A context in which the stranger's network is the only preset."""
    config = small_with_norm() if mistake in OF_NORM else small()
    with mock.patch.dict(spec.PRESETS, {"bvlc": config}, clear=True):
        yield


def judged(mistake: str):
    """The report on a stranger's network."""
    with table(mistake):
        return check(trial(lambda: stranger(mistake), (3, SIZE, SIZE)), "bvlc", inference=False)


LRN, RELU, TRAINING = ("norm1", "norm2"), "ReLU is missing", "training only"
BLOCKS = ("inception3a", "inception3b", "inception4a", "inception4b")
POOLS = tuple(f"{block}.pool" for block in BLOCKS)
EVERYWHERE = tuple(node.name for node in spec.layers(small_with_norm()) if node.norm)
MISTAKES = [  # what is wrong, where, in these words, what it does, and what would have shown it
    ("lrn-k", LRN, "local response norm with k 2, bvlc has local response norm with k 1", "off by", "nothing"),
    (
        "written-lrn-beta",
        LRN,
        "local response norm with beta 0.5, bvlc has local response norm with beta 0.75",
        "off by",
        "nothing",
    ),
    (
        "lrn-alpha",
        LRN,
        "local response norm with alpha 0.0005, bvlc has local response norm with alpha 0.0001",
        "off by",
        "nothing",
    ),
    ("head-dropout", ("aux1.fc1",), "dropout 0.5 is extra", TRAINING, "nothing"),
    ("head-share", ("aux1.fc2",), "dropout 0.5, bvlc has dropout 0.7", TRAINING, "nothing"),
    ("no-reduce", ("conv2_reduce",), "1 x 1 convolution is missing", "other weights", "count"),
    ("no-relu", ("conv2",), RELU, "off by", "nothing"),
    ("no-relu-branch", tuple(f"{block}.branch1x1" for block in BLOCKS), RELU, "off by", "nothing"),
    ("width", ("inception3b.branch5x5",), "9 channels, bvlc has 4 channels", "other weights", "count"),
    ("pad", ("conv1",), "padding (2, 3), bvlc has padding 3", "off by", "shapes"),
    ("softmax", ("fc",), "softmax is extra", "off by", "nothing"),
    ("pool-unused", POOLS, "3 x 3 max pool, stride 1, padding 1 is missing", "off by", "nothing"),
    ("floor", ("pool1", "pool2"), "size rounded down, bvlc has size rounded up", "off by", "shapes"),
    (
        "fixed-average",
        ("pool5",),
        "8 x 8 average pool, stride 8, bvlc has average of the whole map",
        "none at 64 and 65, at other sizes there is one",
        "nothing",
    ),
    ("order", BLOCKS, "the order of its branches is 1, 3, 2, 4", "off by", "nothing"),
    ("no-bias", ("conv2",), "no bias, bvlc has bias", "other weights", "count"),
    ("dilation", ("conv2",), "padding 2, dilation 2, bvlc has padding 1, dilation 1", "off by", "nothing"),
    (
        "block-average",
        POOLS,
        "3 x 3 average pool, stride 1, padding 1, bvlc has 3 x 3 max pool, stride 1, padding 1",
        "off by",
        "nothing",
    ),
    (
        "not-counted",
        POOLS,
        "3 x 3 average pool, stride 1, padding 1, padding not counted, bvlc has 3 x 3 max pool, stride 1, padding 1",
        "off by",
        "nothing",
    ),
    ("flatten", ("aux1.conv",), "flattening with the channels last is extra", TRAINING, "nothing"),
    ("no-head", ("aux1",), "auxiliary head is missing", TRAINING, "nothing"),
    (
        "head-adaptive",
        ("aux1.pool",),
        "2 x 2 averages of the map, bvlc has 5 x 5 average pool, stride 3",
        TRAINING,
        "nothing",
    ),
    ("sigmoid", ("conv1",), "sigmoid, bvlc has ReLU", "off by", "nothing"),
    ("leaky", ("conv1",), "leaky ReLU of slope 0.1, bvlc has ReLU", "off by", "nothing"),
    ("no-dropout", ("fc",), "dropout 0.4 is missing", TRAINING, "nothing"),
    ("always-drops", ("fc",), "dropout 0.4 at inference too is extra", "another result each time", "nothing"),
    ("epsilon", EVERYWHERE, "epsilon 1e-05, bvlc has epsilon 0.001", "off by", "nothing"),
    ("momentum", EVERYWHERE, "momentum 0.9, bvlc has momentum 0.1", TRAINING, "nothing"),
    ("no-scale", EVERYWHERE, "no scale, bvlc has scale", "other weights", "count"),
    ("default-norm", EVERYWHERE, "no scale, bvlc has scale", "other weights", "count"),
    ("frozen", EVERYWHERE, "running statistics, bvlc has statistics of the batch", TRAINING, "nothing"),
]
QUICK = ("lrn-k", "written-lrn-beta")  # in float32, since MXNet's own refuses float64, and in float64


@pytest.mark.parametrize(
    ("mistake", "places", "text", "effect", "shown_by"),
    [pytest.param(*row, marks=() if row[0] in QUICK else slow, id=row[0]) for row in MISTAKES],
)
def test_mistake_is_found_and_nothing_else(mistake, places, text, effect, shown_by):
    report = judged(mistake)
    assert report.not_understood is None
    assert [(line.places, line.text, line.shown_by) for line in report.lines] == [(places, text, shown_by)]
    assert effect in report.lines[0].effect
    assert report.status == 1


@slow
@pytest.mark.parametrize("mistake", ["", "written-lrn", "written-dropout", "norm"])
def test_same_function_in_another_form_is_no_difference(mistake):
    report = judged(mistake)
    assert (report.status, report.lines, report.not_understood) == (0, (), None)
    assert report.error < (1e-6 if report.dtype == "float32" else 1e-13)


@slow
def test_sum_over_the_channels_that_is_no_local_response_norm_is_not_understood():
    report = judged("written-lrn-divisor")
    assert (report.status, report.lines) == (3, ())
    assert report.not_understood == "the operation power at stem.5"


@slow
@pytest.mark.parametrize("mistake", ["no-lrn", "no-relu", "pad", "order", "pool-unused", "lrn-k", "floor", "epsilon"])
def test_effect_is_that_of_running_both_networks(mistake):
    """Both with the weights and the pictures that the effect is measured with; MXNet's own LRN in float32."""
    shape, logits, names = (3, SIZE, SIZE), [], []
    right = "norm" if mistake in OF_NORM else ""
    with table(mistake):
        reference = Reference(spec.preset("bvlc", num_classes=10))
        effects = Effects(reference, shape)
        done = trial(lambda: stranger(right), shape, seed=None, kinds=("inference",))
    _, alignment = align(reference.tree(shape), read(done.recordings["inference"].graph, heads=False))
    arrays = {own: effects.arrays[name] for name, own in weights(alignment).items()}
    for name in (right, mistake):
        model, x = recording.settle(stranger(name), "float32", None, IMAGES), mx.nd.array(effects.x)
        model(x)
        made = [parameter for parameter in model.collect_params().values() if parameter._data is not None]
        names = names or list(made_parameters(model))
        for own, parameter in zip(names, made, strict=True):
            if own in arrays:  # the head's are not
                parameter.set_data(mx.nd.array(arrays[own]))
        logits.append(model(x).asnumpy().astype(float))
    told = judged(mistake).lines[0].measured[SIZE]
    assert told == pytest.approx(relative_error(logits[1], logits[0]), rel=0.01)


# ------------------------------------------------------------------------------------------------ no false alarms


def own(config: spec.Config, model: nn.Block, size: int):
    """The report on our own network."""
    with mock.patch.dict(spec.PRESETS, {config.preset: config}, clear=True):
        done = passes(recording.settle(model, "float64", 0, IMAGES), (config.in_channels, size, size), "float64", ())
        return check(done, config.preset, inference=False)


@pytest.mark.parametrize(
    ("preset", "size", "tuned"),
    [
        ("lenet-bn", 28, True),
        pytest.param("bvlc", 224, True, marks=slow),
        pytest.param("torchvision", 64, False, marks=slow),
        pytest.param("d2l", 96, False, marks=slow),
    ],
)
def test_our_own_network_is_the_same(preset, size, tuned):
    """Hybridized too; its own batch norm, momentum, dropout and local response norm are arithmetic on arrays."""
    config = thin(preset, **({"aux": False} if size == 64 else {}))
    model = build(config, dtype="float64", device="cpu")
    report = own(config, model if tuned else type(model)(config, dtype="float64", device="cpu", tuned=False), size)
    assert report.not_understood is None
    assert (report.status, report.lines) == (0, ())
    assert report.compared == ("inference", LARGER, "training") if config.aux else "inference" in report.compared


@pytest.mark.parametrize(("preset", "momentum"), [("lenet-bn", 0.1), ("lenet-bn-scratch", 1.0)])
def test_a_pass_leaves_a_model_as_it_was(preset, momentum):
    """Our networks move their running means themselves whenever they are trained: by how much is measured."""
    model = build(thin(preset), dtype="float64", device="cpu")
    before = {name: parameter.data().asnumpy() for name, parameter in made_parameters(model).items()}
    done = recording.record(model, probe_images((1, 28, 28)), training=True)
    assert {node.op.momentum for node in done.graph.nodes if isinstance(node.op, Norm)} == {momentum}
    after = {name: parameter.data().asnumpy() for name, parameter in made_parameters(model).items()}
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert mx.nd.NDArray.reshape.__name__ == "reshape"
    assert "_active" not in vars(mx.gluon.HybridBlock)


# ------------------------------------------------------------------------------------------- other ways to write it


class Modern(nn.Block):
    """As today's textbook writes it, in MXNet's NumPy mode."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2D(4, 3, padding=1), nn.Conv2D(5, 1)
        self.fc = nn.Dense(10)

    def forward(self, x):
        np_, npx = mx.np, mx.npx
        x = np_.concatenate((npx.relu(self.one(x)), npx.sigmoid(self.two(x)) * 2 - 1), axis=1)
        x = npx.pooling(x, kernel=(2, 2), stride=(2, 2), pool_type="avg")
        return npx.log_softmax(self.fc((x + x).reshape(len(x), -1)), axis=1)


def test_numpy_mode_is_read():
    mx.npx.set_np()
    try:
        done = passes(recording.settle(Modern(), "float64", 0, IMAGES), (1, 8, 8), "float64", ("inference",))
    finally:
        mx.npx.reset_np()
    recorded = done.recordings["inference"]
    _, error = understood(recorded, probe_images((1, 8, 8)), "float64", heads=False)
    assert error < 1e-14
    kinds = [type(node.op).__name__ for node in recorded.graph.nodes[1:]]
    first = ["Convolution", "Activation", "Convolution", "Activation", "Scale", "Concat", "AveragePool"]
    assert sorted(kinds) == sorted([*first, "Add", "Flatten", "Linear", "Softmax"])


def test_leaky_relu_is_held_to_float32_in_which_mxnet_computes_it():
    """Whatever the dtype of its arrays."""
    net = nn.HybridSequential()
    net.add(nn.Conv2D(4, 3), nn.LeakyReLU(0.1))
    done = passes(recording.settle(net, "float64", 0, IMAGES), (1, 8, 8), "float64", ("inference",))
    recorded = done.recordings["inference"]
    assert recorded.single
    _, error = understood(recorded, probe_images((1, 8, 8)), "float32", heads=False)
    assert error < 1e-6


def lenet() -> nn.HybridSequential:
    """LeNet as a stranger writes it, hybridized, with shapes that only a pass shows."""
    net = nn.HybridSequential()
    net.add(nn.Conv2D(6, 5, activation="sigmoid"), nn.MaxPool2D(2), nn.Conv2D(16, 5, activation="sigmoid"))
    net.add(nn.MaxPool2D(2), nn.Dense(120, activation="sigmoid"), nn.Dense(84, activation="sigmoid"), nn.Dense(10))
    net.initialize()
    net.hybridize()
    return net


def test_weights_are_loaded_by_the_names_of_attributes_and_by_those_with_prefixes(tmp_path):
    net = lenet()
    net(mx.nd.array(probe_images((1, 28, 28))))
    net.save_parameters(str(tmp_path / "own.params"))
    net.collect_params().save(str(tmp_path / "prefixed.params"))
    with pytest.raises(spec.InvalidInput, match=r"10 are missing, 10 are left over, 0\.bias, 0\.weight"):
        recording.load(lenet(), tmp_path / "prefixed.params")  # another one's prefixes
    recording.load(net, tmp_path / "prefixed.params")
    recording.load(other := lenet(), tmp_path / "own.params")
    report = check(
        passes(recording.settle(other, "float64", None, IMAGES), (1, 28, 28), "float64", ()), None, inference=False
    )
    assert (report.status, report.preset) == (0, "lenet")
    assert np.array_equal(report.arrays["conv1.weight"], net[0].weight.data().asnumpy())
    assert converted(report, tmp_path / "own.params", tmp_path / "out.npz", here).passed
    narrow = {name: x[:5] if name == "0.bias" else x for name, x in gluon.read(tmp_path / "own.params").arrays.items()}
    gluon.write(tmp_path / "narrow.params", narrow, {})
    with pytest.raises(spec.InvalidInput, match=r"1 arrays have other shapes than the model's: 0\.bias is \(5,\)"):
        recording.load(lenet(), tmp_path / "narrow.params")


def test_part_in_float32_is_held_to_what_float32_can_do():
    """MXNet's own LRN refuses float64, so people cast around it."""
    net = nn.HybridSequential()
    cast = nn.HybridLambda(lambda F, x: F.cast(F.LRN(F.cast(x, "float32"), nsize=5), "float64"))
    net.add(nn.Conv2D(4, 3), cast, nn.Dense(3))
    task = Task("net", "", {}, ((1, 8, 8),), training=True, memory=8)
    with mock.patch("harness.check.trial._found", return_value=net):
        done = attempt(task)
    assert done.dtype == "float32"
    for kind, seen in done.recordings.items():
        images = probe_images(done.shape_of(kind))
        assert 1e-12 < understood(seen, images, done.dtype, heads=kind == "training")[1] < 1e-5


def test_convolution_with_the_channels_last_is_refused_in_one_line():
    net = nn.HybridSequential()
    net.add(nn.Conv2D(4, 3, layout="NHWC"), nn.Dense(3))
    expected = "MXNet runs convolutions whose channels are last on GPUs alone, 0 among them: build the model with"
    with pytest.raises(spec.InvalidInput, match=expected):
        recording.settle(net, "float64", 0, IMAGES)


# --------------------------------------------------------------------------------------------------------- symbols


def exported(config: spec.Config, folder: Path) -> Path:
    """Our own symbol of a network."""
    path = folder / "net-symbol.json"
    params = {name: x.astype("float32") for name, x in probe_params(config, 0).items()}
    with mock.patch.dict(spec.PRESETS, {config.preset: config}):
        FORMATS["mxnet"].write(path, Checkpoint(params, config), here)
    return path


@pytest.mark.parametrize(("preset", "size"), [("lenet-bn", 28), pytest.param("torchvision", 64, marks=slow)])
def test_our_own_symbol_is_the_same(preset, size, tmp_path):
    """Batch norm's share of a batch is not in it."""
    config = thin(preset, dropout=0.0, aux=False)
    path = exported(config, tmp_path)
    with mock.patch.dict(spec.PRESETS, {preset: config}, clear=True):
        report = check(trial(lambda: recording.Symbol(path), (config.in_channels, size, size)), None, inference=False)
    assert (report.status, report.lines, report.not_understood) == (0, (), None)
    assert report.parameters == spec.parameter_count(config)


@slow
@pytest.mark.parametrize(
    ("mistake", "told"),
    [
        ("", []),
        ("lrn-k", ["local response norm with k 2, bvlc has local response norm with k 1"]),
        ("no-relu", ["ReLU is missing"]),
        ("no-dropout", ["dropout 0.4 is missing"]),
        ("pool-unused", ["3 x 3 max pool, stride 1, padding 1 is missing"]),
    ],
)
def test_symbol_of_a_stranger_is_read_as_what_it_computes(mistake, told, tmp_path):
    """Without the head, which no inference runs."""
    model = recording.settle(stranger(mistake), "float32", None, IMAGES)
    model(mx.nd.array(probe_images((3, SIZE, SIZE))))
    model(mx.sym.var("data")).save(str(tmp_path / "s-symbol.json"))
    parameters = [x for x in model.collect_params().values() if x._data is not None]
    gluon.write(tmp_path / "s-0000.params", {f"arg:{x.name}": x.data().asnumpy() for x in parameters}, {})
    with mock.patch.dict(spec.PRESETS, {"bvlc": small(aux=False)}, clear=True):
        done = trial(lambda: recording.Symbol(tmp_path / "s-symbol.json"), (3, SIZE, SIZE))
        report = check(done, "bvlc", inference=False)
    assert [line.text for line in report.lines] == told
    assert (report.status, report.not_understood) == (int(bool(told)), None)
    assert report.parameters == spec.parameter_count(small(aux=False))


def test_symbol_with_a_loss_and_a_batch_norm_of_fixed_scale_is_read(tmp_path):
    """Its label is zeros, and a scale that the operator takes for 1 is none."""
    x = mx.sym.Convolution(mx.sym.var("data"), kernel=(3, 3), num_filter=4, no_bias=True, name="c")
    x = mx.sym.FullyConnected(mx.sym.BatchNorm(x, name="b"), num_hidden=10, name="f")
    mx.sym.SoftmaxOutput(x, name="softmax").save(str(tmp_path / "n-symbol.json"))
    shapes = {"arg:c_weight": (4, 1, 3, 3), "arg:b_gamma": (4,), "arg:b_beta": (4,), "arg:f_weight": (10, 144)}
    shapes |= {"arg:f_bias": (10,), "aux:b_moving_mean": (4,), "aux:b_moving_var": (4,)}
    rng = np.random.default_rng(0)
    gluon.write(tmp_path / "n-0003.params", {name: rng.random(shape) for name, shape in shapes.items()}, {})
    done = trial(lambda: recording.Symbol(tmp_path / "n-symbol.json"), (1, 8, 8))
    assert done.parameters == 36 + 4 + 1440 + 10
    for kind in ("inference", "training"):
        tree, error = understood(done.recordings[kind], probe_images((1, 8, 8)), "float64", heads=False)
        assert error < 1e-14
        assert [type(step.op).__name__ for step in tree] == ["Convolution", "Norm", "Linear", "Softmax"]
        assert tree[1].op == Norm(pytest.approx(1e-3), 0.1, scale=False, of_batch=kind == "training")


def test_symbol_takes_weights_from_another_file(tmp_path):
    """Whether there is one beside it or not."""
    path = tmp_path / "n-symbol.json"
    mx.sym.FullyConnected(mx.sym.var("data"), num_hidden=2, name="f").save(str(path))
    arrays = {"arg:f_weight": np.arange(18.0).reshape(2, 9), "arg:f_bias": np.ones(2)}
    gluon.write(tmp_path / "trained.params", arrays, {})
    task = Task(path.name, str(tmp_path), {}, ((1, 3, 3),), training=False, memory=8, weights="trained.params")
    for _ in range(2):
        graph = attempt(task).recordings["inference"].graph
        kept = {role: graph.arrays[name] for role, name in graph.nodes[-1].arrays.items()}
        assert np.array_equal(kept["weight"], arrays["arg:f_weight"])
        assert np.array_equal(kept["bias"], arrays["arg:f_bias"])
        gluon.write(tmp_path / "n-0000.params", {name: 0 * x for name, x in arrays.items()}, {})


def test_symbol_without_its_arrays_is_refused(tmp_path):
    x = mx.sym.FullyConnected(mx.sym.var("data"), num_hidden=10, name="f")
    x.save(str(tmp_path / "n-symbol.json"))
    with pytest.raises(spec.InvalidInput, match=r"expected one file of its parameters beside it, n-0000\.params"):
        recording.Symbol(tmp_path / "n-symbol.json")
    gluon.write(tmp_path / "n-0000.params", {"arg:f_weight": np.zeros((10, 9))}, {})
    with pytest.raises(spec.InvalidInput, match=r"n-0000\.params has none for data, f_bias"):
        recording.Symbol(tmp_path / "n-symbol.json")
    (tmp_path / "n-symbol.json").write_text('{"nodes": 5}')
    with pytest.raises(spec.InvalidInput, match="MXNet cannot read it as a symbol"):
        recording.Symbol(tmp_path / "n-symbol.json")


# ---------------------------------------------------------------------------------------------------- the command


@slow
def test_command_reads_gluon_and_symbols(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from mxnet.gluon import nn\n"
        "class Net(nn.HybridSequential):\n"
        "    def __init__(self, act='sigmoid'):\n"
        "        super().__init__()\n"
        "        s = {'activation': 'sigmoid'}\n"
        "        self.add(nn.Conv2D(6, 5, **s), nn.MaxPool2D(2), nn.Conv2D(16, 5, **s), nn.MaxPool2D(2))\n"
        "        self.add(nn.Dense(120, **s), nn.Dense(84, activation=act), nn.Dense(10))\n"
        "class Broken(nn.HybridSequential):\n"
        "    def forward(self, x): return x.reshape((7, 11, 13))\n"
    )
    words = ("check", "mine.py:Net", "--arg", "act=relu", "--against", "lenet", "--json")
    told = json.loads(googlenet(*words, status=1, cwd=tmp_path).stdout)
    assert [(line["places"], line["text"]) for line in told["differences"]] == [(["fc4"], "ReLU, lenet has sigmoid")]
    assert told["differences"][0]["model_places"] == ["5.act"]
    said = googlenet("check", "mine.py:Broken", "--against", "lenet", status=2, cwd=tmp_path).stderr
    assert "it ran and raised" in said
    assert "Traceback" not in said
    exported(spec.preset("lenet"), tmp_path)
    told = googlenet("check", "net-symbol.json", "--against", "lenet", cwd=tmp_path).stdout
    assert "The same function as lenet at 28 x 28 and one pixel larger, and in training." in told
