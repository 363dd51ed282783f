"""The benchmark: who is measured, when, what is refused, and what the numbers are said to mean. No time is asserted."""

from __future__ import annotations

import io
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import pytest
from rich.console import Console
from support import NOT_QUICK_IN_JAX, TESTED, command, googlenet, googlenet_process
from typer.testing import CliRunner

import spec
from harness.backends import ceilings, messages
from harness.bench import machine, process, profiles
from harness.bench import proof as proofs
from harness.bench.analysis.changes import changes, read_earlier
from harness.bench.analysis.roofline import stage_flops
from harness.bench.analysis.statistics import PRECISION, Ratio, latency, speed_change, speed_ratio, summarize
from harness.bench.candidates import Candidate, candidates, with_twins
from harness.bench.process import Died, Process, environment
from harness.bench.profiles import Profile
from harness.bench.proof import BATCH, Check, Referee
from harness.bench.record import SCHEMA, Record, Row, Sample
from harness.bench.report import markdown, page, plots, tables
from harness.bench.report.page import write_folder, write_profile
from harness.bench.rounds import Benchmark, check_tf32, enough, warm_up
from harness.bench.worker import operations as worker_operations
from harness.bench.worker.operations import SGD, Operations
from harness.cli import options
from harness.cli.main import app
from harness.images.sources import Batch
from spec import reference

ROOT = Path(__file__).parent.parent
needs_pt = pytest.mark.skipif("pt" not in TESTED, reason="pt is not among the tested backends")
CONFIG = spec.preset("lenet")
SIZE = CONFIG.input_size
PLACE = {
    "python": "3.12.1",
    "versions": {"numpy": "1.26.4"},
    "variables": {"OMP_NUM_THREADS": "2"},
    "processor": "a processor",
    "processors": 4,
    "used_processors": [0, 1],
    "caches": ["L2 2048K"],
    "governor": None,
    "virtual": True,
    "memory_bytes": 2**33,
    "cgroup": {"cpu_max": "max 100000", "memory_max": None},
}
MOMENT = {"time": "2026-01-01T00:00:00Z", "load_average": [0.5, 0.5, 0.5], "stolen_ticks": 0, "ticks": 1}
ABOUT = {
    "command": "googlenet bench pt",
    "code": {"commit": "0123456", "dirty": False},
    "environment": PLACE,
    "before": MOMENT,
    "after": MOMENT,
}


@pytest.fixture(autouse=True)
def hasty(monkeypatch):
    """Other programs are watched for a moment in place of a second, which every benchmark would take."""
    monkeypatch.setattr(machine, "_WATCHED", 0.01)


def pictures_of(count: int) -> Batch:
    """Noise, brighter for some labels than for others."""
    rng = np.random.default_rng(1)
    images, labels = rng.random((100, 1, SIZE, SIZE)), rng.integers(0, 10, 100)
    return Batch((images * (1 + labels[:, None, None, None]) / 10)[:count], labels[:count], "noise")


@pytest.fixture(scope="module")
def referee(tmp_path_factory) -> Referee:
    return Referee(CONFIG, pictures_of, tmp_path_factory.mktemp("referee"))


@pytest.fixture(scope="module")
def proof(referee) -> dict[str, np.ndarray]:
    """What a backend answers that computes as the referee does."""
    with np.load(referee.params_file) as file:
        params = dict(file)
    training = reference.loss_and_grads(CONFIG, params, *referee.batch(BATCH))
    arrays = {"logits": referee.logits(BATCH), "loss": np.array(training.loss)}
    arrays["loss of the step"] = arrays["loss"]
    arrays |= {f"gradient/{name}": x for name, x in training.grads.items()}
    step = {**params, **SGD.update(params, training.grads, {})}
    return arrays | {f"step/{name}": x for name, x in step.items()}


class Clock:
    """Time that passes only when somebody works."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Fakes:
    """Starts fake workers, and writes down who did what, in order."""

    def __init__(self, referee: Referee, proof: dict[str, np.ndarray], seconds: dict[str, float] | None = None) -> None:
        self.referee, self.proof, self.seconds = referee, proof, seconds or {}
        self.clock = Clock()
        self.log: list[tuple[str, Candidate]] = []
        self.alive: set[int] = set()
        self.most_alive = 0
        self.lies: dict[tuple[str, str], dict[str, np.ndarray]] = {}  # (label, operation): arrays to answer instead
        self.peaks = itertools.repeat((2e11, 1e10))
        self.disturb = lambda operation, candidate, count: None  # may raise
        self.noise = lambda: 1.0  # the factor of a call's seconds

    def start(self, candidate: Candidate) -> Fake:
        return Fake(self, candidate)

    def count(self, operation: str, candidate: Candidate) -> int:
        return self.log.count((operation, candidate))


class Fake:
    """A worker without a process, as fast as it was told to be."""

    def __init__(self, fakes: Fakes, candidate: Candidate) -> None:
        self.fakes, self.candidate = fakes, candidate
        fakes.alive.add(id(self))
        fakes.most_alive = max(fakes.most_alive, len(fakes.alive))

    def ask(self, operation: str, **arguments) -> dict:
        fakes, c = self.fakes, self.candidate
        fakes.log.append((operation, c))
        fakes.disturb(operation, c, fakes.count(operation, c))
        seconds = fakes.seconds.get(c.label, fakes.seconds.get(replace(c, again=False).label, 0.25))
        lie = fakes.lies.get((c.label, operation), {})
        if operation == "begin":
            told = {"framework": "Fake", "version": "1", "device": "cpu", "threads": 2}
            return told | {"import_seconds": 1.0, "build_seconds": 2.0}
        if operation == "prove":
            return {"arrays": fakes.proof | lie}
        if operation == "first":
            arrays = {"logits": fakes.referee.logits(c.batch), "loss": np.array(fakes.referee.loss(c.batch))}
            return {"seconds": 10 * seconds, "arrays": arrays | lie}
        if operation in ("measure", "stage"):
            calls = arguments["calls"]
            seconds *= 3 if arguments.get("backward") else 1
            each = [seconds * fakes.noise() for _ in range(calls)]
            fakes.clock.now += sum(each)
            return {"seconds": sum(each), "calls": each, "busy_threads": 2}
        if operation == "peaks":
            product, copy = next(fakes.peaks)
            return {"peaks": [{"name": "matrix product", "per_second": product}, {"name": "copy", "per_second": copy}]}
        if operation == "stages":
            return {"stages": list(spec.stage_names(CONFIG))}
        assert operation == "end"
        return {"peak_memory_bytes": 2**30, "last_loss": 2.3 if c.task == "train" else None}

    def close(self) -> None:
        self.fakes.alive.discard(id(self))


def recorded(given: list[Candidate], rounds: int = 3, minutes: float = 0.0) -> Record:
    return Record(CONFIG, SIZE, rounds, 0, [Row(candidate) for candidate in given], minutes, about=ABOUT)


def run(fakes: Fakes, given: list[Candidate], rounds: int = 3, minutes: float = 0.0) -> Record:
    record = recorded(given, rounds, minutes)
    Benchmark(record, fakes.referee, fakes.start, clock=fakes.clock).run()
    return record


THREE = candidates(["pt", "mx", "jax"], ["tuned"], ["infer"], [2], ["float32"])


# ------------------------------------------------------------------------------------------------ who is measured


def test_candidates_are_every_combination_that_exists():
    engines = ["pt", "jax", "onnx", "openvino"]
    found = candidates(engines, ["textbook", "compiled", "tuned"], ["train", "infer"], [1], ["float32"])
    assert [(c.task, c.label) for c in found] == [
        ("train", "pt textbook"),
        ("train", "pt compiled"),
        ("train", "pt tuned"),
        ("train", "jax textbook"),
        ("train", "jax tuned"),
        ("infer", "pt textbook"),
        ("infer", "pt compiled"),
        ("infer", "pt tuned"),
        ("infer", "jax textbook"),
        ("infer", "jax tuned"),
        ("infer", "onnx"),
        ("infer", "openvino"),
    ]
    rounded = candidates(engines, ["textbook", "tuned"], ["infer"], [1], ["bfloat16"], pipeline=True)
    assert [(c.label, c.pipeline) for c in rounded if not c.pipeline or c.variant == "session"] == [
        ("pt tuned", False),
        ("jax tuned", False),
        ("openvino", False),
    ]
    assert [c.module(CONFIG) for c in found[1:3]] == ["googlenet_pt.textbook", "googlenet_pt"]
    assert [c.module(spec.preset("inception-v3")) for c in found[1:3]] == ["googlenet_pt.published", "googlenet_pt"]


def test_groups_share_task_and_batch():
    given = candidates(["pt", "mx"], ["tuned"], ["train", "infer"], [1, 8], ["float32", "bfloat16"], pipeline=True)
    groups = recorded(given).groups()
    assert list(groups) == [("train", 1), ("train", 8), ("infer", 1), ("infer", 8)]
    assert all((row.candidate.task, row.candidate.batch) == key for key, rows in groups.items() for row in rows)
    assert [row.candidate for rows in groups.values() for row in rows] == given


# ------------------------------------------------------------------------------------------------- the procedure


def test_every_round_measures_every_candidate_once_in_a_new_random_order(referee, proof):
    fakes = Fakes(referee, proof)
    record = run(fakes, THREE, rounds=6)
    assert record.passed
    turns = {}
    for row in record.rows:
        assert [sample.round for sample in row.samples] == list(range(6))
        for sample in row.samples:
            turns.setdefault(sample.round, {})[sample.turn] = row.candidate
    orders = [tuple(turns[number][turn] for turn in range(3)) for number in range(6)]
    assert all(set(order) == set(THREE) for order in orders)
    assert len(set(orders)) > 2
    measured = [c for operation, c in fakes.log if operation == "measure"]
    assert measured[-18:] == [c for order in orders for c in order]
    times = sorted((sample.at, sample.round, sample.turn) for row in record.rows for sample in row.samples)
    assert [time[1:] for time in times] == [(number, turn) for number in range(6) for turn in range(3)]


def test_the_seed_decides_the_order(referee, proof):
    def order(seed: int) -> list[int]:
        record = recorded(THREE, rounds=5)
        record.seed = seed
        fakes = Fakes(referee, proof)
        Benchmark(record, referee, fakes.start, clock=fakes.clock).run()
        return [sample.turn for row in record.rows for sample in row.samples]

    assert order(0) == order(0) != order(1)


def test_only_one_task_and_batch_is_alive_at_a_time(referee, proof):
    fakes = Fakes(referee, proof)
    given = candidates(["pt", "mx"], ["tuned"], ["train", "infer"], [2, 3], ["float32"])
    assert run(fakes, given).passed
    assert fakes.most_alive == 2
    assert not fakes.alive


def test_proofs_and_timings_are_different_processes_and_a_program_is_proven_once(referee, proof):
    fakes = Fakes(referee, proof)
    given = candidates(["pt"], ["tuned"], ["train", "infer"], [2, 3], ["float32"])
    run(fakes, given)
    assert [c for operation, c in fakes.log if operation == "prove"] == [given[0].program]
    assert [fakes.count("begin", c) for c in [given[0].program, *given]] == [1] * 5


def test_a_measurement_lasts_long_enough_and_counts_a_single_call(referee, proof):
    fakes = Fakes(referee, proof, {"pt tuned": 0.07, "mx tuned": 2.0})
    quick, slow, _ = run(fakes, THREE).rows
    assert (quick.calls, slow.calls) == (5, 1)  # 5 · 0.07 s >= 0.3 s
    assert quick.seconds == pytest.approx([0.07] * 3)
    assert quick.images_per_second == pytest.approx(2 / 0.07)
    assert quick.first_call_seconds == pytest.approx(0.7)


def test_warm_up_goes_on_until_two_measurements_are_alike():
    pace = iter([3.0, 2.0, 1.5, 1.0, 1.05, 9.0])
    asked = []

    def measure(calls: int) -> float:
        asked.append(calls)
        return next(pace) * calls

    assert warm_up(measure) == ([3.0, 2.0, 1.5, 1.0, 1.05], True)
    assert asked == [1] * 5


def test_warm_up_gives_up_after_ten_measurements():
    pace = [2.0**-i for i in range(100)]
    found, stable = warm_up(lambda calls: pace.pop() * calls)
    assert not stable
    assert len(found) == 10


def _noise(fakes: Fakes, share: float) -> None:
    random = np.random.default_rng(0)
    fakes.noise = lambda: random.lognormal(0, share)


def test_rounds_go_on_until_every_ratio_is_known_to_3_percent(referee, proof):
    fakes = Fakes(referee, proof)
    _noise(fakes, 0.06)
    record = run(fakes, with_twins(THREE), rounds=5, minutes=60)
    rounds = [len(row.samples) for row in record.rows]
    assert 5 < rounds[0] < 100
    assert set(rounds) == set(rounds[:1])
    ratios = [found.ratio for found in record.comparisons()]
    assert len(ratios) == 3  # two others and the twin, each with the first
    assert max(ratio.half_width for ratio in ratios) == record.uncertainty(record.rows) <= PRECISION
    for row in record.rows:
        del row.samples[-1]
    assert record.uncertainty(record.rows) > PRECISION  # the last round was needed


def test_what_does_not_vary_has_as_many_rounds_as_were_asked_for(referee, proof):
    record = run(Fakes(referee, proof), with_twins(THREE), rounds=6, minutes=60)
    assert [len(row.samples) for row in record.rows] == [6] * 4


def test_the_budget_is_shared_by_tasks_and_batches_and_ends_the_rounds(referee, proof):
    fakes = Fakes(referee, proof)
    _noise(fakes, 0.7)
    given = candidates(["pt", "mx"], ["tuned"], ["train", "infer"], [2], ["float32"])
    record = run(fakes, with_twins(given), rounds=5, minutes=4)
    assert 230 < fakes.clock.now < 260
    ends = [max(sample.at for row in rows for sample in row.samples) for rows in record.groups().values()]
    assert ends == pytest.approx([120, 240], abs=15)
    for rows in record.groups().values():
        assert record.uncertainty(rows) > PRECISION


def test_the_twin_of_the_first_shows_the_noise(referee, proof):
    given = with_twins(candidates(["pt", "mx"], ["tuned"], ["infer"], [2, 3], ["float32"]))
    assert [c.label for c in given] == ["pt tuned", "mx tuned", "pt tuned again"] * 2
    fakes = Fakes(referee, proof, {"pt tuned again": 0.26})
    record = run(fakes, given, rounds=5)
    assert [c for operation, c in fakes.log if operation == "prove"] == [given[0].program, given[1].program]
    assert all(fakes.count("begin", c) == 1 for c in given)  # a process of its own
    twins = record.comparisons()[1]
    assert (twins.row.candidate, twins.other.candidate) == (given[2], given[0])
    assert twins.ratio.noise == pytest.approx(1 - 0.25 / 0.26)


def test_a_twin_whose_original_died_is_compared_with_nothing(referee, proof):
    fakes = Fakes(referee, proof)

    def disturb(what, candidate, count):
        if (what, candidate.label) == ("first", "pt tuned"):
            raise Died("killed by SIGKILL")

    fakes.disturb = disturb
    record = run(fakes, with_twins(THREE), rounds=5)
    assert record.comparisons() == []
    left = [row for row in record.rows if row.problem is None]
    assert [found.row.candidate.label for found in record.comparisons(left)] == ["jax tuned"]  # with mx tuned
    assert record.uncertainty(record.rows) == 0


def test_every_call_counts_where_one_image_is_answered(referee, proof):
    given = candidates(["pt"], ["tuned"], ["train", "infer"], [1, 2], ["float32"])
    record = run(Fakes(referee, proof), given)
    assert [row.latency and row.latency.calls for row in record.rows] == [None, None, 3 * 2, None]
    assert record.rows[2].latency.p50_seconds == 0.25


# ------------------------------------------------------------------------------------------- nothing unproven is timed


def wrong_logits(referee: Referee, batch: int) -> np.ndarray:
    """Of a network with one wrong weight."""
    with np.load(referee.params_file) as file:
        params = dict(file)
    params["conv2.weight"] = params["conv2.weight"].copy()
    params["conv2.weight"].flat[4] += 0.5
    return reference.predict(CONFIG, params, referee.batch(batch)[0])


def test_a_wrong_weight_is_not_timed_and_the_others_are(referee, proof):
    fakes = Fakes(referee, proof)
    fakes.lies["mx tuned", "prove"] = {"logits": wrong_logits(referee, BATCH)}
    record = run(fakes, THREE)
    assert not record.passed
    assert record.complete
    pt, mx, jax = record.rows
    assert "differs from the referee: logits by" in mx.problem
    assert not mx.samples
    assert fakes.count("begin", mx.candidate) == 0  # nor is a process started for it
    assert len(pt.samples) == len(jax.samples) == 3


@pytest.mark.parametrize(
    ("key", "what"),
    [
        ("loss", "loss by"),
        ("loss of the step", "loss of the step by"),
        ("gradient/fc5.bias", "gradient of fc5.bias by"),
        ("step/fc5.bias", "fc5.bias after a step by"),
    ],
)
def test_training_that_differs_is_not_timed(referee, proof, key, what):
    fakes = Fakes(referee, proof)
    fakes.lies["pt tuned", "prove"] = {key: 2 * proof[key]}
    (row,) = run(fakes, candidates(["pt"], ["tuned"], ["train"], [2], ["float32"])).rows
    assert what in row.problem
    assert not row.samples


@pytest.mark.parametrize("change", [lambda x: -x, lambda x: x[1:], lambda x: np.nan * x])
def test_in_bfloat16_a_wrong_gradient_shows_in_all_of_them_as_one_vector(change, referee, proof):
    """A single gradient may be off by more than it is, where pixels take the other side of a ReLU."""
    (right,) = (check for check in referee.judge(proof, ["train"], "bfloat16") if "one vector" in check.what)
    assert right.error < 1e-12
    wrong = proof | {"gradient/fc3.weight": change(proof["gradient/fc3.weight"])}
    (found,) = (check for check in referee.judge(wrong, ["train"], "bfloat16") if "one vector" in check.what)
    assert not found.passed
    assert found.bound < 1


def test_logits_that_are_no_numbers_are_not_timed(referee, proof):
    fakes = Fakes(referee, proof)
    fakes.lies["pt tuned", "prove"] = {"logits": np.full_like(proof["logits"], np.nan)}
    (row,) = run(fakes, candidates(["pt"], ["tuned"], ["infer"], [2], ["float32"])).rows
    assert "differs from the referee: logits" in row.problem
    assert fakes.count("first", row.candidate) == 0


def test_a_missing_gradient_is_not_timed(referee, proof):
    fakes = Fakes(referee, {name: x for name, x in proof.items() if name != "gradient/conv1.weight"})
    (row,) = run(fakes, candidates(["pt"], ["tuned"], ["train"], [2], ["float32"])).rows
    assert "gradient of conv1.weight by inf" in row.problem


@pytest.mark.parametrize(("task", "what"), [("infer", "logits of the timed batch"), ("train", "loss of the first")])
def test_a_first_call_that_differs_is_not_timed(referee, proof, task, what):
    """A predictor that is right on the small batch and wrong on the one that is timed."""
    fakes = Fakes(referee, proof)
    fakes.lies["pt tuned", "first"] = {"logits": wrong_logits(referee, 2), "loss": np.array(referee.loss(2) * 1.001)}
    (row,) = run(fakes, candidates(["pt"], ["tuned"], [task], [2], ["float32"])).rows
    assert what in row.problem
    assert fakes.count("measure", row.candidate) == 0


def test_final_loss_that_is_not_finite_is_a_problem(referee, proof):
    fakes = Fakes(referee, proof)

    class Diverging(Fake):
        def ask(self, operation, **arguments):
            return super().ask(operation, **arguments) | ({"last_loss": float("nan")} if operation == "end" else {})

    record = recorded(candidates(["pt"], ["tuned"], ["train"], [2], ["float32"]))
    Benchmark(record, referee, lambda c: Diverging(fakes, c), clock=fakes.clock).run()
    assert record.rows[0].problem == "the loss of the last timed step is nan"
    assert json.loads(json.dumps(record.as_json(), allow_nan=False))["rows"][0]["last_loss"] is None


def test_the_referee_counts_auxiliary_heads_in(tmp_path, monkeypatch):
    """What the network puts out is made up: 0.3 of either head's loss is added."""
    rng, labels = np.random.default_rng(0), np.arange(20) % 10
    made = {head: rng.normal(size=(20, 10)) for head in ("fc", "aux1", "aux2")}
    parts = iter([slice(0, 16), slice(16, 20)])  # as many at a time as fit the memory

    def activations(config, params, images):
        part = next(parts)
        assert len(images) == part.stop - part.start
        return {head: x[part] for head, x in made.items()}

    monkeypatch.setattr(proofs, "proof_params", lambda config, seed: {})
    monkeypatch.setattr(reference, "activations", activations)
    config = spec.preset("bvlc", in_channels=1, num_classes=10, dropout=0.0)
    found = Referee(config, lambda n: Batch(np.zeros((n, 1, 223, 223)), labels[:n], "nothing"), tmp_path)
    losses = {head: reference.softmax_cross_entropy(x, labels)[0] for head, x in made.items()}
    assert found.loss(20) == pytest.approx(losses["fc"] + 0.3 * (losses["aux1"] + losses["aux2"]), rel=1e-14)
    assert np.array_equal(found.logits(20), made["fc"])


# --------------------------------------------------------------------------------------------- when something fails


@pytest.mark.parametrize("operation", ["begin", "prove", "first", "measure", "end"])
@pytest.mark.parametrize(
    ("error", "said"),
    [(Died("killed by SIGKILL"), "the process died: killed by SIGKILL"), (spec.InvalidInput("no"), "no")],
)
def test_failing_worker_is_a_problem_of_its_row_only(referee, proof, operation, error, said):
    fakes = Fakes(referee, proof)
    times = 4 if operation == "measure" else 1  # in the middle of the rounds

    def disturb(what, candidate, count):
        if (what, candidate.backend, count) == (operation, "mx", times):
            raise error

    fakes.disturb = disturb
    pt, mx, jax = run(fakes, THREE, rounds=4).rows
    assert mx.problem == said
    assert pt.problem is jax.problem is None
    assert len(pt.samples) == len(jax.samples) == 4
    assert len(mx.samples) < 4 or operation == "end"
    assert not fakes.alive


def test_peaks_that_cannot_be_measured_are_a_warning(referee, proof):
    fakes = Fakes(referee, proof)

    def disturb(what, candidate, count):
        if what == "peaks":
            raise spec.InvalidInput("no bfloat16")

    fakes.disturb = disturb
    record = run(fakes, THREE)
    assert record.passed
    assert record.warnings[0] == "no peak by pt in float32: no bfloat16"
    assert record.work(record.rows[0])["share_of_peak"] is None


def test_best_of_two_peak_measurements_is_kept(referee, proof):
    """One before everything else, and one after it."""
    fakes = Fakes(referee, proof)
    fakes.peaks = iter([(2e11, 1e10), (1e11, 3e10)])
    record = run(fakes, candidates(["pt"], ["tuned"], ["infer"], [2], ["float32"]))
    assert [(peak["name"], peak["per_second"]) for peak in record.peaks] == [("matrix product", 2e11), ("copy", 3e10)]
    asked = [operation for operation, _ in fakes.log]
    assert (asked[0], asked[-1], asked.count("peaks")) == ("peaks", "peaks", 2)


@pytest.mark.parametrize("moment", [("prove", 1), ("first", 1), ("measure", 4)])
def test_control_c_keeps_the_measurements_and_leaves_no_worker(referee, proof, moment):
    fakes = Fakes(referee, proof)

    def disturb(what, candidate, count):
        if (what, count) == moment and candidate.backend == "jax":
            raise KeyboardInterrupt

    fakes.disturb = disturb
    record = run(fakes, THREE, rounds=5)
    assert not fakes.alive
    found = record.as_json()
    assert found["complete"] is False
    assert found["passed"] is False
    if moment[0] == "measure":
        assert all(1 <= len(row.samples) < 5 for row in record.rows)
    assert any("interrupted" in warning for warning in record.warnings)


# ------------------------------------------------------------------------------------------------- what numbers say


def test_median_and_quartiles_by_hand():
    found = summarize([5.0, 1.0, 3.0, 2.0, 4.0])
    assert (found.lower_quartile_seconds, found.median_seconds, found.upper_quartile_seconds) == (2.0, 3.0, 4.0)
    assert found.rounds == 5
    assert found.spread == pytest.approx(2 / 3)
    assert found.unsteady
    assert not summarize([1.0, 1.01, 1.02]).unsteady


def test_ratio_of_speeds_by_hand():
    """Of five rounds the interval is the whole range, which with 30 of 32 signs holds the middle."""
    found = speed_ratio([1.0, 1.0, 2.0, 2.0, 4.0], [2.0, 3.0, 4.0, 5.0, 16.0])
    assert (found.ratio, found.low, found.high) == pytest.approx((np.sqrt(2.5 * 2.5), 2.0, 4.0))
    assert str(found) == "2.50 times as fast (2.00 to 4.00)"
    assert found.half_width == pytest.approx(1 / 2.5)


def test_below_five_rounds_no_interval_is_known():
    found = speed_ratio([1.0] * 4, [2.0] * 4)
    assert found.ratio == pytest.approx(2)
    assert str(found) == "no difference shown (unknown below 5 rounds)"
    assert speed_change([1.0] * 9, [2.0] * 4).half_width == np.inf


def test_percentiles_are_those_of_single_calls_and_none_without_a_call_beyond():
    found = latency(list(range(101)))
    assert (found.calls, found.p50_seconds, found.p95_seconds, found.p99_seconds) == (101, 50, 95, 99)
    assert latency([1.0] * 99).p99_seconds is None
    assert latency([1.0] * 19).p95_seconds is None
    assert latency([1.0]).p50_seconds is None


def test_an_interval_that_holds_one_shows_no_difference():
    assert str(Ratio(1.02, 0.98, 1.05)) == "no difference shown (0.98 to 1.05)"
    assert str(Ratio(1.02, 1.0, 1.05)) == "no difference shown (1.00 to 1.05)"
    assert str(Ratio(1.02, 1.01, 1.05)).startswith("1.02 times")
    assert str(Ratio(0.9, 0.8, 0.95)).startswith("0.90 times")


def quiet(random: np.random.Generator, rounds: int) -> np.ndarray:
    """The disturbance of each round on a machine that does nothing else: 5 %."""
    return random.lognormal(0, 0.05, rounds)


def busy(random: np.random.Generator, rounds: int) -> np.ndarray:
    """In one round of five another program runs too: it takes 1.7 times as long, or much longer."""
    return quiet(random, rounds) * np.exp(random.exponential(0.5, rounds) * (random.random(rounds) < 0.2))


TRUE = 1.3
_TRIALS = 3000  # the shares below are known to 0.4 %


@pytest.mark.parametrize("machine", [quiet, busy])
@pytest.mark.parametrize("rounds", [5, 10, 20])
def test_an_interval_of_95_percent_covers_the_true_ratio_in_93_to_97_of_100(machine, rounds):
    random = np.random.default_rng(rounds)
    pairs = covered = 0
    for _ in range(_TRIALS):
        drift = machine(random, rounds)  # of a round, and so of both
        ours, theirs = machine(random, rounds), TRUE * machine(random, rounds)
        found, change = speed_ratio(drift * ours, drift * theirs), speed_change(ours, theirs)
        pairs += found.low <= TRUE <= found.high
        covered += change.low <= TRUE <= change.high
    assert 0.93 <= pairs / _TRIALS <= 0.97
    assert 0.93 <= covered / _TRIALS <= 0.97


@pytest.mark.slow
def test_an_interval_covers_as_often_where_the_rounds_end_when_it_is_narrow():
    """That the rounds go on until 3 % are reached favors samples that happen to lie close together."""
    random = np.random.default_rng(0)
    covered, trials = 0, 1500
    for _ in range(trials):
        rounds, ours, theirs = 7, quiet(random, 200), TRUE * quiet(random, 200)
        while (found := speed_ratio(ours[:rounds], theirs[:rounds])).half_width > PRECISION:
            rounds += 1
        covered += found.low <= TRUE <= found.high
    assert covered / trials >= 0.92


def test_a_drift_of_the_whole_machine_does_not_hide_a_difference():
    drift = np.linspace(1, 2, 9)
    assert speed_ratio(drift, 1.1 * drift).difference_shown
    assert not speed_change(drift, 1.1 * drift).difference_shown


def test_comparisons_are_with_the_textbook_and_with_the_first(referee, proof):
    fakes = Fakes(referee, proof, {"pt textbook": 0.5, "pt tuned": 0.25, "mx textbook": 1.0, "mx tuned": 0.5})
    given = with_twins(candidates(["pt", "mx"], ["textbook", "tuned"], ["infer"], [2], ["float32"]))
    record = run(fakes, given, rounds=5)
    assert [str(found) for found in record.comparisons()] == [
        "pt tuned, infer, batch 2, float32: 2.00 times as fast (2.00 to 2.00) as pt textbook",
        "mx textbook, infer, batch 2, float32: 0.50 times as fast (0.50 to 0.50) as pt textbook",
        "mx tuned, infer, batch 2, float32: 2.00 times as fast (2.00 to 2.00) as mx textbook",
        "mx tuned, infer, batch 2, float32: no difference shown (1.00 to 1.00) from pt textbook",
        "pt textbook again, infer, batch 2, float32: no difference shown (1.00 to 1.00) from pt textbook",
    ]


def test_a_comparison_across_dtypes_names_both(referee, proof):
    given = candidates(["pt"], ["tuned"], ["infer"], [2], ["float32", "bfloat16"])
    record = run(Fakes(referee, proof), given, rounds=5)
    assert [str(found) for found in record.comparisons()] == [
        "pt tuned, infer, batch 2, bfloat16: no difference shown (1.00 to 1.00) from pt tuned, infer, batch 2, float32"
    ]


# ------------------------------------------------------------------------------------------------------- the machine


def test_a_busy_machine_is_warned_of():
    place = machine.environment(machine.allowed()) | {"governor": None, "cgroup": {"cpu_max": None}}
    place["used_processors"] = [0, 1]
    quiet = {"busy_processors": 0.1}
    assert machine.warnings_before(place, quiet) == []
    (busy,) = machine.warnings_before(place, {"busy_processors": 1.9})
    assert "other programs took 1.9 of the 2 processors" in busy
    (quota,) = machine.warnings_before(place | {"cgroup": {"cpu_max": "150000 100000"}}, quiet)
    assert "1.5 processors' time" in quota
    (slow,) = machine.warnings_before(place | {"governor": "powersave"}, quiet)
    assert "powersave" in slow


def test_processors_are_busy_with_all_but_waiting(monkeypatch):
    shares = [SimpleNamespace(idle=10.0, iowait=15.0), SimpleNamespace(idle=50.0), SimpleNamespace(idle=0.0)]
    monkeypatch.setattr(machine.psutil, "cpu_times_percent", lambda interval, percpu: shares)
    assert machine.busy_processors([0, 1]) == pytest.approx(0.75 + 0.5)


def _taking(record: Record, label: str, seconds: list[float]) -> Record:
    """The record, with that row's rounds."""
    (row,) = (row for row in record.rows if row.candidate.label == label)
    row.samples = [Sample(i, 0, 0.0, x, 2) for i, x in enumerate(seconds)]
    return record


def test_no_ratio_is_made_of_a_row_that_other_programs_starved(referee, proof):
    record = run(Fakes(referee, proof), candidates(["pt"], ["textbook", "tuned"], ["infer"], [2], ["float32"]))
    assert "no difference shown" in str(record.comparisons()[0])
    _taking(record, "pt textbook", [47.0, 0.3, 20.0])
    (comparison,) = record.comparisons()
    assert "not measured against pt textbook, the machine was busy: pt textbook in float32 took 0.3 to 47 s" in str(
        comparison
    )
    assert record.uncertainty(record.rows) == np.inf  # so that more rounds are worth their time
    (ratio,) = record.as_json()["ratios"]
    assert (ratio["ratio"], ratio["low"], ratio["high"], ratio["difference_shown"]) == (None, None, None, False)
    console = Console(width=80, file=io.StringIO())
    tables.render(record, console)
    assert "times as fast (" not in console.file.getvalue()


def test_off_a_terminal_progress_is_a_line_now_and_then(monkeypatch, capsys):
    clock = Clock()
    monkeypatch.setattr(options.time, "monotonic", clock)
    tell = options.lines()
    for clock.now in (1.0, 19.0, 20.0, 39.0, 41.0):
        tell("round", int(clock.now), 1000)
    assert capsys.readouterr().err == "round (20 of 1,000)\nround (41 of 1,000)\n"


def test_time_taken_by_the_host_is_warned_of():
    before, after = {"ticks": 0, "stolen_ticks": 0}, {"ticks": 100, "stolen_ticks": 30}
    assert machine.warnings_after(before, after) == ["the host took 30% of the processors' time for others"]
    assert machine.warnings_after(before, after | {"stolen_ticks": 1}) == []


def test_threads_are_told_each_framework_its_own_way(tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.delenv("MXNET_ENGINE_TYPE", raising=False)
    tuned = environment(tmp_path, Candidate("mx", "tuned", "infer", 1, "float32"), 4)
    assert (tuned["OMP_NUM_THREADS"], tuned["MXNET_OMP_MAX_THREADS"]) == ("4", "4")
    assert not {"OMP_WAIT_POLICY", "MXNET_ENGINE_TYPE"} & set(tuned)
    (tmp_path / "packages").rename(tmp_path / "before")
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    textbook = environment(tmp_path, Candidate("mx", "textbook", "infer", 1, "float32"), 4)
    assert (textbook["OMP_NUM_THREADS"], textbook["MXNET_OMP_MAX_THREADS"]) == ("2", "2")  # MXNet's own choice
    assert textbook["OMP_WAIT_POLICY"] == "PASSIVE"
    assert textbook["MXNET_ENGINE_TYPE"] == "ThreadedEnginePerDevice"  # that too
    (tmp_path / "packages").rename(tmp_path / "then")
    monkeypatch.setenv("MXNET_ENGINE_TYPE", "NaiveEngine")
    compiled = environment(tmp_path, Candidate("mx", "compiled", "infer", 1, "float32"), 4)
    assert (compiled["MXNET_ENGINE_TYPE"], compiled["OMP_NUM_THREADS"]) == ("NaiveEngine", "4")
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    for variant, flags in (("textbook", ""), ("tuned", None)):
        shutil.rmtree(tmp_path / "packages")
        assert environment(tmp_path, Candidate("jax", variant, "infer", 1, "float32"), 4).get("XLA_FLAGS") == flags


# --------------------------------------------------------------------------------------------------------- processes


def worker() -> Process:
    processors = machine.allowed()[:1]
    return Process(THREE[0], CONFIG, Path("params.npz"), device="cpu", processors=processors)


def test_a_process_that_is_killed_says_how():
    process = worker()
    try:
        os.kill(process._process.pid, signal.SIGKILL)
        with pytest.raises(Died, match="killed by SIGKILL"):
            process.ask("begin")
    finally:
        process.close()


def test_a_process_that_raises_says_what():
    process = worker()
    try:
        with pytest.raises(Died, match="no attribute 'fly'"):
            process.ask("fly")
    finally:
        process.close()


def test_closing_ends_the_process_and_what_it_left(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    process = worker()
    (folder,), pid = tmp_path.iterdir(), process._process.pid
    process.close()
    assert not folder.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_process_that_ends_at_once_leaves_nothing(tmp_path, monkeypatch):
    """What it is sent no longer arrives."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def gone(process: Process, message: object) -> None:
        process._process.wait()
        raise Died("exit status 1")

    monkeypatch.setattr(Process, "_send", gone)
    with pytest.raises(Died, match="exit status 1"):
        Process(THREE[0], CONFIG, tmp_path, device="cpu", processors=[0], python=shutil.which("false"))
    assert not list(tmp_path.iterdir())


def test_what_an_interpreter_prints_is_no_answer(tmp_path):
    """Where nothing else comes, it is refused."""
    python, answers = tmp_path / "python", "".join(messages.written({"answer": {"x": i}}) + "\n" for i in range(2))
    (tmp_path / "answers").write_text(f"Welcome!\n{{}}\n{answers}version 3\n")
    python.write_text(f"#!/bin/sh\ncat {tmp_path}/answers; head -n 4 > {tmp_path}/asked\n")
    python.chmod(0o755)
    process = Process(THREE[0], CONFIG, tmp_path, device="cpu", processors=[0], python=str(python))
    try:
        assert [process.ask("begin"), process.ask("begin")] == [{"x": 0}, {"x": 1}]
        with pytest.raises(spec.InvalidInput, match=r"/python: expected an answer of the code in .*, got version 3;"):
            process.ask("begin")
    finally:
        process.close()


def test_an_interpreter_that_cannot_be_started_is_refused(tmp_path):
    with pytest.raises(spec.InvalidInput, match="cannot be started"):
        Process(THREE[0], CONFIG, tmp_path, device="cpu", processors=[0], python=str(tmp_path / "none"))


# ------------------------------------------------------------------------------------------------------------- shown


@pytest.fixture
def shown(referee, proof) -> Record:
    """A record with everything in it: numbers, a refusal, peaks, a warning."""
    fakes = Fakes(referee, proof, {"pt textbook": 0.5})
    fakes.lies["mx tuned", "prove"] = {"logits": wrong_logits(referee, BATCH)}
    given = candidates(["pt", "mx"], ["textbook", "tuned"], ["train", "infer"], [2, 1], ["float32"])
    record = run(fakes, with_twins(given), rounds=5)
    for row in record.rows:
        row.proof = [replace(check, error=max(check.error, 1e-7)) for check in row.proof]  # which is 0 in a fake
        row.latencies *= 20  # 200 calls, of which two are beyond the last percentile
    record.about = ABOUT | {"command": "googlenet bench --data '<script>alert(1)</script>'"}
    record.warnings.append("a <b>busy</b> machine & more")
    return record


def paths(value, path: str = "") -> set[str]:
    """Every key in a JSON value: ``rows[].samples[].seconds``."""
    if isinstance(value, dict):
        below = {key: paths(item, f"{path}.{key}" if path else key) for key, item in value.items()}
        return {f"{path}.{key}" if path else key for key in value} | set().union(*below.values())
    if isinstance(value, list):
        return set().union(*(paths(item, f"{path}[]") for item in value)) if value else set()
    return set()


_FREE = re.compile(r"(environment\.(versions|variables)|machine\.flops_per_second)\.")


def documented(section: str) -> set[str]:
    text = (ROOT / "docs" / "bench-schema.md").read_text()
    part = text.split(f"\n## {section}\n")[1].split("\n## ")[0]
    return set(re.findall(r"^\| `([^`]+)` \|", part, flags=re.MULTILINE))


def test_the_schema_is_documented_as_it_is_written(shown, tmp_path):
    place = machine.environment(machine.allowed())
    shown.about = ABOUT | {
        "code": machine.code(),
        "environment": place,
        "before": machine.now() | {"busy_processors": 0.0},
        "after": machine.now(),
    }
    earlier = json.dumps(shown.as_json())
    (tmp_path / "bench.json").write_text(earlier)
    shown.changes = changes(read_earlier(tmp_path / "bench.json", SCHEMA), shown)
    written = {path for path in paths(shown.as_json()) if not _FREE.match(path)}
    assert written == documented("bench.json") | documented("An earlier benchmark")


def test_the_profile_schema_is_documented_as_it_is_written(referee, proof):
    found = profiled(Fakes(referee, proof))
    environment_keys = {
        path for path in documented("bench.json") if re.match(r"(environment|code|before|after)\.", path)
    }
    fixed = {path for path in paths(found.as_json()) if not _FREE.match(path)} - environment_keys
    assert {path for path in fixed if not re.match(r"(environment|code|before|after)\.", path)} == documented(
        "profile-BACKEND.json"
    )


class _Addresses(HTMLParser):
    """Whatever in a page could be fetched."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.found += [value for name, value in attrs if name in ("src", "href", "xlink:href", "data", "action")]


def test_the_report_needs_nothing_else_and_escapes_what_it_shows(shown, referee, proof, tmp_path):
    write_profile(profiled(Fakes(referee, proof)), tmp_path)
    write_folder(shown, tmp_path)
    text = (tmp_path / "report.html").read_text()
    assert "http" not in text
    assert "url(" not in text.replace("url(#", "")
    page = _Addresses()
    page.feed(text)
    assert all(address.startswith("#") for address in page.found)
    assert page.tags.count("svg") == 5  # throughput, correctness, samples, roofline, stages
    assert "script" not in page.tags
    assert "&lt;script&gt;alert(1)" in text
    assert "a &lt;b&gt;busy" in text
    assert "not timed, since it differs from the referee" in text
    ids = re.findall(r'<clipPath id="([^"]+)"', text)
    assert len(set(ids)) == len(ids)
    assert {path.name for path in tmp_path.iterdir()} == {
        "bench.json",
        "correctness.svg",
        "profile-pt.json",
        "report.html",
        "roofline.svg",
        "samples.svg",
        "stages-pt.svg",
        "throughput.svg",
    }
    assert json.loads((tmp_path / "bench.json").read_text()) == shown.as_json()


def test_report_without_measurements_is_written(tmp_path):
    write_folder(recorded(THREE), tmp_path)
    assert "Not complete" in (tmp_path / "report.html").read_text()


@pytest.fixture
def drawn(monkeypatch) -> dict[str, list[Any]]:
    """Takes the axes of each picture."""
    from matplotlib.figure import Figure

    kept: dict[str, list[Any]] = {}

    @contextmanager
    def drawing(name: str, columns: int, size: tuple[float, float]) -> Iterator[Any]:
        kept[name] = list(Figure().subplots(1, columns, squeeze=False)[0])
        yield SimpleNamespace(axes=kept[name], svg="")

    monkeypatch.setattr(plots, "_drawing", drawing)
    return kept


def _lines(axis: Any) -> dict[str, list[list[float]]]:
    return {line.get_label(): line.get_xydata().tolist() for line in axis.lines}


def test_pictures_show_what_was_measured(shown, drawn):
    """Half a second a call in pt's textbook network, a quarter in the others."""
    plots.draw(shown)
    for axis in drawn["throughput"]:  # training, inference
        lines = _lines(axis)
        assert lines["pt textbook"] == [[1, 2], [2, 4]]
        assert lines["pt tuned"] == [[1, 4], [2, 8]]
    assert [axis.get_title() for axis in drawn["samples"]] == [
        f"{task}, batch {batch}" for task in ("training", "inference") for batch in (2, 1)
    ]
    points = [line for line in drawn["samples"][0].lines if line.get_marker() == "."]
    assert [line.get_xdata().tolist() for line in points] == [[500.0] * 5, *[[250.0] * 5] * 3, [500.0] * 5]
    training, inference = drawn["correctness"]
    errors = {line.get_label(): line.get_xydata().tolist() for line in training.lines}
    textbook = next(row for row in shown.rows if str(row.candidate) == "pt textbook, train, batch 2, float32")
    assert errors["pt textbook float32, batch 2"] == [[textbook.error, 4]]
    assert len(errors) == 8  # no twin among them
    assert training.get_xscale() == "log"
    assert len(inference.lines) == 6  # nor mx tuned, which was refused
    work = shown.work(shown.rows[0])
    (point,) = _lines(drawn["roofline"][0])["pt textbook, training, 2"]
    assert point == [work["intensity"], work["flops_per_second"] / 1e9]


def test_bars_are_as_long_as_the_median_speed_with_the_quartiles_around(referee, proof, drawn):
    record = run(Fakes(referee, proof), candidates(["pt"], ["tuned"], ["infer"], [2], ["float32"]))
    times = [0.125, 0.25, 0.5]  # quartiles 0.1875 and 0.375
    samples = record.rows[0].samples
    record.rows[0].samples = [replace(sample, seconds=s) for sample, s in zip(samples, times, strict=True)]
    plots.draw_throughput(record)
    (axis,) = drawn["throughput"]
    (bar,) = axis.patches
    assert bar.get_width() == 8
    assert [text.get_text() for text in axis.texts] == ["8"]
    (segment,) = axis.collections[0].get_segments()
    assert segment[:, 0].tolist() == pytest.approx([2 / 0.375, 2 / 0.1875])


def test_stage_bars_show_backward_behind_forward(referee, proof, drawn):
    found = profiled(Fakes(referee, proof)).as_json()
    plots.draw_stages(found)
    (axis,) = drawn["stages-pt"]
    bars = [(bar.get_x(), bar.get_width()) for bar in axis.patches]
    assert bars == [(0, 250)] * 7 + [(250, 500)] * 7


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_tables_fit_the_terminal(shown, width):
    console = Console(width=width, file=io.StringIO())
    tables.render(shown, console)
    text = console.file.getvalue()
    rows = [line.strip() for line in text.splitlines() if re.match(r" *(pt|mx) (textbook|tuned)( again)?  ", line)]
    ratios = (" pt textbook", " mx textbook", "to 2.00", "to 1.00")
    lines = [line for line in rows if not line.endswith(ratios)]
    measured = 18  # of 20: in inference mx tuned was refused
    assert len(lines) >= measured
    assert (len(lines) == measured) == (width == 200)
    assert all(len(line) <= width for line in lines)
    assert all(re.match(r"(pt|mx) (textbook|tuned)( again)? +[\d.,]+", line) for line in lines)
    assert all(text.count(heading) >= 4 for heading in tables.COLUMNS)
    assert all(heading in text for heading in tables.LATENCY)


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"stages": [1]}', '{"stages": [{}], "settings": {}}', "[" * 9999], ids=range(6)
)
def test_a_foreign_file_with_a_profiles_name_is_refused_before_anything_is_measured(content, tmp_path):
    (tmp_path / "profile-pt.json").write_text(content)
    with pytest.raises(spec.InvalidInput, match=r"profile-pt.json: expected what `googlenet profile` writes"):
        page.check_folder(tmp_path)


def test_markdown_holds_tables_environment_and_command(shown):
    text = markdown.markdown(shown)
    assert "lenet, 28 x 28, training, batch 2, float32, 2 threads, 5 rounds" in text
    assert "\n| pt textbook | 4 |" in text  # 2 images in 0.5 s
    assert "    $ googlenet bench" in text
    assert "mx tuned | not timed, since it differs" in text
    assert "**" not in text  # nobody wins
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({re.sub("\\|-", " |", line).count(" |") for line in table.splitlines()}) == 1


def test_a_row_is_shown_in_the_units_of_its_columns(shown):
    """A call on 2 images takes half a second, the first one 5 s, a second was importing and two were building."""
    row = shown.rows[0]
    assert (row.candidate.label, row.candidate.task, row.candidate.batch) == ("pt textbook", "train", 2)
    row.peak_memory_bytes = 3 * 2**29
    row.proof = [Check("loss", 1e-5, 1e-3), Check("gradient", 2e-4, 1e-3)]
    operations = 3 * sum(stage_flops(CONFIG, SIZE, 2).values())
    cells = dict(zip(tables.COLUMNS, tables.cells(shown, row), strict=True))
    assert cells == {
        "images/s": "4",
        "spread": "0%",
        "ms a call": "500",
        "% of peak": f"{operations / 0.5 / 2e11:.1%}",
        "error": "2e-04",
        "threads": "2",
        "cold start s": "8",
        "peak GiB": "1.50",
    }
    (alone,) = (r for r in shown.rows if str(r.candidate) == "pt tuned, infer, batch 1, float32")
    alone.latencies = [*[0.004] * 90, *[0.008] * 10]
    assert tables.cells(shown, alone)[-3:] == ["4", "8", "8"]
    assert tables.describe_peak(shown.peaks[0]) == "pt, float32, matrix product: 200 GFLOP/s"
    assert tables.describe_peak(shown.peaks[1]) == "pt, float32, copy: 10 GB/s"


def _at(record: Record, rounds: dict[str, float]) -> Record:
    """The record, whose rows take so long in each of five rounds, within a hundredth."""
    for row in record.rows:
        spread = (1.0, 1.002, 0.998, 1.01, 0.99)
        row.samples = [Sample(i, 0, 0.0, rounds[row.candidate.label] * x, 2) for i, x in enumerate(spread)]
    return record


def test_the_verdict_names_the_fastest_those_like_it_and_what_cannot_be_said():
    given = candidates(["pt", "mx", "jax"], ["tuned"], ["infer"], [2], ["float32"])
    rounds = {"pt tuned": 0.5, "mx tuned": 0.1, "jax tuned": 0.2}
    assert tables.verdict(_at(recorded(given), rounds)) == [
        "Inference, batch 2: mx tuned was the fastest with 20 images a second, 2.00 times as fast as jax tuned."
    ]
    (alike,) = tables.verdict(_at(recorded(given), rounds | {"jax tuned": 0.1}))
    assert "images a second, with no difference shown from jax tuned, 5.00 times as fast as pt tuned." in alike
    starved = _taking(_at(recorded(given), rounds), "mx tuned", [0.1, 3.0, 47.0])
    assert tables.verdict(starved) == [
        "Inference, batch 2: jax tuned was the fastest with 10 images a second, 2.50 times as fast as pt tuned; "
        "of mx tuned nothing can be said, the machine was busy."
    ]
    for label in ("pt tuned", "jax tuned"):
        _taking(starved, label, [0.1, 3.0, 47.0])
    assert tables.verdict(starved) == ["Inference, batch 2: not measured, the machine was busy."]
    assert tables.verdict(recorded(given)) == ["Inference, batch 2: nothing was measured."]


def test_ratios_are_a_table_and_the_report_begins_with_the_verdict(tmp_path):
    given = candidates(["pt", "mx"], ["textbook", "tuned"], ["infer"], [2], ["float32"])
    rounds = {"pt textbook": 0.5, "pt tuned": 0.25, "mx textbook": 0.5, "mx tuned": 0.1}
    record = _at(recorded(given), rounds)
    (section,) = tables.sections(record)
    assert [(line.label, *line.cells[:2]) for line in section.ratios] == [
        ("pt tuned", "2.00", "pt textbook"),
        ("mx textbook", "1.00 =", "pt textbook"),
        ("mx tuned", "5.00", "mx textbook"),
        ("mx tuned", "5.00", "pt textbook"),
    ]
    console = Console(width=50, file=io.StringIO())
    tables.render(record, console)
    assert re.search(r"^ *mx tuned +5\.00 +pt textbook", console.file.getvalue(), re.MULTILINE)
    write_folder(record, tmp_path)
    text = (tmp_path / "report.html").read_text()
    body = text[text.index("</h1>") :]
    assert body.index("mx tuned was the fastest with 20 images a second") < body.index("googlenet bench")
    assert body.index("<details>") < body.index("relative error") < body.rindex("</details>")


def test_several_runs_go_into_one_markdown_file(shown, tmp_path):
    for _ in range(2):
        markdown.append_markdown(shown, tmp_path / "BENCHMARKS.md")
    text = (tmp_path / "BENCHMARKS.md").read_text()
    assert re.findall("^#.*", text, flags=re.MULTILINE) == [
        "# Benchmarks",
        *["## lenet at 28 pixels: training and inference, batch 2, 1, float32"] * 2,
    ]


# ----------------------------------------------------------------------------------------------------------- profiles


def profiled(fakes: Fakes, rounds: int = 3) -> Profile:
    found = Profile(CONFIG, SIZE, rounds, 0, Candidate("pt", "tuned", "train", 2, "float32"), about=ABOUT)
    profiles.measure(found, fakes.referee, fakes.start)
    return found


def test_a_profile_measures_every_stage_both_ways_in_every_round(referee, proof):
    found = profiled(Fakes(referee, proof))
    assert found.passed
    assert [stage.name for stage in found.stages] == list(spec.stage_names(CONFIG))
    for row in found.rows():
        assert row["forward_seconds"] == pytest.approx(0.25)
        assert row["backward_seconds"] == pytest.approx(0.5)  # both take three times the forward pass
        assert row["share"] == pytest.approx(1 / len(found.stages))
    conv1 = found.rows()[0]
    flops = stage_flops(CONFIG, SIZE, 2)["conv1"]
    assert flops == 2 * 2 * 5 * 5 * 6 * 24 * 24
    assert conv1["forward_flops_per_second"] == pytest.approx(flops / 0.25)
    assert conv1["backward_flops_per_second"] == pytest.approx(2 * flops / 0.5)
    assert found.rows()[1]["forward_flops_per_second"] is None  # a pool multiplies nothing


def test_a_backend_that_differs_has_no_profile(referee, proof):
    fakes = Fakes(referee, proof | {"loss": 2 * proof["loss"]})
    found = profiled(fakes)
    assert "differs from the referee: loss" in found.problem
    assert not found.passed
    assert not found.rows()
    assert not fakes.alive


def test_an_interrupted_profile_is_shown(referee, proof):
    fakes = Fakes(referee, proof)

    def disturb(what, candidate, count):
        if (what, count) == ("stage", 100):
            raise KeyboardInterrupt

    fakes.disturb = disturb
    found = profiled(fakes, rounds=9)
    assert not found.complete
    assert not fakes.alive
    console = Console(width=50, file=io.StringIO())
    tables.render_profile(found, console)
    text = console.file.getvalue()
    assert "fc4" in text
    assert "interrupted" in text


# --------------------------------------------------------------------------------------------------------- the command


class Served:
    """In the place of a candidate's process: what is asked of it is done here."""

    pid = 2**30  # which no process has

    def __init__(self, words: list[str], **options: Any) -> None:
        assert words == [sys.executable, "-P", "-m", "harness.bench.worker"]
        self.stdin = self.stdout = self
        self.operations: Operations | None = None
        self.replies: list[str] = []

    def write(self, line: str) -> None:
        message = json.loads(line)
        if self.operations is None:
            self.operations = Operations(message)
        else:
            self.replies.append(messages.written({"answer": getattr(self.operations, message.pop("do"))(**message)}))

    def __iter__(self) -> Iterator[str]:
        yield self.replies.pop()

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass

    def wait(self) -> int:
        return 0


@pytest.fixture
def served(backend, monkeypatch) -> str:
    """A backend's name; the command has its candidates in this process, and takes a hundredth of the time."""
    monkeypatch.setattr(process, "subprocess", SimpleNamespace(Popen=Served, PIPE=None))
    for measured in (warm_up, enough):
        monkeypatch.setattr(measured, "__defaults__", (0.003,))
    monkeypatch.setattr(profiles, "_MEASUREMENT", 0.003)
    for name, small in {"SIDE": 64, "IMAGES": 2, "BYTES": 2**16}.items():
        monkeypatch.setattr(ceilings, name, small)
    return backend.__name__.split("_")[1]


@NOT_QUICK_IN_JAX
def test_bench_measures_a_backend_with_and_without_loading(served, tmp_path):
    """JAX, which would have to compile all of it, only infers, without loading."""
    tasks, loadings = (["infer"], [False]) if served == "jax" else (["train", "infer"], [False, True])
    words = ["bench", served, "--preset", "lenet", "--batch", "2", "--rounds", "2", "--minutes", "0", "--threads", "1"]
    words += ["--task", "both" if len(tasks) > 1 else "infer", *(["--pipeline"] if True in loadings else [])]
    words += ["--device", "cpu", "--out", str(tmp_path), "--markdown", str(tmp_path / "b.md")]
    done = googlenet(*words, "--json", XDG_CACHE_HOME=str(tmp_path))
    found = json.loads(done.stdout)
    assert found == json.loads((tmp_path / "bench.json").read_text())
    assert found["passed"] is True
    rows = [(row["label"], row["task"], row["pipeline"]) for row in found["rows"]]
    expected = [
        (f"{served} tuned{again}", task, loading)
        for task in tasks
        for again, loading in [*(("", loading) for loading in loadings), (" again", False)]
    ]
    assert rows == expected
    for row in found["rows"]:
        assert row["problem"] is None
        assert all(check["passed"] for check in row["proof"])
        assert [check["what"].split(" of ")[0] for check in row["proof"]][-1] in ("logits", "loss")
        assert len(row["samples"]) == 2
        assert row["peak_memory_bytes"] > 10**7
        assert (row["last_loss"] is None) == (row["task"] == "infer")
    assert {peak["name"] for peak in found["peaks"]} == {"matrix product", "convolution", "copy"}
    assert found["environment"]["used_processors"] == machine.allowed()[:1]
    assert f"{served} tuned" in (tmp_path / "b.md").read_text()
    assert (tmp_path / "report.html").is_file()


@needs_pt
@pytest.mark.parametrize("backend", ["pt"], indirect=True)
def test_bench_exits_with_1_where_it_has_become_slower(served, tmp_path):
    """A call takes a hundredth of a second, and took a millionth."""
    words = "bench pt --preset lenet --batch 2 --task infer --rounds 5 --minutes 0 --device cpu --json".split()
    earlier = json.loads(googlenet(*words, "--out", str(tmp_path)).stdout)
    assert earlier["against"] is None
    for row in earlier["rows"]:
        for i, sample in enumerate(row["samples"]):
            sample["seconds"] = 1e-6 * (1 + i / 100)
    (tmp_path / "bench.json").write_text(json.dumps(earlier))
    with mock.patch.object(worker_operations, "_timed", lambda call, calls: _measured(0.01, calls)):
        found = json.loads(googlenet(*words, "--against", str(tmp_path / "bench.json"), status=1).stdout)
    assert found["passed"] is True
    (row,) = found["against"]["rows"]
    assert (row["row"], row["verdict"]) == ("pt tuned, infer, batch 2, float32", "slower")


def _measured(seconds: float, calls: int) -> dict[str, Any]:
    return {"seconds": seconds * calls, "calls": [seconds] * calls, "busy_threads": 1}


@needs_pt
def test_worker_that_dies_is_a_problem_of_its_rows_and_exit_status_1(tmp_path):
    """Its interpreter is another program."""
    words = [
        "bench",
        "pt",
        "--preset",
        "lenet",
        "--batch",
        "2",
        "--rounds",
        "1",
        "--python",
        "pt=" + shutil.which("false"),
    ]
    found = json.loads(googlenet(*words, "--json", status=1).stdout)
    assert (found["complete"], found["passed"]) == (True, False)
    assert {row["problem"] for row in found["rows"]} == {"the process died: exit status 1"}
    assert not any(row["samples"] for row in found["rows"])


@pytest.mark.parametrize(
    "backend",
    [pytest.param(name, marks=[pytest.mark.slow] if name == "jax" else []) for name in TESTED],  # which compiles each
    indirect=True,
)
def test_profile_measures_every_stage_of_a_backend(served):
    words = ["profile", served, "--preset", "lenet", "--batch", "2", "--rounds", "1", "--device", "cpu"]
    found = json.loads(googlenet(*words, "--json").stdout)
    assert [row["stage"] for row in found["stages"]] == list(spec.stage_names(CONFIG))
    assert all(len(row["samples"]["forward"]) == len(row["samples"]["both"]) == 1 for row in found["stages"])


@needs_pt
@pytest.mark.slow
def test_profile_has_workers_in_processes_of_their_own():
    words = "profile pt --preset lenet --batch 2 --rounds 1 --device cpu --json".split()
    found = json.loads(googlenet_process(*words).stdout)
    assert found["passed"] is True
    assert [row["stage"] for row in found["stages"]] == list(spec.stage_names(CONFIG))


@needs_pt
@pytest.mark.slow
def test_bench_holds_the_textbooks_network_and_runtimes_beside_ours(tmp_path):
    """In processes of their own."""
    words = "bench pt onnx openvino --size 28 --batch 2 --task infer --variant both --threads 1 --device cpu".split()
    words += ["--rounds", "2", "--minutes", "0"]
    found = json.loads(googlenet_process(*words, "--out", str(tmp_path), "--json").stdout)
    assert found == json.loads((tmp_path / "bench.json").read_text())
    assert found["passed"] is True
    labels = [row["label"] for row in found["rows"]]
    assert labels == ["pt textbook", "pt tuned", "onnx", "openvino", "pt textbook again"]
    for row in found["rows"]:
        assert row["problem"] is None
        assert all(check["passed"] for check in row["proof"])
        assert len(row["samples"]) == 2
        assert row["peak_memory_bytes"] > 10**7


@needs_pt
@pytest.mark.slow
def test_control_c_on_the_command_leaves_no_process_and_writes_what_there_is(tmp_path):
    mark = f"GOOGLENET_TEST_{os.getpid()}"
    words = ["bench", "pt", "--preset", "lenet", "--batch", "2", "--rounds", "100000", "--task", "infer"]
    words, env = command(*words, "--device", "cpu", "--out", str(tmp_path), **{mark: "1"})
    with subprocess.Popen(words, cwd=ROOT, env=env, stdout=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + 120
            while not _marked(mark, "harness.bench.worker") and time.monotonic() < deadline:
                time.sleep(0.1)
            assert _marked(mark, "harness.bench.worker")
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 130
        finally:
            process.kill()  # what does not stop would be waited for
    assert not _marked(mark)
    found = json.loads((tmp_path / "bench.json").read_text())
    assert found["complete"] is False


def _marked(mark: str, what: str = "") -> list[str]:
    """Processes that have the variable in their environment, and those words in their command."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            if mark.encode() in (folder / "environ").read_bytes() and what in command:
                found.append(command)
        except OSError:
            continue  # it has ended meanwhile, or is somebody else's
    return found


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("bench tf", "unknown backend"),
        ("bench pt --batch 0", "--batch: expected whole numbers"),
        ("bench pt --batch 4,4", "--batch: expected whole numbers"),
        ("bench pt --dtype float64", "--dtype: expected some of float32, tf32, bfloat16"),
        ("bench pt --dtype float32,tf32 --device cpu", "dtype tf32: expected an NVIDIA GPU"),
        ("bench pt --threads 100000", "--threads: this process may use"),
        ("bench pt --batch 5000 --size 8", "expected at least 5000 images"),
        ("bench onnx --task train", "nothing to measure"),
        ("bench pt --preset lenet-bn --variant both", "the textbooks' network is preset d2l"),
        ("bench pt --preset torchvision --size 8", "cannot take 8 x 8 pixels"),
        ("profile onnx", "unknown backend"),
        ("profile pt --dtype tf32 --device cpu", "dtype tf32: expected an NVIDIA GPU"),
    ],
)
def test_wrong_usage_is_refused_before_any_work(words, said):
    refusal = CliRunner().invoke(app, words.split()).exception
    assert isinstance(refusal, spec.InvalidInput)
    assert said in str(refusal)


def test_tf32_is_refused_by_every_backend_without_it_before_anything_is_measured(referee, proof):
    given = candidates(["pt", "mx", "jax"], ["textbook", "tuned"], ["infer"], [2], ["float32", "tf32"])
    fakes = Fakes(referee, proof)

    def disturb(operation: str, candidate: Candidate, count: int) -> None:
        if candidate.backend == "jax":
            raise Died("killed")
        if candidate.dtype == "tf32" and candidate.backend == "pt":
            raise spec.InvalidInput("no tf32 here")

    fakes.disturb = disturb
    with pytest.raises(spec.InvalidInput, match=r"^pt: no tf32 here$"):
        check_tf32(given, fakes.start)
    assert [(operation, c.label) for operation, c in fakes.log] == [
        ("begin", "pt tuned"),
        ("begin", "mx tuned"),
        ("begin", "jax tuned"),
    ]
    assert not fakes.alive
    check_tf32([c for c in given if c.dtype == "float32"], fakes.start)
    assert len(fakes.log) == 3


@pytest.mark.parametrize(
    ("words", "option", "choices"),
    [
        ("bench pt --task learn", "--task", ["train", "infer", "both"]),
        ("bench pt --variant fast", "--variant", ["tuned", "textbook", "both", "all"]),
        ("profile pt --dtype float64", "--dtype", ["float32", "tf32", "bfloat16"]),
    ],
)
def test_a_value_that_an_option_does_not_know_is_refused_with_its_choices(words, option, choices):
    refused = CliRunner().invoke(app, words.split())
    assert refused.exit_code == 2
    assert all(word in refused.output for word in (option, *choices))
