"""The command line, run as a user runs it: in processes, with exit codes and output looked at."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support import DATA, TESTED

import spec
from harness.backend import load
from harness.compare import expect, judge_forward, probe_params
from spec.checkpoint import save
from spec.tolerances import of_onnx

ROOT = Path(__file__).parent.parent
FIRST = TESTED[0]


def googlenet(*arguments: str, status: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command; XLA at its default level, as users have it."""
    env = {name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS", "GOOGLENET_DATA")}
    command = [sys.executable, "-m", "harness.cli", *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, env={**env, "COLUMNS": "100"} | environment
    )
    assert done.returncode == status, done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    return done


def compare_small(*arguments: str, status: int = 0, backend: str = FIRST) -> subprocess.CompletedProcess[str]:
    return googlenet("compare", "--backends", backend, "--size", "28", "--batch", "2", *arguments, status=status)


def test_compare_with_all_defaults(tmp_path):
    """The main job. Its JSON is the documented one, and everything is far inside the bounds."""
    file = tmp_path / "report.json"
    done = googlenet("compare", "--backends", ",".join(TESTED), "--json", str(file))
    assert "PASS" in done.stdout
    assert all(stage in done.stdout for stage in spec.stage_names(spec.preset("d2l")))

    report = json.loads(file.read_text())
    assert set(report) == {"preset", "input", "dtype", "seed", "weights", "tolerances", "backends", "passed"}
    assert (report["preset"], report["dtype"], report["seed"], report["passed"]) == ("d2l", "float64", 0, True)
    assert report["input"] == {"source": "scikit-learn's handwritten digits", "shape": [4, 1, 96, 96]}
    assert list(report["backends"]) == list(TESTED)
    shapes = spec.stage_shapes(spec.preset("d2l"), (1, 96, 96))
    for backend in report["backends"].values():
        assert backend["passed"] is True
        assert backend["parameters"] == 5_977_530
        assert {stage["name"]: tuple(stage["shape"]) for stage in backend["stages"]} == {
            name: (4, *shape) for name, shape in shapes.items()
        }
        assert max(stage["error"] for stage in backend["stages"]) < 1e-14
        assert backend["logits_error"] < 1e-14
        assert backend["loss_error"] < 1e-14
        assert backend["gradient_error"] < 1e-13
        assert backend["step_error"] < 1e-14
        assert backend["worst_gradient"] in spec.param_shapes(spec.preset("d2l"))
        assert backend["version"]


@pytest.mark.slow
@pytest.mark.skipif("jax" not in TESTED, reason="JAX is not tested")
@pytest.mark.parametrize("words", ["torchvision --size 96 --batch 4", "bvlc --no-aux --size 64 --batch 2"])
def test_jax_by_the_emitters_that_users_have(words):
    """What the other tests of JAX have compiled by the older ones, here with what `d2l` above has nothing of."""
    flags = "--xla_backend_optimization_level=1 --xla_backend_extra_options=xla_cpu_optimize_for_size=1"
    googlenet("compare", "--backends", "jax", "--preset", *words.split(), XLA_FLAGS=flags)


def test_json_on_stdout_is_nothing_but_json():
    done = compare_small("--json", "-")
    assert json.loads(done.stdout)["passed"] is True
    assert "PASS" in done.stderr


def test_compare_in_float32():
    report = json.loads(compare_small("--dtype", "float32", "--json", "-").stdout)
    assert report["dtype"] == "float32"
    assert 1e-9 < report["backends"][FIRST]["logits_error"] < 5e-6


def test_compare_on_the_users_own_pictures(tmp_path):
    for i in range(3):
        pixels = np.random.default_rng(i).integers(0, 255, (40, 50, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    files = [str(tmp_path / f"{i}.png") for i in range(3)]
    arguments = ["compare", "--backends", FIRST, "--size", "28", "--json", "-", "--data"]
    assert json.loads(googlenet(*arguments, *files).stdout)["input"]["shape"] == [3, 1, 28, 28]
    folder = json.loads(googlenet(*arguments, str(tmp_path)).stdout)
    assert folder["input"] == {"source": f"pictures in {tmp_path}", "shape": [3, 1, 28, 28]}


@pytest.mark.skipif(DATA is None, reason="GOOGLENET_DATA does not name the official files")
def test_compare_on_fashion_mnist():
    by_option = compare_small("--data", "fashion-mnist", "--data-dir", str(DATA), "--json", "-")
    report = json.loads(by_option.stdout)
    assert report["input"]["source"] == "Fashion-MNIST, test images"
    by_variable = googlenet(
        *["compare", "--backends", FIRST, "--size", "28", "--batch", "2", "--data", "fashion-mnist", "--json", "-"],
        GOOGLENET_DATA=str(DATA),
    )
    assert json.loads(by_variable.stdout)["input"] == report["input"]


def test_presets_with_heads_at_a_size_that_only_fits_without():
    googlenet("compare", "--preset", "bvlc", "--size", "97", status=2)
    done = googlenet("compare", "--preset", "bvlc", "--size", "97", "--no-aux", "--backends", FIRST, "--batch", "1")
    assert "6,998,552" in done.stdout


def _interpreter(tmp_path: Path, body: str) -> str:
    """A program that stands in for an interpreter."""
    path = tmp_path / "python"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


def test_a_backend_in_another_environment(tmp_path):
    """The other interpreter sees our packages, and its own environment only: not this one's PYTHONPATH."""
    other = _interpreter(tmp_path, f'echo "$PYTHONPATH" > {tmp_path}/path\nexec {sys.executable} "$@"')
    report = json.loads(compare_small("--python", f"{FIRST}={other}", "--json", "-").stdout)
    assert report["passed"] is True
    assert str(ROOT) not in (tmp_path / "path").read_text()


@pytest.mark.skipif(len(TESTED) < 2, reason="needs a second backend to go on with")
def test_a_crash_is_reported_and_the_others_go_on(tmp_path):
    dying = _interpreter(tmp_path, "echo it hurts >&2; kill -SEGV $$")
    both = f"{TESTED[1]},{FIRST}"
    done = compare_small("--python", f"{TESTED[1]}={dying}", "--json", "-", status=1, backend=both)
    report = json.loads(done.stdout)
    assert report["passed"] is False
    assert report["backends"][FIRST]["passed"] is True
    crashed = report["backends"][TESTED[1]]
    assert crashed["crash"].startswith("killed by SIGSEGV")
    assert "it hurts" in crashed["crash"]
    assert crashed["gradient_error"] is None
    assert f"FAIL: {TESTED[1]} crashed" in done.stderr


def test_a_backend_that_computes_something_else_fails(tmp_path):
    """A worker that loses a ReLU: exit status 1, the stage named in the table, the verdict and the JSON."""
    package = load(FIRST).__name__
    sabotage = tmp_path / "sabotage.py"
    sabotage.write_text(
        "import runpy, sys\n"
        f"import {package} as backend\n"
        "build = backend.build\n"
        "def wrong(*a, **k):\n"
        "    model = build(*a, **k)\n"
        "    model.conv2.relu = False\n"
        "    return model\n"
        "backend.build = wrong\n"
        "sys.argv = sys.argv[3:]\n"
        "runpy.run_module('harness.worker', run_name='__main__', alter_sys=True)\n"
    )
    other = _interpreter(tmp_path, f'exec {sys.executable} {sabotage} "$@"')
    done = compare_small("--python", f"{FIRST}={other}", "--json", "-", status=1)
    report = json.loads(done.stdout)["backends"][FIRST]
    assert report["first_difference"] == "conv2"
    assert report["passed"] is False
    assert f"FAIL: {FIRST} differs first at conv2" in done.stderr
    row = next(line for line in done.stderr.splitlines() if line.startswith("conv2 "))
    assert "first >" in row


def test_a_backend_that_is_not_installed(tmp_path):
    framework = {"pt": "torch", "mx": "mxnet", "jax": "jax"}[FIRST]
    hiding = tmp_path / "hiding.py"
    hiding.write_text(
        f"import runpy, sys\nsys.modules[{framework!r}] = None\nsys.argv = sys.argv[3:]\n"
        "runpy.run_module('harness.worker', run_name='__main__', alter_sys=True)\n"
    )
    other = _interpreter(tmp_path, f'exec {sys.executable} {hiding} "$@"')
    done = compare_small("--python", f"{FIRST}={other}", status=2)
    assert f"backend {FIRST} is not installed" in done.stderr
    assert f"pip install '.[{FIRST}]'" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compare", "--preset", "vgg"], "unknown preset 'vgg': expected one of d2l, d2lzh"),
        (["compare", "--backends", "tf"], "unknown backend: expected one or more of pt, mx, jax, got tf"),
        (["compare", "--backends", "pt,pt"], "expected each one once"),
        (["compare", "--backends", ""], "unknown backend"),
        (["compare", "--dtype", "float16"], "dtype: expected one of float32, float64, bfloat16, got 'float16'"),
        (["compare", "--device", "tpu"], "device: expected one of auto, cpu, gpu"),
        (["compare", "--preset", "torchvision", "--size", "14"], "expected a height and a width of 15 pixels or more"),
        (["compare", "--preset", "cnblogs", "--size", "96"], "expected a height and a width of 193 to 416 pixels"),
        (["compare", "--size", "0"], "it is empty"),
        (["compare", "--batch", "0"], "expected at least 1 image"),
        (["compare", "--data", "nowhere.png"], "there is no nowhere.png"),
        (["compare", "--data", "pyproject.toml"], "not a picture that can be read:"),
        (["compare", "--data", "fashion-mnist", "--data-dir", "tests"], "expected a folder with the four files"),
        (["compare", "--python", "mx"], "--python: expected BACKEND=PATH"),
        (["compare", "--python", "pt=/nowhere/python"], "is not a program that can be run"),
        (["compare", "--json", "/nowhere/report.json"], "there is no folder /nowhere"),
        (["compare", "--seed", "-1"], "seed: expected a whole number"),
        (["compare", "--preset", "torchvision", "--size", "28", "--batch", "1"], "take a batch of at least 2"),
        (["spec", "vgg"], "unknown preset 'vgg'"),
        (["spec", "bvlc", "--size", "96"], "the auxiliary head aux1 needs a 4 x 4 map"),
        (["compare", "--sise", "28"], "No such option"),
        (["compair"], "No such command"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage_is_one_clear_error(arguments, message):
    assert message in " ".join(googlenet(*arguments, status=2).stderr.split())


def test_doctor_and_a_gpu_where_there_is_none():
    findings = json.loads(googlenet("doctor", "--json", OMP_NUM_THREADS="").stdout)
    assert set(findings) == {"python", "numpy", "platform", "gpus", "backends"}
    for name in TESTED:
        found = findings["backends"][name]
        assert found["works"]
        assert abs(found["busy_threads"] - found["processors"]) <= 1  # one off where other tests compute beside it
    if findings["backends"][FIRST]["devices"] != ["cpu"]:
        pytest.skip("there is a GPU")
    assert "finds no GPU here" in compare_small("--device", "gpu", status=2).stderr


def test_presets():
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
    }
    text = googlenet("presets").stdout
    assert all(name in text for name in spec.PRESETS)


def test_spec_as_text_and_as_json():
    text = googlenet("spec", "d2l").stdout
    assert "276,066,304" in text
    alone = subprocess.run([sys.executable, "-m", "spec", "d2l"], capture_output=True, text=True, cwd=ROOT, check=True)
    assert alone.stdout == text
    table = json.loads(googlenet("spec", "bvlc", "--no-aux", "--json").stdout)
    assert (table["parameters"], table["multiply_adds"]) == (6_998_552, 1_582_671_872)
    assert table["minimum_input_size"] == 31
    assert [stage["name"] for stage in table["stages"]] == list(spec.stage_names(spec.preset("bvlc", aux=False)))
    assert table["stages"][7]["branches"] == [64, 96, 128, 16, 32, 32]
    assert all(math.prod(stage["shape"]) > 0 for stage in table["stages"])


def test_python_m_spec_refuses_in_one_line():
    done = subprocess.run([sys.executable, "-m", "spec", "vgg"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2
    assert done.stderr.startswith("error: unknown preset 'vgg'")


@pytest.mark.parametrize("verb", ["presets", "spec", "compare", "doctor"])
def test_every_verb_has_help_with_an_example(verb):
    text = googlenet(verb, "--help").stdout
    assert "Example" in text
    assert f"googlenet {verb}" in text


def test_judges_that_are_none_of_the_backends(tmp_path):
    """On the weights in a file; a judge only runs forward."""
    config = spec.preset("bvlc", num_classes=7, aux=False)
    params = probe_params(config, 4)
    save(tmp_path / "weights.safetensors", params, config)
    words = ["--weights", str(tmp_path / "weights.safetensors"), "--with", "onnx,onnx-reference", "--json", "-"]
    words += ["--size", "33"]
    report = json.loads(compare_small(*words).stdout)
    assert report["preset"] == "bvlc"
    assert report["weights"] == str(tmp_path / "weights.safetensors")
    assert list(report["backends"]) == [FIRST, "onnx", "onnx-reference"]
    assert report["backends"][FIRST]["gradient_error"] < 1e-11
    for name, least, most in (("onnx", 1e-9, 5e-6), ("onnx-reference", 0, 2e-8)):
        judged = report["backends"][name]
        assert judged["passed"] is True
        assert judged["parameters"] == spec.parameter_count(config)
        assert least < judged["logits_error"] < most
        assert (judged["loss_error"], judged["gradient_error"], judged["step_error"]) == (None, None, None)
        assert [stage["name"] for stage in judged["stages"]] == list(spec.stage_names(config))


def test_a_judge_that_differs_says_where():
    config = spec.preset("d2l")
    params, images = probe_params(config, 4), np.random.default_rng(0).random((2, 1, 28, 28))
    expected = expect(config, params, images, np.array([1, 2]))
    arrays = {name: x.copy() for name, x in expected.stages.items()}
    bounds, count = of_onnx(config, "float32"), spec.parameter_count(config)
    assert judge_forward("onnx", arrays, count, expected, bounds).passed
    assert judge_forward("onnx", arrays, count + 1, expected, bounds).first_difference == "parameter count"
    arrays["inception4b"][0, 3, 0, 0] += 1e-3 * np.abs(arrays["inception4b"]).max()
    report = judge_forward("onnx", arrays, count, expected, bounds)
    assert (report.passed, report.first_difference) == (False, "inception4b")
    del arrays["pool5"]
    assert judge_forward("onnx", arrays, count, expected, bounds).stages[-2].error == math.inf


@pytest.mark.parametrize(
    ("words", "message"),
    [(["--with", "keras"], "--with: expected some of onnx, onnx-reference"), (["--weights", "no"], "there is no such")],
)
def test_judges_and_weights_that_are_not_there(words, message):
    assert message in compare_small(*words, status=2).stderr
