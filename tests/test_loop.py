"""The training loop in every backend: the referee's run, step for step; stopping and going on, here and elsewhere."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from filelock import FileLock
from loops import RECIPE, run
from support import TESTED, save_digits

import spec
from harness import loop
from harness.backend import load
from harness.compare import relative_errors
from harness.dataset import prepare
from harness.loader import open_dataset, training_batches
from harness.runs import CHECKPOINT, CONFIG, ENVIRONMENT, METRICS, of_checkpoint, read_metrics
from spec import checkpoint, reference
from spec.recipe import Constant, Recipe
from spec.tolerances import TOLERANCES

STEPS = 10


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    """40 training and 10 test images of scikit-learn's digits, prepared."""
    folder = tmp_path_factory.mktemp("digits")
    save_digits(folder, 5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        return prepare(f"folder:{folder}", 1, 28)


def _referee(dataset: Path, recipe: Recipe, steps: int) -> tuple[list[float], list[float], dict[str, np.ndarray]]:
    """Losses, accuracies and final parameters of the referee's own training."""
    opened = open_dataset(dataset)
    config = recipe.config(num_classes=len(opened.classes))
    params, state = spec.init_params(config, 5, recipe.init), {}
    losses, accuracies, per_epoch = [], [], math.ceil(len(opened.train) / recipe.batch)
    while len(losses) < steps:
        epoch = len(losses) // per_epoch
        for images, labels in training_batches(
            opened.train, recipe.batch, seed=5, epoch=epoch, dtype="float64", mean=recipe.mean, std=recipe.std
        ):
            number = len(losses)
            optimizer = dataclasses.replace(recipe.optimizer, rate=recipe.rate(number, per_epoch))
            masks = spec.dropout_masks(config, images.shape, 5, number)
            step, params = reference.train_step(config, params, state, optimizer, images, labels, masks)
            losses.append(step.loss)
            accuracies.append(step.correct / len(images))
            if len(losses) == steps:
                break
    return losses, accuracies, params


@pytest.fixture(scope="module")
def expected(dataset):
    return _referee(dataset, RECIPE, STEPS)


@pytest.fixture(scope="module")
def straight(dataset, backend, tmp_path_factory) -> Path:
    """A whole run in each backend, not interrupted."""
    folder = tmp_path_factory.mktemp("straight") / "run"
    assert run(backend, dataset, folder)
    return folder


def _without_clock(folder: Path) -> list[dict]:
    return [
        {key: value for key, value in record.items() if key not in ("seconds", "images_per_second")}
        for record in read_metrics(folder)
    ]


def test_the_loop_trains_as_the_referee_does(straight, expected):
    losses, accuracies, params = expected
    steps = [record for record in read_metrics(straight) if record["kind"] == "step"]
    assert [record["step"] for record in steps] == list(range(1, STEPS + 1))
    np.testing.assert_allclose([record["loss"] for record in steps], losses, rtol=TOLERANCES["float64"].loss, atol=0)
    np.testing.assert_allclose([record["accuracy"] for record in steps], accuracies, rtol=1e-15)
    assert [record["rate"] for record in steps] == [RECIPE.rate(i, 5) for i in range(STEPS)]
    errors = relative_errors(checkpoint.load(straight / CHECKPOINT).params, params)
    assert max(errors.values()) <= 1e-11


def test_an_epoch_is_the_mean_over_its_images_and_the_test_images(straight, dataset, expected):
    losses, accuracies, params = expected
    first, last = (record for record in read_metrics(straight) if record["kind"] == "epoch")
    sizes = [9, 9, 9, 9, 4]
    assert first["train_loss"] == pytest.approx(np.average(losses[:5], weights=sizes), rel=1e-12)
    assert last["train_accuracy"] == pytest.approx(np.average(accuracies[5:], weights=sizes), rel=1e-12)
    test = open_dataset(dataset).test
    config = RECIPE.config(num_classes=10)
    logits = reference.predict(config, params, (test.images / 255 - RECIPE.mean) / RECIPE.std)
    assert last["test_loss"] == pytest.approx(reference.softmax_cross_entropy(logits, test.labels)[0], rel=1e-10)
    assert last["test_accuracy"] == pytest.approx((logits.argmax(1) == test.labels).mean(), rel=1e-15)


def test_a_run_can_be_read_without_this_program(straight, backend):
    settings = json.loads((straight / CONFIG).read_text())
    assert settings["backend"] == backend.__name__.split("_")[1]
    assert settings["recipe"]["optimizer"] == {
        "name": "sgd",
        "rate": 0.05,
        "momentum": 0.9,
        "nesterov": False,
        "weight_decay": 1e-3,
    }
    (start,) = json.loads((straight / ENVIRONMENT).read_text())
    assert start["framework"] == backend.describe("cpu").framework
    assert [record["kind"] for record in read_metrics(straight)] == (["step"] * 5 + ["epoch"]) * 2
    assert sorted(path.name for path in straight.iterdir() if not path.name.startswith(".")) == sorted(
        [CHECKPOINT, CONFIG, ENVIRONMENT, METRICS]
    )


@pytest.mark.parametrize("step", [1, 3, 5, 6], ids=["first", "mid-epoch", "last-of-epoch", "first-of-next"])
def test_a_resumed_run_ends_with_the_same_bytes(step, straight, dataset, backend, tmp_path):
    folder = tmp_path / "run"
    assert not run(backend, dataset, folder, stop_after=step)
    _, position = of_checkpoint(checkpoint.load(folder / CHECKPOINT), folder)
    assert (position.step, position.evaluated) == (step, 1 if step == 6 else 0)
    assert run(backend, dataset, folder)
    assert (folder / CHECKPOINT).read_bytes() == (straight / CHECKPOINT).read_bytes()
    assert _without_clock(folder) == _without_clock(straight)
    assert [start["from_step"] for start in json.loads((folder / ENVIRONMENT).read_text())] == [0, step]


def test_what_was_done_after_the_last_checkpoint_is_done_again(straight, dataset, backend, tmp_path):
    """As after a SIGKILL: the records are ahead of the checkpoint, and the last of them is torn."""
    folder = tmp_path / "run"
    run(backend, dataset, folder, stop_after=2)
    with (folder / METRICS).open("a") as file:
        file.write(json.dumps({"kind": "step", "step": 3, "loss": 99.0, "seconds": 1.0}) + '\n{"kind": "st')
    assert run(backend, dataset, folder)
    assert _without_clock(folder) == _without_clock(straight)


def test_a_complete_run_stays_as_it_is(straight, dataset, backend, tmp_path):
    before = (straight / CHECKPOINT).read_bytes()
    assert run(backend, dataset, straight)
    assert (straight / CHECKPOINT).read_bytes() == before


@pytest.mark.skipif(len(TESTED) < 2, reason="one backend is tested")
def test_a_run_may_change_its_framework_on_the_way(dataset, tmp_path):
    """3 steps in one, 3 in the next, 3 in the third are 9 in one; momentum and dropout's masks travel too."""
    folders = [tmp_path / name for name in TESTED]
    losses, _, params = _referee(dataset, RECIPE, 3 * len(TESTED))
    for i, (name, folder) in enumerate(zip(TESTED, folders, strict=True)):
        run(load(name), dataset, folder, stop_after=3 * (i + 1), start=folders[i - 1] if i else None)
    steps = [record for record in read_metrics(folders[-1]) if record["kind"] == "step"]
    np.testing.assert_allclose([record["loss"] for record in steps], losses, rtol=1e-12, atol=0)
    found = checkpoint.load(folders[-1] / CHECKPOINT)
    assert max(relative_errors(found.params, params).values()) <= 1e-12
    _, position = of_checkpoint(found, folders[-1])
    assert position.lineage == [{"backend": name, "from_step": 3 * i} for i, name in enumerate(TESTED)]


def test_stopping_takes_effect_after_the_step_at_hand(dataset, backend, tmp_path):
    folder, asked = tmp_path / "run", []

    def stopped() -> bool:
        asked.append(True)
        return len(asked) > 4

    messages: list = []
    assert not run(backend, dataset, folder, stopped=stopped, messages=messages)
    _, position = of_checkpoint(checkpoint.load(folder / CHECKPOINT), folder)
    saved = [message["step"] for message in messages if message["event"] == "saved"]
    assert saved == [position.step]
    assert 1 <= position.step < STEPS


def test_speed_counts_what_was_done_since_the_start(dataset, tmp_path, monkeypatch):
    """A step takes a second: 27 images before the pause, 13 after it, and one record of all 40."""
    package, folder, clock = load(TESTED[0]), tmp_path / "run", [0.0]
    train_step = package.train_step

    def second(*arguments):
        clock[0] += 1
        return train_step(*arguments)

    monkeypatch.setattr(package, "train_step", second)
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    run(package, dataset, folder, log_every=5, stop_after=3)
    run(package, dataset, folder, log_every=5)
    first, later = (record for record in read_metrics(folder) if record["kind"] == "step")
    assert first["images_per_second"] == 13 / 2
    assert later["images_per_second"] == 40 / 5
    straight = tmp_path / "straight"
    run(package, dataset, straight, log_every=5)
    assert _without_clock(folder) == _without_clock(straight)


class TestRefusals:
    """One backend is enough: none of this is the framework's."""

    @pytest.fixture
    def package(self):
        return load(TESTED[0])

    def test_two_at_once(self, package, dataset, tmp_path):
        folder = tmp_path / "run"
        folder.mkdir()
        with FileLock(folder / ".lock"), pytest.raises(spec.InvalidInput, match="another process is training here"):
            run(package, dataset, folder)
        assert not (folder / CHECKPOINT).exists()

    def test_a_folder_that_cannot_be_written(self, package, dataset, tmp_path):
        """Read-only folders do not stop the user that tests run as; a folder in the way of a file does."""
        folder = tmp_path / "run"
        run(package, dataset, folder, stop_after=1)
        before = (folder / CHECKPOINT).read_bytes()
        (folder / ".lock").unlink(missing_ok=True)
        (folder / ".lock").mkdir()
        with pytest.raises(spec.InvalidInput, match="cannot be read or written"):
            run(package, dataset, folder)
        assert (folder / CHECKPOINT).read_bytes() == before

    def test_a_checkpoint_of_another_run(self, package, dataset, tmp_path):
        folder = tmp_path / "run"
        run(package, dataset, folder, stop_after=1)
        before = (folder / CHECKPOINT).read_bytes()
        with pytest.raises(spec.InvalidInput, match="other settings"):
            run(package, dataset, folder, recipe=dataclasses.replace(RECIPE, epochs=3))
        assert (folder / CHECKPOINT).read_bytes() == before

    def test_weights_without_a_run(self, package, dataset, tmp_path):
        folder = tmp_path / "run"
        folder.mkdir()
        config = RECIPE.config(num_classes=10)
        checkpoint.save(folder / CHECKPOINT, spec.init_params(config), config)
        with pytest.raises(spec.InvalidInput, match="without its state"):
            run(package, dataset, folder)

    def test_a_damaged_checkpoint(self, package, dataset, tmp_path):
        folder = tmp_path / "run"
        run(package, dataset, folder, stop_after=1)
        content = bytearray((folder / CHECKPOINT).read_bytes())
        content[len(content) // 2] ^= 1
        (folder / CHECKPOINT).write_bytes(content)
        records = (folder / METRICS).read_text()
        with pytest.raises(spec.InvalidInput, match="damaged"):
            run(package, dataset, folder)
        assert (folder / CHECKPOINT).read_bytes() == content
        assert (folder / METRICS).read_text() == records

    def test_a_loss_that_is_no_number(self, package, dataset, tmp_path):
        folder = tmp_path / "run"
        recipe = dataclasses.replace(RECIPE, optimizer=spec.SGD(rate=1e12), schedule=Constant())
        with (
            np.errstate(all="ignore"),
            pytest.raises(loop.Diverged, match=r"after step \d.*smaller rate"),
        ):
            run(package, dataset, folder, recipe=recipe)
        assert not (folder / CHECKPOINT).exists()


def test_a_stalled_run_is_told_what_to_try(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "_PATIENCE", 3)
    messages: list = []
    stuck = dataclasses.replace(RECIPE, optimizer=spec.SGD(rate=0.0), init="xavier", epochs=3)
    run(load(TESTED[0]), dataset, tmp_path / "stuck", recipe=stuck, messages=messages)
    (warning,) = [message["text"] for message in messages if message["event"] == "warning"]
    assert "guessing has 2.3026" in warning
    messages.clear()
    moving = dataclasses.replace(stuck, init="he", optimizer=spec.SGD(rate=0.05), epochs=1)
    run(load(TESTED[0]), dataset, tmp_path / "moving", recipe=moving, messages=messages)
    assert not [message for message in messages if message["event"] == "warning"]
