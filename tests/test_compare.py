"""`googlenet compare`: backends and evaluators against the referee, what the command reports, and its exit status."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support import DATA, FIRST, ROOT, TESTED, googlenet, googlenet_process, here, interpreter_without, weights_of

import spec
from harness.backends.process import Answer
from harness.backends.registry import load
from harness.images.sources import load_batch
from harness.weights.checkpoint import save
from spec.tolerances import TOLERANCES, onnx_tolerances, picture_tolerances

LENET = spec.preset("lenet")


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    """LeNet in the first backend, whose first run imports half of what PyTorch consists of."""
    return _compared()


pytestmark = pytest.mark.usefixtures("report")


def _compared(*words: str, status: int = 0, backends: str = FIRST, **environment: str) -> dict[str, Any]:
    """LeNet's report as JSON."""
    given = ["compare", "--preset", "lenet", "--backends", backends, "--json", "-", *words]
    return json.loads(googlenet(*given, status=status, **environment).stdout)


def _program(folder: Path, body: str) -> str:
    """A program that stands in for an interpreter."""
    path = folder / "program"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


# ------------------------------------------------------------------------------------------- backends that are right


def _assert_everything_agrees(report: dict[str, Any], config: spec.Config, images: tuple[int, ...]) -> None:
    """The JSON is the documented one, and everything is far inside the bounds."""
    assert set(report) == {"preset", "input", "dtype", "seed", "weights", "tolerances", "backends", "passed"}
    assert (report["preset"], report["dtype"], report["seed"]) == (config.preset, "float64", 0)
    assert (report["weights"], report["passed"]) == (None, True)
    assert report["tolerances"] == vars(TOLERANCES["float64"])
    assert report["input"] == {"source": "scikit-learn's handwritten digits", "shape": list(images)}
    shapes = spec.stage_shapes(config, images[1:])
    for backend in report["backends"].values():
        assert backend["passed"] is True
        assert backend["first_difference"] is backend["crash"] is None
        assert backend["parameters"] == spec.parameter_count(config)
        assert {stage["name"]: tuple(stage["shape"]) for stage in backend["stages"]} == {
            name: (images[0], *shape) for name, shape in shapes.items()
        }
        assert max(stage["error"] for stage in backend["stages"]) < 1e-14
        assert backend["logits_error"] < 1e-14
        assert backend["loss_error"] < 1e-14
        assert 0 < backend["gradient_error"] < 1e-13
        assert 0 < backend["step_error"] < 1e-14
        assert backend["worst_gradient"] in spec.param_shapes(config)
        assert backend["worst_step"] in spec.param_shapes(config)
        assert backend["version"]


def _compared_as_users_do(folder: Path, *words: str) -> tuple[str, dict[str, Any]]:
    """All tested backends in processes of their own, JAX with the package's own settings: the table and the JSON."""
    file = folder / "report.json"
    done = googlenet_process("compare", "--backends", ",".join(TESTED), "--json", str(file), *words)
    report = json.loads(file.read_text())
    assert list(report["backends"]) == list(TESTED)
    return done.stdout, report


@pytest.mark.slow
def test_every_backend_agrees_with_the_referee(tmp_path, monkeypatch):
    """One of them by another interpreter."""
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    other = _program(tmp_path, f'touch {tmp_path}/used\nexec {sys.executable} "$@"')
    text, report = _compared_as_users_do(tmp_path, "--preset", "lenet", "--python", f"{FIRST}={other}")
    assert (tmp_path / "used").exists()
    assert f"PASS: {', '.join(TESTED)} and the referee compute the same network." in text
    assert all(stage in text for stage in spec.stage_names(LENET))
    _assert_everything_agrees(report, LENET, (4, 1, 28, 28))


@pytest.mark.slow
def test_every_backend_agrees_with_all_defaults(tmp_path, monkeypatch):
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    _, report = _compared_as_users_do(tmp_path)
    _assert_everything_agrees(report, spec.preset("d2l"), (4, 1, 96, 96))


@pytest.mark.slow
@pytest.mark.skipif("jax" not in TESTED, reason="JAX is not tested")
def test_jax_agrees_by_the_newer_emitters():
    """By XLA's newer emitters, which other versions of JAX have, and who sets XLA's flags."""
    flags = "--xla_backend_optimization_level=1 --xla_backend_extra_options=xla_cpu_optimize_for_size=1"
    chosen = "float64 and (torchvision or bvlc)"
    words = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests/test_networks.py", "-k", chosen]
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        words, cwd=ROOT, env=env | {"XLA_FLAGS": flags, "GOOGLENET_BACKENDS": "jax"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


def test_report_in_process_is_the_documented_one(report):
    _assert_everything_agrees(report, LENET, (4, 1, 28, 28))


def test_json_on_standard_output_stands_alone_and_the_table_on_the_other():
    done = googlenet("compare", "--preset", "lenet", "--backends", FIRST, "--json", "-")
    assert json.loads(done.stdout)["passed"] is True
    assert f"PASS: {FIRST} and the referee compute the same network." in done.stderr
    assert all(stage in done.stderr for stage in spec.stage_names(LENET))


def test_json_file_is_written_beside_the_table(tmp_path):
    done = googlenet(
        "compare", "--preset", "lenet", "--backends", FIRST, "--json", str(tmp_path / "report.json"), cwd=tmp_path
    )
    assert json.loads((tmp_path / "report.json").read_text())["passed"] is True
    assert "PASS" in done.stdout


@pytest.mark.parametrize(("dtype", "least", "most"), [("float32", 1e-9, 5e-6), ("bfloat16", 1e-4, 5e-2)])
def test_dtype_is_the_backends_own(dtype, least, most):
    if (FIRST, dtype) == ("mx", "bfloat16"):
        pytest.skip("MXNet refuses bfloat16")
    report = _compared("--dtype", dtype)
    assert report["dtype"] == dtype
    assert report["tolerances"] == vars(picture_tolerances(LENET, dtype, report["input"]["shape"]))
    assert least < report["backends"][FIRST]["logits_error"] < most


def test_seed_chooses_the_weights(report):
    other = _compared("--seed", "1")
    assert other["seed"] == 1
    assert other["backends"][FIRST]["stages"] != report["backends"][FIRST]["stages"]


def test_batch_and_size_are_the_images():
    assert _compared("--batch", "3", "--size", "30")["input"]["shape"] == [3, 1, 30, 30]


def test_batch_norm_is_compared_with_its_statistics():
    report = json.loads(googlenet("compare", "--preset", "lenet-bn", "--backends", FIRST, "--json", "-").stdout)
    assert report["backends"][FIRST]["parameters"] == 44_878
    assert report["tolerances"] == vars(
        picture_tolerances(spec.preset("lenet-bn"), "float64", report["input"]["shape"])
    )


def test_heads_are_left_out_on_demand():
    """At a size that the heads are too large for; their parameters are not counted either."""
    googlenet("compare", "--preset", "bvlc", "--size", "31", status=2)
    done = googlenet("compare", "--preset", "bvlc", "--size", "31", "--no-aux", "--backends", FIRST, "--batch", "1")
    assert "6,998,552" in done.stdout


def test_pictures_of_the_user_are_compared_on(tmp_path):
    for i in range(3):
        pixels = np.random.default_rng(i).integers(0, 255, (40, 50, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    files = [str(tmp_path / f"{i}.png") for i in range(3)]
    assert _compared("--data", *files)["input"] == {"source": "0.png, 1.png, 2.png", "shape": [3, 1, 28, 28]}
    folder = _compared("--data", str(tmp_path), "--batch", "2")
    assert folder["input"] == {"source": f"pictures in {tmp_path}", "shape": [2, 1, 28, 28]}


@pytest.mark.skipif(DATA is None, reason="GOOGLENET_DATA does not name the official files")
def test_fashion_mnist_is_found_by_option_and_by_variable():
    by_option = _compared("--data", "fashion-mnist", "--data-dir", str(DATA))
    assert by_option["input"] == {"source": "Fashion-MNIST, test images", "shape": [4, 1, 28, 28]}
    by_variable = _compared("--data", "fashion-mnist", GOOGLENET_DATA=str(DATA))
    assert by_variable == by_option


def test_weights_in_a_file_are_compared_on(tmp_path, report, monkeypatch):
    file = tmp_path / "weights.safetensors"
    weights = weights_of("lenet", num_classes=7)
    save(file, weights.params, weights.config, {"preprocessing": {"size": 28, "order": "gray", "mean": [5.0]}})
    batches = []

    def keep(backend, task, arrays, python, **settings):
        batches.append(arrays["images"])
        return here(backend, task, arrays, python, **settings)

    monkeypatch.setattr("support.here", keep)
    done = googlenet("compare", "--weights", str(file), "--backends", FIRST, "--json", "-")
    pixels = load_batch(["digits"], weights.config, 28, 4).images
    np.testing.assert_allclose(batches, [pixels - 5], atol=1e-12)  # as the weights want them
    found = json.loads(done.stdout)
    assert (found["preset"], found["weights"]) == ("lenet", str(file))
    assert found["backends"][FIRST]["parameters"] == spec.parameter_count(weights.config)
    assert str(file) in done.stderr


# ------------------------------------------------------------------------------------------------- what goes wrong


def test_crash_is_reported_and_the_other_backends_go_on(tmp_path):
    dying = _program(tmp_path, "echo it hurts >&2; kill -SEGV $$")
    backends = [TESTED[1], FIRST] if len(TESTED) > 1 else [FIRST]
    words = ["--preset", "lenet", "--backends", ",".join(backends), "--python", f"{backends[0]}={dying}"]
    done = googlenet("compare", *words, "--json", "-", status=1)
    report = json.loads(done.stdout)
    assert report["passed"] is False
    assert list(report["backends"]) == backends
    assert [found["passed"] for found in report["backends"].values()] == [False, True][: len(backends)]
    crashed = report["backends"][backends[0]]
    assert crashed["crash"].startswith("killed by SIGSEGV")
    assert "it hurts" in crashed["crash"]
    assert crashed["gradient_error"] is None
    assert f"{backends[0]}: the process died. killed by SIGSEGV" in done.stderr
    assert f"FAIL: {backends[0]} crashed" in done.stderr


def test_backend_that_is_not_installed_is_refused_with_the_remedy(tmp_path):
    framework = {"pt": "torch", "mx": "mxnet", "jax": "jax"}[FIRST]
    python = interpreter_without(framework, tmp_path)
    words = ["--preset", "lenet", "--backends", FIRST, "--python", f"{FIRST}={python}"]
    done = googlenet("compare", *words, status=2)
    assert f"error: {FIRST}: backend {FIRST} is not installed" in done.stderr
    assert f"pip install '.[{FIRST}]'" in done.stderr


def test_every_backend_that_refuses_is_named(monkeypatch):
    """All of them in one error, so that nobody mends one after the other."""
    monkeypatch.setattr("support.here", lambda backend, *_, **__: Answer(refused=f"{backend} will not"))
    done = googlenet("compare", "--preset", "lenet", "--backends", "jax,pt", status=2)
    assert done.stderr == "error: jax: jax will not\npt: pt will not\n"


def test_gpu_is_refused_where_there_is_none():
    if load(FIRST).describe("auto").devices != ["cpu"]:
        pytest.skip("there is a GPU")
    done = googlenet("compare", "--preset", "lenet", "--backends", FIRST, "--device", "gpu", status=2)
    assert "finds no GPU here" in done.stderr


def test_backend_that_computes_something_else_fails(monkeypatch):
    """One bias off by a millionth: exit status 1, the stage named in the table, the verdict and the JSON."""
    package = load(FIRST)
    build = package.build

    def slightly_wrong(config: spec.Config, *, params: spec.Arrays, **where: str) -> Any:
        return build(config, **where, params={**params, "conv2.bias": params["conv2.bias"] + 1e-6})

    monkeypatch.setattr(package, "build", slightly_wrong)
    done = googlenet("compare", "--preset", "lenet", "--backends", FIRST, "--json", "-", status=1)
    report = json.loads(done.stdout)
    assert report["passed"] is False
    found = report["backends"][FIRST]
    assert (found["passed"], found["first_difference"], found["crash"]) == (False, "conv2", None)
    assert f"FAIL: {FIRST} differs first at conv2" in done.stderr
    marked = [line.split()[0] for line in done.stderr.splitlines() if "first >" in line]
    assert marked == ["conv2"]


# ----------------------------------------------------------------------------------------------------------- evaluators


@pytest.mark.parametrize("preset", ["lenet", "lenet-bn-frozen"])
def test_evaluators_of_the_graph_agree(preset):
    """They run forward only; one computes in float32, whatever it is given."""
    config = spec.preset(preset)
    words = ["--preset", preset, "--backends", FIRST, "--with", "onnx,openvino,onnx-reference", "--json", "-"]
    report = json.loads(googlenet("compare", *words).stdout)
    assert list(report["backends"]) == [FIRST, "onnx", "openvino", "onnx-reference"]
    exact = onnx_tolerances(config, "float64").logits
    for name, least, most in (("onnx", 1e-9, 5e-6), ("openvino", 1e-9, 5e-6), ("onnx-reference", 0, exact)):
        result = report["backends"][name]
        assert result["passed"] is True
        assert result["parameters"] == spec.parameter_count(config)
        assert least < result["logits_error"] < most
        assert (result["loss_error"], result["gradient_error"], result["step_error"]) == (None, None, None)
        assert [stage["name"] for stage in result["stages"]] == list(spec.stage_names(config))


def test_reference_evaluator_is_given_the_dtype_of_the_comparison():
    words = ["--preset", "lenet", "--backends", FIRST, "--with", "onnx-reference", "--dtype", "float32", "--json", "-"]
    result = json.loads(googlenet("compare", *words).stdout)["backends"]["onnx-reference"]
    assert 1e-9 < result["logits_error"] < 5e-6


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--with", "keras"], "--with: expected some of onnx, openvino, onnx-reference, got keras"),
        (["--weights", "no"], "there is no such"),
    ],
)
def test_evaluators_and_weights_that_do_not_exist_are_refused(words, message):
    assert message in googlenet("compare", "--backends", FIRST, *words, status=2).stderr
