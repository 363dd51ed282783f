"""The doctor: what it says of this machine, and of machines that this one is not."""

from __future__ import annotations

import json
import subprocess

import pytest
from support import TESTED, googlenet_process

from harness.backends import doctor
from harness.backends.doctor import finding
from harness.backends.process import Answer
from harness.backends.registry import BACKENDS, Description

HOPPER = {"name": "NVIDIA H100", "compute_capability": "9.0", "driver": "580.1"}
ADA = {"name": "NVIDIA L4", "compute_capability": "8.9", "driver": "580.1"}


def _answer(devices: list[str], capabilities: list[str], busy: int | None = 8) -> Answer:
    facts = Description("X", "1.0", devices[-1], devices, 8, "CUDA 11.7", capabilities)
    return Answer(vars(facts) | {"busy_threads": busy, "processors": 8})


@pytest.mark.slow
def test_doctor_says_what_works_on_this_machine():
    findings = json.loads(googlenet_process("doctor", "--json", OMP_NUM_THREADS="").stdout)
    assert set(findings) == {"python", "numpy", "platform", "gpus", "backends"}
    assert list(findings["backends"]) == list(BACKENDS)
    for name in TESTED:
        found = findings["backends"][name]
        assert found["works"]
        assert abs(found["busy_threads"] - found["processors"]) <= 1  # one off where other tests compute beside it


def test_every_backend_is_asked_about_the_device(monkeypatch):
    asked = []

    def answer(name: str, task: dict, arrays: dict) -> Answer:
        asked.append((name, task))
        return _answer(["cpu"], [])

    monkeypatch.setattr(doctor, "run_worker", answer)
    monkeypatch.setattr(doctor, "_nvidia_gpus", lambda: [HOPPER])
    done: list[str] = []
    findings = doctor.examine("gpu", done.append)
    assert asked == [(name, {"kind": "describe", "device": "gpu"}) for name in BACKENDS]
    assert done == list(findings["backends"]) == list(BACKENDS)
    assert findings["gpus"] == [HOPPER]
    assert all("does not see NVIDIA H100" in found["problems"][0] for found in findings["backends"].values())


def test_backend_without_a_problem_works():
    found = finding("pt", _answer(["cpu"], []), [])
    assert (found["works"], found["problems"]) == (True, [])


def test_problems_that_the_backend_names_come_first():
    answer = _answer(["cpu"], [], busy=4)
    answer.facts["problems"] = ["no CUDA"]
    problems = finding("pt", answer, [HOPPER])["problems"]
    assert [problem.split()[0] for problem in problems] == ["no", "computes", "does"]


@pytest.mark.parametrize(
    ("gpu", "capabilities", "runs"),
    [
        (HOPPER, ["5.0", "6.0", "7.0", "8.0", "8.6"], False),
        (ADA, ["5.0", "6.0", "7.0", "8.0", "8.6"], True),
        (ADA, ["9.0"], False),
        ({**ADA, "compute_capability": "8.0"}, ["8.6"], False),
        (HOPPER, ["7.5", "9.0", "12.0"], True),
        ({**HOPPER, "compute_capability": "12.0"}, ["9.0", "12.0"], True),
        (HOPPER, [], True),  # a framework that does not say
    ],
)
def test_machine_code_runs_on_gpus_of_its_major_number_from_its_minor_one_on(gpu, capabilities, runs):
    found = finding("mx", _answer(["cpu", "gpu(0)"], capabilities), [gpu])
    assert bool(found["problems"]) != runs
    assert found["gpu"].startswith("nothing runs on a GPU here") != runs
    if not runs:
        assert gpu["name"] in found["problems"][0]
        assert f"its machine code is for {', '.join(capabilities)}; use --device cpu" in found["problems"][0]
        assert "github.com/smolix/mxnet and which was not tried here" in found["problems"][0]


def test_remedy_for_missing_machine_code_is_another_build_where_there_is_one():
    found = finding("pt", _answer(["cpu", "gpu"], ["8.0"]), [HOPPER])
    assert found["problems"][0].endswith("; install a build of X for it")


@pytest.mark.parametrize(("backend", "extra"), [("mx", "mx-cuda"), ("pt", "cuda"), ("jax", "cuda")])
def test_gpu_that_the_framework_does_not_see_is_named_with_the_remedy(backend, extra):
    problems = finding(backend, _answer(["cpu"], []), [HOPPER])["problems"]
    assert len(problems) == 1
    assert "does not see NVIDIA H100 (compute capability 9.0, driver 580.1)" in problems[0]
    assert f"pip install '.[{extra}]'" in problems[0]


@pytest.mark.parametrize(
    ("devices", "capabilities", "says"),
    [
        (["cpu"], [], "tests marked gpu are skipped; with one"),
        (["cpu", "NVIDIA L4"], ["8.9"], "run with --device gpu; pytest"),
        (["cpu", "NVIDIA L4", "NVIDIA L4"], ["8.9"], "train --devices up to 2"),
        (["cpu", "NVIDIA L4"], ["9.0"], "tests marked gpu are skipped; with one"),
    ],
)
def test_outlook_counts_the_gpus_that_can_be_used(devices, capabilities, says):
    found = finding("pt", _answer(devices, capabilities), [ADA] * (len(devices) - 1))
    assert says in found["gpu"]


def test_outlook_of_mxnet_names_the_gpus_that_it_was_built_for():
    assert (
        "compute capability 5.0 to 8.9, its driver and pip install '.[mx-cuda]'"
        in finding("mx", _answer(["cpu"], []), [])["gpu"]
    )


def test_idle_processors_are_a_problem():
    assert finding("mx", _answer(["cpu"], [], busy=None), [])["problems"] == []  # where the system does not tell
    problems = finding("mx", _answer(["cpu"], [], busy=4), [])["problems"]
    assert "computes with 4 threads on 8 processors: check OMP_NUM_THREADS" in problems[0]


def test_backend_that_refuses_or_dies_does_not_work():
    refused = finding("mx", Answer(refused="not installed: pip install"), [HOPPER])
    assert refused == {"works": False, "problems": ["not installed: pip install"]}
    crashed = finding("mx", Answer(crash="killed by SIGILL"), [])
    assert crashed == {"works": False, "problems": ["the process died: killed by SIGILL"]}


def test_gpus_are_read_from_the_list_of_nvidias_own_tool(monkeypatch):
    listed = "NVIDIA H100, 9.0, 580.1\nNVIDIA L4, 8.9, 580.1\n"
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 0, listed, ""))
    assert doctor._nvidia_gpus() == [HOPPER, ADA]


@pytest.mark.parametrize(
    "error", [FileNotFoundError(), subprocess.TimeoutExpired("nvidia-smi", 20), subprocess.CalledProcessError(9, "")]
)
def test_without_nvidias_tool_there_are_no_gpus(error, monkeypatch):
    def fails(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(subprocess, "run", fails)
    assert doctor._nvidia_gpus() == []
