"""`googlenet train`, `eval`, `runs` and `recipes`, run as a user runs them: in processes, killed ones among them."""

from __future__ import annotations

import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image
from support import DATA, TESTED, interpreter_without, save_digits

import spec
from harness.backend import load
from harness.runs import CHECKPOINT, METRICS, of_checkpoint, read_metrics
from spec import checkpoint
from spec.recipe import recipe, recipes

ROOT = Path(__file__).parent.parent
FIRST = TESTED[0]
RECIPE = """
preset = "d2l"
size = 28
batch = 12
epochs = {epochs}
init = "he"
optimizer = {{ name = "sgd", rate = 0.05, momentum = 0 }}
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A folder with pictures (40 to train with, 10 to test), a recipe, and a cache."""
    home = tmp_path_factory.mktemp("home")
    save_digits(home / "pictures", 5)
    for epochs in (1, 2, 1000):
        (home / f"{epochs}.toml").write_text(RECIPE.format(epochs=epochs))
    return home


def command(home: Path, *arguments: str) -> tuple[list[str], dict[str, str]]:
    """The command and its environment; it runs in the folder."""
    env = {name: value for name, value in os.environ.items() if name != "GOOGLENET_DATA"}
    env |= {"XDG_CACHE_HOME": str(home / "cache"), "COLUMNS": "140", "PYTHONPATH": str(ROOT)}
    return [sys.executable, "-m", "harness.cli", *arguments], env


def googlenet(home: Path, *arguments: str, status: int = 0, **changed) -> subprocess.CompletedProcess[str]:
    words, env = command(home, *arguments)
    done = subprocess.run(words, capture_output=True, text=True, cwd=home, env=env, **changed)
    assert done.returncode == status, done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    return done


def train(home: Path, *arguments: str, epochs: int = 1, **changed) -> subprocess.CompletedProcess[str]:
    return googlenet(
        home,
        "train",
        *arguments,
        "--data",
        "folder:pictures",
        "--recipe",
        f"{epochs}.toml",
        "--log-every",
        "1",
        **changed,
    )


@pytest.fixture(scope="module")
def finished(home) -> Path:
    """A run in every backend, by one command."""
    done = train(home, *TESTED, "--dtype", "float64", "--run", "runs/all")
    (home / "said").write_text(done.stdout)
    return home / "runs" / "all"


def test_one_command_trains_every_backend_alike(finished, home):
    losses = {}
    for name in TESTED:
        records = read_metrics(finished / name)
        assert [record["kind"] for record in records] == ["step"] * 4 + ["epoch"]
        losses[name] = [record["loss"] for record in records if record["kind"] == "step"]
        np.testing.assert_allclose(losses[name], losses[FIRST], rtol=1e-12, atol=0)
    said = (home / "said").read_text()
    assert all(f"\n{name} " in said for name in TESTED)
    assert "4 of 4" in said


def test_every_file_of_a_run_is_there(finished):
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
        assert found.config == spec.preset("d2l", num_classes=10)
        settings, position = of_checkpoint(found, folder)
        assert settings.classes[3] == "digit 3"
        assert (position.step, position.evaluated) == (4, 1)


@pytest.mark.parametrize("name", TESTED)  # not the session's fixture, which would have every run made anew for each
def test_weights_of_a_run_are_one_call_away(name, finished):
    backend, found = load(name), checkpoint.load(finished / FIRST / CHECKPOINT)
    model = backend.GoogLeNet(found.config, dtype="float64", device="cpu")
    backend.load_params(model, found.params)
    assert backend.predict(model, np.zeros((1, 1, 28, 28))).shape == (1, 10)


def test_evaluating_in_another_backend_gives_the_same(finished, home):
    expected = read_metrics(finished / FIRST)[-1]
    scores = json.loads(googlenet(home, "eval", f"runs/all/{FIRST}", "--backend", TESTED[-1], "--json").stdout)
    assert scores["backend"] == TESTED[-1]
    assert scores["loss"] == pytest.approx(expected["test_loss"], rel=1e-12)
    assert scores["accuracy"] == pytest.approx(expected["test_accuracy"], rel=1e-15)
    confusion = np.array(scores["confusion"])
    assert confusion.sum(1).tolist() == [1] * 10
    assert confusion.trace() / 10 == pytest.approx(scores["accuracy"])
    assert [row["recall"] for row in scores["classes"]] == pytest.approx(confusion.diagonal())
    with Image.open(home / scores["picture"]) as picture:
        assert min(picture.size) > 300


def test_evaluating_shows_each_class(finished, home):
    done = googlenet(home, "eval", f"runs/all/{FIRST}/checkpoint.safetensors", "--part", "train", "--picture", "c.png")
    assert "of 40)" in done.stdout
    assert all(f"digit {i}" in done.stdout for i in range(10))
    assert (home / "c.png").is_file()


def test_evaluating_on_other_classes_is_refused(finished, home):
    done = googlenet(home, "eval", f"runs/all/{FIRST}", "--data", "digits", status=2)
    assert "digits has the classes 0, 1, 2" in done.stderr


def test_runs_are_listed_side_by_side(finished, home):
    done = googlenet(home, "runs")
    assert "runs/all" in done.stdout
    assert all(f"\n{name} " in done.stdout for name in TESTED)
    (row,) = [row for row in json.loads(googlenet(home, "runs", "--json").stdout) if row["run"] == "runs/all"]
    assert [result["backend"] for result in row["backends"]] == list(TESTED)
    assert all(result["complete"] for result in row["backends"])
    assert row["settings"]["recipe"]["optimizer"]["rate"] == 0.05


def test_stop_after_some_steps_and_go_on(home, tmp_path):
    """The checkpoint's bytes are those of the run that was not interrupted."""
    train(home, FIRST, "--run", "runs/straight")
    done = train(home, FIRST, "--run", "runs/parts", "--steps", "3")
    assert "3 of 4" in done.stdout
    googlenet(home, "train", "--resume", "runs/parts", "--log-every", "1")
    parts, straight = (home / "runs" / name / FIRST / CHECKPOINT for name in ("parts", "straight"))
    assert parts.read_bytes() == straight.read_bytes()


@pytest.mark.skipif(len(TESTED) < 2, reason="one backend is tested")
def test_go_on_in_another_backend(finished, home):
    first, second = TESTED[:2]
    train(home, first, "--run", "runs/moved", "--steps", "2", "--dtype", "float64")
    googlenet(home, "train", "--resume", "runs/moved", "--backend", second, "--log-every", "1")
    records = read_metrics(home / "runs/moved" / second)
    losses = [record["loss"] for record in records if record["kind"] == "step"]
    straight = [record["loss"] for record in read_metrics(finished / first) if record["kind"] == "step"]
    np.testing.assert_allclose(losses, straight, rtol=1e-12, atol=0)
    assert (home / "runs/moved" / first / CHECKPOINT).is_file()

    done = googlenet(home, "train", "--resume", f"runs/moved/{first}", "--backend", second, status=2)
    assert "which would be lost" in done.stderr


def _wait(what, process: subprocess.Popen, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.002)


@pytest.mark.parametrize("whole_group", [True, False], ids=["at-a-terminal", "sent-to-the-command"])
def test_an_interrupt_saves_and_the_run_goes_on(home, whole_group):
    run = home / "runs" / f"interrupted-{whole_group}"
    words, env = command(home, "train", FIRST, "--data", "folder:pictures", "--recipe", "1000.toml", "--log-every", "1")
    with subprocess.Popen(
        [*words, "--run", str(run)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=home, env=env, start_new_session=True,
    ) as process:  # fmt: skip
        _wait(lambda: (run / FIRST / METRICS).exists() and (run / FIRST / METRICS).stat().st_size > 300, process)
        if whole_group:
            os.killpg(process.pid, signal.SIGINT)
        else:
            process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=120)
    assert process.returncode == 1
    assert f"interrupted; go on with: googlenet train --resume {run}" in said.replace("\n", "")
    assert "Traceback" not in said
    _, position = of_checkpoint(checkpoint.load(run / FIRST / CHECKPOINT), run)
    steps = [record["step"] for record in read_metrics(run / FIRST) if record["kind"] == "step"]
    assert steps[-1] == position.step >= 2
    googlenet(home, "train", "--resume", str(run), "--steps", str(position.step + 1))
    _, later = of_checkpoint(checkpoint.load(run / FIRST / CHECKPOINT), run)
    assert later.step == position.step + 1


@pytest.mark.slow
def test_killed_at_any_moment_the_previous_checkpoint_loads(home):
    """SIGKILL, 20 times and more, half of them while a checkpoint is being written."""
    run = home / "runs" / "killed"
    final, partial = run / FIRST / CHECKPOINT, run / FIRST / f"{CHECKPOINT}.partial"
    options = ["--save-every", "0", "--log-every", "1"]
    train(home, FIRST, "--run", str(run), "--steps", "1", epochs=1000)
    rng, during, reached = random.Random(0), 0, 1
    for i in range(22):
        words, env = command(home, "train", "--resume", str(run), *options)
        before = final.stat().st_mtime_ns
        with subprocess.Popen(
            words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=home, env=env, start_new_session=True
        ) as process:
            _wait(lambda: final.stat().st_mtime_ns != before, process)  # noqa: B023 (used at once)
            if i % 2:
                _wait(partial.exists, process)
            time.sleep(rng.random() * (0.02 if i % 2 else 0.5))
            os.killpg(process.pid, signal.SIGKILL)
        during += partial.exists()
        _, position = of_checkpoint(checkpoint.load(final), final)
        assert position.step > reached
        reached = position.step
    assert during >= 3
    googlenet(home, "train", "--resume", str(run), "--steps", str(reached + 1), *options)
    assert not partial.exists()
    records = [record["step"] for record in read_metrics(run / FIRST) if record["kind"] == "step"]
    assert records == list(range(1, reached + 2))


class TestFailures:
    """Clear errors, nothing lost."""

    @pytest.fixture
    def stopped(self, home, request) -> Path:
        """A run that stopped in its first epoch, copied so that it may be damaged."""
        origin = home / "runs" / "stopped"
        if not origin.exists():
            train(home, FIRST, "--run", str(origin), "--steps", "2")
        copy = home / "runs" / f"copy-{request.node.name}"
        shutil.copytree(origin, copy)
        return copy

    def test_a_flipped_bit(self, home, stopped):
        path = stopped / FIRST / CHECKPOINT
        content = bytearray(path.read_bytes())
        content[-1000] ^= 4
        path.write_bytes(content)
        done = googlenet(home, "train", "--resume", str(stopped), status=2)
        assert "damaged" in done.stderr
        assert str(path) in done.stderr.replace("\n", "")
        assert path.read_bytes() == content
        assert "damaged" in googlenet(home, "eval", str(path), status=2).stderr

    def test_a_truncated_file(self, home, stopped):
        path = stopped / FIRST / CHECKPOINT
        path.write_bytes(path.read_bytes()[:-1])
        done = googlenet(home, "train", "--resume", str(stopped), status=2)
        assert "truncated" in done.stderr

    def test_a_full_disk(self, home, stopped):
        path = stopped / FIRST / CHECKPOINT
        before = path.read_bytes()
        words, env = command(home, "train", "--resume", str(stopped))
        limited = f"ulimit -f {len(before) // 2048}; exec {shlex.join(words)}"  # KiB: half of what is to be written
        done = subprocess.run(["bash", "-c", limited], capture_output=True, text=True, cwd=home, env=env)
        assert done.returncode == 2, done.stderr
        assert "cannot be written (File too large)" in done.stderr
        assert "what was there before is unchanged" in done.stderr.replace("\n", " ")
        assert path.read_bytes() == before
        googlenet(home, "train", "--resume", str(stopped))

    def test_two_processes_in_one_folder(self, home, stopped):
        with FileLock(stopped / FIRST / ".lock"):
            done = googlenet(home, "train", "--resume", str(stopped), status=2)
        assert "another process is training here" in done.stderr

    def test_a_folder_that_cannot_be_written(self, home):
        (home / "file").touch()
        done = train(home, FIRST, "--run", "file/run", status=2)
        assert "file/run: cannot be made" in done.stderr

    def test_other_images(self, home, stopped):
        extra = home / "pictures" / "digit 0" / "extra.png"
        shutil.copy(home / "pictures" / "digit 1" / "1.png", extra)
        try:
            done = googlenet(home, "train", "--resume", str(stopped), status=2)
        finally:
            extra.unlink()
        assert "trained on other images" in done.stderr

    def test_a_crash_of_the_backend(self, home, stopped):
        """Its last words are shown, and the exit status is 1."""
        words = ["train", "--resume", str(stopped), "--python", f"{FIRST}={shutil.which('false')}"]
        done = googlenet(home, *words, status=1)
        assert "exit status 1" in done.stderr

    def test_an_interpreter_without_what_training_needs(self, home, stopped):
        """The worker of a backend in an environment where safetensors cannot be found."""
        python = interpreter_without("safetensors", home)
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
            ([FIRST, "--dtype", "float16"], "dtype: expected one of float32, float64, bfloat16"),
            ([FIRST, "--data", "cifar"], "digits"),
            ([FIRST, "--backend", "jax"], "only with --resume"),
            (["--resume", "runs/nothing"], "expected a run"),
            (["--resume", "runs/all", "--epochs", "3"], "leave out --epochs"),
            ([FIRST, "--resume", "runs/all", "--dtype", "float32", "--no-aux"], "leave out backends, --aux, --dtype"),
            ([FIRST, "--run", "runs/all"], "there is a run of that name"),
        ],
    )
    def test_wrong_usage(self, arguments, says, home, finished):
        assert says in googlenet(home, "train", *arguments, status=2).stderr.replace("\n", " ")


def test_recipes_are_listed_and_can_be_copied(home):
    listed = googlenet(home, "recipes").stdout
    assert all(f"{name}:" in listed for name in recipes())
    (home / "mine.toml").write_text(googlenet(home, "recipes", "d2l").stdout)
    assert recipe(str(home / "mine.toml")) == recipe("d2l")
    assert json.loads(googlenet(home, "recipes", "--json").stdout)["fast"]["size"] == 28


def test_digits_need_neither_options_nor_a_network(home):
    """The defaults, stopped after a step."""
    done = googlenet(home, "train", FIRST, "--steps", "1", "--json")
    said = json.loads(done.stdout)
    assert said["run"].startswith("runs/fast-digits-")
    assert said["backends"][0]["step"] == 1
    assert said["backends"][0]["complete"] is False


@pytest.mark.skipif(DATA is None, reason="GOOGLENET_DATA does not name the official files")
@pytest.mark.parametrize("name", TESTED)
def test_fashion_mnist_is_learned(name, home):
    """30 steps of the fast recipe: far better than guessing."""
    run = home / "runs" / f"fashion-{name}"
    words = ["train", name, "--data", "fashion-mnist", "--data-dir", str(DATA), "--recipe", "fast", "--run", str(run)]
    googlenet(home, *words, "--steps", "30")
    records = read_metrics(run / name)
    assert records[-1]["step"] == 30
    assert records[-1]["loss"] < 0.8 * records[0]["loss"]
