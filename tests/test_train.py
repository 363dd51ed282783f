"""`googlenet train`, `eval`, `runs` and `recipes`: in this process, and as a user runs them where processes end."""

from __future__ import annotations

import contextlib
import io
import json
import math
import multiprocessing
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import support
from filelock import FileLock
from loops import RECIPE, records, run
from PIL import Image
from rich.console import Console
from support import DATA, FIRST, TESTED, interpreter_without, save_digits

import harness.training.train
import spec
from harness.backends.process import Answer
from harness.backends.registry import load
from harness.figures import lettering
from harness.images.prepared import prepare
from harness.training import curves, display, loop
from harness.training.apart import apart, losses_apart, step_losses
from harness.training.recipe import recipe, recipes
from harness.training.runs import CHECKPOINT, CURVES, METRICS, Position, of_checkpoint, read_metrics, read_settings
from harness.training.train import Part, create, reopen, settings_for, summarize
from harness.weights import checkpoint

SETTINGS = """
preset = "lenet"
size = 28
batch = {batch}
epochs = {epochs}
init = "he"
optimizer = {{ name = "sgd", rate = 0.05, momentum = {momentum} }}
"""

pytestmark = pytest.mark.usefixtures("first", "every_step_recorded")


@pytest.fixture(scope="module")
def every_step_recorded() -> Iterator[None]:
    """Commands that run in this process record every step."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "LOG_EVERY", 1)
        yield


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A folder with pictures (40 to train with, 10 to test), recipes of 4 steps and of many, and a cache."""
    home = tmp_path_factory.mktemp("home")
    save_digits(home / "pictures", 5)
    (home / "short.toml").write_text(SETTINGS.format(batch=10, epochs=1, momentum=0.9))
    (home / "endless.toml").write_text(SETTINGS.format(batch=10, epochs=100_000, momentum=0))
    return home


@pytest.fixture(scope="module")
def dataset(home) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(home / "cache"))
        return prepare(f"folder:{home / 'pictures'}", 1, 28)


def googlenet(home: Path, *arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    """The command, in this process; it runs in the folder."""
    return support.googlenet(*arguments, status=status, cwd=home, XDG_CACHE_HOME=str(home / "cache"))


def training(*arguments: str, recipe: str = "short") -> list[str]:
    """The words of a command that trains on the pictures."""
    return ["train", *arguments, "--data", "folder:pictures", "--recipe", f"{recipe}.toml"]


def train(home: Path, *arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    return googlenet(home, *training(*arguments), status=status)


@pytest.fixture(scope="module")
def finished(home) -> Path:
    """A run in every backend, by one command."""
    done = train(home, *TESTED, "--dtype", "float64", "--run", "runs/all")
    (home / "said").write_text(done.stdout)
    (home / "noted").write_text(done.stderr)
    return home / "runs" / "all"


def losses(folder: Path) -> list[float]:
    return [record["loss"] for record in records(folder, "step")]


# --------------------------------------------------------------------------------------------------- what comes of it


def test_one_command_trains_every_backend_alike(finished, home):
    for name in TESTED:
        assert [record["kind"] for record in read_metrics(finished / name)] == ["step"] * 4 + ["epoch"]
        np.testing.assert_allclose(losses(finished / name), losses(finished / FIRST), rtol=1e-12, atol=0)
    said, noted = (home / "said").read_text(), (home / "noted").read_text()
    (epoch,) = records(finished / FIRST, "epoch")
    assert all(f"\n{name} " in said for name in TESTED)
    assert said.count("4 of 4") == len(TESTED)
    for what in ("train_loss", "train_accuracy", "test_loss", "test_accuracy"):
        assert f"{epoch[what]:.4f}" in said
        assert f"{epoch[what]:.4f}" in noted


def test_a_runs_folder_holds_every_file(finished):
    assert (finished / "curves.png").read_bytes()[:4] == b"\x89PNG"
    for name in TESTED:
        folder = finished / name
        assert {path.name for path in folder.iterdir() if path.name != ".lock"} == {
            "config.json", "metrics.jsonl", "events", "checkpoint.safetensors", "curves.png", "environment.json"
        }  # fmt: skip
        (events,) = (folder / "events").iterdir()
        assert events.stat().st_size > 500
        assert (folder / "curves.png").read_bytes()[:4] == b"\x89PNG"
        found = checkpoint.load(folder / CHECKPOINT)
        assert found.config == spec.preset("lenet", num_classes=10)
        settings, position = of_checkpoint(found, folder)
        assert settings.classes[3] == "digit 3"
        assert (position.step, position.evaluated) == (4, 1)


def test_evaluation_in_another_backend_gives_the_same_scores(finished, home):
    (expected,) = records(finished / FIRST, "epoch")
    scores = json.loads(googlenet(home, "eval", f"runs/all/{FIRST}", "--backend", TESTED[-1], "--json").stdout)
    assert scores["backend"] == TESTED[-1]
    assert scores["loss"] == pytest.approx(expected["test_loss"], rel=1e-12)
    assert scores["accuracy"] == pytest.approx(expected["test_accuracy"], rel=1e-15)
    confusion = np.array(scores["confusion"])
    assert confusion.sum(1).tolist() == [1] * 10  # rows are labels, and there is an image of each
    assert confusion.trace() / 10 == pytest.approx(scores["accuracy"])
    assert [row["recall"] for row in scores["classes"]] == pytest.approx(confusion.diagonal())
    with Image.open(home / scores["picture"]) as picture:
        assert min(picture.size) > 300


def test_a_training_s_averages_are_what_is_evaluated_and_converted_unless_told_otherwise(home):
    recipe = SETTINGS.format(batch=10, epochs=1, momentum=0.9).replace(" }", ", average = 0.5 }")
    (home / "averaging.toml").write_text(recipe)
    done = googlenet(home, *training(FIRST, "--dtype", "float64", "--run", "runs/average", recipe="averaging"))
    folder = home / "runs" / "average" / FIRST
    (epoch,), saved = records(folder, "epoch"), checkpoint.load(folder / CHECKPOINT)
    assert f"accuracy {epoch['test_accuracy']:.4f}, of the averaged weights" in done.stderr
    assert "test loss and accuracy are those of the averaged weights" in done.stdout
    of_average, of_last = "the averages of the training's weights", "the weights after the training's last step"

    done = googlenet(home, "eval", str(folder), "--json")
    assert json.loads(done.stdout)["loss"] == pytest.approx(epoch["test_loss"], rel=1e-12)
    assert done.stderr.startswith(f"{of_average}\n")
    averages = checkpoint.averaged(saved.params, saved.state)
    for options, note, params in (((), of_average, averages), (("--no-average",), of_last, saved.params)):
        done = googlenet(home, "convert", str(folder / CHECKPOINT), "a.npz", "--no-verify", *options)
        assert f"\n{note}\n" in done.stdout
        with np.load(home / "a.npz") as written:
            assert all(np.array_equal(written[name], x) for name, x in params.items())


def test_evaluation_shows_each_class(finished, home):
    done = googlenet(home, "eval", f"runs/all/{FIRST}/checkpoint.safetensors", "--part", "train", "--picture", "c.png")
    assert "of 40)" in done.stdout
    assert all(f"digit {i}" in done.stdout for i in range(10))
    assert (home / "c.png").is_file()


def test_evaluation_of_a_run_that_cannot_be_written_shows_its_scores(finished, home, tmp_path):
    """A folder in the way of the picture stands for a folder that is read-only, which tests may write all the same."""
    shutil.copy(finished / FIRST / CHECKPOINT, tmp_path)
    (tmp_path / "confusion.png").mkdir()
    done = googlenet(home, "eval", str(tmp_path))
    assert "of 10)" in done.stdout
    assert "no picture: " in done.stderr
    assert "--picture FILE draws it elsewhere" in done.stderr
    said = json.loads(googlenet(home, "eval", str(tmp_path), "--json").stdout)
    assert (said["picture"], len(said["confusion"])) == (None, 10)


@pytest.mark.parametrize("name", ["picture", "picture.doc", "runs", "nowhere/picture.png"])
def test_a_picture_that_cannot_be_drawn_is_refused_before_the_evaluation(name, finished, home, monkeypatch):
    monkeypatch.setattr(harness.backends.process, "run_worker", None)
    for words in (["eval", f"runs/all/{FIRST}", "--picture", name], ["runs", "runs/all", "--plot", name]):
        done = googlenet(home, *words, status=2)
        assert done.stderr.startswith(f"error: {name}: ")
        assert not done.stdout


def test_results_are_shown_although_the_curves_cannot_be_drawn(home, stopped):
    for path in (stopped / CURVES, stopped / FIRST / CURVES):
        path.unlink()
        path.mkdir()
    done = googlenet(home, "train", "--resume", str(stopped), status=2)
    assert "4 of 4" in done.stdout
    assert f"{FIRST}/{CURVES}: expected the name of a file, and this is a folder" in done.stderr


def test_evaluation_on_other_classes_is_refused(finished, home):
    done = googlenet(home, "eval", f"runs/all/{FIRST}", "--data", "digits", status=2)
    assert "digits has the classes 0, 1, 2" in done.stderr


def test_runs_are_listed_side_by_side(finished, home):
    done = googlenet(home, "runs", "runs/all")
    assert "runs/all" in done.stdout
    assert all(f"\n{name} " in done.stdout for name in TESTED)
    (row,) = json.loads(googlenet(home, "runs", "runs/all", "--json").stdout)
    assert row["run"] == "runs/all"
    assert [result["backend"] for result in row["backends"]] == list(TESTED)
    assert all(result["complete"] for result in row["backends"])
    assert row["settings"]["recipe"]["optimizer"]["rate"] == 0.05


def test_recipes_are_listed_and_can_be_copied(home):
    listed = googlenet(home, "recipes").stdout
    assert all(f"{name}:" in listed for name in recipes())
    (home / "mine.toml").write_text(googlenet(home, "recipes", "d2l").stdout)
    assert recipe(str(home / "mine.toml")) == recipe("d2l")
    assert json.loads(googlenet(home, "recipes", "--json").stdout)["fast"]["size"] == 28


def test_training_without_options_trains_on_digits(home):
    """One step of it; the network is smaller than the default."""
    done = googlenet(home, "train", FIRST, "--steps", "1", "--preset", "lenet", "--json")
    said = json.loads(done.stdout)
    assert said["run"].startswith("runs/digits-digits-")
    assert said["backends"][0]["step"] == 1
    assert said["backends"][0]["complete"] is False


@pytest.mark.slow
@pytest.mark.skipif(DATA is None, reason="GOOGLENET_DATA does not name the official files")
def test_the_fast_recipe_learns_fashion_mnist(home):
    """30 steps of it: far better than guessing. In one backend, since the others' steps are the same."""
    run = home / "runs" / "fashion"
    words = ["train", FIRST, "--data", "fashion-mnist", "--data-dir", str(DATA), "--recipe", "fast", "--run", str(run)]
    googlenet(home, *words, "--steps", "30")
    found = read_metrics(run / FIRST)
    assert found[-1]["step"] == 30
    assert found[-1]["loss"] < 0.8 * found[0]["loss"]


# --------------------------------------------------------------------------------------------------------- going on


@pytest.fixture(scope="module")
def begun(home) -> Path:
    """A run that stopped in its first epoch."""
    done = train(home, FIRST, "--dtype", "float64", "--run", "runs/begun", "--steps", "2")
    assert "2 of 4" in done.stdout
    return home / "runs" / "begun"


@pytest.fixture
def stopped(begun, tmp_path) -> Path:
    """A copy of it, to be gone on with, or to be damaged."""
    return Path(shutil.copytree(begun, tmp_path / "stopped"))


def test_a_run_stopped_by_steps_goes_on_to_the_same_bytes(finished, home, stopped):
    googlenet(home, "train", "--resume", str(stopped))
    assert (stopped / FIRST / CHECKPOINT).read_bytes() == (finished / FIRST / CHECKPOINT).read_bytes()


@pytest.mark.skipif(len(TESTED) < 2, reason="one backend is tested")
def test_a_run_goes_on_in_another_backend(finished, home, stopped):
    first, second = TESTED[:2]
    before = (stopped / first / CHECKPOINT).read_bytes()
    googlenet(home, "train", "--resume", str(stopped), "--backend", second)
    np.testing.assert_allclose(losses(stopped / second), losses(finished / first), rtol=1e-12, atol=0)
    assert (stopped / first / CHECKPOINT).read_bytes() == before

    done = googlenet(home, "train", "--resume", str(stopped / first), "--backend", second, status=2)
    assert "which would be lost" in done.stderr


@pytest.fixture
def part(dataset, tmp_path) -> Part:
    """What the first backend would do in a run of 10 steps."""
    settings = settings_for(RECIPE, dataset, seed=5, dtype="float64", device="cpu")
    return create(tmp_path / "run", [FIRST], settings)[0]


class Notebook:
    """A listener that writes down what it is told."""

    def __init__(self) -> None:
        self.begun: list[str] = []

    def begin(self, part: Part) -> None:
        self.begun.append(part.backend)

    def message(self, part: Part, message: dict[str, Any]) -> None:
        pass

    def end(self, part: Part, result: harness.training.train.Result) -> None:
        pass


@pytest.mark.parametrize(
    ("answer", "stop_after", "problem"),
    [
        (Answer({"step": 10, "complete": True}), None, None),
        (Answer({"step": 4, "complete": False}), 4, None),
        (Answer({"step": 3, "complete": False}), 4, "interrupted; go on with: .* --resume .*/run$"),
        (Answer({"step": 3, "complete": False}), None, "interrupted; go on with: .* --resume .*/run$"),
        (Answer({"diverged": "the loss is nan"}), None, "the loss is nan"),
        (Answer(crash="killed by SIGKILL"), None, "killed by SIGKILL"),
    ],
    ids=["complete", "at its last step", "before it", "interrupted", "diverged", "crashed"],
)
def test_a_part_that_ends_early_unasked_is_a_problem_and_the_last_one(
    answer, stop_after, problem, part, dataset, monkeypatch
):
    """Two parts; the second one begins only if the first had no problem."""
    monkeypatch.setattr(harness.training.train, "run_worker", lambda *arguments: answer)
    notebook = Notebook()
    found = harness.training.train.train([part, part], dataset, notebook, {}, stop_after=stop_after)
    assert len(found) == len(notebook.begun) == (2 if problem is None else 1)
    if problem is None:
        assert found[0].problem is None
        assert (found[0].step, found[0].complete) == (answer.facts["step"], answer.facts["complete"])
    else:
        assert re.search(problem, found[0].problem)


def test_what_a_backend_refuses_ends_the_command(part, dataset, monkeypatch):
    monkeypatch.setattr(harness.training.train, "run_worker", lambda *arguments: Answer(refused="no"))
    with pytest.raises(spec.InvalidInput, match="no"):
        harness.training.train.train([part], dataset, Notebook(), {})


def test_what_a_later_backend_refuses_is_its_problem_and_the_others_have_results(part, dataset, monkeypatch):
    answers = iter([Answer({"step": 10, "complete": True}), Answer(refused="no")])
    monkeypatch.setattr(harness.training.train, "run_worker", lambda *arguments: next(answers))
    found = harness.training.train.train([part, part], dataset, Notebook(), {})
    assert [(result.step, result.problem) for result in found] == [(10, None), (0, "no")]


def test_a_folder_whose_run_was_refused_can_be_used_again(home, monkeypatch):
    def refuse(*arguments: object) -> None:
        raise spec.InvalidInput("device gpu: there is none")

    (home / "mine").mkdir()
    (home / "mine" / "notes").touch()
    with monkeypatch.context() as patch:
        patch.setattr(loop, "open_run", refuse)
        for name in ("runs/refused", "mine"):
            assert "there is none" in train(home, FIRST, "--run", name, status=2).stderr
    assert not (home / "runs" / "refused").exists()
    assert [path.name for path in (home / "mine").iterdir()] == ["notes"]
    train(home, FIRST, "--run", "mine", "--steps", "1")


@pytest.fixture(scope="module")
def told(home) -> dict[str, Any]:
    """What a run of three steps says of itself, of which only ten are recorded together."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "LOG_EVERY", 10)
        done = train(home, FIRST, "--run", "runs/three", "--steps", "3", "--json")
    return json.loads(done.stdout)["backends"][0]


def test_steps_are_one_number_wherever_they_are_said(told, home):
    folder = home / "runs" / "three" / FIRST
    _, position = of_checkpoint(checkpoint.load(folder / CHECKPOINT), folder)
    (listed,) = json.loads(googlenet(home, "runs", "runs/three", "--json").stdout)
    assert [told["step"], position.step, listed["backends"][0]["step"]] == [3, 3, 3]
    assert listed["backends"] == [told]
    assert "3 of 4" in googlenet(home, "runs", "runs/three").stdout


DAMAGES = {
    "config.json": ("[1]", "config.json: damaged"),
    "metrics.jsonl": ('{"kind": "step", "step": 1}\n', "metrics.jsonl, line 1: expected the record of a step"),
    "environment.json": ("garbage", None),
    "checkpoint.safetensors": ("garbage", "expected a training run's checkpoint"),
}


@pytest.mark.parametrize("file", DAMAGES)
def test_a_damaged_run_is_named_and_the_others_are_listed(file, told, home, stopped):
    content, named = DAMAGES[file]
    shutil.copytree(home / "runs" / "three", stopped.parent / "whole")
    (stopped / FIRST / file).write_text(content)
    done = googlenet(home, "runs", str(stopped.parent), status=0 if named is None else 1)
    assert "3 of 4" in done.stdout
    assert ("2 of 4" in done.stdout) == (named is None)
    assert named is None or named in done.stderr


@pytest.mark.parametrize("file", ["config.json", "metrics.jsonl", "environment.json"])
def test_a_run_goes_on_whose_settings_records_or_environment_are_damaged(file, finished, home, stopped):
    (stopped / FIRST / file).write_bytes(DAMAGES[file][0].encode() + b"\xff\n")
    done = googlenet(home, "train", "--resume", str(stopped))
    assert file in done.stderr
    assert (stopped / FIRST / CHECKPOINT).read_bytes() == (finished / FIRST / CHECKPOINT).read_bytes()
    assert "4 of 4" in googlenet(home, "runs", str(stopped)).stdout


class TestReopening:
    """Which backends go on, and from where: two have a checkpoint, the third has no part in the run yet."""

    @pytest.fixture
    def run(self, dataset, tmp_path) -> Path:
        settings = settings_for(RECIPE, dataset, seed=5, dtype="float64", device="cpu")
        create(tmp_path / "run", ["pt", "mx"], settings)
        for name in ("pt", "mx"):
            (tmp_path / "run" / name / CHECKPOINT).touch()
        return tmp_path / "run"

    @pytest.mark.parametrize(
        ("path", "backend", "expected"),
        [
            (".", None, [("pt", None), ("mx", None)]),
            ("mx", None, [("mx", None)]),
            (".", "mx", [("mx", None)]),
            ("mx", "mx", [("mx", None)]),
            ("mx", "jax", [("jax", "mx")]),
        ],
    )
    def test_backends_go_on_with_their_own_or_with_the_named_checkpoint(self, path, backend, expected, run):
        found = reopen(run / path, backend)
        assert [(part.backend, part.start and part.start.name) for part in found] == expected
        assert [part.folder for part in found] == [run / name for name, _ in expected]
        assert {part.settings for part in found} == {read_settings(run / "pt")}

    @pytest.mark.parametrize(
        ("path", "backend", "says"),
        [
            (".", "jax", "expected one checkpoint for jax to go on from, found .*pt, .*mx: name one"),
            ("pt", "mx", "has a checkpoint of its own, which would be lost"),
            ("..", None, "expected a run"),
        ],
    )
    def test_what_cannot_be_told_or_would_be_lost_is_refused(self, path, backend, says, run):
        with pytest.raises(spec.InvalidInput, match=says):
            reopen(run / path, backend)

    def test_a_backend_without_a_checkpoint_goes_on_from_the_only_one_there_is(self, run):
        (run / "mx" / CHECKPOINT).unlink()
        (part,) = reopen(run, "jax")
        assert part.start == run / "pt"


# ----------------------------------------------------------------------------------------- interrupted, and killed


def _wait(what: Callable[[], bool], running: Callable[[], object], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert running()
        assert time.monotonic() < end
        time.sleep(0.002)


@pytest.mark.slow
@pytest.mark.parametrize("whole_group", [True, False], ids=["at-a-terminal", "sent-to-the-command"])
def test_an_interrupt_saves_and_the_run_goes_on(home, whole_group):
    run = home / "runs" / f"interrupted-{whole_group}"
    words, env = support.command(
        *training(FIRST, "--run", str(run), recipe="endless"), XDG_CACHE_HOME=str(home / "cache")
    )
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=home, env=env, start_new_session=True
    ) as process:
        metrics = run / FIRST / METRICS
        _wait(lambda: metrics.exists() and metrics.stat().st_size > 300, lambda: process.poll() is None)
        if whole_group:
            os.killpg(process.pid, signal.SIGINT)
        else:
            process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=120)
    assert process.returncode == 1
    assert f"interrupted; go on with: googlenet train --resume {run}" in said.replace("\n", "")
    assert "Traceback" not in said
    _, position = of_checkpoint(checkpoint.load(run / FIRST / CHECKPOINT), run)
    assert position.step >= 2
    assert [record["step"] for record in records(run / FIRST, "step")] == list(range(10, position.step + 1, 10))
    googlenet(home, "train", "--resume", str(run), "--steps", str(position.step + 1))
    _, later = of_checkpoint(checkpoint.load(run / FIRST / CHECKPOINT), run)
    assert later.step == position.step + 1


def train_until_killed(name: str, dataset: Path, folder: Path) -> None:
    """Saves after every step, to a slow disk. Runs in a process of its own."""
    sync = os.fsync

    def slowly(file: int) -> None:
        time.sleep(0.05)
        sync(file)

    os.fsync = slowly
    run(load(name), dataset, folder, recipe=replace(RECIPE, epochs=100_000), save_every=0)


@pytest.mark.slow
def test_killed_at_any_moment_the_previous_checkpoint_loads(dataset, tmp_path, monkeypatch):
    """SIGKILL, 22 times, half of them while a checkpoint is being written."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(support.ROOT), str(Path(__file__).parent)]))
    processes = multiprocessing.get_context("forkserver")  # which imports the framework once
    processes.set_forkserver_preload([load(FIRST).__name__, "loops", *(["torch._dynamo"] if FIRST == "pt" else [])])
    folder = tmp_path / "run"
    final, partial = folder / CHECKPOINT, folder / f"{CHECKPOINT}.partial"
    rng, during, reached, before = random.Random(0), 0, 0, 0
    for i in range(22):
        process = processes.Process(target=train_until_killed, args=(FIRST, dataset, folder))
        process.start()
        _wait(lambda: final.exists() and final.stat().st_mtime_ns != before, process.is_alive)  # noqa: B023 (used at once)
        if i % 2:
            _wait(partial.exists, process.is_alive)
        time.sleep(rng.random() * (0.02 if i % 2 else 0.5))
        process.kill()
        process.join()
        during += partial.exists()
        before = final.stat().st_mtime_ns
        _, position = of_checkpoint(checkpoint.load(final), final)
        assert position.step >= reached  # the first checkpoint of a run that goes on is that of the one before
        reached = position.step
    assert during >= 3
    assert reached >= 11
    run(load(FIRST), dataset, folder, recipe=replace(RECIPE, epochs=100_000), stop_after=reached + 1)
    assert not partial.exists()
    assert [record["step"] for record in records(folder, "step")] == list(range(1, reached + 2))


# ------------------------------------------------------------------------------------------------------------ failures


@contextlib.contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """As on a disk that is nearly full: this process cannot write a file of more bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class TestFailures:
    """Clear errors, nothing lost."""

    def test_a_damaged_checkpoint_is_refused_and_stays(self, home, stopped):
        path = stopped / FIRST / CHECKPOINT
        content = bytearray(path.read_bytes())
        content[-1000] ^= 4
        path.write_bytes(content)
        done = googlenet(home, "train", "--resume", str(stopped), status=2)
        assert "damaged" in done.stderr
        assert str(path) in done.stderr.replace("\n", "")
        assert path.read_bytes() == content
        assert "damaged" in googlenet(home, "eval", str(path), status=2).stderr

    def test_a_truncated_checkpoint_is_refused(self, home, stopped):
        path = stopped / FIRST / CHECKPOINT
        path.write_bytes(path.read_bytes()[:-1])
        done = googlenet(home, "train", "--resume", str(stopped), status=2)
        assert "truncated" in done.stderr

    def test_a_full_disk_leaves_the_checkpoint_before(self, home, stopped):
        """And says so before it trains."""
        path, metrics = stopped / FIRST / CHECKPOINT, (stopped / FIRST / METRICS).read_text()
        before = path.read_bytes()
        with files_up_to(len(before) // 2):
            done = googlenet(home, "train", "--resume", str(stopped), status=2)
        assert "cannot be written (File too large)" in done.stderr
        assert "what was there before is unchanged" in done.stderr.replace("\n", " ")
        assert path.read_bytes() == before
        assert (stopped / FIRST / METRICS).read_text() == metrics
        googlenet(home, "train", "--resume", str(stopped))

    def test_a_folder_that_another_process_trains_in_is_refused(self, home, stopped):
        with FileLock(stopped / FIRST / ".lock"):
            done = googlenet(home, "train", "--resume", str(stopped), status=2)
        assert "another process is training here" in done.stderr

    def test_a_folder_that_cannot_be_made_is_refused(self, home):
        (home / "file").touch()
        done = train(home, FIRST, "--run", "file/run", status=2)
        assert "file/run: cannot be made" in done.stderr

    def test_other_images_than_it_began_with_are_refused(self, home, stopped):
        extra = home / "pictures" / "digit 0" / "extra.png"
        shutil.copy(home / "pictures" / "digit 1" / "1.png", extra)
        try:
            done = googlenet(home, "train", "--resume", str(stopped), status=2)
        finally:
            extra.unlink()
        assert "trained on other images" in done.stderr

    def test_a_backend_that_crashes_ends_with_status_1(self, home, stopped):
        """And its last words are shown."""
        words = ["train", "--resume", str(stopped), "--python", f"{FIRST}={shutil.which('false')}"]
        done = googlenet(home, *words, status=1)
        assert "exit status 1" in done.stderr

    @pytest.mark.slow
    def test_an_interpreter_without_safetensors_is_told_to_install_it(self, home, stopped, tmp_path):
        """The worker of a backend in another environment: its framework is there, what training needs is not."""
        python = interpreter_without("safetensors", tmp_path)
        words = ["train", "--resume", str(stopped), "--python", f"{FIRST}={python}"]
        assert "pip install safetensors" in googlenet(home, *words, status=2).stderr.replace("\n", " ")

    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            (["tf"], "unknown backend: expected one or more of pt, mx, jax, got tf"),
            ([FIRST, "--recipe", "slow"], "recipe: expected one of cnblogs-adam, d2l"),
            ([FIRST, "--preset", "vgg"], "preset: expected one of d2l"),
            ([FIRST, "--epochs", "0", "--batch", "0"], "epochs: expected at least 1, got 0"),
            ([FIRST, "--preset", "cnblogs", "--size", "96"], "cnblogs"),
            ([FIRST, "--dtype", "float16"], "'float16' is not one of 'float32', 'tf32', 'float64', 'bfloat16'"),
            ([FIRST, "--data", "cifar"], "digits"),
            ([FIRST, "--backend", "jax"], "only with --resume"),
            (["--resume", "runs/nothing"], "expected a run"),
            (["--resume", "runs/begun", "--epochs", "3"], "leave out --epochs"),
            (
                [FIRST, "--resume", "runs/begun", "--dtype", "float32", "--no-aux"],
                "leave out backends, --aux, --dtype",
            ),
            ([FIRST, "--run", "runs/begun"], "there is a run of that name"),
        ],
    )
    def test_wrong_usage_is_refused(self, arguments, says, home, begun):
        stderr = googlenet(home, "train", *arguments, status=2).stderr.replace("│", " ")
        assert says in " ".join(stderr.split())


# --------------------------------------------------------------------------------------------------------------- shown


def test_a_runs_summary_holds_its_last_epoch_and_its_median_speed(part):
    step = {"kind": "step", "loss": 9, "accuracy": 0, "rate": 1}
    epoch = {"kind": "epoch", "train_loss": 2, "train_accuracy": 0.25, "test_loss": 3, "test_accuracy": 0.5}
    written = [
        step | {"step": 2, "seconds": 1.0, "images_per_second": 10},
        step | {"step": 4, "seconds": 2.0, "images_per_second": 40},
        epoch | {"step": 5, "epoch": 1, "seconds": 3.0, "train_loss": 99, "test_loss": 99},
        step | {"step": 6, "seconds": 4.0, "images_per_second": None},
        step | {"step": 8, "seconds": 5.0, "images_per_second": 20},
        epoch | {"step": 10, "epoch": 2, "seconds": 6.0},
    ]
    metrics = part.folder / METRICS
    metrics.write_text("".join(json.dumps(record) + "\n" for record in written))
    save_position(part, Position(step=10, evaluated=2))
    found = summarize(FIRST, part.folder, part.settings)
    assert (found.step, found.steps, found.complete, found.seconds) == (10, 10, True, 6.0)
    assert (found.train_loss, found.train_accuracy, found.test_loss, found.test_accuracy) == (2, 0.25, 3, 0.5)
    assert found.images_per_second == 20
    save_position(part, Position(step=7, evaluated=1))  # the later records are of steps that will be done again
    found = summarize(FIRST, part.folder, part.settings)
    assert (found.step, found.complete, found.train_loss, found.images_per_second) == (7, False, 99, 25)


def save_position(part: Part, position: Position) -> None:
    """A checkpoint as the loop saves it."""
    config = part.settings.config
    metadata = {"run": part.settings.as_json(), "position": asdict(position)}
    checkpoint.save(part.folder / CHECKPOINT, spec.init_params(config), config, metadata)


def shown(what: Any) -> str:
    console = Console(width=120, file=io.StringIO())
    console.print(what)
    return console.file.getvalue()


def test_results_are_shown_with_four_digits_and_the_time(dataset):
    long = harness.training.train.Result("pt", 1234, 2000, False, None, 0.12345, 0.95, 0.25, 0.9, 1234.4, 3725.4)
    short = harness.training.train.Result("mx", 1, 2000, seconds=59.6)
    _, *rows = shown(display.results_table([long, short])).splitlines()
    assert rows[0].split() == "pt 1,234 of 2,000 0.1235 0.9500 0.2500 0.9000 1234 1:02:05".split()
    assert rows[1].split() == "mx 1 of 2,000 0:01:00".split()


def test_off_a_terminal_a_training_tells_its_step_now_and_then(part, monkeypatch):
    now = SimpleNamespace(monotonic=lambda: now.time, time=0.0)
    monkeypatch.setattr(display, "time", now)
    console = Console(width=200, file=io.StringIO())
    screen = display.Screen(console)
    screen.begin(part)
    for now.time, step in ((1.0, 1), (59.0, 2), (60.0, 3), (119.0, 4), (121.0, 5)):
        screen.message(part, {"event": "progress", "step": step, "loss": 2.5, "accuracy": 0.25})
    _, *lines = console.file.getvalue().splitlines()
    steps = f"of {part.settings.steps:,}: loss 2.5000  accuracy 0.250"
    assert lines == [f"{FIRST}: step 3 {steps}", f"{FIRST}: step 5 {steps}"]


CONFUSION = np.array([[2, 1, 0], [0, 1, 3], [0, 0, 0]])  # rows are labels


def numbered(*losses: float) -> dict[int, float]:
    return dict(enumerate(losses, 1))


def test_where_rounding_has_parted_the_backends_is_said():
    runs = {"pt": numbered(2.0, 1.0, 0.5, 0.1), "mx": numbered(2.0, 1.00001, 0.4)}
    assert display.parted(runs, "float32") == (
        "float32 parts the backends: their losses differ by more than 5e-06 (relatively) from step 2 on, "
        "and by 2.0e-01 at step 3"
    )
    assert display.parted(runs | {"mx": numbered(2.0, 1.000001)}, "float32") == ""
    assert display.parted({"pt": numbered(2.0)}, "float32") == ""
    assert display.parted({"pt": numbered(2.0), "mx": {}}, "float32") == ""


def test_every_steps_loss_is_kept_also_of_those_after_the_last_record(told, finished, home):
    assert records(home / "runs" / "three" / FIRST, "step") == []
    expected = numbered(*losses(finished / FIRST)[:3])  # in float64
    assert step_losses(home / "runs" / "three" / FIRST) == pytest.approx(expected, rel=1e-5)


@pytest.fixture
def pair(finished, tmp_path) -> Path:
    """The same run twice, as if it were another backend's, where the second half of the losses is smaller by a half."""
    for name in ("pt", "mx"):
        shutil.copytree(finished / FIRST, tmp_path / "pair" / name)
    changed = [
        record | {"losses": [loss / 2 for loss in record["losses"]]} if record.get("losses") and n >= 2 else record
        for n, record in enumerate(read_metrics(tmp_path / "pair" / "mx"))
    ]
    (tmp_path / "pair" / "mx" / METRICS).write_text("".join(json.dumps(record) + "\n" for record in changed))
    return tmp_path / "pair"


def save_weights(folder: Path, change: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]) -> None:
    """Write a run's checkpoint with other weights."""
    found = checkpoint.load(folder / CHECKPOINT)
    checkpoint.save(folder / CHECKPOINT, change(found.params), found.config, found.metadata, found.state)


@pytest.mark.parametrize("losses", [(math.nan, 1.0), (1.0, math.nan), (math.nan, math.nan), (math.inf, 1.0)], ids=str)
def test_losses_that_are_not_finite_are_infinitely_far_apart(losses):
    one, other = losses
    assert losses_apart({"pt": {1: one, 2: 0.5}, "mx": {1: other, 2: 0.25}}) == {1: math.inf, 2: 0.5}


def test_backends_are_apart_by_their_losses_and_weights(pair):
    save_weights(pair / "mx", lambda params: params | {"fc5.bias": params["fc5.bias"] * 1.25})
    found = apart(pair)
    assert found.losses == {1: 0, 2: 0, 3: 0.5, 4: 0.5}
    weights = {name: error for name, error in found.weights.items() if error}
    assert weights == {"fc5.bias": pytest.approx(0.2)} or weights == {"fc5.bias": pytest.approx(0.25)}
    assert found.describe(0.1) == (
        "losses of 4 steps: at most 5.0e-01 apart (step 3), above 0.1 first at step 3; "
        f"weights after step 4: at most {weights['fc5.bias']:.1e} (fc5.bias)"
    )
    assert "above" not in found.describe(0.5)
    assert (found.within(0.5), found.within(0.49)) == (True, False)
    assert not replace(found, losses={1: 0.0}).within(0.1)


def test_the_status_says_whether_a_runs_backends_are_within_a_bound(pair, finished, home):
    (row,) = json.loads(googlenet(home, "runs", str(pair), "--within", "0.6", "--json").stdout)
    assert row["apart"]["losses"] == {"1": 0, "2": 0, "3": 0.5, "4": 0.5}
    done = googlenet(home, "runs", str(pair), "--within", "0.4", status=1)
    assert "above 0.4 first at step 3" in " ".join(done.stdout.split())
    if len(TESTED) > 1:
        googlenet(home, "runs", str(finished), "--within", "1e-11")


def test_only_what_can_be_compared_is_said_to_be_within_a_bound(pair, told, stopped, home):
    def refused(folder: Path) -> str:
        return " ".join(googlenet(home, "runs", str(folder), "--within", "1", status=2).stderr.split())

    assert "expected a run of several backends" in refused(home / "runs" / "three")
    records = [{key: x for key, x in record.items() if key != "losses"} for record in read_metrics(pair / "mx")]
    (pair / "mx" / METRICS).write_text("".join(json.dumps(record) + "\n" for record in records))
    assert "expected the loss of each step" in refused(pair)
    shutil.rmtree(pair / "mx")
    shutil.copytree(stopped / FIRST, pair / "mx")
    assert "the same number of steps, got pt 4, mx 2" in refused(pair)
    save_settings = checkpoint.load(pair / "pt" / CHECKPOINT)
    other = save_settings.metadata | {"run": save_settings.metadata["run"] | {"seed": 9}}
    checkpoint.save(pair / "mx" / CHECKPOINT, save_settings.params, save_settings.config, other, save_settings.state)
    assert "the same settings" in refused(pair)


@pytest.mark.parametrize(("data", "shows"), [("fashion-mnist", True), ("digits", False)])
def test_a_published_result_stands_beside_what_was_published_for_that_data(data, shows, dataset, tmp_path):
    settings = replace(settings_for(recipe("lenet-bn"), dataset, 0, "float32", "cpu"), data=data)
    console = Console(width=120, file=io.StringIO())
    display.show_run(display.Overview(tmp_path, settings, [], []), console)
    assert ("published: 5 epochs" in console.file.getvalue()) is shows


def test_classes_are_shown_with_recall_precision_and_the_commonest_mistake():
    keys = ("class", "images", "recall", "precision", "taken_for", "taken_for_count")
    assert [tuple(row[key] for key in keys) for row in display.class_table(CONFUSION, "abc")] == [
        ("a", 3, 2 / 3, 1.0, "b", 1),
        ("b", 4, 1 / 4, 1 / 2, "c", 3),
        ("c", 0, None, 0.0, None, 0),
    ]
    console = Console(width=120, file=io.StringIO())
    display.show_scores(CONFUSION, 1.5, ["a", "b", "c"], console)
    first, _, *rows = console.file.getvalue().splitlines()
    assert first == "loss 1.5000, accuracy 0.4286 (3 of 7)"
    assert [row.split() for row in rows] == [
        ["a", "3", "0.667", "1.000", "b", "(1)"],
        ["b", "4", "0.250", "0.500", "c", "(3)"],
        ["c", "0", "0.000"],
    ]


@pytest.fixture
def figure(monkeypatch) -> dict[str, Any]:
    """Takes the figure that is drawn, instead of a file."""
    kept: dict[str, Any] = {}
    monkeypatch.setattr(curves, "save_figure", lambda figure, path: kept.update(axes=figure.axes, path=path))
    return kept


def test_curves_show_steps_and_epochs_of_each_backend(figure, tmp_path):
    def made(offset: float) -> list[dict[str, Any]]:
        steps = [{"kind": "step", "step": n, "loss": offset + n, "accuracy": offset - n} for n in (1, 2, 3)]
        epoch = {"kind": "epoch", "step": 2, "train_loss": 70.0, "train_accuracy": 80.0}
        return [*steps[:2], epoch | {"test_loss": offset + 50, "test_accuracy": offset + 60}, steps[2]]

    curves.draw_curves({"pt": made(0), "mx": made(100)}, tmp_path / CURVES, "a run")
    for axis, what, sign, test in zip(figure["axes"], ("loss", "accuracy"), (1, -1), (50, 60), strict=True):
        assert (axis.get_xlabel(), axis.get_ylabel()) == ("step", what)
        lines = {line.get_label(): line.get_xydata().tolist() for line in axis.lines}
        assert lines == {
            "pt train": [[1, sign], [2, 2 * sign], [3, 3 * sign]],
            "pt test": [[2, test]],
            "mx train": [[1, 100 + sign], [2, 100 + 2 * sign], [3, 100 + 3 * sign]],
            "mx test": [[2, 100 + test]],
        }
        colors = {line.get_label(): line.get_color() for line in axis.lines}
        assert colors["pt train"] == colors["pt test"] != colors["mx train"] == colors["mx test"]


def test_curves_show_how_far_the_losses_are_apart(figure, tmp_path):
    step = {"kind": "step", "step": 10, "loss": 2.0, "accuracy": 0.5}
    curves.draw_curves({"pt": [step], "mx": [step]}, tmp_path / CURVES, "a run", {1: 0.0, 2: 1e-9, 3: 1e-3})
    _, _, axis = figure["axes"]
    assert (axis.get_ylabel(), axis.get_yscale()) == ("losses apart, relatively", "log")
    assert axis.lines[0].get_xydata().tolist() == [[1, 0], [2, 1e-9], [3, 1e-3]]


def test_the_picture_of_a_confusion_matrix_has_labels_down_and_predictions_across(figure, tmp_path):
    curves.draw_confusion(CONFUSION, ["a", "b", "c"], tmp_path / "confusion.png", "a run")
    (axis,) = figure["axes"]
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("prediction", "label")
    shares = axis.images[0].get_array()
    np.testing.assert_allclose(shares, [[2 / 3, 1 / 3, 0], [0, 1 / 4, 3 / 4], [0, 0, 0]])
    texts = {text.get_position(): text.get_text() for text in axis.texts}
    assert texts == {(0, 0): "2", (1, 0): "1", (1, 1): "1", (2, 1): "3"}  # (prediction, label)


def test_what_is_single_is_a_point_steps_are_whole_and_a_dollar_is_no_mathematics(figure, tmp_path):
    step = {"kind": "step", "step": 1, "loss": 2.0, "accuracy": 0.5}
    assert curves.draw_curves({"$a$": [step]}, tmp_path / CURVES, "$\\frac{$ \x1b[31m") == []
    axis = figure["axes"][0]
    assert [line.get_marker() for line in axis.lines if len(line.get_xdata())] == ["o"]
    assert all(tick == round(tick) for tick in axis.get_xticks())
    title, legend = axis.figure._suptitle, axis.figure.legends[0].get_texts()
    assert title.get_text() == "$\\frac{$ \\x1b[31m"
    assert [text.get_text() for text in legend] == ["$a$ train"]  # and no entry for tests, of which there is none
    assert not any(text.get_parse_math() for text in (title, *legend))


def test_the_title_of_a_confusion_matrix_is_whole_and_has_the_accuracy(figure, tmp_path):
    curves.draw_confusion(CONFUSION, ["a", "b", "$c$"], tmp_path / "confusion.png", "word " * 30)
    (axis,) = figure["axes"]
    *lines, accuracy = axis.figure._suptitle.get_text().split("\n")
    assert " ".join(lines).split() == ["word"] * 30
    assert max(map(len, lines)) < 60
    assert accuracy == "accuracy 0.4286 (3 of 7)"
    assert [text.get_text() for text in axis.get_yticklabels()] == ["a", "b", "$c$"]
    assert not any(text.get_parse_math() for text in (*axis.get_xticklabels(), *axis.get_yticklabels()))


def _fonts(monkeypatch, *others: Any) -> None:
    """A machine with no other fonts than matplotlib's own for plain text and these."""
    from matplotlib.font_manager import fontManager

    own = [font for font in fontManager.ttflist if font.name == "DejaVu Sans"]
    monkeypatch.setattr(fontManager, "ttflist", [*own, *others])


def test_letters_that_no_font_has_are_written_as_in_python_and_named(monkeypatch):
    _fonts(monkeypatch)
    letters = lettering(["собака", "\u732b\u72ac"])
    assert [letters.write(name) for name in ("собака", "a\u732b")] == ["собака", "a\\u732b"]
    (note,) = letters.notes(Path("a.png"))
    assert note.startswith("a.png: no font on this machine has \u72ac, \u732b: written as \\u72ac in the picture")
    assert lettering(["plain"]).notes(Path("a.png")) == []


def test_a_font_that_has_the_letters_is_taken(monkeypatch):
    from matplotlib.font_manager import FontEntry, findfont
    from matplotlib.ft2font import FT2Font

    path, usual = findfont("STIXGeneral"), FT2Font(findfont("DejaVu Sans")).get_charmap()
    letter = next(c for c in map(chr, sorted(FT2Font(path).get_charmap())) if ord(c) not in usual and c.isprintable())
    _fonts(monkeypatch, FontEntry(fname=path, name="Last Resort"), FontEntry(fname=path, name="Symbols"))
    letters = lettering([letter])
    assert letters.missing == ""
    assert letters.style["fontfamily"] == ["DejaVu Sans", "Symbols"]


def test_curves_of_several_runs_are_one_picture_each_under_its_name(figure, part, tmp_path):
    step = {"kind": "step", "step": 1, "epoch": 1, "loss": 2.0, "accuracy": 0.5, "rate": 1.0}
    step |= {"images_per_second": None, "seconds": 1.0}
    views = []
    for name in ("a", "b"):
        (tmp_path / name / FIRST).mkdir(parents=True)
        (tmp_path / name / FIRST / METRICS).write_text(json.dumps(step) + "\n")
        views.append(display.Overview(tmp_path / name, part.settings, [harness.training.train.Result(FIRST)], []))
    assert display.draw_runs(views, tmp_path / "all.png") == []
    labels = [text.get_text() for text in figure["axes"][0].figure.legends[0].get_texts()]
    assert labels == [f"a/{FIRST} train", f"b/{FIRST} train"]
    with pytest.raises(spec.InvalidInput, match="none of these runs has a record yet"):
        display.draw_runs([], tmp_path / "all.png")


def test_tensorboard_gets_every_number_under_its_step(monkeypatch, tmp_path):
    given: list = []
    writer = SimpleNamespace(add_scalar=lambda *arguments: given.append(arguments), close=lambda: None)
    monkeypatch.setattr("tensorboardX.SummaryWriter", lambda folder: writer)
    events = curves.Events(tmp_path, [{"kind": "step", "step": 3, "epoch": 1, "loss": 2.0, "seconds": 1.0}])
    events.add({"kind": "epoch", "step": 5, "epoch": 1, "test_loss": 1.0, "images_per_second": None, "seconds": 2.0})
    assert given == [("step/loss", 2.0, 3), ("epoch/test_loss", 1.0, 5)]
