"""The training loop in every backend: the referee's run, step for step; stopping and going on, here and elsewhere.

The network is a LeNet wherever any network would do, which is everywhere but for dropout.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from filelock import FileLock
from loops import AVERAGING, DROPPING, GOOGLENET, RECIPE, Trained, records, records_without_clock, referee, run
from support import TESTED, save_digits

import spec
from harness.agreement import relative_errors
from harness.backends.registry import load
from harness.images.batches import Split, open_dataset
from harness.images.prepared import prepare
from harness.training import loop
from harness.training.evaluate import evaluate
from harness.training.recipe import Constant, Recipe
from harness.training.runs import CHECKPOINT, CONFIG, ENVIRONMENT, METRICS, Position, of_checkpoint, read_metrics
from harness.training.train import settings_for
from harness.weights import checkpoint
from spec import reference
from spec.tolerances import TOLERANCES

STEPS = 10
SIZES = [9, 9, 9, 9, 4]  # images of an epoch's steps
PARTIAL = spec.SGD(rate=0.05, momentum=0.0, weight_decay=0.01, clip_norm=1.0)

pytestmark = pytest.mark.usefixtures("first")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Callable[[int, int], Path]:
    """So many of scikit-learn's digits in each class, a fifth of them (rounded up) for testing, prepared at a size."""

    def made(each: int, size: int) -> Path:
        folder = tmp_path_factory.mktemp("digits")
        save_digits(folder, each)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
            return prepare(f"folder:{folder}", 1, size)

    return made


@pytest.fixture(scope="module")
def dataset(prepared) -> Path:
    """40 images to train with, 10 to test."""
    return prepared(5, RECIPE.size)


@pytest.fixture(scope="module")
def expected(dataset) -> Trained:
    return referee(dataset, RECIPE, STEPS)


@pytest.fixture(scope="module")
def straight(dataset, backend, tmp_path_factory) -> Path:
    """A whole run in each backend, not interrupted."""
    folder = tmp_path_factory.mktemp("straight") / "run"
    assert run(backend, dataset, folder)
    return folder


@pytest.fixture(scope="module")
def whole(dataset, first, tmp_path_factory) -> Path:
    """A whole run in one backend, for what does not depend on the framework."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert run(first, dataset, folder)
    return folder


def _position(folder: Path) -> Position:
    return of_checkpoint(checkpoint.load(folder / CHECKPOINT), folder)[1]


# ------------------------------------------------------------------------------------------------- every step, right


def test_the_loop_trains_as_the_referee_does(straight, expected):
    steps = records(straight, "step")
    assert [record["step"] for record in steps] == list(range(1, STEPS + 1))
    assert [record["epoch"] for record in steps] == [1] * 5 + [2] * 5
    losses, rtol = [record["loss"] for record in steps], TOLERANCES["float64"].loss
    np.testing.assert_allclose(losses, expected.losses, rtol=rtol, atol=0)
    np.testing.assert_allclose([record["accuracy"] for record in steps], expected.accuracies, rtol=1e-15)
    assert [record["rate"] for record in steps] == [RECIPE.rate(i, 5) for i in range(STEPS)]
    errors = relative_errors(checkpoint.load(straight / CHECKPOINT).params, expected.params)
    assert max(errors.values()) <= 1e-11


def test_an_epochs_record_holds_means_over_its_images_and_over_the_test_images(straight, dataset, expected):
    first, last = records(straight, "epoch")
    assert (first["epoch"], first["step"], last["epoch"], last["step"]) == (1, 5, 2, 10)
    assert first["train_loss"] == pytest.approx(np.average(expected.losses[:5], weights=SIZES), rel=1e-12)
    assert last["train_loss"] == pytest.approx(np.average(expected.losses[5:], weights=SIZES), rel=1e-12)
    assert last["train_accuracy"] == pytest.approx(np.average(expected.accuracies[5:], weights=SIZES), rel=1e-12)
    test = open_dataset(dataset).test
    config = RECIPE.config(num_classes=10)
    logits = reference.predict(config, expected.params, (test.images / 255 - RECIPE.mean) / RECIPE.std)
    assert last["test_loss"] == pytest.approx(reference.softmax_cross_entropy(logits, test.labels)[0], rel=1e-10)
    assert last["test_accuracy"] == pytest.approx((logits.argmax(1) == test.labels).mean(), rel=1e-15)


def test_a_run_that_averages_is_evaluated_with_the_averages_and_goes_on_with_the_weights(first, dataset, tmp_path):
    """Batch norm's statistics are those of the network that was trained."""
    expected, test, config = referee(dataset, AVERAGING, STEPS), open_dataset(dataset).test, AVERAGING.config()
    run(first, dataset, tmp_path, recipe=AVERAGING, stop_after=6)
    run(first, dataset, tmp_path, recipe=AVERAGING)
    losses = [record["loss"] for record in records(tmp_path, "step")]
    np.testing.assert_allclose(losses, expected.losses, rtol=1e-11, atol=0)
    averages = {name: expected.state.get(f"average/{name}", x) for name, x in expected.params.items()}
    images, (_, last) = (test.images / 255 - AVERAGING.mean) / AVERAGING.std, records(tmp_path, "epoch")
    averaged, single = (
        reference.softmax_cross_entropy(reference.predict(config, params, images), test.labels)[0]
        for params in (averages, expected.params)
    )
    assert (last["test_loss"], last["averaged"]) == (pytest.approx(averaged, rel=1e-10), True)
    assert abs(averaged - single) > 1e-3
    assert not any("averaged" in record for record in records(tmp_path, "step"))


@pytest.mark.parametrize(
    ("kind", "backend"),
    [
        pytest.param(kind, name, marks=pytest.mark.slow if (kind, name) in (("mean", "jax"), ("drop", "jax")) else ())
        for kind in ("mean", "nominal", "drop")
        for name in TESTED
    ],
    indirect=["backend"],
)
def test_the_partial_batch_counts_as_the_recipe_says(kind, backend, dataset, tmp_path):
    """With batch norm, weight decay and clipping, none of which the gradient's factor is meant for."""
    recipe = replace(RECIPE, preset="lenet-bn", partial_batch=kind, optimizer=PARTIAL)
    steps = {"mean": SIZES, "nominal": SIZES, "drop": SIZES[:-1]}[kind] * 2
    expected = referee(dataset, recipe, len(steps))
    assert run(backend, dataset, tmp_path / "run", recipe=recipe)
    losses = [record["loss"] for record in records(tmp_path / "run", "step")]
    np.testing.assert_allclose(losses, expected.losses, rtol=1e-11, atol=0)
    first, last = records(tmp_path / "run", "epoch")
    half = len(steps) // 2
    assert (first["step"], last["step"]) == (half, len(steps))
    assert last["train_loss"] == pytest.approx(np.average(expected.losses[half:], weights=steps[half:]), rel=1e-11)
    errors = relative_errors(checkpoint.load(tmp_path / "run" / CHECKPOINT).params, expected.params)
    idle = {f"{layer.name}.bias" for layer in spec.layers(recipe.config()) if layer.norm}
    assert {name: error for name, error in errors.items() if error > 1e-11 and name not in idle} == {}


def test_an_epoch_ends_where_the_recipe_says_and_the_next_has_an_order_of_its_own(first, dataset, tmp_path):
    recipe = replace(RECIPE, epoch_steps=2)
    expected = referee(dataset, recipe, 4)
    assert run(first, dataset, tmp_path, recipe=recipe)
    np.testing.assert_allclose([record["loss"] for record in records(tmp_path, "step")], expected.losses, rtol=1e-12)
    assert [record["step"] for record in records(tmp_path, "epoch")] == [2, 4]


def test_a_run_whose_only_batch_would_be_dropped_is_refused(dataset):
    recipe = replace(RECIPE, batch=41, partial_batch="drop")
    with pytest.raises(spec.InvalidInput, match="40 images are fewer than a batch of 41: take a smaller --batch"):
        settings_for(recipe, dataset, seed=5, dtype="float64", device="cpu")


@pytest.mark.parametrize("backend", [name for name in TESTED if name != "jax"], indirect=True)  # which takes 6 s
def test_dropout_keeps_in_each_step_what_the_mask_of_its_number_says(backend, prepared, tmp_path):
    """In a run that goes on after its second step, too, and in the second epoch, which begins with the third step."""
    dataset, folder = prepared(2, DROPPING.size), tmp_path / "run"
    expected = referee(dataset, DROPPING, 3)
    run(backend, dataset, folder, recipe=DROPPING, stop_after=2)
    run(backend, dataset, folder, recipe=DROPPING, stop_after=3)
    assert records(folder, "step")[-1]["epoch"] == 2
    losses = [record["loss"] for record in records(folder, "step")]
    np.testing.assert_allclose(losses, expected.losses, rtol=1e-12, atol=0)
    assert max(relative_errors(checkpoint.load(folder / CHECKPOINT).params, expected.params).values()) <= 1e-12


def test_a_record_holds_the_means_since_the_one_before(first, dataset, expected, tmp_path):
    """A pause in between changes nothing."""
    run(first, dataset, tmp_path, log_every=4, stop_after=3)
    run(first, dataset, tmp_path, log_every=4)
    found = records(tmp_path, "step")
    assert [record["step"] for record in found] == [4, 8]
    for record, part, sizes in zip(found, (slice(0, 4), slice(4, 8)), ([9, 9, 9, 9], [4, 9, 9, 9]), strict=True):
        assert record["losses"] == pytest.approx(expected.losses[part], rel=1e-12)
        assert record["loss"] == pytest.approx(np.average(expected.losses[part], weights=sizes), rel=1e-12)
        assert record["accuracy"] == pytest.approx(np.average(expected.accuracies[part], weights=sizes), rel=1e-12)


def test_scores_are_those_of_the_images_whatever_fills_the_last_batch():
    """Five images in batches of two: logits by hand, every image's brightness being its number."""
    logits = np.array([[2.0, 0, 0], [0, 2, 0], [0, 0, 2], [0, 3, 0], [1, 0, 0]])
    labels, shown = np.array([0, 1, 1, 0, 0]), []

    def predict(model: None, images: np.ndarray) -> np.ndarray:
        numbers = np.rint(images[:, 0, 0, 0] * 255).astype(int)
        shown.append(len(numbers))
        return logits[numbers]

    split = Split(np.arange(5, dtype=np.uint8)[:, None, None, None], labels)
    package, told = SimpleNamespace(predict=predict), []
    found = evaluate(package, None, split, batch=2, classes=3, dtype="float64", mean=0.0, std=1.0, done=told.append)
    losses = [math.log(sum(math.exp(x) for x in row)) - row[label] for row, label in zip(logits, labels, strict=True)]
    assert found.loss == pytest.approx(sum(losses) / 5, rel=1e-15)
    assert found.confusion.tolist() == [[2, 1, 0], [0, 1, 1], [0, 0, 0]]  # rows are labels
    assert found.accuracy == 3 / 5
    assert (shown, told) == ([2, 2, 2], [2, 4, 5])


def test_an_evaluation_that_is_stopped_leaves_no_thread_behind():
    """Also while the error is kept, as a debugger and a test's `raises` keep it."""

    def stop(images: int) -> None:
        raise KeyboardInterrupt

    split = Split(np.zeros((90, 1, 1, 1), np.uint8), np.zeros(90, np.int64))
    package = SimpleNamespace(predict=lambda model, images: np.zeros((len(images), 3)))
    before = set(threading.enumerate())
    with pytest.raises(KeyboardInterrupt) as kept:
        evaluate(package, None, split, batch=1, classes=3, dtype="float64", mean=0.0, std=1.0, done=stop)
    assert set(threading.enumerate()) <= before, kept


# ------------------------------------------------------------------------------------------------ stopping, going on


@pytest.mark.parametrize("step", [1, 3, 5, 6], ids=["first", "mid-epoch", "last-of-epoch", "first-of-next"])
def test_a_resumed_run_ends_with_the_same_bytes(step, straight, dataset, backend, tmp_path):
    folder = tmp_path / "run"
    assert not run(backend, dataset, folder, stop_after=step)
    position = _position(folder)
    assert (position.step, position.evaluated) == (step, 1 if step == 6 else 0)
    assert run(backend, dataset, folder)
    assert (folder / CHECKPOINT).read_bytes() == (straight / CHECKPOINT).read_bytes()
    assert records_without_clock(folder) == records_without_clock(straight)
    assert [start["from_step"] for start in json.loads((folder / ENVIRONMENT).read_text())] == [0, step]


def test_a_run_whose_images_live_on_the_device_ends_with_the_same_bytes(
    straight, dataset, backend, tmp_path, monkeypatch
):
    monkeypatch.setattr(loop, "fits_device", lambda team, split, device: True)
    monkeypatch.setattr(loop, "training_batches", None)
    run(backend, dataset, tmp_path, stop_after=3)
    assert run(backend, dataset, tmp_path)
    assert (tmp_path / CHECKPOINT).read_bytes() == (straight / CHECKPOINT).read_bytes()


def test_steps_after_the_last_checkpoint_are_trained_again(first, whole, dataset, tmp_path):
    """As after a SIGKILL: the records are ahead of the checkpoint, and the last of them is torn."""
    folder = tmp_path / "run"
    run(first, dataset, folder, stop_after=2)
    with (folder / METRICS).open("a") as file:
        file.write(json.dumps({"kind": "step", "step": 3, "loss": 99.0, "seconds": 1.0}) + "\n")
        file.write(json.dumps({"kind": "epoch", "step": 5, "epoch": 1, "seconds": 1.0}) + '\n{"kind": "st')
    assert run(first, dataset, folder)
    assert records_without_clock(folder) == records_without_clock(whole)


def test_a_complete_run_stays_as_it_is(first, dataset, whole):
    before = (whole / CHECKPOINT).read_bytes()
    assert run(first, dataset, whole)
    assert (whole / CHECKPOINT).read_bytes() == before


def test_stopping_takes_effect_after_the_step_at_hand(first, dataset, tmp_path):
    folder, asked = tmp_path / "run", []

    def stopped() -> bool:
        asked.append(True)
        return len(asked) > 4

    messages: list = []
    assert not run(first, dataset, folder, stopped=stopped, messages=messages)
    position = _position(folder)
    saved = [message["step"] for message in messages if message["event"] == "saved"]
    assert saved == [0, position.step]
    assert position.step == 4  # it asks before the first step, and after each


def test_an_evaluation_that_is_stopped_is_made_again(first, dataset, whole, tmp_path):
    """Stopped while the first epoch is evaluated: its last step is saved, and the epoch has no record yet."""
    folder, predict, evaluating = tmp_path / "run", first.predict, []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(first, "predict", lambda *arguments: evaluating.append(True) or predict(*arguments))
        assert not run(first, dataset, folder, stopped=lambda: bool(evaluating))
    position = _position(folder)
    assert (position.step, position.evaluated) == (5, 0)
    assert not records(folder, "epoch")
    assert run(first, dataset, folder)
    assert (folder / CHECKPOINT).read_bytes() == (whole / CHECKPOINT).read_bytes()
    assert records_without_clock(folder) == records_without_clock(whole)


@pytest.fixture(scope="module")
def relayed(dataset, tmp_path_factory) -> list[Path]:
    """3 steps in one backend, 3 in the next, 3 in the third."""
    return _relay(dataset, RECIPE, tmp_path_factory.mktemp("relayed"))


def _relay(dataset: Path, recipe: Recipe, folder: Path) -> list[Path]:
    folders = [folder / name for name in TESTED]
    for i, name in enumerate(TESTED):
        start = folders[i - 1] if i else None
        run(load(name), dataset, folders[i], recipe=recipe, stop_after=3 * (i + 1), start=start)
    return folders


def _assert_one_run(folders: list[Path], expected: Trained) -> None:
    losses = [record["loss"] for record in records(folders[-1], "step")]
    np.testing.assert_allclose(losses, expected.losses, rtol=1e-12, atol=0)
    found = checkpoint.load(folders[-1] / CHECKPOINT)
    assert max(relative_errors(found.params, expected.params).values()) <= 1e-12
    assert max(relative_errors(found.state, expected.state).values()) <= 1e-12
    lineage = of_checkpoint(found, folders[-1])[1].lineage
    assert lineage == [{"backend": name, "from_step": 3 * i} for i, name in enumerate(TESTED)]


several = pytest.mark.skipif(len(TESTED) < 2, reason="one backend is tested")


@several
def test_a_run_goes_on_in_another_framework_as_if_in_its_own(relayed, dataset):
    """Momentum travels too."""
    _assert_one_run(relayed, referee(dataset, RECIPE, 3 * len(TESTED)))


@several
@pytest.mark.slow
def test_a_run_that_averages_goes_on_in_another_framework(dataset, tmp_path):
    """The gradients of biases before batch norm are rounding, which RMSProp's root, unlike Adam's, does not enlarge."""
    folders = _relay(dataset, AVERAGING, tmp_path)
    _assert_one_run(folders, referee(dataset, AVERAGING, 3 * len(TESTED)))


@several
@pytest.mark.slow
def test_a_googlenet_with_dropout_goes_on_in_another_framework(dataset, tmp_path):
    folders = _relay(dataset, GOOGLENET, tmp_path)
    _assert_one_run(folders, referee(dataset, GOOGLENET, 3 * len(TESTED)))


# ------------------------------------------------------------------------------------------------ what it writes, when


def test_a_run_can_be_read_without_this_program(first, whole):
    settings = json.loads((whole / CONFIG).read_text())
    assert settings["backend"] == TESTED[0]
    assert settings["recipe"]["optimizer"] == {
        "name": "sgd",
        "rate": 0.05,
        "momentum": 0.9,
        "nesterov": False,
        "weight_decay": 1e-3,
    }
    start, *_ = json.loads((whole / ENVIRONMENT).read_text())
    assert start["framework"] == first.describe("cpu").framework
    assert [record["kind"] for record in read_metrics(whole)] == (["step"] * 5 + ["epoch"]) * 2
    assert sorted(path.name for path in whole.iterdir() if not path.name.startswith(".")) == sorted(
        [CHECKPOINT, CONFIG, ENVIRONMENT, METRICS]
    )


class Clock:
    """Time in which a training step takes a second, and nothing else takes any."""

    def __init__(self, package: ModuleType, patch: pytest.MonkeyPatch) -> None:
        self.now, update = 0.0, package.update

        def second(*arguments):
            self.now += 1
            return update(*arguments)

        patch.setattr(package, "update", second)
        patch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: self.now))


@pytest.fixture
def clock(first, monkeypatch) -> Clock:
    return Clock(first, monkeypatch)


@pytest.mark.usefixtures("clock")
def test_speed_counts_the_images_since_the_start(first, dataset, tmp_path):
    """27 images before the pause, 13 after it, and one record of all 40."""
    folder = tmp_path / "run"
    run(first, dataset, folder, log_every=5, stop_after=3)
    run(first, dataset, folder, log_every=5)
    one, two = records(folder, "step")
    assert one["images_per_second"] == 13 / 2
    assert two["images_per_second"] == 40 / 5
    straight = tmp_path / "straight"
    run(first, dataset, straight, log_every=5)
    assert records_without_clock(folder) == records_without_clock(straight)


@pytest.mark.usefixtures("clock")
def test_time_goes_on_where_the_records_end(first, dataset, tmp_path):
    run(first, dataset, tmp_path, stop_after=3)
    run(first, dataset, tmp_path, stop_after=4)
    assert [record["seconds"] for record in read_metrics(tmp_path)] == [1, 2, 3, 4]


@pytest.mark.usefixtures("clock")
def test_a_checkpoint_is_due_after_so_many_seconds_and_at_the_end_of_an_epoch(first, dataset, tmp_path):
    messages: list = []
    run(first, dataset, tmp_path, save_every=2, messages=messages)
    saved = [message["step"] for message in messages if message["event"] == "saved"]
    assert saved == [0, 2, 4, 5, 7, 9, 10, 10]


class TestRefusals:
    """One backend is enough: none of this is the framework's."""

    def test_a_second_process_in_the_folder_is_refused(self, first, dataset, tmp_path):
        folder = tmp_path / "run"
        folder.mkdir()
        with FileLock(folder / ".lock"), pytest.raises(spec.InvalidInput, match="another process is training here"):
            run(first, dataset, folder)
        assert not (folder / CHECKPOINT).exists()

    def test_a_folder_that_cannot_be_written_is_refused(self, first, dataset, tmp_path):
        """Read-only folders do not stop the user that tests run as; a folder in the way of a file does."""
        folder = tmp_path / "run"
        run(first, dataset, folder, stop_after=1)
        before = (folder / CHECKPOINT).read_bytes()
        (folder / ".lock").unlink(missing_ok=True)
        (folder / ".lock").mkdir()
        with pytest.raises(spec.InvalidInput, match="cannot be read or written"):
            run(first, dataset, folder)
        assert (folder / CHECKPOINT).read_bytes() == before

    def test_a_checkpoint_of_a_run_with_other_settings_is_refused(self, first, dataset, tmp_path):
        folder = tmp_path / "run"
        run(first, dataset, folder, stop_after=1)
        before = (folder / CHECKPOINT).read_bytes()
        with pytest.raises(spec.InvalidInput, match="other settings"):
            run(first, dataset, folder, recipe=replace(RECIPE, epochs=3))
        assert (folder / CHECKPOINT).read_bytes() == before

    def test_a_checkpoint_without_a_runs_state_is_refused(self, first, dataset, tmp_path):
        folder = tmp_path / "run"
        folder.mkdir()
        config = RECIPE.config(num_classes=10)
        checkpoint.save(folder / CHECKPOINT, spec.init_params(config), config)
        with pytest.raises(spec.InvalidInput, match="without its state"):
            run(first, dataset, folder)

    def test_a_damaged_checkpoint_is_refused_and_stays(self, first, dataset, tmp_path):
        folder = tmp_path / "run"
        run(first, dataset, folder, stop_after=1)
        content = bytearray((folder / CHECKPOINT).read_bytes())
        content[len(content) // 2] ^= 1
        (folder / CHECKPOINT).write_bytes(content)
        written = (folder / METRICS).read_text()
        with pytest.raises(spec.InvalidInput, match="damaged"):
            run(first, dataset, folder)
        assert (folder / CHECKPOINT).read_bytes() == content
        assert (folder / METRICS).read_text() == written

    def test_a_loss_that_is_no_number_ends_the_run_at_the_checkpoint_before(self, first, dataset, tmp_path):
        folder = tmp_path / "run"
        recipe = replace(RECIPE, optimizer=spec.SGD(rate=1e308), schedule=Constant())
        with (
            np.errstate(all="ignore"),
            pytest.raises(loop.Diverged, match=r"after step 2: the run has diverged.*smaller rate"),
        ):
            run(first, dataset, folder, recipe=recipe, log_every=3)
        assert _position(folder).step == 0


@pytest.mark.parametrize(
    ("losses", "warned"),
    [
        ([2.3026] * STEPS, [3]),
        ([2.5, 2.1, 2.3, 2.3, 1.0, 2.3, 2.3, 2.3, 2.3, 2.3], [3, 8]),  # stuck, moving, and stuck again
        ([2.34] * STEPS, []),  # by more than a hundredth
        ([2.2] * STEPS, []),
    ],
    ids=["throughout", "twice", "above", "below"],
)
def test_a_mean_loss_at_that_of_guessing_is_warned_of_once(losses, warned, first, dataset, tmp_path, monkeypatch):
    """Over three steps, instead of two hundred; the losses are made up."""
    steps = iter(losses)
    monkeypatch.setattr(loop, "_PATIENCE", 3)
    monkeypatch.setattr(first, "update", lambda *arguments: spec.Step(next(steps), 0))
    messages: list = []
    run(first, dataset, tmp_path, messages=messages)
    texts = [message["text"] for message in messages if message["event"] == "warning"]
    assert [int(text.removeprefix("step ").split(":")[0]) for text in texts] == warned
    assert all("guessing has 2.3026" in text for text in texts)
