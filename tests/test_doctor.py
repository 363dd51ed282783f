"""The doctor's judgement, on answers from machines that this one is not."""

from __future__ import annotations

import pytest

from harness.backend import Description
from harness.doctor import finding
from harness.processes import Answer

HOPPER = {"name": "NVIDIA H100", "compute_capability": "9.0", "driver": "580.1"}
ADA = {"name": "NVIDIA L4", "compute_capability": "8.9", "driver": "580.1"}


def _answer(devices: list[str], capabilities: list[str], busy: int | None = 8) -> Answer:
    facts = Description("X", "1.0", devices[-1], devices, 8, "CUDA 11.7", capabilities)
    return Answer(vars(facts) | {"busy_threads": busy, "processors": 8})


def test_nothing_to_say():
    found = finding("pt", _answer(["cpu"], []), [])
    assert (found["works"], found["problems"]) == (True, [])


@pytest.mark.parametrize(
    ("gpu", "capabilities", "runs"),
    [
        (HOPPER, ["5.0", "6.0", "7.0", "8.0", "8.6"], False),
        (ADA, ["5.0", "6.0", "7.0", "8.0", "8.6"], True),
        (ADA, ["9.0"], False),
        ({**ADA, "compute_capability": "8.0"}, ["8.6"], False),
        (HOPPER, ["7.5", "9.0", "12.0"], True),
        (HOPPER, [], True),  # a framework that does not say
    ],
)
def test_a_wheel_without_machine_code_for_the_gpu(gpu, capabilities, runs):
    problems = finding("mx", _answer(["cpu", "gpu(0)"], capabilities), [gpu])["problems"]
    assert bool(problems) != runs
    if problems:
        assert gpu["name"] in problems[0]
        assert "its machine code is for" in problems[0]
        assert "use --device cpu" in problems[0]


@pytest.mark.parametrize(("backend", "extra"), [("mx", "mx-cuda"), ("pt", "cuda"), ("jax", "cuda")])
def test_a_gpu_that_the_framework_does_not_see(backend, extra):
    problems = finding(backend, _answer(["cpu"], []), [HOPPER])["problems"]
    assert len(problems) == 1
    assert "does not see NVIDIA H100 (compute capability 9.0" in problems[0]
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
def test_what_would_run_on_a_gpu(devices, capabilities, says):
    found = finding("pt", _answer(devices, capabilities), [ADA] * (len(devices) - 1))
    assert says in found["gpu"]


def test_mxnet_says_which_gpus_it_is_for():
    assert (
        "compute capability 5.0 to 8.9, its driver and pip install '.[mx-cuda]'"
        in finding("mx", _answer(["cpu"], []), [])["gpu"]
    )


def test_idle_processors():
    assert finding("mx", _answer(["cpu"], [], busy=None), [])["problems"] == []  # where the system does not tell
    problems = finding("mx", _answer(["cpu"], [], busy=4), [])["problems"]
    assert "computes with 4 threads on 8 processors: check OMP_NUM_THREADS" in problems[0]


def test_what_does_not_run_at_all():
    refused = finding("mx", Answer(refused="not installed: pip install"), [HOPPER])
    assert refused == {"works": False, "problems": ["not installed: pip install"]}
    crashed = finding("mx", Answer(crash="killed by SIGILL"), [])
    assert crashed == {"works": False, "problems": ["the process died: killed by SIGILL"]}
