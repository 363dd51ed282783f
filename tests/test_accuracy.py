"""Time to accuracy: who trains when, when a training ends, and what is said of one that never reaches the target."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console
from support import TESTED, googlenet
from test_bench import ABOUT, Served, documented, paths
from typer.testing import CliRunner

import spec
from harness.backends.process import Answer
from harness.bench import machine, process
from harness.bench.accuracy import Accuracy, Contender, Trainings
from harness.bench.candidates import Candidate
from harness.bench.process import Died
from harness.bench.proof import Check
from harness.bench.report import plots, tables
from harness.bench.report.markdown import markdown
from harness.bench.report.page import write_accuracy
from harness.cli import bench
from harness.cli.main import app
from harness.training.recipe import Recipe
from harness.training.runs import Settings

RECIPE = Recipe("lenet", 28, 64, 5, spec.SGD(0.1))
SETTINGS = Settings(RECIPE, "digits", "0" * 64, tuple("0123456789"), 640, 100, 0, "float32", "cpu")
CURVE = [0.5, 0.7, 0.85, 0.89, 0.9]  # test accuracy after each epoch
Training = Callable[[str, int], tuple[float, list[float]]]  # seconds an epoch and the curve, of a backend and a seed


class Fakes:
    """Trainings without processes, which take as long as they are told to."""

    def __init__(self, training: Training) -> None:
        self.training, self.now = training, 0.0
        self.begun: list[tuple[str, int]] = []
        self.epochs: list[int] = []  # of each training
        self.error = 0.0  # of the proofs
        self.answers: dict[str, Answer] = {}  # by backend, in place of a training
        self.told: list[tuple[str, int, int]] = []

    def run(self, backend: str, task: dict[str, Any], arrays: dict, python: str, listen: Callable) -> Answer:
        assert (task["kind"], task["stop_after"], task["devices"], python) == ("train", None, 1, f"/{backend}")
        assert Path(task["folder"]).parent.is_dir()
        self.begun.append((backend, seed := task["settings"]["seed"]))
        if backend in self.answers:
            return self.answers[backend]
        self.now += 3  # importing
        self.epochs.append(0)
        seconds, curve = self.training(backend, seed)
        for epoch, accuracy in enumerate(curve, 1):
            self.now += seconds
            listen({"event": "progress", "step": 10 * epoch - 5, "loss": 1.0, "accuracy": 0.1})
            self.epochs[-1] += 1
            record = {"kind": "epoch", "epoch": epoch, "step": 10 * epoch, "test_accuracy": accuracy}
            listen({"event": "record", "record": record})
        return Answer({"complete": True, "step": 10 * len(curve)})

    def start(self, candidate: Candidate) -> Any:
        return SimpleNamespace(ask=lambda operation, **_: {"arrays": {}}, close=lambda: None)

    def judge(self, arrays: dict, tasks: list[str], dtype: str) -> list[Check]:
        assert tasks == ["infer", "train"]
        return [Check("logits", self.error, 1e-4)]


def made(names: list[str], seeds: int = 5, dtypes: tuple[str, ...] = ("float32",)) -> Accuracy:
    contenders = [Contender(Candidate(name, "tuned", "accuracy", 64, dtype)) for dtype in dtypes for name in names]
    return Accuracy(SETTINGS.config, 28, seeds, 7, SETTINGS, "fast", 0.88, contenders, about=ABOUT)


def trained(fakes: Fakes, report: Accuracy) -> Accuracy:
    referee = SimpleNamespace(file=lambda batch: Path("images.npz"), judge=fakes.judge)
    Trainings(
        report,
        Path("dataset"),
        lambda seed, dtype: Settings(**{**vars(SETTINGS), "seed": seed, "dtype": dtype}),
        referee,
        fakes.start,
        fakes.run,
        {name: f"/{name}" for name in ("pt", "mx", "jax")},
        clock=lambda: fakes.now,
        progress=lambda *told: fakes.told.append(told),
    ).go()
    return report


def steadily(backend: str, seed: int) -> tuple[float, list[float]]:
    """An epoch takes 10 s in PyTorch and 20 s elsewhere, each seed a little more."""
    return (10 if backend == "pt" else 20) * (1 + seed / 100), CURVE


def test_the_clock_ends_with_the_evaluation_that_reaches_the_target():
    fakes = Fakes(steadily)
    report = trained(fakes, made(["pt"], seeds=2))
    assert report.passed
    first, second = report.contenders[0].trials
    assert (first.seed, second.seed) == (7, 8)
    assert first.seconds == pytest.approx(3 + 4 * 10.7)
    assert second.seconds == pytest.approx(3 + 4 * 10.8)
    assert first.accuracies == CURVE[:4]
    assert fakes.epochs == [4, 4]  # no epoch more


def test_every_backend_trains_once_with_every_seed_in_a_random_order():
    fakes = Fakes(steadily)
    report = trained(fakes, made(["pt", "mx", "jax"], seeds=6))
    orders = [[name for name, seed in fakes.begun if seed == number] for number in range(7, 13)]
    assert [seed for _, seed in fakes.begun] == [seed for seed in range(7, 13) for _ in range(3)]
    assert all(sorted(order) == ["jax", "mx", "pt"] for order in orders)
    assert len({tuple(order) for order in orders}) > 2
    ratio = report.contenders[1].over(report.contenders[0])
    assert ratio.high < 0.6  # over PyTorch, which trains twice as fast
    assert ratio.low > 0.5


def test_a_seed_that_never_reaches_the_target_is_counted_and_said():
    fakes = Fakes(lambda backend, seed: (10, CURVE[:3] if backend == "mx" and seed < 9 else CURVE))
    report = trained(fakes, made(["pt", "mx"]))
    assert report.passed  # that it never does is a result
    mx = report.contenders[1]
    assert [trial.reached for trial in mx.trials] == [False, False, True, True, True]
    assert mx.median_seconds == pytest.approx(43)  # three of five
    assert mx.over(report.contenders[0]) is None
    (section,) = tables.sections(report)
    assert section.lines[1].cells == ["3 of 5", "43.0", "43.0", "43.0", "4", "0.8900"]
    assert tables.verdict(report) == ["pt in float32 reached a test accuracy of 0.88 first, after 43.0 s."]
    assert section.ratios[0].problem == "not compared with pt, since not every seed reached the target"


def test_where_most_seeds_never_reach_it_the_median_is_never():
    fakes = Fakes(lambda backend, seed: (10, CURVE if seed == 7 else CURVE[:2]))
    report = trained(fakes, made(["pt"], seeds=3))
    assert report.contenders[0].median_seconds == math.inf
    assert tables.sections(report)[0].lines[0].cells[:4] == ["1 of 3", "never", "43.0", "43.0"]
    assert tables.verdict(report) == ["None reached a test accuracy of 0.88 with most of its seeds."]
    (row,) = json.loads(json.dumps(report.as_json(), allow_nan=False))["rows"]
    assert row["median_seconds"] is None
    assert [trial["seconds"] for trial in row["trials"]] == [pytest.approx(43), None, None]


def test_what_is_not_proven_does_not_train():
    fakes = Fakes(steadily)
    fakes.error = 1.0
    report = trained(fakes, made(["pt"]))
    assert "differs from the referee: logits by 1.0e+00" in report.contenders[0].problem
    assert (fakes.begun, report.passed, report.complete) == ([], False, True)


@pytest.mark.parametrize("answer", [Answer(refused="no GPU"), Answer(crash="killed by SIGKILL")])
def test_a_backend_that_cannot_train_is_not_tried_again_and_the_others_go_on(answer):
    fakes = Fakes(steadily)
    fakes.answers["mx"] = answer
    report = trained(fakes, made(["pt", "mx"], seeds=3))
    pt, mx = report.contenders
    assert len(pt.trials) == 3
    assert (mx.problem, mx.trials) == (answer.refused or answer.crash, [])
    assert [name for name, _ in fakes.begun].count("mx") == 1
    assert not report.passed


def test_a_proof_whose_process_dies_is_a_problem_of_its_backend(monkeypatch):
    fakes = Fakes(steadily)

    def start(candidate: Candidate) -> Any:
        raise Died("killed by SIGKILL")

    monkeypatch.setattr(fakes, "start", start)
    assert trained(fakes, made(["pt"])).contenders[0].problem == "the process died: killed by SIGKILL"


def test_a_training_that_diverges_never_reaches_the_target():
    fakes = Fakes(steadily)
    fakes.answers["mx"] = Answer({"diverged": "the loss is nan"})
    report = trained(fakes, made(["mx"], seeds=2))
    assert report.passed
    assert [(trial.reached, trial.diverged) for trial in report.contenders[0].trials] == [
        (False, "the loss is nan")
    ] * 2


def test_control_c_keeps_what_was_trained():
    """The training process takes the signal, saves and ends early."""
    fakes = Fakes(steadily)

    def training(backend: str, seed: int) -> tuple[float, list[float]]:
        if seed == 8:
            fakes.answers["pt"] = Answer({"complete": False, "step": 10})
        return steadily(backend, seed)

    fakes.training = training
    report = trained(fakes, made(["pt"], seeds=4))
    assert len(report.contenders[0].trials) == 2
    assert (report.complete, report.passed) == (False, False)
    assert report.warnings == ["interrupted: not everything was trained"]


def test_progress_says_the_seed_the_backend_and_the_last_accuracy():
    fakes = Fakes(steadily)
    trained(fakes, made(["pt"], seeds=2))
    assert fakes.told[0] == ("pt tuned: held against the referee", 0, 100)
    assert ("seed 2 of 2, pt tuned float32, accuracy 0.5000 after epoch 1", 50 + 15, 100) in fakes.told
    done = [step for _, step, _ in fakes.told]
    assert done == sorted(done)


def test_accuracies_are_shown_drawn_and_written_with_their_dtypes(tmp_path, monkeypatch):
    report = trained(Fakes(steadily), made(["pt", "mx"], dtypes=("float32", "bfloat16")))
    console = Console(width=200, file=io.StringIO())
    tables.render(report, console)
    text = console.file.getvalue()
    for name in ("pt float32", "mx bfloat16"):
        assert name in text
    assert "from the start of the process" in text.replace("\n", " ")
    assert "## lenet at 28 pixels: seconds to a test accuracy of 0.88, digits" in markdown(report)
    write_accuracy(report, tmp_path)
    assert json.loads((tmp_path / "accuracy.json").read_text()) == report.as_json()
    assert (tmp_path / "accuracy.svg").read_text().count("mx bfloat16") >= 1
    assert plots.draw_accuracy(report)


def test_the_schema_of_accuracies_is_documented_as_it_is_written():
    report = trained(Fakes(steadily), made(["pt", "mx"]))
    assert _of_its_own(paths(report.as_json())) == _of_its_own(documented("accuracy.json"))


def _of_its_own(keys: set[str]) -> set[str]:
    """Without what all three files say of the machine."""
    return {key for key in keys if key.split(".")[0] not in ("environment", "code", "before", "after")}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("bench pt --target 0.9", "--target: only with --task accuracy"),
        ("bench pt --task accuracy --batch 32 --rounds 3", "leave out --batch, --rounds"),
        ("bench onnx --task accuracy", "unknown backend"),
        ("bench pt --task accuracy --dtype float64", "--dtype: expected some of"),
    ],
)
def test_options_of_another_task_are_refused(words, said):
    refusal = CliRunner().invoke(app, words.split()).exception
    assert isinstance(refusal, spec.InvalidInput)
    assert said in str(refusal)


@pytest.mark.skipif("pt" not in TESTED, reason="pt is not among the tested backends")
def test_a_backend_trains_until_it_reaches_the_target(tmp_path, monkeypatch):
    """LeNet with batch norm on the digits, which is soon right for half of them."""
    (tmp_path / "quick.toml").write_text(
        'preset = "lenet-bn"\nsize = 28\nbatch = 64\nepochs = 3\n[optimizer]\nname = "adam"\nrate = 2e-3\n'
    )
    monkeypatch.setattr(machine, "_WATCHED", 0.01)  # seconds
    monkeypatch.setattr(process, "subprocess", SimpleNamespace(Popen=Served, PIPE=None))
    monkeypatch.setattr(bench, "_RECIPE", str(tmp_path / "quick.toml"))
    words = "bench pt --task accuracy --data digits --seeds 1 --device cpu --json --target".split()
    found = json.loads(googlenet(*words, "0.5", "--out", str(tmp_path), XDG_CACHE_HOME=str(tmp_path)).stdout)
    assert found["passed"] is True
    assert found == json.loads((tmp_path / "accuracy.json").read_text())
    (row,) = found["rows"]
    assert row["reached"] == 1
    for trial in row["trials"]:
        assert trial["accuracies"][-1] >= 0.5 > max(trial["accuracies"][:-1], default=0)
        assert trial["seconds"] == trial["ends"][-1] > 0
