"""One task in a process of its own: what it is handed, what comes back, and what is said where it refuses or dies."""

from __future__ import annotations

import dataclasses
import errno
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from threading import Timer
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console
from support import FIRST, ROOT, googlenet, interpreter_without, loaded

import spec
from harness import worker
from harness.agreement import probe_params
from harness.backends import messages, threads
from harness.backends.process import Answer, last_words, run_worker, worker_environment
from harness.backends.threads import busy_threads
from harness.compare import comparison
from harness.compare.comparison import OPTIMIZER
from harness.images.sources import Batch
from harness.training.display import Screen
from harness.training.train import Part
from harness.weights.checkpoint import config_table
from harness.worker import HANDLERS, handle, probe
from spec import reference

LENET = spec.preset("lenet")


# --------------------------------------------------------------------------------------------------------- the tasks


def test_task_of_an_unknown_kind_is_refused_and_the_known_ones_are_named():
    with pytest.raises(spec.InvalidInput, match=r"expected a kind of activations, .*probe, .*write, got 'prob'"):
        handle(FIRST, {"kind": "prob"}, {})
    with pytest.raises(spec.InvalidInput, match="got None"):
        handle(FIRST, {}, {})


@pytest.mark.parametrize("kind", HANDLERS)
def test_task_goes_to_the_handler_of_its_kind(kind, monkeypatch):
    monkeypatch.setattr(worker, "load", lambda name: f"package of {name}")
    monkeypatch.setitem(HANDLERS, kind, lambda request: (dataclasses.asdict(request), {}))
    arrays = {"a": np.zeros(1)}
    request, _ = handle("mx", {"kind": kind}, arrays, print, bool)
    assert (request["backend"], request["package"], request["task"]) == ("mx", "package of mx", {"kind": kind})
    assert (list(request["arrays"]), request["tell"], request["stopped"]) == (["a"], print, bool)


def test_images_are_predicted_in_batches_and_stay_in_order(first):
    """More than two batches, the last of them smaller."""
    params = probe_params(LENET, 3)
    images = np.random.default_rng(0).random((70, 1, 28, 28))
    task = {"kind": "predict", "config": config_table(LENET), "dtype": "float64", "device": "cpu"}
    facts, found = handle(FIRST, task, {**params, "images": images})
    assert facts == {}
    expected = reference.activations(LENET, params, images)["fc5"]
    np.testing.assert_allclose(found["logits"], expected, rtol=1e-12, atol=1e-14)


def test_probe_answers_with_everything_that_is_compared(first):
    config = spec.preset("lenet-bn")
    params = probe_params(config, 3)
    images, labels = np.random.default_rng(0).random((3, 1, 28, 28)), np.array([3, 1, 4])
    model = loaded(first, config, params)
    facts, arrays = probe(first, model, images, labels, OPTIMIZER)
    assert facts["parameters"] == spec.parameter_count(config) < sum(x.size for x in params.values())
    assert facts["stages"] == list(spec.stage_names(config))
    learned = [name for name in params if not spec.is_statistic(name)]
    assert set(arrays) == {
        "logits",
        *(f"stage/{name}" for name in spec.stage_names(config)),
        *(f"gradient/{name}" for name in learned),
        *(f"step/{name}" for name in params),
    }
    # One step, made after everything else was asked.
    step = {**params, **OPTIMIZER.update(params, {name: arrays[f"gradient/{name}"] for name in learned}, {})}
    for name in learned:
        np.testing.assert_allclose(arrays[f"step/{name}"], step[name], rtol=1e-12, err_msg=name)
    np.testing.assert_allclose(arrays["logits"], arrays["stage/fc5"], rtol=1e-12)


@pytest.mark.parametrize(
    ("ticks", "expected"),
    [
        ({"1": 50, "2": 48, "3": 2}, 2),  # the third has only woken up
        ({"1": 110, "2": 40, "3": 0}, 1),  # most of which was before
        ({}, None),  # where the system does not tell
        ({"1": 10, "2": 20, "3": 0}, None),  # too short to be counted
    ],
)
def test_threads_count_as_busy_that_did_a_good_part_of_what_the_busiest_did(ticks, expected, monkeypatch):
    before = {"1": 10, "2": 20} if ticks else {}
    monkeypatch.setattr(threads, "ticks_by_thread", lambda: ticks)
    assert busy_threads(before) == expected


# --------------------------------------------------------------------------------------------------------- processes


@pytest.fixture
def program(tmp_path):
    """Writes a program that stands in for an interpreter; the task's folder is its last argument, `$5`."""

    def write(body: str) -> str:
        path = tmp_path / "program"
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)
        return str(path)

    return write


def _answer(folder: Path, facts: dict, **arrays: np.ndarray) -> str:
    """The shell's command that leaves an answer in the task's folder."""
    (folder / "answer.json").write_text(messages.written(facts))
    np.savez(folder / "answer.npz", **arrays)
    return f'cp {folder}/answer.json {folder}/answer.npz "$5"'


TASK = {"kind": "probe", "numbers": [1, 2.5]}


def test_worker_is_handed_the_task_and_its_answer_comes_back(program, tmp_path):
    python = program(
        f'echo "$@" > {tmp_path}/words; cp "$5"/task.* {tmp_path}\n' + _answer(tmp_path, {"loss": 0.5}, x=np.arange(3))
    )
    answer = run_worker("mx", TASK, {"a/b": np.array([1.5]), "images": np.zeros((2, 1))}, python)
    words = (tmp_path / "words").read_text().split()
    assert words[:-1] == ["-P", "-m", "harness.worker", "mx"]
    assert not Path(words[-1]).exists()  # nothing is left behind
    assert json.loads((tmp_path / "task.json").read_text()) == TASK
    with np.load(tmp_path / "task.npz") as given:
        assert {name: x.tolist() for name, x in given.items()} == {"a/b": [1.5], "images": [[0], [0]]}
    assert (answer.facts, answer.refused, answer.crash) == ({"loss": 0.5}, None, None)
    assert {name: x.tolist() for name, x in answer.arrays.items()} == {"x": [0, 1, 2]}


def test_messages_on_the_way_are_handed_over_as_they_come(program, tmp_path):
    """And nothing else is that comes out of an interpreter."""
    lines = [
        messages.written({"step": 1}),
        "Welcome!",
        "{}",
        "[1]",
        '{"code": "/another", "step": 7}',
        "\\0377",
        "[" * 5000,
    ]
    lines.append(messages.written({"step": 2}))
    python = program("".join(f"echo '{line}'\n" for line in lines) + _answer(tmp_path, {}))
    heard = []
    assert run_worker("pt", TASK, {}, python, heard.append) == Answer()
    assert heard == [{"step": 1}, {"step": 2}]


@pytest.mark.parametrize("listen", [None, print])
@pytest.mark.parametrize(
    ("body", "crash"),
    [
        ("echo it hurts >&2; kill -SEGV $$", "killed by SIGSEGV\nit hurts"),
        ("echo one >&2; echo two >&2; exit 3", "exit status 3\none\ntwo"),
        ("echo no such option; exit 2", "exit status 2\nno such option"),
        ("{answer}; exit 1", "exit status 1"),  # an answer that came too early is none
    ],
)
def test_process_that_dies_is_a_crash_with_its_last_words(body, crash, listen, program, tmp_path):
    answer = run_worker("pt", TASK, {}, program(body.format(answer=_answer(tmp_path, {}))), listen)
    assert (answer.crash, answer.refused, answer.facts, answer.arrays) == (crash, None, {}, {})


@pytest.mark.parametrize("listen", [None, print])
@pytest.mark.parametrize(
    ("body", "got"),
    [
        ("exit 0", "got none;"),
        ("echo Welcome", "got Welcome;"),
        ("{answer}; echo '{{}}' > \"$5\"/answer.json", "got {};"),
        ("{answer}; echo '{{' > \"$5\"/answer.json", "got {;"),
        ('{answer}; echo 0 > "$5"/answer.npz', "got {"),
        ('{answer}; head -c 60 "$5"/task.npz > "$5"/answer.npz', "got {"),
        ('{answer}; : > "$5"/answer.npz', "got {"),
        ('{answer}; sed -i s.code.version. "$5"/answer.json', 'got {"version": '),
    ],
)
def test_program_that_is_no_worker_of_this_code_is_refused(body, got, listen, program, tmp_path):
    python = program(body.format(answer=_answer(tmp_path, {})))
    answer = run_worker("pt", TASK, {"a": np.zeros(9)}, python, listen)
    assert (answer.crash, answer.facts, answer.arrays) == (None, {}, {})
    assert answer.refused.startswith(f"{python}: expected an answer of the code in {ROOT}, got ")
    assert got in answer.refused


def test_last_words_are_the_last_twelve_lines():
    said = "".join(f"line {i}\n" for i in range(20))
    done = subprocess.CompletedProcess([], 1, "", said + "\n")
    assert last_words(done).splitlines() == ["exit status 1", *(f"line {i}" for i in range(8, 20))]
    killed = subprocess.CompletedProcess([], -signal.SIGKILL, "", "")
    assert last_words(killed).startswith("killed by SIGKILL, as the system does when memory runs out: a smaller batch")


def test_refusal_comes_back_in_the_workers_own_words(program, tmp_path):
    refusing = program(_answer(tmp_path, {"refused": "no such size", "missing": False}))
    assert run_worker("pt", TASK, {}, refusing) == Answer(refused="no such size")
    missing = program(_answer(tmp_path, {"refused": "not installed", "missing": True}))
    assert run_worker("pt", TASK, {}, missing) == Answer(refused="not installed", missing=True)


def test_interpreter_that_cannot_be_started_is_refused(tmp_path):
    (tmp_path / "python").write_text("no program")
    with pytest.raises(spec.InvalidInput, match=r"--python mx=.*/python: cannot be started \(Permission denied\)"):
        run_worker("mx", TASK, {}, str(tmp_path / "python"))


def _full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_full_folder_for_temporary_files_is_refused(program, monkeypatch):
    monkeypatch.setattr(np, "savez", _full)
    with pytest.raises(spec.InvalidInput, match=r"temporary files .*No space left on device\); make room .* TMPDIR"):
        run_worker("pt", TASK, {}, program("exit 0"))


def test_arrays_that_the_disk_cannot_hold_are_not_begun(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=79))
    with pytest.raises(spec.InvalidInput, match=r"No space left on device: '.*/x.npz'"):
        messages.write_arrays(tmp_path / "x.npz", {"a": np.zeros(4), "b": np.zeros(6)})
    assert list(tmp_path.iterdir()) == []


def test_worker_without_room_for_its_answer_says_so_in_a_line(tmp_path, monkeypatch):
    (tmp_path / "task.json").write_text('{"kind": "probe"}')
    np.savez(tmp_path / "task.npz")
    monkeypatch.setattr(np, "savez", _full)
    monkeypatch.setattr(worker, "_teller", lambda stopped: print)
    monkeypatch.setattr(messages, "watch_lifeline", lambda gone: None)
    monkeypatch.setattr(worker, "load", lambda name: None)
    monkeypatch.setitem(HANDLERS, "probe", lambda request: ({}, {}))
    with pytest.raises(SystemExit, match=r"temporary files cannot be written .*No space left on device"):
        worker.main("pt", tmp_path)


# --------------------------------------------------------------------------------------- one of the two is gone


def test_process_notices_that_its_lifeline_is_cut():
    """It is not cut by what is said elsewhere, nor where there is none."""
    code = (
        "import os, sys, time; from harness.backends import messages; messages.watch_lifeline(lambda: os._exit(7))\n"
        "print(flush=True); time.sleep(float(sys.argv[1]))"
    )
    words = [sys.executable, "-c", code]
    with messages.lifeline() as line:
        watching = subprocess.Popen([*words, "20"], cwd=ROOT, stdin=line, stdout=subprocess.PIPE)
        watching.stdout.readline()
        assert watching.poll() is None
    with watching:
        assert watching.wait(15) == 7
    assert (
        subprocess.run([*words, "0.1"], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL).returncode == 0
    )


def test_training_whose_command_is_gone_has_time_to_save(monkeypatch):
    done = []
    stopped = threading.Event()
    monkeypatch.setattr(worker.time, "sleep", lambda seconds: done.append((seconds, stopped.is_set())))
    monkeypatch.setattr(worker.os, "_exit", done.append)
    worker._end(stopped, 60.0)
    assert done == [(60.0, True), 1]


def test_comparison_that_is_interrupted_ends_its_workers(program, tmp_path, monkeypatch):
    """Their standard input ends then; one that waits for a processor is not started."""
    python = program(f"echo $4 >> {tmp_path}/started; exec timeout 30 cat")

    def interrupted(*_: object) -> None:
        while not (tmp_path / "started").exists():
            time.sleep(0.01)
        raise KeyboardInterrupt

    monkeypatch.setattr(comparison, "expect", interrupted)
    monkeypatch.setattr(comparison, "processors", lambda: 1)
    batch = Batch(np.zeros((2, 1, 28, 28)), np.zeros(2, np.int64), "zeros")
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        comparison.compare(
            spec.preset("lenet"),
            batch,
            backends=["pt", "mx"],
            dtype="float64",
            device="cpu",
            seed=0,
            pythons={"pt": python, "mx": python},
        )
    assert time.monotonic() - begun < 20
    assert (tmp_path / "started").read_text() == "pt\n"


def test_training_that_has_not_begun_is_interrupted_at_once(program):
    """From its first message on a signal is the worker's (`tests/test_parallel.py`)."""
    wait = program("echo Welcome; exec sleep 30")
    Timer(0.5, os.kill, [os.getpid(), signal.SIGINT]).start()
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_worker("pt", {"kind": "train"}, {}, wait, print)
    assert time.monotonic() - begun < 20


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_a_command_in_order_with_a_word(number, tmp_path, monkeypatch):
    monkeypatch.setattr("support.here", lambda *_, **__: os.kill(os.getpid(), number))
    words = ["train", FIRST, "--recipe", "lenet-bn", "--run", str(tmp_path / "run")]
    done = googlenet(*words, status=128 + number, XDG_CACHE_HOME=str(tmp_path))
    assert done.stderr.endswith("interrupted\n")
    assert not (tmp_path / "run").exists()  # nothing was trained: the name can be taken again


def test_refusal_in_training_gives_the_terminal_back():
    console = Console(file=io.StringIO(), force_terminal=True)
    part = Part("pt", Path("run"), SimpleNamespace(steps=3))
    with suppress(spec.InvalidInput), Screen(console) as screen:
        screen.begin(part)
        raise spec.InvalidInput("no")
    hidden, shown = (console.file.getvalue().count(f"\x1b[?25{end}") for end in "lh")
    assert hidden == shown == 1


def test_worker_sees_our_packages_and_nothing_else_of_this_environment(program, tmp_path):
    body = f'echo "$PYTHONPATH" > {tmp_path}/path; ls "$PYTHONPATH" > {tmp_path}/packages'
    run_worker("pt", TASK, {}, program(body))
    assert str(ROOT) not in (tmp_path / "path").read_text()
    packages = (tmp_path / "packages").read_text().split()
    assert packages == sorted(["googlenet_jax", "googlenet_mx", "googlenet_pt", "harness", "spec"])


def test_worker_is_kept_from_rounding_float32_whatever_the_user_has_set(tmp_path, monkeypatch):
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")
    monkeypatch.setenv("JAX_DEFAULT_MATMUL_PRECISION", "tensorfloat32")
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    monkeypatch.setenv("OURS", "kept")
    environment = worker_environment(tmp_path)
    assert environment["NVIDIA_TF32_OVERRIDE"] == "0"
    assert environment["JAX_DEFAULT_MATMUL_PRECISION"] == "highest"
    assert environment["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"
    assert (environment["OMP_WAIT_POLICY"], environment["OURS"]) == ("ACTIVE", "kept")  # these are the user's
    monkeypatch.delenv("OMP_WAIT_POLICY")
    (tmp_path / "other").mkdir()
    assert worker_environment(tmp_path / "other")["OMP_WAIT_POLICY"] == "PASSIVE"


def test_real_worker_refuses_what_it_does_not_know():
    answer = run_worker(FIRST, {"kind": "prob"}, {})
    assert answer.refused.startswith("a worker's task: expected a kind of activations, ")
    assert answer.missing is False


def test_real_worker_says_that_its_framework_is_missing(tmp_path):
    framework = {"pt": "torch", "mx": "mxnet", "jax": "jax"}[FIRST]
    answer = run_worker(FIRST, {"kind": "describe", "device": "cpu"}, {}, str(interpreter_without(framework, tmp_path)))
    assert answer.missing is True
    assert answer.refused == (f"backend {FIRST} is not installed (no module {framework!r}): pip install '.[{FIRST}]'")
