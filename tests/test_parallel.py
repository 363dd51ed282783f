"""Several devices train as one does: every backend, in float64; and what happens when one of them does not go on.

Run as a program this file is one process of a team: `python tests/test_parallel.py BACKEND DEVICES CASES JUDGE FOLDER`.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest
from loops import run
from support import TESTED, save_digits

import spec
from harness import processes
from harness.backend import load
from harness.compare import relative_errors
from harness.dataset import prepare
from harness.parallel import Team, assemble, check_shares, shares
from harness.runs import CHECKPOINT, CONFIG, ENVIRONMENT, of_checkpoint, read_devices, read_metrics
from spec import checkpoint, reference
from spec.recipe import recipe

ROOT = Path(__file__).parent.parent
FIRST = TESTED[0]
EXACT = 1e-12


class Case(NamedTuple):
    """A training of a few steps."""

    preset: str
    size: int
    batches: tuple[int, ...]  # images of each step
    optimizer: spec.Optimizer
    changes: Mapping[str, Any] = MappingProxyType({})

    @property
    def config(self) -> spec.Config:
        return spec.preset(self.preset, num_classes=10, **self.changes)


SGD = spec.SGD(rate=0.01, momentum=0.9, weight_decay=1e-3, clip_norm=5.0)  # less than most of the norms here
# Adam divides by gradients that are zero but for rounding: at a rate of 1e-4 parameters come to 3e-12 here.
ADAM = spec.Adam(rate=2e-5)
EVEN, UNEVEN = (4, 4, 4, 4, 4), (4, 3, 4, 1, 4)  # of two devices one has less in the second step, nothing in the fourth
CASES = {
    "d2l": Case("d2l", 28, UNEVEN, SGD),
    "d2l-even": Case("d2l", 28, EVEN, SGD),
    "d2l-adam": Case("d2l", 28, UNEVEN, ADAM),
    "bvlc": Case("bvlc", 31, UNEVEN, SGD, {"aux": False, "in_channels": 1}),
    "bvlc-heads": Case("bvlc", 223, UNEVEN, SGD, {"in_channels": 1}),
    "batch-norm": Case("torchvision", 32, (6,), SGD, {"dropout": 0.0, "in_channels": 1}),
}
QUICK = {
    "pt": ["d2l", "d2l-adam", "bvlc", "batch-norm"],
    "mx": ["d2l", "d2l-adam", "bvlc", "batch-norm"],
    "jax": ["d2l-even"],
}


class Result(NamedTuple):
    losses: list[float]
    correct: list[int]
    params: dict[str, np.ndarray]
    state: dict[str, np.ndarray]

    def errors(self, expected: Result) -> dict[str, float]:
        """The largest relative error of each kind."""
        return {
            "losses": max(abs(a - b) / b for a, b in zip(self.losses, expected.losses, strict=True)),
            "correct": float(max(abs(a - b) for a, b in zip(self.correct, expected.correct, strict=True))),
            "parameters": max(relative_errors(self.params, expected.params).values()),
            "state": max(relative_errors(self.state, expected.state).values()),
        }


def given(case: Case) -> list[tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]]:
    """Images, labels and masks of every step."""
    rng, config, steps = np.random.default_rng(1), case.config, []
    for number, batch in enumerate(case.batches):
        images = rng.normal(size=(batch, config.in_channels, case.size, case.size))
        steps.append((images, rng.integers(0, 10, batch), spec.dropout_masks(config, images.shape, 3, number)))
    return steps


def initial(case: Case) -> dict[str, np.ndarray]:
    return spec.init_params(case.config, 3, "he")


def trained(team: Team, case: Case) -> Result:
    """The steps of a case on the devices of a team."""
    model = team.build(case.config, dtype="float64", device="cpu")
    team.load_params(model, initial(case))
    optimizer = team.make_optimizer(model, case.optimizer)
    done = [team.train_step(model, optimizer, *step) for step in given(case)]
    losses, correct = [float(step.loss) for step in done], [int(step.correct) for step in done]
    return Result(losses, correct, team.dump_params(model), team.dump_optimizer(model, optimizer))


def of_referee(case: Case) -> Result:
    """The same steps, as the spec has them."""
    params, state, losses, correct = initial(case), {}, [], []
    for step in given(case):
        done, params = reference.train_step(case.config, params, state, case.optimizer, *step)
        losses.append(done.loss)
        correct.append(int(done.correct))
    return Result(losses, correct, params, state)


def apart(package: ModuleType, case: Case) -> dict[str, np.ndarray]:
    """One step in which each half of the batch is normalized by itself; the first half's statistics remain."""
    ((images, labels, _),) = given(case)
    halves = [slice(0, len(images) // 2), slice(len(images) // 2, None)]
    model = package.build(case.config, dtype="float64", device="cpu")
    package.load_params(model, initial(case))
    first, second = (package.loss_and_grads(model, images[rows], labels[rows])[1] for rows in halves)
    trainable = {name: x for name, x in initial(case).items() if not spec.is_statistic(name)}
    moved = case.optimizer.update(trainable, {name: (first[name] + second[name]) / 2 for name in first}, {})
    package.train_step(model, package.make_optimizer(model, case.optimizer), images[halves[0]], labels[halves[0]])
    return {name: moved.get(name, x) for name, x in package.dump_params(model).items()}


def main(backend: str, devices: str, names: str, judge: str, folder: str) -> None:
    """One process of a team: train the cases; the first one holds what came of it against the judge."""
    package, report = load(backend), {}
    with assemble(package, backend, "cpu", int(devices)) as team:
        found = {name: trained(team, CASES[name]) for name in names.split(",")}
    for name, result in found.items():
        trainable = [x for key, x in sorted(result.params.items()) if not spec.is_statistic(key)]
        digest = hashlib.sha256(b"".join(x.tobytes() for x in trainable)).hexdigest()
        report[name] = {"alike": [result.losses, result.correct, digest]}
        if team.rank == 0:
            case = CASES[name]
            expected = of_referee(case) if judge == "referee" else trained(Team(package), case)
            report[name] |= {"errors": result.errors(expected)}
            if case.config.batch_norm:
                errors = relative_errors(result.params, apart(package, case))
                report[name] |= {"errors apart": max(errors.values())}
    Path(folder, f"{team.rank}.json").write_text(json.dumps(report))


def on_devices(backend: str, devices: int, names: list[str], folder: Path, judge: str = "one device") -> list[dict]:
    """The report of every process."""
    command = [sys.executable, __file__, backend, str(devices), ",".join(names), judge, str(folder)]
    variables = processes._ranks(backend, devices)
    with ExitStack() as stack:
        ranks = []
        for own in variables:
            env = {**os.environ, "PYTHONPATH": str(ROOT), **own}
            ranks.append(stack.enter_context(subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)))
            stack.callback(ranks[-1].kill)
        for rank in ranks:
            _, said = rank.communicate(timeout=600)
            assert rank.returncode == 0, said
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(len(variables))]


@pytest.fixture(scope="module", params=TESTED)
def reports(request, tmp_path_factory) -> list[dict]:
    """Of the quick cases on two devices; one of JAX, since it compiles for each."""
    name = request.param
    judge = "referee" if name == "jax" else "one device"
    return on_devices(name, 2, QUICK[name], tmp_path_factory.mktemp(name), judge)


def test_two_devices_train_as_one(reports):
    """Losses, hits, parameters and the optimizer's state; shares of unequal size and empty ones among them."""
    for name, report in reports[0].items():
        if name != "batch-norm":
            assert max(report["errors"].values()) <= EXACT, (name, report["errors"])


def test_every_process_has_the_same(reports):
    first, *others = reports
    for other in others:
        assert all(other[name]["alike"] == report["alike"] for name, report in first.items())


def test_batch_norm_sees_its_own_half(reports):
    """In PyTorch and MXNet, to rounding; the whole batch gives something else. Not in JAX: the test after the next."""
    for name, report in reports[0].items():
        if name == "batch-norm":
            assert report["errors apart"] <= 1e-11
            assert report["errors"]["parameters"] > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("backend", TESTED)
@pytest.mark.parametrize(
    ("name", "devices"),
    [("d2l", 2), ("d2l", 3), ("d2l-adam", 2), ("bvlc-heads", 2)],
)
def test_several_devices_train_as_one(backend, name, devices, tmp_path):
    if (backend, name) == ("jax", "bvlc-heads"):
        pytest.skip("223 pixels in float64 take JAX minutes; its program is that of one device, cut by the compiler")
    errors = on_devices(backend, devices, [name], tmp_path)[0][name]["errors"]
    assert max(errors.values()) <= EXACT, errors


@pytest.mark.slow
@pytest.mark.skipif("jax" not in TESTED, reason="JAX is not tested")
def test_batch_norm_sees_the_whole_batch_in_jax(tmp_path):
    report = on_devices("jax", 2, ["batch-norm"], tmp_path)[0]["batch-norm"]
    assert max(report["errors"].values()) <= 1e-11
    assert report["errors apart"] > 1e-3


def test_shares_are_all_rows_once():
    for count in range(1, 12):
        for devices in range(1, 7):
            parts = shares(count, devices)
            assert len(parts) == devices
            rows = [row for part, counted in parts if counted for row in range(count)[part]]
            assert rows == list(range(count))
            assert [counted for _, counted in parts] == [
                len(part) for part in np.array_split(np.arange(count), devices)
            ]
            assert all(len(range(count)[part]) == max(counted, 1) for part, counted in parts)


class Several(Team):
    """One of some processes that call at once, as far as sums go."""

    def __init__(self, *contents: list[float]) -> None:
        self.processes, self.contents = len(contents), contents

    def total(self, values):
        return [sum(column) for column in zip(*self.contents, strict=True)] if self.contents else values


def _numbers(content: str) -> list[float]:
    """What a process adds to the sums by which equality is found."""
    asked: list = []
    team = Several()
    team.total = lambda values: asked.append(values) or values
    team.processes = 1
    assert team.same(content)
    return asked[0]


def test_processes_notice_that_they_do_not_begin_alike():
    assert Several(_numbers("a"), _numbers("a"), _numbers("a")).same("a")
    assert not Several(_numbers("a"), _numbers("a"), _numbers("b")).same("a")
    assert Several([0], [1]).any(False)
    assert not Several([0], [0]).any(False)


def test_batch_norm_refuses_a_share_of_one_image():
    config = spec.preset("torchvision", aux=False)
    check_shares(config, [8, 4], 32, 2)
    with pytest.raises(spec.InvalidInput, match=r"2 devices, a batch of 3 leaves one with 1.*at least 2"):
        check_shares(config, [8, 3], 32, 2)
    check_shares(spec.preset("d2l"), [8, 1], 32, 2)


# The commands.

RECIPE = """
preset = "d2l"
size = 28
batch = 9
epochs = {epochs}
init = "he"
mean = 0.25
std = 0.5
dropout = 0.4
optimizer = {{ name = "sgd", rate = 0.01, momentum = 0.9 }}
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A folder with pictures (40 to train with, 10 to test), recipes, and a cache."""
    home = tmp_path_factory.mktemp("home")
    save_digits(home / "pictures", 5)
    for epochs in (2, 1000):
        (home / f"{epochs}.toml").write_text(RECIPE.format(epochs=epochs))
    return home


def command(home: Path, *arguments: str, epochs: int = 2) -> tuple[list[str], dict[str, str]]:
    """`googlenet train`, and its environment; it runs in the folder."""
    words = [sys.executable, "-m", "harness.cli", "train", *arguments, "--log-every", "1"]
    if "--resume" not in arguments:
        words += ["--data", "folder:pictures", "--recipe", f"{epochs}.toml"]
    env = {name: value for name, value in os.environ.items() if name != "GOOGLENET_DATA"}
    return words, env | {"XDG_CACHE_HOME": str(home / "cache"), "COLUMNS": "140", "PYTHONPATH": str(ROOT)}


def train(home: Path, *arguments: str, status: int = 0, epochs: int = 2) -> str:
    """Runs it; returns what it said on the standard error, on one line."""
    words, env = command(home, *arguments, epochs=epochs)
    done = subprocess.run(words, capture_output=True, text=True, cwd=home, env=env)
    assert done.returncode == status, done.stderr + done.stdout
    return " ".join(done.stderr.split())


@pytest.mark.skipif(FIRST == "jax", reason="compiles for a minute; the loop is the same")
def test_a_run_goes_on_with_another_number_of_devices_in_another_backend(home, monkeypatch):
    """6 steps on two devices, 4 on one in another framework: what one device does, its records included."""
    second = TESTED[1] if len(TESTED) > 1 and TESTED[1] != "jax" else FIRST
    train(home, FIRST, "--run", "runs/moved", "--seed", "5", "--dtype", "float64", "--devices", "2", "--steps", "6")
    two = home / "runs/moved" / FIRST
    assert json.loads((two / CONFIG).read_text())["devices"] == read_devices(two) == 2
    (start,) = json.loads((two / ENVIRONMENT).read_text())
    assert start["devices"] == 2
    assert start["processes"] == (2 if FIRST == "pt" else 1)
    train(home, "--resume", "runs/moved", "--backend", second, "--devices", "1")
    moved = home / "runs/moved" / second
    assert read_devices(moved) == 1

    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    one = home / "one"
    assert run(load(FIRST), prepare(f"folder:{home / 'pictures'}", 1, 28), one, recipe=recipe(str(home / "2.toml")))
    for found, expected in zip(read_metrics(moved), read_metrics(one), strict=True):
        for key in expected.keys() - {"kind", "seconds", "images_per_second"}:
            assert found[key] == pytest.approx(expected[key], rel=EXACT), (key, expected)
    found, expected = (checkpoint.load(folder / CHECKPOINT) for folder in (moved, one))
    assert max(relative_errors(found.params, expected.params).values()) <= EXACT
    assert max(relative_errors(found.state, expected.state).values()) <= EXACT


def alive(session: int) -> list[int]:
    """The processes of a session that are not over."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


def started(home: Path, run: Path) -> subprocess.Popen:
    """A long run on two devices, some steps after its start."""
    words, env = command(home, FIRST, "--run", str(run), "--devices", "2", "--save-every", "1", epochs=1000)
    process = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=home, env=env, start_new_session=True
    )
    end = time.monotonic() + 120
    while not (run / FIRST / CHECKPOINT).exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.01)
    return process


@pytest.mark.parametrize(
    "whole_group",
    [pytest.param(True, marks=pytest.mark.slow, id="at-a-terminal"), pytest.param(False, id="sent-to-the-command")],
)
@pytest.mark.skipif(FIRST != "pt", reason="only PyTorch has several processes")
def test_an_interrupt_saves(home, whole_group):
    run = home / "runs" / f"interrupted-{whole_group}"
    process = started(home, run)
    os.killpg(process.pid, signal.SIGINT) if whole_group else process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "interrupted; go on with" in said
    assert "Traceback" not in said
    _, position = of_checkpoint(checkpoint.load(run / FIRST / CHECKPOINT), run)
    steps = [record["step"] for record in read_metrics(run / FIRST) if record["kind"] == "step"]
    assert steps[-1] == position.step
    assert not alive(process.pid)


@pytest.mark.parametrize("rank", [pytest.param("0", marks=pytest.mark.slow), "1"])
@pytest.mark.skipif(FIRST != "pt" or not Path("/proc").is_dir(), reason="only PyTorch has several processes")
def test_when_one_device_dies_the_run_ends(home, rank):
    run = home / "runs" / f"killed-{rank}"
    process = started(home, run)
    (worker,) = [pid for pid in alive(process.pid) if f"RANK={rank}\0" in _environment(pid)]
    os.kill(worker, signal.SIGKILL)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert f"device {rank} of 2: killed by SIGKILL" in said
    assert not alive(process.pid)
    of_checkpoint(checkpoint.load(run / FIRST / CHECKPOINT), run)


def _environment(pid: int) -> str:
    return "\0" + Path(f"/proc/{pid}/environ").read_text()


@pytest.mark.skipif(FIRST != "pt", reason="only PyTorch has several processes")
def test_a_process_that_waits_forever_is_ended(home, monkeypatch):
    """One ends, and the other does not notice: it is killed after a while."""
    monkeypatch.setattr(processes, "_GRACE", 0.5)
    wait = [sys.executable, "-c", "import time; time.sleep(600)"]
    fail = [sys.executable, "-c", "import sys; sys.exit('nothing goes')"]
    begun = time.monotonic()
    done, culprit = processes._run([(wait, dict(os.environ)), (fail, dict(os.environ))], lambda message: None)
    assert time.monotonic() - begun < 60
    assert culprit == 1
    assert [process.returncode for process in done] == [-signal.SIGKILL, 1]
    assert "nothing goes" in done[1].stderr


class TestRefusals:
    @pytest.mark.parametrize("devices", ["0", "-1", "two"])
    def test_a_number_that_is_none(self, home, devices):
        assert "--devices" in train(home, FIRST, "--devices", devices, status=2)

    @pytest.mark.skipif("jax" not in TESTED, reason="JAX is not tested")
    def test_jax_splits_evenly(self, home):
        said = train(home, "jax", "--devices", "2", "--run", "runs/odd", status=2)
        assert "9 images cannot be split over 2 devices; take another --batch" in said

    @pytest.mark.skipif("pt" not in TESTED, reason="PyTorch is not tested")
    def test_pytorch_has_fewer_gpus(self, monkeypatch):
        import torch

        from googlenet_pt.parallel import Team

        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
        for name, value in {"RANK": 0, "WORLD_SIZE": 2, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 2}.items():
            monkeypatch.setenv(name, str(value))
        with pytest.raises(spec.InvalidInput, match="expected at most 1, the GPUs that PyTorch finds here, got 2"):
            Team("auto", 2)
        with pytest.raises(spec.InvalidInput, match="2 processes were started on this machine, got 3"):
            Team("cpu", 3)

    @pytest.mark.skipif("mx" not in TESTED, reason="MXNet is not tested")
    def test_mxnet_has_fewer_gpus(self, monkeypatch):
        from googlenet_mx.parallel import Team, mx

        monkeypatch.setattr(mx.context, "num_gpus", lambda: 1)
        with pytest.raises(spec.InvalidInput, match="expected at most 1, the GPUs that MXNet finds here, got 2"):
            Team("gpu", 2)

    @pytest.mark.skipif("jax" not in TESTED, reason="JAX is not tested")
    def test_jax_has_fewer_devices(self):
        from googlenet_jax.parallel import Team

        with pytest.raises(spec.InvalidInput, match=r"expected at most \d+, what JAX finds here \(cpu\), got 99"):
            Team("cpu", 99)


if __name__ == "__main__":
    main(*sys.argv[1:])
