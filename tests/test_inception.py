"""The Inception family: its published counts, and its blocks in every backend against the referee.

Whole networks are compared once each, forward, among the slow tests; their blocks and how these are joined are proven
with short networks (tests/short.py), gradients, steps and trainings too.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache, lru_cache
from typing import NamedTuple

import numpy as np
import pytest
from networks import answer_of
from short import model, short
from support import INCEPTIONS, TESTED, loaded

import spec
from harness.agreement import probe_params, relative_errors
from harness.compare.comparison import Expected, expect, judge
from spec import reference
from spec.network import is_statistic
from spec.shapes import input_sizes
from spec.table import render
from spec.tolerances import TOLERANCES, TRAJECTORY

# ------------------------------------------------------------------------------------------------- published figures


def count(name: str, channels: int = 3, classes: int = 1000, **settings: bool) -> int:
    return spec.parameter_count(spec.preset(name, in_channels=channels, num_classes=classes, **settings))


@pytest.mark.parametrize(
    ("name", "trained", "statistics", "convolutions"),
    [
        ("inception-bn", (11_295_240, 10_280_490, 10_274_218), 20_032, 69),
        ("inception-bn-mxnet", (11_295_240, 10_280_490, 10_274_218), 20_032, 69),
        ("inception-v3", (23_834_568, 21_806_058, 21_805_482), 34_432, 94),
        ("inception-v3-tf", (23_817_352, 21_788_842, 21_788_266), 34_432, 94),
        ("inception-v3-fid", (23_834_568, 21_806_058, 21_805_482), 34_432, 94),
        ("inception-v4", (42_679_816, 41_158_186, 41_157_610), 63_168, 149),
        ("inception-resnet-v2", (55_843_464, 54_321_834, 54_321_258), 60_544, 244),
    ],
)
def test_counts_are_the_published_ones(name, trained, statistics, convolutions):
    """3 channels and 1000 classes, 3 and 10, 1 and 10; without the head."""
    shapes = [(3, 1000), (3, 10), (1, 10)]
    assert tuple(count(name, *shape, aux=False) for shape in shapes) == trained
    arrays = spec.param_shapes(spec.preset(name, aux=False)).items()
    assert sum(shape[0] for array, shape in arrays if is_statistic(array)) == statistics
    assert sum(not layer.is_dense for layer in spec.layers(spec.preset(name, aux=False))) == convolutions


def test_counts_with_the_head_and_without_a_scale_are_the_published_ones():
    shapes = [(3, 1000), (3, 10), (1, 10)]
    assert [count("inception-v3", *shape) for shape in shapes] == [27_161_264, 24_371_444, 24_370_868]
    assert spec.parameter_count(spec.preset("inception-v3-fid")) == 23_850_960
    scaleless = {name: count(name, norm_scale=False) for name in ("inception-v4", "inception-resnet-v2")}
    assert scaleless == {"inception-v4": 42_648_232, "inception-resnet-v2": 55_813_192}
    assert spec.preset("inception-v3-fid", norm_scale=False).batch_norm == spec.preset("inception-v3-tf").batch_norm


@pytest.mark.parametrize(
    ("name", "multiply_adds"),
    [
        ("inception-bn", {224: 2_032_600_064, 96: 374_170_624, 64: 166_866_944, 32: 42_484_736}),
        ("inception-v3", {299: 5_713_216_096, 139: 1_002_882_656, 107: 525_720_160, 75: 203_525_728}),
        ("inception-v4", {299: 12_253_974_624, 139: 2_147_099_744, 107: 1_122_601_056, 75: 430_394_464}),
        ("inception-resnet-v2", {299: 13_155_794_016, 139: 2_260_654_176, 107: 1_166_865_504, 75: 434_823_264}),
    ],
)
def test_multiply_adds_are_the_published_ones(name, multiply_adds):
    def total(config: spec.Config, size: int) -> int:
        costs = spec.layer_costs(config, (config.in_channels, size, size))
        return sum(cost.multiply_adds for cost in costs.values())

    config = spec.preset(name, aux=False)
    assert {size: total(config, size) for size in multiply_adds} == multiply_adds
    fewer = 990 * spec.layers(config)[-1].in_channels
    assert total(replace(config, num_classes=10), 107 if name != "inception-bn" else 64) == (
        multiply_adds[107 if name != "inception-bn" else 64] - fewer
    )


@pytest.mark.parametrize(
    ("name", "size", "sides"),
    [
        ("inception-bn", 224, [112, 56, 28, 14, 7]),
        ("inception-bn", 31, [16, 8, 4, 2, 1]),
        ("inception-bn-mxnet", 224, [112, 55, 27, 14, 7]),
        ("inception-v3", 299, [149, 147, 73, 71, 35, 17, 8]),
        ("inception-v4", 299, [149, 147, 73, 71, 35, 17, 8]),
        ("inception-resnet-v2", 107, [53, 51, 25, 23, 11, 5, 2]),
        ("inception-v3-tf", 75, [37, 35, 17, 15, 7, 3, 1]),
    ],
)
def test_maps_have_the_published_sizes(name, size, sides):
    shapes = spec.stage_shapes(spec.preset(name, aux=size == 299 and name == "inception-v3"), (3, size, size))
    seen = [shape[1] for shape in shapes.values() if len(shape) == 3]
    assert list(dict.fromkeys(seen)) == [*sides, *([1] if sides[-1] != 1 else [])]


def test_images_fit_where_every_branch_ends_in_the_same_map():
    assert input_sizes(spec.preset("inception-bn")) == (31, 38, 32)
    assert [size for size in range(1, 110) if spec.fits(spec.preset("inception-bn"), size)] == [
        size for size in range(31, 110) if (size - 31) // 8 % 4 == 0
    ]
    assert input_sizes(spec.preset("inception-v3")) == (299, None, None)
    for name in INCEPTIONS[3:]:
        assert input_sizes(spec.preset(name)) == (75, None, None)
    with pytest.raises(spec.InvalidInput, match=r"inception3c end in maps .* 31 to 38 \(or any multiple of 32 more\)"):
        spec.stage_shapes(spec.preset("inception-bn"), (3, 299, 299))
    with pytest.raises(spec.InvalidInput, match=r"nothing is left at aux1.conv2; .* 299 or more .* --no-aux"):
        spec.stage_shapes(spec.preset("inception-v3"), (3, 298, 298))


def test_names_of_layers_are_in_forward_order():
    names = [layer.name for layer in spec.layers(spec.preset("inception-v3"))]
    assert names[5:12] == [
        "mixed5b.branch1x1",
        "mixed5b.branch5x5_reduce",
        "mixed5b.branch5x5",
        "mixed5b.branch3x3dbl_reduce",
        "mixed5b.branch3x3dbl_1",
        "mixed5b.branch3x3dbl_2",
        "mixed5b.pool_proj",
    ]
    assert names[-10:] == [
        "mixed7c.branch1x1",
        "mixed7c.branch3x3_reduce",
        "mixed7c.branch3x3_a",
        "mixed7c.branch3x3_b",
        "mixed7c.branch3x3dbl_reduce",
        "mixed7c.branch3x3dbl_1",
        "mixed7c.branch3x3dbl_a",
        "mixed7c.branch3x3dbl_b",
        "mixed7c.pool_proj",
        "fc",
    ]
    assert [name for name in names if name.startswith("aux1")] == ["aux1.conv", "aux1.conv2", "aux1.fc"]
    v4 = [
        layer.name for layer in spec.layers(spec.preset("inception-v4")) if layer.name.startswith("mixed7b.branch3x3")
    ]
    assert [name.removeprefix("mixed7b.branch3x3") for name in v4] == [
        "_reduce",
        "_a",
        "_b",
        "dbl_reduce",
        "dbl_1",
        "dbl_2",
        "dbl_a",
        "dbl_b",
    ]


def test_what_publishers_differ_in_is_in_the_tables():
    tables = {name: spec.nodes(spec.preset(name)) for name in INCEPTIONS}
    v3 = {name: nodes for name, nodes in tables.items() if name.startswith("inception-v3")}
    assert {name: nodes["mixed5b.pool"].op.count_pad for name, nodes in v3.items()} == {
        "inception-v3": True,
        "inception-v3-tf": False,
        "inception-v3-fid": False,
    }
    assert [type(nodes["mixed7c.pool"].op).__name__ for nodes in v3.values()] == ["AveragePool"] * 2 + ["MaxPool"]
    residual = tables["inception-resnet-v2"]
    scales = [residual[name].op.scale for name in ("block35_1", "block17_1", "block8_9", "block8_10")]
    assert scales == [0.17, 0.1, 0.2, 1.0]
    assert [residual[name].op.activation for name in ("block8_9", "block8_10")] == ["relu", None]


@pytest.mark.parametrize(
    ("name", "stage", "written"),
    [
        ("inception-bn", "inception3c", "128 > 160@3x3/2 | 64 > 96@3x3 > 96@3x3/2 | max/2"),
        ("inception-bn", "inception5b", "352 | 192 > 320@3x3 | 192 > 224@3x3 > 224@3x3 | max > 128"),
        ("inception-v3", "aux1", "avg/3 > 128 > 768@5x5 > mean > classes"),
        (
            "inception-v3-fid",
            "mixed7c",
            "320 | 384 > {384@1x3, 384@3x1} | 448 > 384@3x3 > {384@1x3, 384@3x1} | max > 192",
        ),
        ("inception-v4", "mixed3a", "max/2 | 96@3x3/2"),
        ("inception-resnet-v2", "block8_3", "x + 0.2 * (192 | 192 > 224@1x3 > 256@3x1) > 2080"),
    ],
)
def test_the_printed_table_writes_blocks_as_the_papers_do(name, stage, written):
    config = spec.preset(name)
    shape = (config.in_channels, config.input_size, config.input_size)
    row = next(line for line in render(config, shape).splitlines() if line.startswith(f"{stage} "))
    assert f"  {written}  " in row
    assert max(map(len, render(config, shape).splitlines()[1:])) < 200


def test_the_printed_table_says_what_its_rows_do_not():
    def features(name: str, **settings: bool) -> str:
        return render(spec.preset(name, **settings), (3, 299, 299) if "bn" not in name else (3, 224, 224)).splitlines()[
            2
        ]

    assert features("inception-bn").startswith(
        "averages divide by the whole window; max pools round up; batch norm (20,032"
    )
    assert features("inception-v3-tf").startswith(
        "averages divide by the pixels in the window; batch norm without scale ("
    )
    assert features("inception-resnet-v2").startswith("no ReLU after block8_10; averages divide by the pixels")


def test_shortcuts_may_be_dropped():
    config = spec.preset("inception-resnet-v2", shortcuts=False)
    assert (config.shortcuts, spec.preset("inception-resnet-v2").shortcuts) == (False, True)
    assert spec.param_shapes(config) == spec.param_shapes(spec.preset("inception-resnet-v2"))
    assert spec.nodes(config)["block8_3"].reads == ("block8_3.up",)
    with pytest.raises(spec.InvalidInput, match=r"preset inception-v4 has no residuals: .* one of inception-resnet-v2"):
        spec.preset("inception-v4", shortcuts=False)
    with pytest.raises(spec.InvalidInput, match="shortcuts: expected True or False, got 1"):
        spec.preset("inception-resnet-v2", shortcuts=1)
    with pytest.raises(spec.InvalidInput, match="preset d2l has no batch norm: leave norm_scale out"):
        spec.preset("d2l", norm_scale=False)


# ---------------------------------------------------------------------------------- short networks, in every backend


class Case(NamedTuple):
    """A short network, and the images that it sees. Sizes that are not square show where pads are exchanged."""

    preset: str
    height: int
    width: int
    batch: int = 4
    settings: tuple[tuple[str, bool], ...] = ()

    def __str__(self) -> str:
        settings = "".join(f"-{name}" for name, _ in self.settings)
        return f"{self.preset}{settings}-{self.height}x{self.width}"

    @property
    def config(self) -> spec.Config:
        heads = {"aux": self.height >= 299} if self.preset == "inception-v3" else {}
        return short(self.preset, dropout=0.0, **heads, **dict(self.settings))


# Below 107 pixels outer taps of 1x7 and 3x3 kernels read nothing but padding, and batch norm over few values amplifies
# what rounding leaves: v4 needs eight images.
CASES = [
    Case("inception-bn", 64, 96),
    Case("inception-bn-mxnet", 61, 87),
    Case("inception-v3", 107, 139),
    Case("inception-v3-tf", 107, 107),
    Case("inception-v3-fid", 107, 107),
    Case("inception-v4", 107, 139, batch=8),
    Case("inception-resnet-v2", 107, 139),
    Case("inception-resnet-v2", 107, 107, settings=(("shortcuts", False),)),
]
COMPILED = ("inception-v4", "inception-resnet-v2")  # quickly in JAX: between them they have all that its code joins
SLOW_CASES = [
    Case("inception-bn", 64, 64),
    Case("inception-v3", 107, 107),
    Case("inception-v3", 299, 299, batch=2),  # with the head
    Case("inception-v4", 107, 107, batch=8),
    Case("inception-resnet-v2", 107, 107),
]


class Material(NamedTuple):
    """A network's configuration, parameters and inputs."""

    config: spec.Config
    params: dict[str, np.ndarray]
    images: np.ndarray
    labels: np.ndarray


@cache
def material(case: Case) -> Material:
    config, rng = case.config, np.random.default_rng(7)
    images = rng.normal(size=(case.batch, config.in_channels, case.height, case.width))
    return Material(config, probe_params(config, seed=3), images, rng.integers(0, config.num_classes, case.batch))


@cache
def expected(case: Case) -> Expected:
    return expect(*material(case))


def _assert_equal(case: Case, backend) -> None:
    config, params, images, labels = material(case)
    got = answer_of(backend, model(backend, config, params), images, labels)
    report = judge(got, expected(case), TOLERANCES["float64"])
    assert report.first_difference is None, report
    assert report.passed


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("backend", [name for name in TESTED if name != "jax"], indirect=True)
def test_a_short_network_equals_the_referees(case, backend):
    """Stages, loss, gradients and a step; in JAX, which compiles them for 20 s, among the slow tests."""
    _assert_equal(case, backend)


@pytest.mark.parametrize("case", [case for case in CASES if case.preset in COMPILED and not case.settings], ids=str)
@pytest.mark.parametrize("backend", [name for name in TESTED if name == "jax"], indirect=True)
def test_stages_of_a_short_network_equal_the_referees(case, backend):
    config, params, images, _ = material(case)
    stages = backend.activations(model(backend, config, params), images)
    errors = relative_errors(stages, reference.activations(config, params, images))
    assert {name: error for name, error in errors.items() if error > TOLERANCES["float64"].activations} == {}


@pytest.mark.slow
@pytest.mark.parametrize("case", SLOW_CASES, ids=str)
def test_gradients_of_a_short_network_equal_the_referees(case, backend):
    """In every backend."""
    _assert_equal(case, backend)


# --------------------------------------------------------------------------------------------------------- trainings

SGD, ADAM = spec.SGD(1e-3, weight_decay=1e-4), spec.Adam(3e-4, epsilon=1e-3)
RMSPROP = spec.RMSProp(0.01, momentum=0.9, clip_norm=2.0)
TRAININGS = [
    (Case("inception-bn", 64, 64), SGD),
    (Case("inception-v3", 107, 107, batch=8), RMSPROP),
    (Case("inception-v4", 107, 107, batch=8), RMSPROP),
    (Case("inception-resnet-v2", 107, 107), ADAM),
]


class Turn(NamedTuple):
    """What one step is given."""

    images: np.ndarray
    labels: np.ndarray


def _turns(case: Case, steps: int) -> list[Turn]:
    """Every step's own images."""
    rng, shape = np.random.default_rng(9), (case.batch, 3, case.height, case.width)
    return [Turn(rng.normal(size=shape), rng.integers(0, 10, case.batch)) for _ in range(steps)]


@lru_cache(maxsize=1)  # conftest.py has the tests of a training one after another
def trained(case: Case, optimizer: spec.Optimizer, steps: int) -> tuple[list[float], dict[str, np.ndarray]]:
    """The referee's losses and last parameters."""
    params, state, losses = spec.init_params(case.config, 3, "he"), {}, []
    for images, labels in _turns(case, steps):
        step, params = reference.train_step(case.config, params, state, optimizer, images, labels, {})
        losses.append(step.loss)
    return losses, params


def _assert_equal_trainings(case: Case, optimizer: spec.Optimizer, steps: int, backend) -> None:
    network = model(backend, case.config, spec.init_params(case.config, 3, "he"))
    native, (losses, params) = backend.make_optimizer(network, optimizer), trained(case, optimizer, steps)
    got = [float(backend.train_step(network, native, *turn, {}).loss) for turn in _turns(case, steps)]
    assert got == pytest.approx(losses, rel=TRAJECTORY.losses, abs=0)
    errors = relative_errors(backend.dump_params(network), params)
    bound = TOLERANCES["float64"].step if steps == 1 else TRAJECTORY.parameters
    assert {name: error for name, error in errors.items() if error > bound} == {}


@pytest.mark.parametrize("optimizer", [SGD, ADAM, RMSPROP], ids=lambda optimizer: type(optimizer).__name__)
@pytest.mark.parametrize("backend", [name for name in TESTED if name != "jax"], indirect=True)
def test_a_step_of_each_optimizer_equals_the_referees(optimizer, backend):
    _assert_equal_trainings(Case("inception-bn", 64, 64), optimizer, 1, backend)


@pytest.mark.slow
@pytest.mark.parametrize(("case", "optimizer"), TRAININGS, ids=lambda x: str(x) if isinstance(x, Case) else None)
def test_twenty_steps_equal_the_referees(case, optimizer, backend):
    """Measured on PyTorch and MXNet: losses 2e-13; parameters 2e-12, the shifts of batch norm, which start at 0."""
    _assert_equal_trainings(case, optimizer, 20, backend)


# ---------------------------------------------------------------------------------------------------- whole networks


def _images(size: int) -> np.ndarray:
    return np.random.default_rng(7).normal(size=(1, 3, size, size))


@lru_cache(maxsize=1)  # conftest.py has the tests of a network one after another
def _stages(config: spec.Config, size: int) -> dict[str, np.ndarray]:
    return reference.activations(config, probe_params(config, seed=3), _images(size))


@pytest.mark.slow
@pytest.mark.parametrize("name", INCEPTIONS)
def test_a_whole_network_equals_the_referees(name, backend):
    """v3's three variants at 107 pixels, and the first of them at 299, with its head; Inception-BN at its own size."""
    size = {"inception-v3": 299, "inception-bn": 224, "inception-bn-mxnet": 205}.get(name, 107)
    config = spec.preset(name, dropout=0.0)
    stages = backend.activations(loaded(backend, config, probe_params(config, seed=3)), _images(size))
    errors = relative_errors(stages, _stages(config, size))
    assert {name: error for name, error in errors.items() if error > TOLERANCES["float64"].activations} == {}
