"""`make gpu` without a GPU: its plan, the way through it while time lasts, what it notes, and the page."""

from __future__ import annotations

import json
import sys
import time
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

import spec
from harness.cli.main import app
from harness.gpu import __main__ as command
from harness.gpu import plan as planned
from harness.gpu import sensors
from harness.gpu.page import page
from harness.gpu.plan import GRACE, LEAST, STATE, Part, go_on, plan, run_part
from harness.gpu.sensors import Reading, Watched, open_gpu, watch

PARTS = [Part(name, name.title(), ()) for name in ("one", "two", "three")]
ABOUT = {"gpu": None, "found": "H100", "code": {"commit": "abc", "dirty": False}, "versions": {"PyTorch": "2.13"}}


class Machine:
    """A clock, and parts that take so long and end so."""

    def __init__(self, seconds: float = 100.0, **ends: int | None) -> None:
        self.time, self.seconds, self.ends, self.ran = 0.0, seconds, ends, []

    def run(self, part, folder, seconds):
        self.ran.append((part.name, seconds))
        self.time += min(self.seconds, seconds)
        return self.ends.get(part.name, 0) if self.seconds <= seconds else None

    def go_on(self, folder, seconds, about=ABOUT):
        return go_on(PARTS, folder, about, seconds, run=self.run, clock=lambda: self.time)


def _states(notes) -> dict[str, str]:
    return {name: part["status"] for name, part in notes["parts"].items()}


# ----------------------------------------------------------------------------------------------------------- the plan


def test_the_most_telling_parts_come_first(tmp_path):
    names = [part.name for part in plan(["pt", "jax"], tmp_path)]
    assert names == ["tests", "compare", "pt-128", "jax-128", "pt-1024", "jax-1024", "pt-1", "jax-1"]


def test_the_benchmark_has_every_dtype_and_variant_of_a_backend(tmp_path):
    parts = {part.name: " ".join(part.command) for part in plan(["pt", "mx"], tmp_path)}
    assert "bench pt --batch 128 --dtype float32,tf32,bfloat16 --variant all --device gpu" in parts["pt-128"]
    assert "bench mx --batch 1 --dtype float32 --variant all" in parts["mx-1"]
    assert "compare --backends pt,mx --device gpu" in parts["compare"]


@pytest.mark.parametrize("name", ["compare", "pt-128", "mx-1"])
def test_commands_take_the_options(name, tmp_path):
    """The last of two values counts: a wrong one, after all the others have been read."""
    (part,) = [part for part in plan(["pt", "mx"], tmp_path) if part.name == name]
    wrong = {"compare": ["--preset", "nothing"]}.get(name, ["--batch", "0"])
    refusal = CliRunner().invoke(app, [*part.command[2:], *wrong]).exception
    assert isinstance(refusal, spec.InvalidInput)
    assert wrong[1] in str(refusal)


# ---------------------------------------------------------------------------------------------------- while time lasts


def test_what_time_does_not_suffice_for_is_done_by_the_next_run(tmp_path):
    first = Machine()
    notes = first.go_on(tmp_path, 250)
    assert first.ran == [("one", 250 - GRACE), ("two", 150 - GRACE), ("three", 50 - GRACE)]
    assert _states(notes) == {"one": "passed", "two": "passed", "three": "unfinished"}
    assert notes["parts"]["one"]["seconds"] == 100
    second = Machine()
    assert _states(second.go_on(tmp_path, 250)) == dict.fromkeys(("one", "two", "three"), "passed")
    assert second.ran == [("three", 250 - GRACE)]
    third = Machine()
    third.go_on(tmp_path, 250)
    assert third.ran == []


def test_no_part_begins_with_hardly_any_time(tmp_path):
    for name in ("less", "enough"):
        (tmp_path / name).mkdir()
    assert _states(Machine().go_on(tmp_path / "less", 100 + LEAST - 1)) == {"one": "passed"}
    assert _states(Machine().go_on(tmp_path / "enough", 100 + LEAST)) == {"one": "passed", "two": "unfinished"}


def test_what_has_failed_is_done_again(tmp_path):
    assert _states(Machine(two=1).go_on(tmp_path, 900))["two"] == "failed"
    again = Machine()
    assert _states(again.go_on(tmp_path, 900))["two"] == "passed"
    assert [name for name, _ in again.ran] == ["two"]


@pytest.mark.parametrize(
    "about",
    [
        ABOUT | {"found": "A100"},
        ABOUT | {"versions": {"PyTorch": "2.14"}},
        ABOUT | {"code": {"commit": "abc", "dirty": True}},
    ],
    ids=["gpu", "versions", "code"],
)
def test_another_machine_and_other_code_begin_anew(about, tmp_path):
    Machine().go_on(tmp_path, 900)
    machine = Machine()
    machine.go_on(tmp_path, 900, about)
    assert len(machine.ran) == 3


@pytest.mark.parametrize("content", ["", "{", "[]", '{"parts": {"one": 1}}', '{"parts": []}'])
def test_damaged_notes_are_begun_anew(content, tmp_path):
    (tmp_path / STATE).write_text(content)
    machine = Machine()
    machine.go_on(tmp_path, 900)
    assert len(machine.ran) == 3
    assert _states(json.loads((tmp_path / STATE).read_text()))["one"] == "passed"


def test_a_part_runs_with_its_output_in_a_file(tmp_path):
    code = "import os, sys; print(os.environ['GIVEN']); sys.exit(3)"
    part = Part("part", "Part", ("-c", code), {"GIVEN": "this"})
    (tmp_path / "part.md").write_text("an earlier run's tables")
    assert run_part(part, tmp_path, 60) == 3
    assert (tmp_path / "part.txt").read_text() == "this\n"
    assert not (tmp_path / "part.md").exists()


@pytest.mark.parametrize(
    ("ending", "said"), [("print('kept')", "begun\nkept\n"), ("time.sleep(60)", "begun\n")], ids=["keeps", "hangs"]
)
def test_a_part_that_takes_too_long_is_told_to_stop(ending, said, tmp_path, monkeypatch):
    monkeypatch.setattr(planned, "GRACE", 0.5)
    code = (
        "import sys, time, signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"try:\n    print('begun', flush=True)\n    time.sleep(60)\nexcept KeyboardInterrupt:\n    {ending}"
    )
    begun = time.monotonic()
    assert run_part(Part("part", "Part", ("-c", code)), tmp_path, 0.5) is None
    assert (tmp_path / "part.txt").read_text() == said
    assert time.monotonic() - begun < 30


# ------------------------------------------------------------------------------------------------------------ sensors

READING = Reading(clock=1980, power=400.0, temperature=55, reasons=0x1)  # idle is no slowdown


def test_readings_are_summed_up():
    watched = Watched([READING, Reading(1700, 600.0, 61, 0x4), Reading(1755, 500.0, 60, 0x44)])
    assert watched.as_json() == {
        "readings": 3,
        "clock_mhz": {"min": 1700, "median": 1755, "max": 1980},
        "power_watts": 500.0,
        "temperature_celsius": 61,
        "slowed_by": ["the power limit", "heat (by hardware)"],
    }
    assert Watched().as_json() is None


def test_a_gpu_is_read_as_long_as_it_is_watched(monkeypatch):
    monkeypatch.setattr(sensors, "EVERY", 0.001)
    answers = iter([READING, OSError(), READING])

    def read():
        answer = next(answers, READING)
        if isinstance(answer, OSError):
            raise answer
        return answer

    with watch(read) as watched:
        while len(watched.readings) < 4:
            time.sleep(0.001)
    count = len(watched.readings)
    time.sleep(0.01)
    assert len(watched.readings) == count
    with watch(None) as nothing:
        pass
    assert nothing.as_json() is None


class Nvml(SimpleNamespace):
    """The part of nvidia-ml-py that is used."""

    NVMLError, NVML_CLOCK_SM, NVML_TEMPERATURE_GPU = ValueError, 1, 0

    def nvmlInit(self) -> None: ...
    def nvmlDeviceGetHandleByIndex(self, index):
        return f"number {index}"

    def nvmlDeviceGetHandleByUUID(self, name):
        return name

    def nvmlDeviceGetName(self, handle):
        return handle

    def nvmlDeviceGetMemoryInfo(self, handle):
        return SimpleNamespace(total=80 * 2**30)

    def nvmlDeviceGetEnforcedPowerLimit(self, handle):
        return 700_000

    def nvmlDeviceGetMaxClockInfo(self, handle, kind):
        return 1980

    def nvmlDeviceGetClockInfo(self, handle, kind):
        return 1900

    def nvmlDeviceGetPowerUsage(self, handle):
        return 123_000

    def nvmlDeviceGetTemperature(self, handle, kind):
        return 40

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle):
        return 0x4


@pytest.mark.parametrize(
    ("visible", "handle"), [(None, "number 0"), ("2,3", "number 2"), ("GPU-1f", "GPU-1f")], ids=["all", "2", "uuid"]
)
def test_the_gpu_that_is_visible_is_read(visible, handle, monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", Nvml())
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    about, read = open_gpu()
    assert about == {
        "name": handle,
        "memory_bytes": 80 * 2**30,
        "power_limit_watts": 700.0,
        "clock_limit_mhz": 1980,
    }
    assert read() == Reading(1900, 123.0, 40, 0x4)


def test_without_the_library_or_a_driver_nothing_is_read(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert open_gpu() is None

    def no_driver():
        raise ValueError("driver not loaded")

    monkeypatch.setitem(sys.modules, "pynvml", Nvml(nvmlInit=no_driver))
    assert open_gpu() is None


# ----------------------------------------------------------------------------------------------- the page, the command


def test_the_page_says_what_came_of_each_part(tmp_path):
    (tmp_path / "one.txt").write_text("26 passed in 92 s\n")
    (tmp_path / "two.md").write_text("# Benchmarks\n\nLegend\n\n## Training\n\n| pt |\n\n## Inference\n\n| pt |\n")
    notes = {"parts": {}, **ABOUT, "gpu": None}
    ended = {"status": "passed", "seconds": 92.0, "gpu": Watched([READING]).as_json()}
    notes["parts"] = {"one": ended, "two": ended | {"status": "unfinished", "gpu": None}}
    text = page(notes, PARTS, tmp_path)
    assert "## One\n\nPassed after 92 s. Clock 1,980 MHz (1,980 to 1,980), 400 W in the mean, 55 °C at most" in text
    assert "slowed down by nothing." in text
    assert "```text\n26 passed in 92 s\n```" in text
    assert "## Two\n\nUnfinished after 92 s. Clocks and power: not read" in text
    assert "### Training\n\n| pt |\n\n### Inference" in text
    assert "Legend" not in text
    assert "## Three\n\nNot reached: `make gpu` again goes on here." in text


def _finding(devices, problems=()):
    return {"works": True, "devices": devices, "problems": list(problems), "framework": "PyTorch", "version": "2.13.0"}


def _command(tmp_path, monkeypatch, backends, status) -> tuple[int, list]:
    ran = []
    h100 = {"name": "NVIDIA H100", "compute_capability": "9.0", "driver": "580.1"}
    findings = {"backends": backends, "numpy": "2.5", "python": "3.12", "gpus": [h100]}
    monkeypatch.setattr(command, "examine", lambda device: findings)
    monkeypatch.setattr(command, "open_gpu", lambda: None)

    def run(part, folder, seconds):
        ran.append(part.name)
        (folder / f"{part.name}.txt").write_text("said\n")
        return status

    monkeypatch.setattr(command, "go_on", lambda *given, **options: go_on(*given, **options, run=run))
    words = ["--out", str(tmp_path / "out"), "--markdown", str(tmp_path / "page.md"), "--json"]
    return command.main(words), ran


@pytest.mark.parametrize(("status", "expected"), [(0, 0), (1, 1), (None, 0)])
def test_the_command_measures_what_finds_a_gpu_and_writes_a_page(status, expected, tmp_path, monkeypatch, capsys):
    backends = {
        "pt": _finding(["cpu", "NVIDIA H100"]),
        "mx": _finding(["cpu", "gpu(0)"], ["cannot run on NVIDIA H100: its machine code is for 8.6"]),
        "jax": {"works": False, "problems": ["not installed"]},
    }
    code, ran = _command(tmp_path, monkeypatch, backends, status)
    assert code == expected
    assert ran == ["tests", "compare", "pt-128", "pt-1024", "pt-1"]
    said = capsys.readouterr()
    assert json.loads(said.out)["versions"] == {"PyTorch": "2.13.0", "NumPy": "2.5", "Python": "3.12"}
    assert "| GPU | NVIDIA H100, compute capability 9.0, driver 580.1 |" in (tmp_path / "page.md").read_text()
    assert ("run it again to go on" in said.err) == (status is None)


def test_without_a_gpu_the_command_is_refused(tmp_path, monkeypatch, capsys):
    assert _command(tmp_path, monkeypatch, {"pt": _finding(["cpu"])}, 0) == (2, [])
    assert "no backend finds a GPU" in capsys.readouterr().err
    assert not (tmp_path / "page.md").exists()
