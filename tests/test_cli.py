"""The command line around the work: what is listed and printed, what is refused, and the exit statuses."""

from __future__ import annotations

import io
import json
import math
import os
import runpy
import sys
from importlib.metadata import version
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import typer
from rich.console import Console
from support import googlenet, weights_of

import spec
from harness.backends.registry import uses_gpu
from harness.cli import options
from harness.cli.main import app, main
from harness.cli.options import chosen_device
from harness.cli.weights import Format
from harness.weights.checkpoint import save
from harness.weights.convert import Verification
from harness.weights.formats import FORMATS
from harness.worker import HANDLERS, Request

VERBS = [command.name or command.callback.__name__ for command in app.registered_commands]


# ------------------------------------------------------------------------------------------------------ wrong usage


SMALL = "compare --preset lenet --backends pt"
REFUSED = {
    "compare --preset vgg": "unknown preset 'vgg': expected one of d2l, d2lzh",
    "compare --backends tf": "unknown backend: expected one or more of pt, mx, jax, got tf",
    "compare --preset lenet --backends pt,pt": "expected each one once",
    "compare --backends ,": "unknown backend: expected one or more of pt, mx, jax, got none",
    "compare --preset torchvision --size 14": "expected a height and a width of 15 or more pixels",
    "compare --preset cnblogs --size 96": "expected a height and a width of 193 to 416 pixels",
    f"{SMALL} --size 0": "it is empty",
    f"{SMALL} --batch 0": "expected at least 1 image",
    f"{SMALL} --data nowhere.png": "there is no nowhere.png",
    f"{SMALL} --data pyproject.toml": "pyproject.toml: expected a picture",
    f"{SMALL} --data fashion-mnist --data-dir tests": "expected a folder with the four files",
    f"{SMALL} --python pt": "--python: expected BACKEND=PATH with one of pt, got 'pt'",
    f"{SMALL} --python mx=/bin/sh": "--python: expected BACKEND=PATH with one of pt, got 'mx=/bin/sh'",
    f"{SMALL} --python pt=/nowhere/python": "'/nowhere/python' is not a program that can be run",
    f"{SMALL} --python pt=tests": "'tests' is not a program that can be run",
    f"{SMALL} --json /nowhere/report.json": "there is no folder /nowhere",
    f"{SMALL} --json tests": "tests: expected the name of a file, and this is a folder",
    f"{SMALL} --json /dev/null": "/dev/null: expected the name of a file, and this is a device",
    f"{SMALL} --json pyproject.toml/a.json": "pyproject.toml/a.json: cannot be written (Not a directory)",
    "sizes lenet --plot a": "a: expected a name that ends in one of ",
    "sizes lenet --plot a.txt": "a.txt: expected a name that ends in one of ",
    "sizes lenet --plot /nowhere/a.png": "/nowhere/a.png: there is no folder /nowhere",
    "bench pt --out pyproject.toml": "pyproject.toml: cannot be written (File exists)",
    "bench pt --markdown tests": "tests: cannot be written (Is a directory)",
    f"{SMALL} --seed -1": "seed: expected a whole number",
    "compare --preset torchvision --size 28 --batch 1 --backends pt": "take a batch of at least 2",
    "spec vgg": "; did you mean vgg11, vgg11-narrow?",
    "spec gogglenet": "; did you mean d2l, d2lzh, d2lzh-misprint, cnblogs, bvlc, torchvision?",
    "spec BVCL": "; did you mean bvlc?",
    "train --recipe fats": "; did you mean fast?",
    "spec bvlc --size 96": "the dense layer aux1.fc1 needs maps of 4 x 4",
    "eval nowhere": "nowhere",
    "runs nowhere": "nowhere: expected a folder of runs",
    "recipes nothing": "nothing",
}


@pytest.mark.parametrize("words", REFUSED)
def test_wrong_usage_is_refused_in_one_clear_error(words):
    done = googlenet(*words.split(), status=2)
    assert REFUSED[words] in done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("compare --sise 28", "No such option"),
        ("compair", "No such command"),
        ("train --steps 0", "Invalid value for '--steps'"),
        ("predict a.png", "Missing option '--weights'"),
        ("convert a.safetensors b.onnx --dtype bfloat16", "'bfloat16' is not one of 'float32', 'float64'"),
        ("convert a.safetensors b.onnx --from caffe", "'caffe' is not one of 'safetensors'"),
        ("convert a.safetensors b.onnx --to caffe", "'caffe' is not one of 'safetensors'"),
        ("inspect a.safetensors --from caffe", "'caffe' is not one of 'safetensors'"),
        (
            "predict a.png --weights a.safetensors --dtype float16",
            "'float16' is not one of 'float32', 'tf32', 'float64'",
        ),
        ("predict a.png --weights a.safetensors --device tpu", "expected auto, cpu, gpu or, of several, gpu:1"),
        (f"{SMALL} --dtype float16", "'float16' is not one of 'float32', 'tf32', 'float64', 'bfloat16'"),
        (f"{SMALL} --device cuda:", "(cuda means gpu), got 'cuda:'"),
        (f"{SMALL} --device cpu:1", "(cuda means gpu), got 'cpu:1'"),
        ("doctor --device tpu", "(cuda means gpu), got 'tpu'"),
        ("eval runs/d2l/pt --part val", "'val' is not one of 'test', 'train'"),
    ],
)
def test_misspelled_command_is_refused(words, message):
    stderr = googlenet(*words.split(), status=2).stderr  # in a frame
    assert message in " ".join(stderr.replace("│", " ").split())


@pytest.mark.parametrize(
    ("device", "visible", "chosen"),
    [("cuda", None, None), ("gpu:3", None, "3"), ("cuda:1", "5,7", "7"), ("gpu:0", "GPU-2a,GPU-7c", "GPU-2a")],
)
def test_one_of_several_gpus_is_the_only_one_that_workers_see(device, visible, chosen, monkeypatch):
    monkeypatch.setattr(os, "environ", {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible})
    assert chosen_device(device) == "gpu"
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == (visible if chosen is None else chosen)


def test_gpu_that_is_not_among_the_visible_ones_is_refused(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    with pytest.raises(typer.BadParameter, match="counts from 0, and CUDA_VISIBLE_DEVICES=5,7 has 2"):
        chosen_device("gpu:2")


def test_gpu_where_there_is_none_is_wrong_usage():
    assert uses_gpu("cuda", True, "X")
    assert not uses_gpu("cpu", True, "X")
    assert not uses_gpu("auto", False, "X")
    with pytest.raises(spec.InvalidInput, match="device gpu: X finds no GPU here"):
        uses_gpu("cuda", False, "X")


def test_doctor_refuses_a_device_that_every_backend_refuses(monkeypatch):
    def refuse(request: Request) -> None:
        raise spec.InvalidInput(f"device {request.task['device']}: there is none")

    monkeypatch.setitem(HANDLERS, "describe", refuse)
    monkeypatch.setattr("harness.worker.load", lambda name: None)
    monkeypatch.setattr("harness.backends.doctor._nvidia_gpus", list)
    assert googlenet("doctor", "--device", "cuda", status=2).stderr.startswith("error: device gpu: there is none\n")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("compare --data ~/a.png", "there is no {home}/a.png"),
        ("train --data folder:~/a", "folder:{home}/a: expected a folder"),
        (f"{SMALL} --python pt=~/python", "'{home}/python' is not a program"),
        ("eval ~", "error: {home}: expected"),
    ],
)
def test_home_is_meant_wherever_a_path_stands(words, named, tmp_path):
    assert named.format(home=tmp_path) in googlenet(*words.split(), status=2, HOME=str(tmp_path)).stderr


def test_the_command_line_knows_every_format_of_weights():
    assert get_args(Format) == tuple(FORMATS)


def test_error_that_is_no_refusal_is_raised_with_its_traceback(monkeypatch):
    """A `ValueError` of somebody else's is a fault of ours, and not the user's."""

    def broken(*_: object) -> None:
        raise ValueError("a fault")

    monkeypatch.setattr("spec.parameter_count", broken)
    with pytest.raises(ValueError, match="a fault"):
        googlenet("presets")


# ------------------------------------------------------------------------------------------------ what is printed


def test_presets_are_listed_with_their_parameters():
    rows = json.loads(googlenet("presets", "--json").stdout)
    assert {row["preset"]: row["parameters"] for row in rows} == {
        "d2l": 5_977_530,
        "d2lzh": 5_977_530,
        "d2lzh-misprint": 5_876_160,
        "cnblogs": 5_977_530,
        "bvlc": 13_378_280,
        "torchvision": 13_004_888,
        "lenet": 44_426,
        "lenet-bn": 44_878,
        "lenet-bn-scratch": 44_878,
        "lenet-bn-frozen": 44_426,
        "alexnet": 46_764_746,
        "vgg11": 128_806_154,
        "vgg11-narrow": 29_815_850,
        "nin": 1_992_166,
        "inception-bn": 11_295_240,
        "inception-bn-mxnet": 11_295_240,
        "inception-v3": 27_161_264,
        "inception-v3-tf": 23_817_352,
        "inception-v3-fid": 23_850_960,
        "inception-v4": 42_679_816,
        "inception-resnet-v2": 55_843_464,
    }
    assert [row["parameters_without_heads"] for row in rows][4:6] == [6_998_552, 6_624_904]
    assert rows[4]["input"] == [3, 224, 224]
    text = googlenet("presets").stdout
    assert all(f"{name}: " in text for name in spec.PRESETS)
    assert "13,378,280 parameters (6,998,552 without auxiliary heads)" in text


def test_network_is_printed_as_table_and_as_json():
    assert "276,066,304" in googlenet("spec", "d2l").stdout
    table = json.loads(googlenet("spec", "bvlc", "--no-aux", "--json").stdout)
    assert (table["parameters"], table["multiply_adds"]) == (6_998_552, 1_582_671_872)
    assert table["minimum_input_size"] == 31
    assert [stage["name"] for stage in table["stages"]] == list(spec.stage_names(spec.preset("bvlc", aux=False)))
    assert table["stages"][7]["branches"] == [64, 96, 128, 16, 32, 32]
    assert all(math.prod(stage["shape"]) > 0 for stage in table["stages"])
    smaller = json.loads(googlenet("spec", "d2l", "--size", "28", "--json").stdout)
    assert (smaller["input"], smaller["stages"][0]["shape"]) == ([1, 28, 28], [64, 14, 14])


def test_spec_prints_the_same_without_the_harness(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["spec", "d2l"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("spec", run_name="__main__")
    assert ended.value.code == 0
    assert capsys.readouterr().out == googlenet("spec", "d2l").stdout


def test_spec_without_the_harness_refuses_in_one_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["spec", "vgg"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("spec", run_name="__main__")
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("error: unknown preset 'vgg'")


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_every_verb_has_an_example(verb):
    text = googlenet(verb, "-h").stdout
    assert "Example" in text
    assert f"googlenet {verb}" in text


def test_version_is_that_of_the_project():
    assert googlenet("--version").stdout == f"googlenet {version('googlenet-three')}\n"


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("no_color", "escapes"), [("", True), ("1", False)])
def test_terminal_without_color_is_as_plain_as_a_pipe(no_color, escapes, monkeypatch):
    out, err = _Terminal(), _Terminal()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr("typer.rich_utils.FORCE_TERMINAL", None)
    for words in (["presets"], ["presets", "--help"], ["presets", "--unknown"]):
        monkeypatch.setattr(sys, "argv", ["googlenet", *words])
        with pytest.raises(SystemExit):
            main()
    assert ("\x1b" in out.getvalue()) == ("\x1b" in err.getvalue()) == escapes


@pytest.mark.parametrize(("terminal", "expected"), [(True, "running [/net].py:make"), (False, "")])
def test_what_takes_long_is_told_on_a_terminal_alone(terminal, expected, monkeypatch):
    notes = Console(file=io.StringIO(), force_terminal=terminal)
    monkeypatch.setattr(options, "notes", notes)
    with options.working("running [/net].py:make"):
        pass
    assert (expected in notes.file.getvalue()) if expected else notes.file.getvalue() == ""


# --------------------------------------------------------------------------------------------------- exit statuses


def _described(busy: int) -> dict:
    facts = {"framework": "X", "version": "1.0", "device": "cpu", "devices": ["cpu"], "threads": busy}
    facts |= {"built_for": "CPU only", "compute_capabilities": [], "problems": []}
    return facts | {"busy_threads": busy, "processors": 2}


@pytest.mark.parametrize(("busy", "status"), [(2, 0), (1, 1)])
def test_doctor_fails_where_it_has_found_a_problem(busy, status, monkeypatch):
    """Whatever the machine is: the backends' answers are given, and so is that there is no GPU."""
    monkeypatch.setitem(HANDLERS, "describe", lambda request: (_described(busy), {}))
    monkeypatch.setattr("harness.worker.load", lambda name: None)
    monkeypatch.setattr("harness.backends.doctor._nvidia_gpus", list)
    findings = json.loads(googlenet("doctor", "--json", status=status).stdout)
    assert set(findings) == {"python", "numpy", "platform", "gpus", "backends"}
    assert list(findings["backends"]) == ["pt", "mx", "jax"]
    text = googlenet("doctor", status=status).stdout
    assert f"pt: X 1.0; cpu; CPU only; {busy} threads reported, {busy} computing, 2 processors" in text
    assert ("check OMP_NUM_THREADS" in text) == bool(status)


def _weights(folder: Path) -> Path:
    weights = weights_of("lenet")
    save(folder / "a.safetensors", weights.params, weights.config, weights.metadata)
    return folder / "a.safetensors"


def _verification(difference: float) -> Verification:
    """What a run of source and result has shown."""
    first = "conv2" if difference else None
    return Verification("A", "B", (2, 1, 28, 28), 1e-12, difference, first, difference)


@pytest.mark.parametrize(("difference", "status"), [(0.0, 0), (0.5, 1)])
def test_conversion_that_does_not_agree_fails(difference, status, tmp_path, monkeypatch):
    monkeypatch.setattr("harness.weights.convert.convert", lambda *_, **__: _verification(difference))
    words = ["convert", str(_weights(tmp_path)), str(tmp_path / "b.onnx")]
    done = googlenet(*words, status=status)
    assert (f"wrote {tmp_path / 'b.onnx'}" in done.stdout) == (status == 0)
    assert ("nothing was written" in done.stdout) == ("first at conv2, by 5.0e-01" in done.stdout) == (status == 1)
    facts = json.loads(googlenet(*words, "--json", status=status).stdout)
    assert facts["target"] == (None if status else str(tmp_path / "b.onnx"))
    assert facts["verification"]["passed"] is not bool(status)


@pytest.mark.parametrize(("number", "status"), [(1.0, 0), (math.nan, 1)])
def test_inspection_fails_where_a_number_is_not_finite(number, status, tmp_path):
    from safetensors.numpy import save_file

    arrays = {**weights_of("lenet").params, "fc5.bias": np.full(10, number, np.float32)}
    save_file(arrays, tmp_path / "a.safetensors")
    found = json.loads(googlenet("inspect", str(tmp_path / "a.safetensors"), "--json", status=status).stdout)
    assert found["sound"] is not bool(status)
    text = googlenet("inspect", str(tmp_path / "a.safetensors"), status=status).stdout
    assert ("10 not finite" in text) == bool(status)
