"""Several devices train as one does: every backend, in float64; and what happens when one of them does not go on.

Run as a program this file is one process of a team: `python tests/test_parallel.py BACKEND DEVICES CASES JUDGE FOLDER`.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple
from unittest import mock

import loops
import numpy as np
import pytest
import support
from loops import RECIPE, records, records_without_clock, run
from networks import thin
from support import FIRST, TESTED, save_digits

import harness.backends.team
import harness.training.train
import spec
from harness.agreement import relative_errors
from harness.backends import messages
from harness.backends import process as processes
from harness.backends.process import Answer
from harness.backends.registry import load
from harness.backends.team import Team, assemble, check_shares, shares, started_here
from harness.images.prepared import prepare
from harness.training import loop
from harness.training.recipe import recipe
from harness.training.runs import CHECKPOINT, CONFIG, ENVIRONMENT, METRICS, of_checkpoint, read_devices
from harness.training.train import Part, settings_for
from harness.weights import checkpoint
from spec import reference

ROOT = Path(__file__).parent.parent
EXACT = 1e-12
SETTINGS = """
preset = "lenet"
size = 28
batch = 9
epochs = {epochs}
init = "he"
mean = 0.25
std = 0.5
optimizer = {{ name = "sgd", rate = 0.01, momentum = 0.9 }}
"""

pytestmark = pytest.mark.usefixtures("first")


class Case(NamedTuple):
    """A training of a few steps."""

    preset: str  # a thin one
    size: int
    batches: tuple[int, ...]  # images of each step
    optimizer: spec.Optimizer

    @property
    def config(self) -> spec.Config:
        return thin(self.preset, in_channels=1)


SGD = spec.SGD(rate=0.01, momentum=0.9, weight_decay=1e-3, clip_norm=1.0)  # less than most of the norms here
# Adam divides by gradients that are zero but for rounding: at a rate of 1e-4 parameters come to 3e-12 here.
ADAM = spec.Adam(rate=2e-5)
UNEVEN = (4, 3, 4, 1, 4)  # of two devices one has less in the second step, and nothing in the fourth
CASES = {
    "plain": Case("lenet", 28, UNEVEN, SGD),
    "adam": Case("lenet", 28, UNEVEN, ADAM),
    "batch-norm": Case("lenet-bn", 28, (6,), SGD),
    "dropout": Case("nin", 67, (4, 3), SGD),
    "split-and-whole": Case("lenet", 28, (4, 3), SGD),  # as two devices of JAX compute them
    "heads-and-dropout": Case("bvlc", 223, (2, 1), SGD),  # the smallest that the heads fit
}
QUICK = {name: ["plain", "adam", "dropout", "batch-norm"] for name in TESTED} | {"jax": ["split-and-whole"]}


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A folder with pictures (40 to train with, 10 to test), recipes, and a cache."""
    home = tmp_path_factory.mktemp("home")
    save_digits(home / "pictures", 5)
    for name, epochs in (("short", 2), ("endless", 100_000)):
        (home / f"{name}.toml").write_text(SETTINGS.format(epochs=epochs))
    return home


@pytest.fixture(scope="module")
def dataset(home) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(home / "cache"))
        return prepare(f"folder:{home / 'pictures'}", 1, 28)


@pytest.fixture(scope="module")
def alone(first, dataset, tmp_path_factory) -> Path:
    """The run of a single process."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    assert run(first, dataset, folder)
    return folder


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


def given(case: Case) -> list[tuple[np.ndarray, np.ndarray, dict[str, np.ndarray], float]]:
    """Images, labels, masks and the gradient's factor of every step."""
    rng, config, steps = np.random.default_rng(30), case.config, []  # by which the single image of a step is a hit
    for number, batch in enumerate(case.batches):
        images = rng.normal(size=(batch, config.in_channels, case.size, case.size))
        masks = spec.dropout_masks(config, images.shape, 3, number)
        steps.append((images, rng.integers(0, 10, batch), masks, batch / max(case.batches)))  # a nominal partial batch
    return steps


def initial(case: Case) -> dict[str, np.ndarray]:
    return spec.init_params(case.config, 3, "he")


def trained(team: Team, case: Case) -> Result:
    """The steps of a case on the devices of a team."""
    model = team.build(case.config, "float64", "cpu", initial(case))
    optimizer = team.make_optimizer(model, case.optimizer)
    done = [team.train_step(model, optimizer, *step) for step in given(case)]
    losses, correct = [float(step.loss) for step in done], [int(step.correct) for step in done]
    package = team.package
    return Result(losses, correct, package.dump_params(model), package.dump_optimizer(model, optimizer))


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
    ((images, labels, *_),) = given(case)
    halves = [slice(0, len(images) // 2), slice(len(images) // 2, None)]
    model = package.build(case.config, dtype="float64", device="cpu")
    package.load_params(model, initial(case))
    first, second = (package.loss_and_grads(model, images[rows], labels[rows])[1] for rows in halves)
    trainable = {name: x for name, x in initial(case).items() if not spec.is_statistic(name)}
    moved = case.optimizer.update(trainable, {name: (first[name] + second[name]) / 2 for name in first}, {})
    package.train_step(model, package.make_optimizer(model, case.optimizer), images[halves[0]], labels[halves[0]])
    return {name: moved.get(name, x) for name, x in package.dump_params(model).items()}


def main(backend: str, devices: str, names: str, judge: str, folder: str, dataset: str = "") -> None:
    """One process of a team: train the cases; the first one holds what came of it against the judge.

    With a dataset also a run through the loop, in the folder ``run``.
    """
    package, report = load(backend), {}
    with assemble(package, backend, "cpu", int(devices)) as team:
        found = {name: trained(team, CASES[name]) for name in names.split(",")}
        if dataset:
            with mock.patch.object(loop, "assemble", return_value=nullcontext(team)):
                assert run(package, Path(dataset), Path(folder, "run"))
    for name, result in found.items():
        trainable = [x for key, x in sorted(result.params.items()) if not spec.is_statistic(key)]
        digest = hashlib.sha256(b"".join(x.tobytes() for x in trainable)).hexdigest()
        report[name] = {"alike": [result.losses, result.correct, digest]}
        if team.rank == 0:
            case = CASES[name]
            expected = of_referee(case) if judge == "referee" else trained(Team(package), case)
            report[name] |= {"errors": result.errors(expected)}
            if case.config.batch_norm and backend != "jax":
                errors = relative_errors(result.params, apart(package, case))
                report[name] |= {"errors apart": max(errors.values())}
    Path(folder, f"{team.rank}.json").write_text(json.dumps(report))


def on_devices(
    backend: str, devices: int, names: list[str], folder: Path, judge: str = "one device", dataset: str = ""
) -> list[dict]:
    """The report of every process."""
    command = [sys.executable, __file__, backend, str(devices), ",".join(names), judge, str(folder), dataset]
    variables = processes._environments(backend, devices)
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


@pytest.mark.end_to_end
@pytest.mark.parametrize("backend", TESTED)
def test_two_devices_train_as_one(backend, dataset, alone, tmp_path):
    """Losses, hits, parameters and the optimizer's state; shares of unequal size and empty ones among them.

    And both processes have the same. In PyTorch and MXNet batch norm sees each device's own images, to rounding, where
    the whole batch gives something else; and a whole run leaves the records and the checkpoint that one device leaves.
    """
    if backend == "jax":
        reports = on_devices(backend, 2, QUICK[backend], tmp_path, "referee")
    else:
        reports = on_devices(backend, 2, QUICK[backend], tmp_path, dataset=str(dataset))
    assert len(reports) == (2 if backend == "pt" else 1)
    assert all(report[name]["alike"] == reports[0][name]["alike"] for report in reports for name in QUICK[backend])
    for name, report in reports[0].items():
        if name == "batch-norm":
            assert report["errors apart"] <= 1e-11
            assert report["errors"]["parameters"] > 1e-3
        else:
            assert max(report["errors"].values()) <= EXACT, (name, report["errors"])
    if backend != "jax":
        hits = reports[0]["plain"]["alike"][1]
        assert hits[3] == 1  # else nobody would see that a device counts it though it has nothing to compute
        assert_same_run(tmp_path / "run", alone)
        (start,) = json.loads((tmp_path / "run" / ENVIRONMENT).read_text())
        assert (start["devices"], start["processes"]) == (2, len(reports))


def assert_same_run(folder: Path, straight: Path) -> None:
    """Records and checkpoint are the same but for rounding."""
    for found, expected in zip(records_without_clock(folder), records_without_clock(straight), strict=True):
        for key in expected.keys() - {"kind"}:
            assert found[key] == pytest.approx(expected[key], rel=EXACT), (key, expected)
    found, expected = (checkpoint.load(run / CHECKPOINT) for run in (folder, straight))
    assert max(relative_errors(found.params, expected.params).values()) <= EXACT
    assert max(relative_errors(found.state, expected.state).values()) <= EXACT


@pytest.mark.slow
@pytest.mark.parametrize("backend", [name for name in TESTED if name != "pt"])  # where every device runs one program
def test_three_devices_train_as_one(backend, tmp_path):
    errors = on_devices(backend, 3, ["plain"], tmp_path)[0]["plain"]["errors"]
    assert max(errors.values()) <= EXACT, errors


@pytest.mark.slow
@pytest.mark.parametrize("backend", [name for name in TESTED if name != "jax"])
def test_two_devices_train_heads_as_one(backend, tmp_path):
    """Each head's loss and masks, too."""
    errors = on_devices(backend, 2, ["heads-and-dropout"], tmp_path)[0]["heads-and-dropout"]["errors"]
    assert max(errors.values()) <= EXACT, errors


@pytest.mark.slow
@pytest.mark.skipif("jax" not in TESTED, reason="JAX is not tested")
def test_in_jax_batch_norm_sees_the_whole_batch_and_each_device_its_masks(tmp_path):
    report = on_devices("jax", 2, ["dropout", "batch-norm"], tmp_path, "referee")[0]
    assert max(report["dropout"]["errors"].values()) <= EXACT
    assert max(report["batch-norm"]["errors"].values()) <= 1e-11


# ---------------------------------------------------------------------------------------------- shares and agreement


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


@pytest.mark.parametrize("backend", [name for name in TESTED if name != "jax"], indirect=True)
def test_the_last_batch_of_an_epoch_is_checked_too(backend):
    """Batch norm cannot work on a single image at 32 pixels."""
    team = _team_of_two(backend)
    config = spec.preset("torchvision", aux=False)
    team.check(config, 8, 4, 32)
    with pytest.raises(spec.InvalidInput, match="a batch of 3 leaves one with 1"):
        team.check(config, 8, 3, 32)


@pytest.mark.parametrize("backend", [name for name in TESTED if name == "jax"], indirect=True)
def test_jax_refuses_a_batch_that_it_cannot_split_evenly(backend):
    team = _team_of_two(backend)
    team.check(spec.preset("lenet"), 8, 3, 28)
    with pytest.raises(spec.InvalidInput, match="9 images cannot be split over 2 devices; take another --batch"):
        team.check(spec.preset("lenet"), 9, 4, 28)


def _team_of_two(backend: ModuleType) -> Team:
    """A backend's own, without the devices."""
    team: Team = object.__new__(importlib.import_module(f"{backend.__name__}.parallel").Team)
    team.devices = 2
    return team


def test_a_single_device_needs_no_team_of_a_framework(first, monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert type(assemble(first, FIRST, "cpu", 1)) is Team


def test_processes_are_counted_from_what_started_them(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "8")
    monkeypatch.setenv("DMLC_NUM_WORKER", "3")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    monkeypatch.delenv("JAX_NUM_PROCESSES", raising=False)
    assert [harness.backends.team.processes(name) for name in ("pt", "mx", "jax")] == [8, 3, 1]
    assert [started_here(name) for name in ("pt", "mx", "jax")] == [4, None, None]
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert started_here("pt") is None


# ------------------------------------------------------------------------------------- the loop of several processes


class Together:
    """What the threads of a test, each in the place of a process, agree on."""

    def __init__(self, processes: int) -> None:
        self.given: list[Sequence[float]] = [[]] * processes
        self.barrier = threading.Barrier(processes, timeout=10)

    def total(self, rank: int, values: Sequence[float]) -> list[float]:
        self.given[rank] = values
        self.barrier.wait()
        sums = [sum(column) for column in zip(*self.given, strict=True)]
        self.barrier.wait()  # before the next ones are given
        return sums


class Replica(Team):
    """One of several processes that each compute the whole batch."""

    def __init__(self, package: ModuleType, rank: int, together: Together) -> None:
        super().__init__(package)
        self.rank, self.together = rank, together
        self.processes = self.devices = together.barrier.parties

    def total(self, values: Sequence[float]) -> Sequence[float]:
        return self.together.total(self.rank, values)


@pytest.fixture
def together(first, dataset, monkeypatch) -> Callable[..., list[bool | BaseException]]:
    """Trains in a folder with two processes, each a thread here, and returns what came of it in each.

    Options are those of `loops.train`, one value for each process.
    """

    def train(folder: Path, **options: Sequence[Any]) -> list[bool | BaseException]:
        agreed, own, ended = Together(2), threading.local(), [None, None]
        monkeypatch.setattr(loop, "assemble", lambda package, *_: Replica(package, own.rank, agreed))
        monkeypatch.setattr(loop, "LOG_EVERY", 1)

        def process(rank: int) -> None:
            own.rank = rank
            try:
                ended[rank] = loops.train(
                    first, dataset, folder, **{key: value[rank] for key, value in options.items()}
                )
            except Exception as error:
                ended[rank] = error

        threads = [threading.Thread(target=process, args=[rank]) for rank in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return ended

    return train


def test_of_several_processes_the_first_one_records_and_saves(together, alone, tmp_path):
    told: tuple[list, list] = ([], [])
    assert together(tmp_path, messages=told) == [True, True]
    assert (tmp_path / CHECKPOINT).read_bytes() == (alone / CHECKPOINT).read_bytes()
    assert records_without_clock(tmp_path) == records_without_clock(alone)
    assert len(json.loads((tmp_path / ENVIRONMENT).read_text())) == 1
    assert told[0]
    assert not told[1]


@pytest.mark.parametrize(("asked", "step"), [(3, 2), (8, 5)], ids=["in-an-epoch", "in-an-evaluation"])
def test_several_processes_stop_together_when_one_is_told_to(together, alone, asked, step, tmp_path):
    """The second one, by the n-th time that it asks. The run then goes on as if nothing had happened."""
    times = iter(range(1, 100))
    assert together(tmp_path, stopped=[lambda: False, lambda: next(times) >= asked]) == [False, False]
    _, position = of_checkpoint(checkpoint.load(tmp_path / CHECKPOINT), tmp_path)
    assert (position.step, position.evaluated) == (step, 0)
    assert together(tmp_path) == [True, True]
    assert (tmp_path / CHECKPOINT).read_bytes() == (alone / CHECKPOINT).read_bytes()
    assert records_without_clock(tmp_path) == records_without_clock(alone)


def test_several_processes_that_do_not_begin_alike_refuse(together, tmp_path):
    refusals = together(tmp_path, recipe=[RECIPE, replace(RECIPE, mean=0.26)])
    assert all("the processes do not begin alike" in str(refusal) for refusal in refusals)
    assert not (tmp_path / CHECKPOINT).exists()


# ------------------------------------------------------------------------------------------- processes and their ends


def test_each_framework_is_told_of_its_devices_its_own_way(monkeypatch):
    for name in ("OMP_NUM_THREADS", "MXNET_OMP_MAX_THREADS", "MXNET_ENGINE_TYPE", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(processes, "processors", lambda: 7)
    assert [processes._environments(name, 1) for name in ("pt", "mx", "jax")] == [[{}]] * 3
    threads = {"OMP_NUM_THREADS": "2", "MXNET_OMP_MAX_THREADS": "2"}  # of 7 processors a third, whole ones
    assert processes._environments("mx", 3) == [threads | {"MXNET_ENGINE_TYPE": "ThreadedEnginePerDevice"}]
    assert processes._environments("jax", 3) == [{"JAX_NUM_CPU_DEVICES": "3"}]
    ranks = processes._environments("pt", 3)
    assert [(own["RANK"], own["LOCAL_RANK"]) for own in ranks] == [("0", "0"), ("1", "1"), ("2", "2")]
    assert len({own["MASTER_PORT"] for own in ranks}) == 1
    for own in ranks:
        assert own.items() >= (threads | {"WORLD_SIZE": "3", "LOCAL_WORLD_SIZE": "3"}).items()
    monkeypatch.setenv("WORLD_SIZE", "6")  # started elsewhere
    assert processes._environments("pt", 3) == [threads]


def program(text: str) -> tuple[list[str], dict[str, str]]:
    """A command, in place of a worker, and its environment."""
    return [sys.executable, "-S", "-c", text], dict(os.environ)


def test_a_process_that_waits_forever_is_ended(monkeypatch):
    """One ends, and the other does not notice: it is killed after a while."""
    monkeypatch.setattr(processes, "_GRACE", 0.5)
    wait, fail = program("import time; time.sleep(30)"), program("import sys; sys.exit('nothing goes')")
    begun = time.monotonic()
    done, culprit = processes._run([wait, fail], lambda message: None, subprocess.DEVNULL)
    assert time.monotonic() - begun < 25
    assert culprit == 1
    assert [process.returncode for process in done] == [-signal.SIGKILL, 1]
    assert "nothing goes" in done[1].stderr


def test_of_the_processes_that_fail_the_killed_one_is_named():
    """Another one notices that it is gone, and ends first."""
    killed = program("import os, time; time.sleep(0.5); os.kill(os.getpid(), 9)")
    _, culprit = processes._run([program("raise SystemExit(1)"), killed], lambda message: None, subprocess.DEVNULL)
    assert culprit == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_command_reaches_the_first_worker(number):
    """Which ends when it pleases."""
    worker = program(
        "import signal, sys, time\n"
        f"signal.signal({int(number)}, lambda *_: sys.exit(7))\n"
        f"print({messages.written({})!r}, flush=True)\n"
        "time.sleep(20)"
    )
    before = signal.signal(number, lambda *_: None)  # without which it would end this process, if it were not passed on
    try:
        (done,), _ = processes._run(
            [worker], lambda message: os.kill(os.getpid(), number), subprocess.DEVNULL, saves=True
        )
    finally:
        signal.signal(number, before)
    assert done.returncode == 7


@pytest.fixture
def workers(tmp_path, monkeypatch) -> Callable[[str, str], Answer]:
    """Runs a task with two programs of the shell in place of PyTorch's workers, and returns the answer."""
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    np.savez(tmp_path / "answer.npz")

    def answered(*bodies: str) -> Answer:
        python, code = tmp_path / "program", f'\\"code\\": \\"{messages.CODE}\\"'
        answer = f'cp {tmp_path}/answer.npz "$5"; echo "{{$facts {code}}}" > "$5"/answer.json'
        cases = "".join(f"{rank}) {body} ;;\n" for rank, body in enumerate(bodies))
        python.write_text(f"#!/bin/sh\ncase $RANK in\n{cases}esac\n{answer}\n")
        python.chmod(0o755)
        return processes.run_worker("pt", {"kind": "train"}, {}, str(python), lambda message: None, devices=2)

    return answered


def test_of_several_workers_the_first_one_answers(workers):
    facts = """facts="\\"rank\\": $RANK, \\"of\\": $WORLD_SIZE, " """
    assert workers(facts, facts) == Answer({"rank": 0, "of": 2})


def test_of_several_workers_any_may_refuse(workers):
    assert workers(":", """facts='"refused": "no",'""") == Answer(refused="no")


def test_of_several_workers_the_one_that_died_is_named(workers):
    assert workers("sleep 0.3; exit 1", "echo it hurts >&2; kill -SEGV $$").crash == (
        "device 1 of 2: killed by SIGSEGV\nit hurts"
    )
    assert workers("exit 3", ":").crash == "device 0 of 2: exit status 3"


@pytest.mark.parametrize(
    ("asked", "local", "expected"), [(None, None, 2), (1, None, 1), (None, "4", 4), (1, "4", 1)], ids=str
)
def test_a_run_goes_on_with_its_devices_unless_told_otherwise(asked, local, expected, dataset, tmp_path, monkeypatch):
    """By --devices first, then by torchrun."""
    for name, value in (("WORLD_SIZE", local), ("LOCAL_WORLD_SIZE", local)):
        monkeypatch.delenv(name, raising=False) if value is None else monkeypatch.setenv(name, value)
    given: list = []

    def worker(backend, task, arrays, python, listen, devices) -> Answer:
        given.append((task["devices"], devices))
        return Answer({"rank": 1})

    monkeypatch.setattr(harness.training.train, "run_worker", worker)
    settings = settings_for(RECIPE, dataset, seed=5, dtype="float64", device="cpu")
    part, listener = Part("pt", tmp_path, settings, devices=2), mock.Mock()
    assert harness.training.train.train([part], dataset, listener, {}, devices=asked) == []  # the first one's to tell
    assert given == [(expected, expected)]


# --------------------------------------------------------------------------------------------------------- the command


def training(home: Path, *arguments: str, recipe: str = "short") -> tuple[list[str], dict[str, str]]:
    """`googlenet train` in a process of its own, and its environment; it runs in the folder."""
    words = ["train", *arguments, "--data", "folder:pictures", "--recipe", f"{recipe}.toml"]
    return support.command(*words, XDG_CACHE_HOME=str(home / "cache"))


@pytest.mark.slow
@pytest.mark.skipif(FIRST == "jax", reason="its devices are those that the process began with")
def test_a_run_goes_on_with_another_number_of_devices_in_another_backend(first, home, dataset):
    """6 steps on two devices, 4 on one in another framework: what one device does, its records included."""
    second = TESTED[1] if len(TESTED) > 1 and TESTED[1] != "jax" else FIRST
    words = [FIRST, "--run", "runs/moved", "--seed", "5", "--dtype", "float64", "--devices", "2", "--steps", "6"]
    words, env = training(home, *words)
    done = subprocess.run(words, cwd=home, env=env, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    assert done.returncode == 0, done.stderr
    two = home / "runs/moved" / FIRST
    assert json.loads((two / CONFIG).read_text())["devices"] == read_devices(two) == 2
    words = ["train", "--resume", "runs/moved", "--backend", second, "--devices", "1"]
    support.googlenet(*words, cwd=home, XDG_CACHE_HOME=str(home / "cache"))
    moved = home / "runs/moved" / second
    assert read_devices(moved) == 1
    one = home / "one"
    assert run(first, dataset, one, recipe=recipe(str(home / "short.toml")), log_every=10)
    assert_same_run(moved, one)


@pytest.mark.parametrize("devices", ["0", "-1", "two"])
def test_a_device_count_that_is_no_number_from_1_is_refused(home, devices):
    done = support.googlenet("train", FIRST, "--devices", devices, status=2, cwd=home)
    assert "--devices" in done.stderr


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
    """A long run on two devices, an epoch or more after its start."""
    words, env = training(home, FIRST, "--run", str(run), "--devices", "2", recipe="endless")
    process = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=home, env=env, start_new_session=True
    )
    end = time.monotonic() + 120
    metrics = run / FIRST / METRICS
    while not (metrics.exists() and metrics.stat().st_size):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.01)
    return process


only_pytorch = pytest.mark.skipif(
    FIRST != "pt" or not Path("/proc").is_dir(), reason="only PyTorch has several processes"
)


@pytest.mark.slow
@only_pytorch
def test_an_interrupt_of_several_processes_saves(home):
    run = home / "runs" / "interrupted"
    process = started(home, run)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "interrupted; go on with" in said
    assert "Traceback" not in said
    _, position = of_checkpoint(checkpoint.load(run / FIRST / CHECKPOINT), run)
    assert position.step >= 2
    assert [record["step"] for record in records(run / FIRST, "step")] == list(range(10, position.step + 1, 10))
    assert not alive(process.pid)


@pytest.mark.slow
@only_pytorch
def test_when_one_device_dies_the_run_ends(home):
    """The first one, through which the others find each other."""
    rank, run = "0", home / "runs" / "killed"
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


class TestTooFewDevices:
    @pytest.mark.skipif("pt" not in TESTED, reason="PyTorch is not tested")
    def test_pytorch_refuses_more_devices_than_gpus_or_processes(self, monkeypatch):
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
    def test_mxnet_refuses_more_devices_than_gpus(self, monkeypatch):
        from googlenet_mx.parallel import Team, mx

        monkeypatch.setattr(mx.context, "num_gpus", lambda: 1)
        with pytest.raises(spec.InvalidInput, match="expected at most 1, the GPUs that MXNet finds here, got 2"):
            Team("gpu", 2)

    @pytest.mark.skipif("jax" not in TESTED, reason="JAX is not tested")
    def test_jax_refuses_more_devices_than_it_finds(self):
        from googlenet_jax.parallel import Team

        with pytest.raises(spec.InvalidInput, match=r"expected at most \d+, what JAX finds here \(cpu\), got 99"):
            Team("cpu", 99)


if __name__ == "__main__":
    main(*sys.argv[1:])
