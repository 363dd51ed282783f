"""How networks are trained, as data: schedules by hand, files that come along, and every mistake in a file."""

import json
import math
import os
import subprocess
import sys
import tomllib
from dataclasses import FrozenInstanceError, fields, replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import spec
from harness.training.recipe import (
    OPTIMIZERS,
    PARTIAL_BATCHES,
    SCHEDULES,
    Constant,
    Cosine,
    OneCycle,
    Paper,
    Recipe,
    StepDecay,
    recipe,
    recipe_of,
    recipe_path,
    recipes,
)

PLAIN = {"preset": "d2l", "size": 96, "batch": 128, "epochs": 10, "optimizer": {"name": "sgd"}}

# ----------------------------------------------------------------------------------------------------- schedules


def factors(schedule, per_epoch, steps):
    return [schedule.factor(step, per_epoch, steps) for step in range(steps)]


def test_constant_is_one_at_every_step():
    assert factors(Constant(), 2, 4) == [1.0] * 4


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (StepDecay(epochs=(1, 3)), [1, 1, 0.1, 0.1, 0.1, 0.1, 0.01, 0.01]),
        (StepDecay(epochs=(2,), drop=0.5), [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5]),
        (StepDecay(epochs=(0.5, 1.5), drop=0.5), [1, 0.5, 0.5, 0.25, 0.25, 0.25, 0.25, 0.25]),
        (StepDecay(epochs=()), [1] * 8),
        (Paper(drop=0.5, every=1), [1, 1, 0.5, 0.5, 0.25, 0.25, 0.125, 0.125]),
        (Paper(drop=0.5, every=3), [1] * 6 + [0.5] * 2),
    ],
)
def test_step_schedules_drop_at_their_epochs(schedule, expected):
    """Four epochs of two steps."""
    assert factors(schedule, 2, 8) == pytest.approx(expected, rel=1e-15)


def test_the_paper_takes_four_percent_every_eight_epochs():
    path = factors(Paper(), 1, 24)
    assert path == pytest.approx([1.0] * 8 + [0.96] * 8 + [0.9216] * 8, rel=1e-15)


def test_cosine_falls_from_one_to_nearly_zero():
    """At sixths of the run: (1 + cos 0°) / 2, 30°, 60°, …"""
    root = math.sqrt(3) / 2
    expected = [1, (1 + root) / 2, 3 / 4, 1 / 2, 1 / 4, (1 - root) / 2]
    assert factors(Cosine(), 3, 6) == pytest.approx(expected, rel=1e-14)


def test_one_cycle_is_two_half_cosines():
    """Up in four steps and down in four: cosines of 0°, 45°, 90°, 135°."""
    root = math.sqrt(1 / 2)
    up = [0.2 + 0.8 * (1 - c) / 2 for c in (1, root, 0, -root)]
    down = [0.1 + 0.9 * (1 + c) / 2 for c in (1, root, 0, -root)]
    assert factors(OneCycle(rise=0.5, start=0.2, end=0.1), 2, 8) == pytest.approx(up + down, rel=1e-14)


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 100, 1001])
@pytest.mark.parametrize("rise", [0.01, 0.3, 0.5, 0.99])
def test_one_cycle_rises_to_one_and_falls_to_its_end(rise, steps):
    path = factors(OneCycle(rise=rise, start=0.04, end=4e-6), 10, steps)
    top = math.ceil(rise * steps)  # the first step that the rise is over
    assert path[0] == pytest.approx(0.04, rel=1e-12)
    assert all(a < b for a, b in pairwise(path[:top]))
    assert all(a > b for a, b in pairwise(path[top:]))
    assert all(4e-6 < factor <= 1 for factor in path)
    assert OneCycle(rise=0.3).factor(30, 10, 100) == 1.0
    assert OneCycle(rise=0.3).factor(100, 10, 100) == pytest.approx(4e-6, rel=1e-9)


@pytest.mark.parametrize("schedule", [Constant(), StepDecay((1,)), Paper(), Cosine(), OneCycle()])
def test_a_run_of_one_step_has_a_rate(schedule):
    assert 0 < schedule.factor(0, 1, 1) <= 1


def test_the_rate_is_the_optimizer_s_times_the_schedule_s():
    made = recipe_of(PLAIN | {"epochs": 2, "optimizer": {"name": "sgd", "rate": 0.5}, "schedule": {"name": "cosine"}})
    expected = [0.5, (1 + math.sqrt(1 / 2)) / 4, 0.25, (1 - math.sqrt(1 / 2)) / 4]
    assert [made.rate(step, 2) for step in range(4)] == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize(
    ("kind", "steps", "scales"), [("mean", 3, [1, 1]), ("nominal", 3, [1, 0.375]), ("drop", 2, [1, 1])]
)
def test_a_partial_batch_counts_whole_or_for_its_images_or_not_at_all(kind, steps, scales):
    made = recipe_of(PLAIN | {"batch": 8, "partial_batch": kind})
    assert [made.steps_per_epoch(images) for images in (16, 19, 7)] == [2, steps, steps - 2]
    assert [replace(made, epoch_steps=2).steps_per_epoch(images) for images in (19, 7)] == [2, steps - 2]
    assert [made.gradient_scale(images) for images in (8, 3)] == scales


# ---------------------------------------------------------------------------------------- recipes that come along

COME_ALONG = {
    "d2lzh-adam": ("d2lzh", 96, 128, 5, "torch", spec.Adam(rate=1e-3), Constant()),
    "cnblogs-adam": ("cnblogs", 224, 16, 3, "torch", spec.Adam(rate=1e-3), Constant()),
    "lenet-bn": ("lenet-bn", 28, 256, 5, "xavier", spec.SGD(rate=1.0, momentum=0.0), Constant()),
    "lenet-bn-frozen": ("lenet-bn-frozen", 28, 256, 5, "xavier", spec.SGD(rate=1.0, momentum=0.0), Constant()),
    "lenet-bn-scratch": ("lenet-bn-scratch", 28, 256, 5, "xavier", spec.SGD(rate=1.0, momentum=0.0), Constant()),
    "nin": ("nin", 224, 128, 1, "xavier", spec.SGD(rate=0.1, momentum=0.0), Constant()),
    "vgg11-narrow": ("vgg11-narrow", 224, 128, 2, "xavier", spec.SGD(rate=0.05, momentum=0.0), Constant()),
    "d2l": ("d2l", 96, 128, 10, "xavier", spec.SGD(rate=0.1, momentum=0.0), Constant()),
    "d2lzh-mxnet": ("d2lzh-misprint", 96, 256, 1, "xavier", spec.SGD(rate=0.1, momentum=0.0), Constant()),
}


OF_GLUON = {"d2lzh-mxnet", "lenet-bn", "lenet-bn-frozen", "lenet-bn-scratch", "nin", "vgg11-narrow"}


@pytest.mark.parametrize("name", COME_ALONG)
def test_published_recipes_have_the_published_settings(name):
    found = recipe(name)
    row = (found.preset, found.size, found.batch, found.epochs, found.init, found.optimizer, found.schedule)
    assert row == COME_ALONG[name]
    assert found.source
    assert found.published
    assert found.data == "fashion-mnist"
    plain = Recipe(*row[:4], optimizer=found.optimizer, init=found.init)
    assert found.partial_batch == ("nominal" if name in OF_GLUON else "mean")
    assert replace(found, source="", data="", published="", partial_batch="mean") == plain  # nothing else is set


def test_the_fast_recipe_trains_on_28_pixels_and_ten_classes():
    """Its numbers may be tuned; what it is may not change."""
    found = recipe("fast")
    assert (found.size, found.config().in_channels, found.config().num_classes) == (28, 1, 10)
    spec.stage_shapes(found.config(), (1, 28, 28))


EXERCISES = (
    "inception-bn",
    "inception-resnet-v2",
    "inception-resnet-v2-plain",
    "inception-v3",
    "inception-v3-smoothing",
)


def test_two_recipes_of_an_exercise_differ_in_its_question_only():
    for name, other, asked in (
        ("inception-v3", "inception-v3-smoothing", {"label_smoothing": 0.1}),
        ("inception-resnet-v2", "inception-resnet-v2-plain", {"shortcuts": False}),
    ):
        found = recipe(other)
        assert replace(recipe(name), **asked, source=found.source) == found


def test_all_that_come_along_are_known():
    assert recipes() == tuple(sorted([*COME_ALONG, *EXERCISES, "digits", "epoch", "fast", "fine-tune"]))
    for name in recipes():
        found = recipe(name)
        config = found.config()
        spec.stage_shapes(config, (config.in_channels, found.size, found.size))
        assert recipe_path(name).stem == name


def test_settings_reach_the_network():
    table = PLAIN | {"preset": "bvlc", "label_smoothing": 0.1, "aux_weight": 0.5, "dropout": 0.2}
    config = recipe_of(table).config(num_classes=10)
    assert config == spec.preset("bvlc", label_smoothing=0.1, aux_weight=0.5, dropout=0.2, num_classes=10)
    assert recipe_of(PLAIN | {"preset": "bvlc"}).config() == spec.PRESETS["bvlc"]


def test_what_is_left_out_is_the_default():
    assert recipe_of(PLAIN) == Recipe("d2l", 96, 128, 10, spec.SGD())


def test_a_recipe_is_frozen():
    with pytest.raises(FrozenInstanceError):
        recipe("d2l").size = 1


def test_every_optimizer_and_schedule_has_a_name():
    assert set(OPTIMIZERS.values()) == {spec.SGD, spec.RMSProp, spec.Adam, spec.AdamW}
    assert set(SCHEDULES.values()) == {Constant, StepDecay, Paper, Cosine, OneCycle}


# --------------------------------------------------------------------------------------------------- round trips

positive = st.floats(1e-6, 1e6)
share = st.floats(0, 1, exclude_max=True)
inner = st.floats(0, 1, exclude_min=True, exclude_max=True)
shared = {
    key: st.none() | kind for key, kind in (("clip_norm", positive), ("clip_value", positive), ("average", share))
}
momentum = st.builds(spec.SGD, positive, inner, st.booleans(), st.floats(0, 1), **shared)
plain_sgd = st.builds(spec.SGD, positive, st.just(0.0), st.just(False), st.floats(0, 1), **shared)
rmsprop = st.builds(spec.RMSProp, positive, share, share, positive, st.floats(0, 1), **shared)
adam = st.builds(spec.Adam, positive, share, share, positive, **shared)
adamw = st.builds(spec.AdamW, positive, share, share, positive, st.floats(0, 1), **shared)
rising = st.lists(positive, unique=True, max_size=5).map(lambda epochs: tuple(sorted(epochs)))
schedules = st.one_of(
    st.just(Constant()),
    st.just(Cosine()),
    st.builds(StepDecay, rising, positive),
    st.builds(Paper, positive, st.integers(1, 100)),
    st.builds(OneCycle, inner, st.floats(0, 1), st.floats(0, 1)),
)
text = st.text(st.characters(exclude_categories=["Cs", "Cc"]))
any_recipe = st.builds(
    Recipe,
    preset=st.sampled_from(list(spec.PRESETS)),
    size=st.integers(1, 2**40),
    batch=st.integers(1, 2**40),
    epochs=st.integers(1, 2**40),
    optimizer=momentum | plain_sgd | rmsprop | adam | adamw,
    schedule=schedules,
    partial_batch=st.sampled_from(PARTIAL_BATCHES),
    init=st.sampled_from(list(spec.SCHEMES)),
    mean=st.floats(-1e6, 1e6),
    std=positive,
    label_smoothing=share,
    aux_weight=st.none() | st.floats(0, 1e6),
    dropout=st.none() | share,
    source=text,
    published=text,
)


def as_toml(table):
    """A TOML file of plain values; a JSON text, number, list or boolean is one of TOML."""
    top = {key: value for key, value in table.items() if not isinstance(value, dict)}
    sections = {key: value for key, value in table.items() if isinstance(value, dict)}
    lines = [f"{key} = {json.dumps(value)}" for key, value in top.items()]
    for name, section in sections.items():
        lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in section.items())]
    return "\n".join(lines)


def as_json(table):
    return json.loads(json.dumps(table))


@settings(max_examples=40)
@given(made=any_recipe)
def test_a_recipe_survives_its_table(made):
    assert recipe_of(made.as_table()) == made
    assert recipe_of(as_json(made.as_table())) == made


@settings(max_examples=20)
@given(made=any_recipe.map(lambda made: replace(made, source="a \"b\" \\ 'c'", published="日本")))
def test_a_recipe_survives_a_toml_file(made):
    assert recipe_of(tomllib.loads(as_toml(made.as_table()))) == made


def test_a_table_has_every_key_that_is_set():
    made = Recipe(
        "torchvision",
        224,
        32,
        1,
        spec.Adam(clip_norm=1.0),
        StepDecay((1.0,)),
        aux_weight=0.3,
        dropout=0.5,
        aux=True,
        channels=3,
        epoch_steps=5,
        norm_momentum=0.2,
        norm_scale=True,
    )
    assert set(made.as_table()) == {field.name for field in fields(Recipe)} - {"shortcuts"}  # it has no residuals
    assert made.as_table()["optimizer"]["name"] == "adam"
    assert made.as_table()["schedule"] == {"name": "step", "epochs": (1.0,), "drop": 0.1}


def test_the_table_of_the_caller_stays_as_it_is():
    table = json.dumps(PLAIN)
    recipe_of(PLAIN)
    assert json.dumps(PLAIN) == table


def test_the_way_of_inception_v3_is_a_recipe_as_the_documentation_has_it():
    """Its rate falls by 6 % every two epochs, here of 10 steps."""
    text = (Path(spec.__file__).parents[1] / "docs" / "training.md").read_text()
    made = recipe_of(PLAIN | tomllib.loads(text.split("```toml\n")[1].split("```")[0]))
    assert made.optimizer == spec.RMSProp(clip_value=2.0, average=0.9999)
    assert made.label_smoothing == 0.1
    rates = [made.rate(step, 10) for step in (0, 19, 20, 40)]
    assert rates == pytest.approx([0.045, 0.045, 0.045 * 0.94, 0.045 * 0.94**2], rel=1e-15)


def test_whole_numbers_become_floats():
    made = recipe_of(PLAIN | {"mean": 0, "std": 1, "optimizer": {"name": "sgd", "rate": 1, "clip_norm": 5}})
    assert [type(x) for x in (made.mean, made.std, made.optimizer.rate, made.optimizer.clip_norm)] == [float] * 4


# ------------------------------------------------------------------------------------------------------ mistakes


def problems_of(table):
    with pytest.raises(spec.InvalidInput) as caught:
        recipe_of(table)
    first, *rest = str(caught.value).splitlines()
    assert first == "recipe:"
    return [line.removeprefix("  ") for line in rest]


def with_optimizer(name="sgd", **settings):
    return PLAIN | {"optimizer": {"name": name} | settings}


def with_schedule(name, **settings):
    return PLAIN | {"schedule": {"name": name} | settings}


OPTIMIZER_NAMES = "one of sgd, rmsprop, adam, adamw"
SCHEDULE_NAMES = "one of constant, step, paper, cosine, one-cycle"
PRESET_NAMES = ", ".join(spec.PRESETS)


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        (PLAIN | {"rate": 0.1}, f"rate: unknown; the keys here are {', '.join(f.name for f in fields(Recipe))}"),
        (
            PLAIN | {"partial_batch": "sum"},
            "partial_batch: expected one of mean, nominal, drop, got 'sum'",
        ),
        (
            with_optimizer(lr=0.1),
            "optimizer.lr: unknown; the keys here are rate, clip_norm, clip_value, average, momentum, nesterov",
        ),
        (
            with_optimizer("adam", weight_decay=0.1),
            "optimizer.weight_decay: unknown; the keys here are rate, clip_norm, clip_value, average, beta1, beta2",
        ),
        (with_optimizer("adam", slots=[]), "optimizer.slots: unknown; the keys here are rate, clip_norm"),
        (with_schedule("one-cycle", peak=1), "schedule.peak: unknown; the keys here are rise, start, end"),
        (with_schedule("cosine", end=0), "schedule.end: unknown; the keys here are "),
        ({k: v for k, v in PLAIN.items() if k != "size"}, "size: missing"),
        ({k: v for k, v in PLAIN.items() if k != "preset"}, "preset: missing"),
        ({k: v for k, v in PLAIN.items() if k != "optimizer"}, "optimizer: missing"),
        (with_schedule("step"), "schedule.epochs: missing"),
        (with_optimizer("lion"), f"optimizer.name: expected {OPTIMIZER_NAMES}, got 'lion'"),
        (PLAIN | {"optimizer": {"rate": 0.1}}, f"optimizer.name: expected {OPTIMIZER_NAMES}, got None"),
        (PLAIN | {"optimizer": {"name": ["sgd"]}}, f"optimizer.name: expected {OPTIMIZER_NAMES}, got ['sgd']"),
        (PLAIN | {"optimizer": "sgd"}, f"optimizer: expected a table with a name, {OPTIMIZER_NAMES}, got 'sgd'"),
        (PLAIN | {"optimizer": [1]}, f"optimizer: expected a table with a name, {OPTIMIZER_NAMES}, got [1]"),
        (with_schedule("linear"), f"schedule.name: expected {SCHEDULE_NAMES}, got 'linear'"),
        (PLAIN | {"schedule": 1}, f"schedule: expected a table with a name, {SCHEDULE_NAMES}, got 1"),
        (PLAIN | {"preset": "vgg"}, f"preset: expected one of {PRESET_NAMES}, got 'vgg'"),
        (PLAIN | {"preset": ["d2l"]}, "preset: expected a text, got ['d2l']"),
        (PLAIN | {"init": "zeros"}, "init: expected one of xavier, torch, gluon, flax, caffe, he, got 'zeros'"),
        (PLAIN | {"size": "96"}, "size: expected a whole number, got '96'"),
        (PLAIN | {"size": 96.0}, "size: expected a whole number, got 96.0"),
        (PLAIN | {"batch": True}, "batch: expected a whole number, got True"),
        (PLAIN | {"std": True}, "std: expected a number, or a list of one for each channel, got True"),
        (PLAIN | {"mean": [0.1, "0"]}, "mean: expected a number, or a list of one for each channel, got [0.1, '0']"),
        (PLAIN | {"mean": [0.1, 0.2]}, "mean: expected 1 or 1 numbers, got 2"),
        (PLAIN | {"std": [0.1, 0.0]}, "std: expected numbers above 0, got (0.1, 0.0)"),
        (PLAIN | {"channels": 2}, "channels: expected 1 (grey) or 3 (RGB), got 2"),
        (PLAIN | {"mean": "0"}, "mean: expected a number, or a list of one for each channel, got '0'"),
        (PLAIN | {"dropout": "half"}, "dropout: expected a number, got 'half'"),
        (PLAIN | {"mean": 10**400}, "mean: expected finite numbers, got inf"),
        (PLAIN | {"aux": 1}, "aux: expected true or false, got 1"),
        (PLAIN | {"aux": True}, "preset d2l has no auxiliary heads"),
        (PLAIN | {"source": 1}, "source: expected a text, got 1"),
        (with_optimizer(nesterov=1), "optimizer.nesterov: expected true or false, got 1"),
        (with_optimizer(clip_norm="1"), "optimizer.clip_norm: expected a number, got '1'"),
        (with_schedule("step", epochs=3), "schedule.epochs: expected a list of numbers, got 3"),
        (with_schedule("step", epochs=[1, "2"]), "schedule.epochs: expected a number, got '2'"),
        (with_schedule("paper", every=1.5), "schedule.every: expected a whole number, got 1.5"),
        (PLAIN | {"size": 0}, "size: expected at least 1, got 0"),
        (PLAIN | {"batch": -1}, "batch: expected at least 1, got -1"),
        (PLAIN | {"epochs": 0}, "epochs: expected at least 1, got 0"),
        (PLAIN | {"mean": math.nan}, "mean: expected finite numbers, got nan"),
        (PLAIN | {"std": 0}, "std: expected numbers above 0, got 0"),
        (PLAIN | {"std": math.inf}, "std: expected numbers above 0, got inf"),
        (PLAIN | {"label_smoothing": 1}, "label_smoothing: expected a share from 0 to below 1, got 1"),
        (PLAIN | {"dropout": 1.5}, "dropout: expected a fraction from 0 to below 1, got 1.5"),
        (PLAIN | {"aux_weight": -1}, "aux_weight: expected a number of at least 0, got -1"),
        (with_optimizer(rate=-0.1), "optimizer.rate: expected a number of at least 0, got -0.1"),
        (with_optimizer(rate=math.nan), "optimizer.rate: expected a number of at least 0, got nan"),
        (with_optimizer(rate=math.inf), "optimizer.rate: expected a number of at least 0, got inf"),
        (with_optimizer(momentum=1), "optimizer.momentum: expected 0 to below 1, got 1"),
        (with_optimizer(momentum=0, nesterov=True), "optimizer.nesterov: needs a momentum above 0"),
        (with_optimizer(weight_decay=-1), "optimizer.weight_decay: expected a number of at least 0, got -1"),
        (with_optimizer(clip_norm=0), "optimizer.clip_norm: expected a number above 0, got 0"),
        (with_optimizer(clip_value=-2.0), "optimizer.clip_value: expected a number above 0, got -2.0"),
        (with_optimizer(average=1), "optimizer.average: expected 0 to below 1, got 1"),
        (with_optimizer("rmsprop", decay=1), "optimizer.decay: expected 0 to below 1, got 1"),
        (with_optimizer("adam", beta1=1), "optimizer.beta1: expected 0 to below 1, got 1"),
        (with_optimizer("adam", beta2=-0.1), "optimizer.beta2: expected 0 to below 1, got -0.1"),
        (with_optimizer("adam", epsilon=0), "optimizer.epsilon: expected a number above 0, got 0"),
        (
            with_optimizer("adamw", weight_decay=math.nan),
            "optimizer.weight_decay: expected a number of at least 0, got nan",
        ),
        (with_schedule("step", epochs=[2, 1]), "schedule.epochs: expected rising numbers above 0, got (2"),
        (with_schedule("step", epochs=[0]), "schedule.epochs: expected rising numbers above 0, got (0"),
        (with_schedule("step", epochs=[1], drop=0), "schedule.drop: expected a number above 0, got 0"),
        (with_schedule("paper", drop=-1), "schedule.drop: expected a number above 0, got -1"),
        (with_schedule("paper", every=0), "schedule.every: expected at least 1, got 0"),
        (with_schedule("one-cycle", rise=0), "schedule.rise: expected a share between 0 and 1, got 0"),
        (with_schedule("one-cycle", rise=1), "schedule.rise: expected a share between 0 and 1, got 1"),
        (with_schedule("one-cycle", start=-1), "schedule.start: expected a number of at least 0, got -1"),
        (with_schedule("one-cycle", end=-1), "schedule.end: expected a number of at least 0, got -1"),
    ],
)
def test_a_mistake_is_named_alone(table, problem):
    (found,) = problems_of(table)
    assert found.startswith(problem)


def test_every_mistake_is_named_at_once():
    """Unknown, missing, of the wrong kind and of a wrong value, at the top and in both tables."""
    table = {
        "preset": "vgg",
        "batch": "many",
        "epochs": 0,
        "colour": "red",
        "optimizer": {"name": "adamw", "rate": -1, "beta1": "x", "lr": 3},
        "schedule": {"name": "step", "drop": 0, "epoch": [1]},
    }
    expected = [
        "size: missing",
        "batch: expected a whole number",
        "optimizer.beta1: expected a number",
        "optimizer.lr: unknown",
        "schedule.epochs: missing",
        "schedule.epoch: unknown",
        "colour: unknown",
        "preset: expected one of",
        "epochs: expected at least 1",
        "schedule.drop: expected a number above 0",
        "optimizer.rate: expected a number of at least 0",
    ]
    found = problems_of(table)
    assert [problem.startswith(start) for problem, start in zip(found, expected, strict=True)] == [True] * 11, found


def test_an_empty_table_names_what_is_missing():
    missing = [f"{key}: missing" for key in ("preset", "size", "batch", "epochs", "optimizer")]
    assert problems_of({}) == missing


def test_a_recipe_made_by_hand_is_checked_too():
    with pytest.raises(spec.InvalidInput) as caught:
        Recipe("d2l", 0, 0, 10, spec.SGD(rate=-1))
    assert str(caught.value).splitlines()[1:] == [
        "  size: expected at least 1, got 0",
        "  batch: expected at least 1, got 0",
        "  optimizer.rate: expected a number of at least 0, got -1",
    ]
    with pytest.raises(spec.InvalidInput, match="label_smoothing"):
        replace(recipe("d2l"), label_smoothing=2.0)


# --------------------------------------------------------------------------------------------------------- files

FILE = """
preset = "d2l"
size = 96  # mañana
batch = 128
epochs = 10
source = "mañana 日本"

[optimizer]
name = "sgd"

[schedule]
name = "step"
epochs = [1, 2.5]
"""


def test_a_file_of_the_user_s_own_is_read(tmp_path):
    path = tmp_path / "mañana 日本.toml"
    expected = Recipe("d2l", 96, 128, 10, spec.SGD(), StepDecay((1.0, 2.5)), source="mañana 日本")
    for content in (FILE, FILE.replace("\n", "\r\n")):
        path.write_bytes(content.encode())
        assert recipe(str(path)) == expected


def test_a_file_is_utf_8_whatever_the_locale(tmp_path):
    path = tmp_path / "a.toml"
    path.write_text(FILE, encoding="utf-8")
    program = "import sys; from harness.training.recipe import recipe; print(ascii(recipe(sys.argv[1]).source))"
    ascii_only = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)],
        env=os.environ | ascii_only,
        cwd=Path(spec.__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.stdout.strip(), done.stderr) == (ascii("mañana 日本"), "")


@pytest.mark.parametrize(
    "content",
    [
        b"preset = d2l",
        b"preset = 'd2l'\npreset = 'bvlc'",
        b"<!DOCTYPE html>",
        b"source = '\xff'",
        FILE.encode("utf-16"),
        b"a = " + b"[" * 100_000,
        b"\x00",
    ],
    ids=["no quotes", "twice", "a page", "latin-1", "utf-16", "brackets", "zero"],
)
def test_a_file_that_is_not_toml_is_refused(content, tmp_path):
    path = tmp_path / "a.toml"
    path.write_bytes(content)
    with pytest.raises(spec.InvalidInput, match="expected a TOML file: ") as caught:
        recipe(str(path))
    assert str(caught.value).startswith(f"{path}: ")


def test_a_mistake_in_a_file_names_the_file(tmp_path):
    path = tmp_path / "a.toml"
    path.write_text(FILE.replace("batch = 128", "batch = 0"))
    with pytest.raises(spec.InvalidInput) as caught:
        recipe(str(path))
    assert str(caught.value) == f"{path}: recipe:\n  batch: expected at least 1, got 0"


def test_an_empty_file_names_what_is_missing(tmp_path):
    (tmp_path / "a.toml").touch()
    with pytest.raises(spec.InvalidInput, match="preset: missing"):
        recipe(str(tmp_path / "a.toml"))


@pytest.mark.parametrize("name", ["missing.toml", "", ".", "d2l.toml", "../recipes/d2l", "x" * 300])
def test_where_there_is_no_recipe_the_known_ones_are_listed(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(spec.InvalidInput) as caught:
        recipe(name)
    known = ", ".join(recipes())
    assert str(caught.value) == f"recipe: expected one of {known} or a TOML file, got {name!r}"


def test_a_name_comes_before_a_file_of_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d2l").write_text(FILE)
    assert recipe("d2l").optimizer == spec.SGD(rate=0.1, momentum=0.0)
    assert recipe("./d2l").optimizer == spec.SGD()
