"""Weights from every format into every other: the same bits, the same network, and nothing lost on the way.

Formats do not know topologies: LeNets have every kind of array, and cost nothing. Names are in test_names.py.
"""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file
from support import TESTED, googlenet, here, import_frameworks, interpreter_without, weights_of

import spec
from harness.agreement import probe_params, relative_error
from harness.backends.registry import load
from harness.weights import checkpoint, names
from harness.weights.checkpoint import Checkpoint, config_table, describe
from harness.weights.convert import Source, convert, fingerprint, prepared, read_weights, verified
from harness.weights.formats import FORMATS, format_for, gluon
from harness.weights.onnx_run import EVALUATORS
from spec import reference
from spec.tolerances import TOLERANCES

NEEDS = {"pytorch": "pt", "mxnet": "mx", "orbax": "jax"}  # who reads or writes it; the rest needs no framework
# Keras has networks of its own only: tests/test_keras.py.
TESTABLE = [name for name in FORMATS if name != "keras" and NEEDS.get(name, TESTED[0]) in TESTED]
RUN = [name for name in TESTABLE if FORMATS[name].runner in (*TESTED, "onnx")]  # by a framework of their own
RENAMED = [name for name in RUN if FORMATS[name].scheme != "canonical"]  # whose names are not ours
FILES = {name: f"weights{(form.suffixes or ('',))[0]}" for name, form in FORMATS.items()}

needs_torch = pytest.mark.skipif("pt" not in TESTED, reason="PyTorch is not tested")
needs_mxnet = pytest.mark.skipif("mx" not in TESTED, reason="MXNet is not tested")


@pytest.fixture(scope="module", autouse=True)
def frameworks(request: pytest.FixtureRequest) -> None:
    import_frameworks(request)


def assert_equal(got: Checkpoint, expected: Checkpoint) -> None:
    assert got.config == expected.config
    assert got.metadata == expected.metadata
    assert list(got.params) == list(expected.params)
    for name, x in expected.params.items():
        assert got.params[name].dtype == x.dtype
        np.testing.assert_array_equal(got.params[name], x, strict=True)
    assert fingerprint(got) == fingerprint(expected)


CASES = {
    "lenet-bn": ("lenet-bn", "float32", {}),
    "lenet-bn, 3 channels, 7 classes": ("lenet-bn", "float32", {"in_channels": 3, "num_classes": 7}),
    "lenet-bn in float64": ("lenet-bn", "float64", {"norm_momentum": 0.5}),
    "lenet-bn-scratch": ("lenet-bn-scratch", "float32", {}),
    "lenet-bn-frozen": ("lenet-bn-frozen", "float32", {}),
    "lenet-bn-frozen in float64": ("lenet-bn-frozen", "float64", {}),
    "nin": ("nin", "float32", {}),
    "d2l": ("d2l", "float32", {}),
    "torchvision": ("torchvision", "float32", {"num_classes": 20}),
    "vgg11": ("vgg11", "float32", {}),
}


@cache
def weights_for(case: str) -> Checkpoint:
    """Do not change them."""
    preset, dtype, settings = CASES[case]
    return weights_of(preset, dtype, **settings)


def referee(weights: Checkpoint, folder: Path) -> Source:
    return Source(folder, "safetensors", names.SCHEMES["canonical"], weights)


def written(form: str, weights: Checkpoint, folder: Path) -> Source:
    """A file of that format, in the folder."""
    path = folder / FILES[form]
    FORMATS[form].write(path, weights, here)
    return Source(path, form, names.SCHEMES[FORMATS[form].scheme], weights)


# --------------------------------------------------------------------------------------------------- every format


@pytest.mark.parametrize("case", ["lenet-bn, 3 channels, 7 classes", "lenet-bn in float64", "lenet-bn-frozen"])
@pytest.mark.parametrize("form", TESTABLE)
def test_a_written_file_is_read_bit_for_bit(form, case, tmp_path):
    """A conversion is one of these reads and then one of these writes, so this is every ordered pair of formats."""
    weights = weights_for(case)
    path = written(form, weights, tmp_path).path
    source = read_weights(path, here)
    assert (source.form, source.scheme) == (form, FORMATS[form].scheme)
    assert_equal(source.weights, weights)


def test_weights_pass_through_every_format_and_back(tmp_path):
    weights = weights_for("lenet-bn-frozen in float64")
    path = tmp_path / "first.safetensors"
    checkpoint.save(path, weights.params, weights.config, weights.metadata)
    for form in [*TESTABLE, *reversed(TESTABLE)]:
        source = read_weights(path, here)
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}-{FILES[form]}"
        assert convert(source, path, form, prepared(source, None, aux=True), here, verify=False) is None
    assert_equal(read_weights(path, here).weights, weights)


@pytest.mark.large
@pytest.mark.parametrize("form", TESTABLE)
def test_the_largest_network_is_read_bit_for_bit(form, tmp_path):
    assert_equal(read_weights(written(form, weights_for("vgg11"), tmp_path).path, here).weights, weights_for("vgg11"))


@pytest.mark.parametrize("form", [form for form in TESTABLE if form != "orbax"])  # whose files have names by chance
def test_the_same_weights_make_the_same_bytes(form, tmp_path):
    contents = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        written(form, weights_for("lenet-bn"), folder)
        contents.append({str(x.relative_to(folder)): x.read_bytes() for x in folder.rglob("*") if x.is_file()})
    assert contents[0] == contents[1]


# ----------------------------------------------------------------------------------------------- the same network


@pytest.mark.parametrize(
    ("case", "form"),
    [
        *((case, form) for case in ("lenet-bn", "lenet-bn-frozen") for form in RUN),
        *(("torchvision", form) for form in ("pytorch", "mxnet", "onnx") if form in RUN),  # heads
        *(pytest.param("torchvision", form, marks=pytest.mark.slow) for form in ("gluon", "flax") if form in RUN),
    ],
)
def test_the_framework_itself_runs_a_file_as_the_referee_does(case, form, tmp_path):
    weights = weights_for(case)
    verification = verified(referee(weights, tmp_path), written(form, weights, tmp_path), here)
    assert verification.passed, verification
    assert verification.bound == (TOLERANCES["float32"] if form == "onnx" else TOLERANCES["float64"]).activations
    assert 0 <= verification.logits <= verification.bound


def test_the_worse_of_two_runtimes_judges_an_onnx_file(tmp_path, monkeypatch):
    weights = weights_for("lenet-bn")
    source, result = referee(weights, tmp_path), written("onnx", weights, tmp_path)
    assert verified(source, result, here).result == "ONNX Runtime and OpenVINO"
    judge = EVALUATORS["openvino"]

    def wrong(path, images):
        stages = judge.run(path, images)
        return stages | {"pool2": stages["pool2"] + np.float32(1)}

    monkeypatch.setitem(EVALUATORS, "openvino", judge._replace(run=wrong))
    verification = verified(source, result, here)
    assert (verification.passed, verification.first_difference) == (False, "pool2")
    monkeypatch.setitem(EVALUATORS, "openvino", judge._replace(run=wrong, package="openvino_that_is_not_there"))
    verification = verified(source, result, here)
    assert (verification.passed, verification.result) == (True, "ONNX Runtime")


@pytest.mark.parametrize(("case", "side"), [("lenet-bn", 31), ("nin", 99), ("d2l", 32)])
def test_the_verification_takes_pictures_that_fit(case, side, tmp_path):
    """And some pixels more than NiN needs, whose last maps would be one pixel."""
    weights = weights_for(case)
    verification = verified(referee(weights, tmp_path), referee(weights, tmp_path), here)
    assert verification.images == (2, weights.config.in_channels, side, side)
    assert (verification.passed, verification.logits) == (True, 0)


Change = Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]


def symmetrically_wrong(monkeypatch: pytest.MonkeyPatch, change: Change) -> None:
    """Writers and readers that are wrong alike: read again, the file holds what was meant, and yet it does not."""
    right_rename, right_foreign = names.rename, names.foreign
    monkeypatch.setattr(names, "foreign", lambda x, scheme, config: right_foreign(change(dict(x)), scheme, config))
    monkeypatch.setattr(names, "rename", lambda x, scheme, config: change(right_rename(x, scheme, config)))


def kernels_transposed(params: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Rows for columns: nothing shows in the shape."""
    return params | {"conv2.weight": params["conv2.weight"].transpose(0, 1, 3, 2)}


def statistics_swapped(params: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Of a dense layer's batch norm: mean and variance have one shape."""
    mean, var = params["fc3.norm.running_mean"], params["fc3.norm.running_var"]
    return params | {"fc3.norm.running_mean": var, "fc3.norm.running_var": mean}


@pytest.mark.parametrize(("change", "stage"), [(kernels_transposed, "conv2"), (statistics_swapped, "fc3")])
@pytest.mark.parametrize("form", [form for form in RENAMED if form != "orbax"])
def test_the_verification_finds_what_no_shape_shows(form, change, stage, monkeypatch, tmp_path):
    weights, target = weights_for("lenet-bn"), tmp_path / FILES[form]
    source = written("safetensors", weights, tmp_path)
    target.write_bytes(b"what stood there")
    symmetrically_wrong(monkeypatch, change)
    verification = convert(source, target, form, weights, here, verify=True)
    assert not verification.passed
    assert verification.first_difference == stage
    assert verification.logits > 1e-6
    assert verification.difference > 1e-6
    assert target.read_bytes() == b"what stood there"
    assert sorted(x.name for x in tmp_path.iterdir()) == sorted([source.path.name, target.name])


def bit_changed(weights: Checkpoint) -> Checkpoint:
    bias = weights.params["fc5.bias"].copy()
    bias[3] = np.nextafter(bias[3], np.float32(1))
    return replace(weights, params=weights.params | {"fc5.bias": bias})


def dtype_changed(weights: Checkpoint) -> Checkpoint:
    return replace(weights, params=weights.params | {"fc5.bias": weights.params["fc5.bias"].astype("float64")})


def preset_changed(weights: Checkpoint) -> Checkpoint:
    return replace(weights, config=spec.preset("lenet-bn-scratch"))


@pytest.mark.parametrize(
    ("change", "what"), [(bit_changed, "fc5.bias"), (dtype_changed, "fc5.bias"), (preset_changed, "the configuration")]
)
def test_a_writer_that_changes_something_is_found_without_verification(change, what, monkeypatch, tmp_path):
    weights, target = weights_for("lenet-bn"), tmp_path / "weights.params"
    right = FORMATS["gluon"]

    def write(path, given, work):
        right.write(path, change(given), work)

    monkeypatch.setitem(FORMATS, "gluon", replace(right, write=write))
    with pytest.raises(spec.InvalidInput, match=rf"read again, it holds something else \({what}\); nothing was"):
        convert(written("safetensors", weights, tmp_path), target, "gluon", weights, here, verify=False)
    assert not target.exists()


@needs_mxnet
def test_a_framework_that_computes_nan_is_another_network(tmp_path):
    weights = weights_for("lenet-bn")
    result = written("gluon", weights, tmp_path)

    def work(backend, task, arrays):
        answer = here(backend, task, arrays)
        return replace(answer, arrays=answer.arrays | {"fc5": np.full((2, 10), np.nan)})

    verification = verified(referee(weights, tmp_path), result, work)
    assert (verification.passed, verification.first_difference) == (False, "fc5")


@needs_torch
def test_a_source_that_its_own_framework_reads_otherwise_is_found(tmp_path):
    """The source runs as its framework loads it, not as we read it."""
    weights = weights_for("lenet-bn")
    source = written("pytorch", weights, tmp_path)
    misread = replace(weights, params=kernels_transposed(dict(weights.params)))
    verification = verified(replace(source, weights=misread), referee(misread, tmp_path), here)
    assert verification.first_difference == "conv2"


@needs_mxnet
def test_gluon_refuses_a_file_without_the_scale_that_is_not_learned(tmp_path):
    """Why ones and zeros that nobody learned are written."""
    weights = weights_for("lenet-bn-frozen")
    source = written("gluon", weights, tmp_path)
    arrays = gluon.read(source.path).arrays
    assert sorted(set(arrays) - set(spec.param_shapes(weights.config))) == [
        f"{layer}.norm.{leaf}" for layer in ("conv1", "conv2", "fc3", "fc4") for leaf in ("beta", "gamma")
    ]
    gluon.write(source.path, {name: x for name, x in arrays.items() if name != "fc3.norm.gamma"}, {})
    task = {"kind": "run", "config": config_table(weights.config), "dtype": "float64", "path": str(source.path)}
    with pytest.raises(AssertionError, match=r"fc3.norm.gamma"):
        here("mx", task, {"images": np.zeros((1, 1, 28, 28))})


# -------------------------------------------------------------------------------------------------- foreign files


@pytest.mark.slow  # 50 MB; the names are in test_names.py
@pytest.mark.parametrize("aux", [True, False])
def test_a_torchvision_file_is_converted(aux, tmp_path):
    weights = weights_of("torchvision", num_classes=20, aux=aux)
    arrays = names.foreign(weights.params, names.SCHEMES["torchvision"], weights.config)
    save_file({name: np.ascontiguousarray(x) for name, x in arrays.items()}, tmp_path / "theirs.safetensors")
    source = read_weights(tmp_path / "theirs.safetensors", here)
    assert (source.scheme, source.weights.config) == ("torchvision", weights.config)
    target = tmp_path / "ours.params"
    verification = convert(source, target, "gluon", prepared(source, None, aux=True), here, verify="mx" in TESTED)
    assert verification is None or (verification.passed and verification.source == "the NumPy referee")
    assert relative_error(read_weights(target, here).weights.params["fc.weight"], weights.params["fc.weight"]) == 0


def textbook_file(scheme: str, preset: str, path: Path) -> Checkpoint:
    """A file as a notebook saves it, in the framework's own names, that does not say which network it is."""
    weights = weights_for(preset)
    arrays = names.foreign(weights.params, names.SCHEMES[scheme], weights.config)
    if path.suffix == ".params":
        gluon.write(path, arrays, {})
    else:
        import torch

        torch.save({name: torch.from_numpy(x.copy()) for name, x in arrays.items()}, path)
    return weights


@pytest.mark.parametrize(
    ("scheme", "preset", "suffix"),
    [
        pytest.param("d2l-sequential", "lenet-bn", ".pt", marks=needs_torch),
        pytest.param("gluon-sequential", "lenet-bn-frozen", ".params", marks=needs_mxnet),
    ],
)
def test_a_notebook_s_file_is_converted_to_onnx(scheme, preset, suffix, tmp_path):
    path = tmp_path / f"theirs{suffix}"
    weights = textbook_file(scheme, preset, path)
    source = read_weights(path, here, preset=preset)
    assert (source.scheme, source.weights.config) == (scheme, weights.config)
    verification = convert(source, tmp_path / "a.onnx", "onnx", prepared(source, None, aux=True), here, verify=True)
    assert (verification.passed, verification.source) == (True, "the NumPy referee")
    got = read_weights(tmp_path / "a.onnx", here).weights
    assert got.config == weights.config
    assert all(np.array_equal(got.params[name], x) for name, x in weights.params.items())


def test_a_file_that_fits_several_presets_asks_which(tmp_path):
    path = tmp_path / "plain.safetensors"
    save_file(dict(weights_for("lenet-bn").params), path)
    with pytest.raises(spec.InvalidInput, match=r"plain.safetensors: fits lenet-bn, lenet-bn-scratch: say which with"):
        read_weights(path, here)
    assert read_weights(path, here, preset="lenet-bn-scratch").weights.config == spec.preset("lenet-bn-scratch")
    with pytest.raises(spec.InvalidInput, match="expected arrays of preset lenet, got ones of lenet-bn"):
        read_weights(path, here, preset="lenet")


def test_a_scale_that_is_one_may_be_learned_or_not(tmp_path):
    path = tmp_path / "a.params"
    textbook_file("gluon", "lenet-bn-frozen", path)
    with pytest.raises(spec.InvalidInput, match="fits lenet-bn, lenet-bn-scratch, lenet-bn-frozen: say which"):
        read_weights(path, here)
    learned = read_weights(path, here, preset="lenet-bn").weights
    assert set(learned.params["fc3.norm.weight"]) == {1}
    assert read_weights(path, here, preset="lenet-bn-frozen").weights.config.preset == "lenet-bn-frozen"


def test_a_file_that_says_which_preset_it_is_is_read_as_no_other(tmp_path):
    source = written("safetensors", weights_for("lenet-bn"), tmp_path)
    with pytest.raises(spec.InvalidInput, match="it says that it is preset lenet-bn"):
        read_weights(source.path, here, preset="lenet-bn-scratch")


# -------------------------------------------------------------------------------------------------- what is written


def test_a_training_s_checkpoint_leaves_its_optimizer_behind(tmp_path):
    """And takes along how its pictures were prepared, and what its classes are called."""
    config = spec.preset("lenet-bn")
    params = {name: x.astype(np.float32) for name, x in probe_params(config, 1).items()}
    state = {f"momentum/{name}": np.ones_like(x) for name, x in params.items() if not spec.is_statistic(name)}
    run = {"recipe": {"size": 28, "mean": 0.286, "std": 0.353}, "classes": [f"c{i}" for i in range(10)]}
    checkpoint.save(tmp_path / "run.safetensors", params, config, {"run": run, "position": {}}, state)
    source = read_weights(tmp_path / "run.safetensors", here)
    convert(source, tmp_path / "a.params", "gluon", prepared(source, None, aux=True), here, verify=False)
    got = read_weights(tmp_path / "a.params", here).weights
    assert list(got.params) == list(params)
    assert got.metadata["labels"] == run["classes"]
    assert got.metadata["preprocessing"] | {"scale": 0} == {
        "size": 28,
        "order": "gray",
        "scale": 0,
        "mean": [0.286],
        "std": [0.353],
    }


@pytest.mark.parametrize(
    ("preset", "channels", "kind"), [("torchvision", 3, "GoogLeNet"), ("lenet-bn-frozen", 1, "LeNet")]
)
def test_a_folder_for_hugging_face_explains_itself(preset, channels, kind, tmp_path):
    """To people, and to programs that have never heard of this one."""
    weights = weights_of(preset, num_classes=20, aux=False)
    FORMATS["huggingface"].write(tmp_path / "model", weights, here)
    table = json.loads((tmp_path / "model" / "config.json").read_text())
    assert (table["num_labels"], table["num_channels"], table["image_size"]) == (20, channels, 40)
    assert (table["architectures"], table["preset"]) == ([kind], preset)
    assert table["id2label"]["3"] == "class 3"
    pictures = json.loads((tmp_path / "model" / "preprocessor_config.json").read_text())
    assert pictures["size"] == {"height": 40, "width": 40}
    assert (pictures["rescale_factor"], pictures["image_mean"], pictures["image_std"]) == (
        1.0,
        [0.5] * channels,
        [0.25] * channels,
    )
    card = (tmp_path / "model" / "README.md").read_text()
    assert f"{spec.parameter_count(weights.config):,} parameters" in card
    assert f"# {kind}, preset {preset}\n" in card
    assert ("inception" in card.split("---")[1]) == (kind == "GoogLeNet")
    (code,) = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
    scope: dict = {}
    exec(code.replace("googlenet_pt", load(TESTED[0]).__name__).replace('"model', f'"{tmp_path}/model/model'), scope)
    assert_equal(scope["saved"], weights)
    assert type(scope["model"]).__name__ == kind


def test_rounded_weights_without_heads_are_written_and_proven(tmp_path):
    weights = weights_of("torchvision", "float64", num_classes=20)
    source = referee(weights, tmp_path)
    rounded = prepared(source, "float32", aux=False)
    assert rounded.config == spec.preset("torchvision", num_classes=20, aux=False)
    verification = convert(source, tmp_path / "a.onnx", "onnx", rounded, here, verify=True)
    assert verification.passed
    got = read_weights(tmp_path / "a.onnx", here).weights
    assert {str(x.dtype) for x in got.params.values()} == {"float32"}
    np.testing.assert_array_equal(got.params["fc.weight"], weights.params["fc.weight"].astype(np.float32))


@needs_torch
@needs_mxnet
def test_a_rounded_result_is_held_against_the_rounded_source(tmp_path):
    """Which the source's framework cannot run."""
    weights = weights_for("lenet-bn in float64")
    source = written("pytorch", weights, tmp_path)
    verification = convert(
        source, tmp_path / "a.params", "gluon", prepared(source, "float32", aux=True), here, verify=True
    )
    assert (verification.passed, verification.source, verification.result) == (True, "the NumPy referee", "MXNet")
    unrounded = prepared(source, None, aux=True)
    verification = convert(source, tmp_path / "b.params", "gluon", unrounded, here, verify=True)
    assert (verification.passed, verification.source, verification.result) == (True, "PyTorch", "MXNet")


def test_a_number_that_float32_cannot_hold_is_refused(tmp_path):
    weights = weights_of("lenet-bn", "float64")
    weights.params["fc5.bias"][2] = 1e300
    with pytest.raises(spec.InvalidInput, match=r"fc5.bias"):
        prepared(written("safetensors", weights, tmp_path), "float32", aux=True)


# -------------------------------------------------------------------------------------------------- where it is put


def test_a_target_that_would_be_lost_or_cannot_be_is_refused(tmp_path):
    weights = weights_for("lenet-bn")
    source = written("safetensors", weights, tmp_path)
    (tmp_path / "folder.params").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    cases = [
        ("folder.params", "gluon", "this is a folder"),
        ("full", "huggingface", "expected a folder with model.safetensors, or an Orbax"),
        ("file", "huggingface", "expected a new folder"),
        ("nowhere/a.params", "gluon", "there is no folder"),
        ("symbol.json", "mxnet", "expected a name that ends in -symbol.json"),
    ]
    for name, form, message in cases:
        with pytest.raises(spec.InvalidInput, match=message):
            convert(source, tmp_path / name, form, weights, here, verify=False)
    assert (tmp_path / "full" / "letter.txt").read_text() == (tmp_path / "file").read_text() == "mine"
    with pytest.raises(spec.InvalidInput, match=r"expected a name that ends in one of \.safetensors"):
        format_for(Path("weights.h5"))


@pytest.mark.parametrize("form", ["huggingface", "gluon", pytest.param("mxnet", marks=needs_mxnet)])
def test_an_older_result_is_replaced_whole(form, tmp_path):
    target = tmp_path / "out" / FILES[form]
    target.parent.mkdir()
    for case in ("lenet-bn", "lenet-bn-scratch"):
        weights = weights_for(case)
        convert(referee(weights, tmp_path), target, form, weights, here, verify=False)
        assert_equal(read_weights(target, here).weights, weights)
    assert len(list(target.parent.iterdir())) == (2 if form == "mxnet" else 1)


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """As a full disk, this process may write no larger file within this."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("onto", ["itself", "itself through a link", "another run's checkpoint"])
def test_a_training_run_is_not_written_over(onto, tmp_path):
    """The network would stay, and optimizer and position would be lost."""
    weights = weights_for("lenet-bn")
    run, link = tmp_path / "run.safetensors", tmp_path / "link.safetensors"
    checkpoint.save(run, weights.params, weights.config, {"position": {"step": 3}})
    link.symlink_to(run)
    before = run.read_bytes()
    other = written("safetensors", weights, tmp_path).path
    source, target, message = {
        "itself": (run, run, "expected another name than that of the source"),
        "itself through a link": (run, link, "expected another name than that of the source"),
        "another run's checkpoint": (other, run, "the checkpoint of a training run, which could not go on"),
    }[onto]
    assert message in googlenet("convert", str(source), str(target), "--no-verify", status=2).stderr
    assert run.read_bytes() == before


def test_a_full_disk_leaves_what_was_there(tmp_path):
    source = written("safetensors", weights_for("lenet-bn"), tmp_path).path
    target = tmp_path / "old.params"
    target.write_bytes(b"what stood there")
    with files_of_at_most(source.stat().st_size // 2):
        done = googlenet("convert", str(source), str(target), "--no-verify", status=2)
    assert "cannot be written" in done.stderr
    assert target.read_bytes() == b"what stood there"
    assert sorted(x.name for x in tmp_path.iterdir()) == ["old.params", "weights.safetensors"]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not say how much memory was used")
@pytest.mark.parametrize("suffix", [".params", pytest.param(".msgpack", marks=pytest.mark.slow)])
def test_a_large_file_needs_little_memory_and_no_framework(suffix, tmp_path):
    weights = weights_of("torchvision")  # 52 MB
    source = written("safetensors", weights, tmp_path)
    script = (
        "import sys; import harness.weights.convert; from harness.cli.main import main\n"
        "def used(line):\n    with open('/proc/self/status') as file:\n"
        "        return 1024 * next(int(row.split()[1]) for row in file if row.startswith(line))\n"
        "program = used('VmRSS')\n"
        f"sys.argv = ['googlenet', 'convert', {str(source.path)!r}, {str(tmp_path / f'a{suffix}')!r}, '--no-verify']\n"
        "try:\n    main()\nexcept SystemExit: pass\n"
        "print(used('VmHWM') - program, *sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=os.environ)
    used, *modules = done.stdout.splitlines()[-1].split()
    assert int(used) / source.path.stat().st_size < 3.2
    assert not {"torch", "mxnet", "jax", "flax", "onnx", "sklearn"} & set(modules)


# ------------------------------------------------------------------------------------------------- the command line

SUFFIXES = {
    ".safetensors": None,
    ".pt": "pt",
    ".params": "mx",
    "-symbol.json": "mx",
    ".msgpack": "jax",
    "-orbax": "jax",
    ".onnx": None,
    "-folder": None,
}


def test_the_command_leads_weights_through_every_format(tmp_path):
    weights = weights_for("lenet-bn-frozen")
    source = written("safetensors", weights, tmp_path).path
    for suffix, backend in SUFFIXES.items():
        if backend in (None, *TESTED):
            target = tmp_path / f"a{suffix}"
            to = {"-orbax": ["--to", "orbax"], "-folder": ["--to", "huggingface"]}.get(suffix, [])
            report = json.loads(googlenet("convert", str(source), str(target), *to, "--json").stdout)
            assert (report["preset"], report["verification"]["passed"]) == ("lenet-bn-frozen", True)
            assert report["verification"]["missing"] is None
            assert report["sha256"] == fingerprint(weights)
            source = target
    assert_equal(read_weights(source, here).weights, weights)


def test_the_commands_look_into_a_notebook_s_file_and_predict_with_it(tmp_path):
    """Which does not say that its pictures have 28 pixels."""
    path = tmp_path / "a.params"
    weights = textbook_file("gluon-sequential", "lenet-bn-frozen", path)
    shown = json.loads(googlenet("inspect", str(path), "--json").stdout)
    assert (shown["names"], [fit["preset"] for fit in shown["fits"]]) == (
        "gluon-sequential",
        ["lenet-bn", "lenet-bn-frozen"],
    )
    assert "names of gluon-sequential" in googlenet("inspect", str(path)).stdout
    pixels = np.random.default_rng(0).integers(0, 256, (28, 28), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    engines = [TESTED[0], "onnx"]
    words = ["--weights", str(path), "--preset", "lenet-bn-frozen", "--top", "10", "--json"]
    done = googlenet("predict", str(tmp_path / "a.png"), *words, "--backends", ",".join(engines))
    way = "28 x 28 (bilinear), gray, (pixel / 255 - 0) / 1, as in the book's notebooks, on Fashion-MNIST"
    assert done.stderr == f"pictures: {way}\n"
    (row,) = json.loads(done.stdout)
    params = {name: x.astype(np.float64) for name, x in weights.params.items()}
    logits = reference.predict(weights.config, params, pixels[None, None] / 255)[0]
    expected = np.exp(logits) / np.exp(logits).sum()
    assert [item["class"] for item in row["classes"]] == list(np.argsort(-expected))
    for item in row["classes"]:
        assert item["probability"] == pytest.approx(dict.fromkeys(engines, expected[item["class"]]), abs=1e-5)


def test_a_foreign_file_of_unknown_origin_is_assumed_aloud_until_the_command_says_how(tmp_path):
    path, target, words = tmp_path / "a.safetensors", tmp_path / "model", ["--to", "huggingface", "--no-verify"]
    save_file(dict(weights_for("lenet-bn, 3 channels, 7 classes").params), path)
    said = ["--preset", "lenet-bn", *words]
    assumed = "warning: assumed of pictures: 28 x 28 (bilinear), RGB"
    assert assumed in googlenet("convert", str(path), str(target), *said).stderr
    assert "warning: assumed of pictures" in googlenet("convert", str(target), str(tmp_path / "b"), *words).stderr
    (tmp_path / "labels.txt").write_text("\n".join("abcdefg"))
    options = ["--labels", str(tmp_path / "labels.txt"), "--mean", "0.5,0.25,0", "--std", "0.5", "--order", "BGR"]
    done = googlenet("convert", str(target), str(tmp_path / "c"), *words, *options, "--size", "29", "--scale", "1")
    assert done.stderr == ""
    assert read_weights(tmp_path / "c", here).weights.metadata == {
        "preprocessing": {"size": 29, "order": "BGR", "scale": 1.0, "mean": [0.5, 0.25, 0.0], "std": [0.5]},
        "labels": list("abcdefg"),
    }
    pictures = json.loads((tmp_path / "c" / "preprocessor_config.json").read_text())
    assert (pictures["image_mean"], pictures["image_std"]) == ([0.5, 0.25, 0.0], [0.5] * 3)


def test_the_command_says_what_it_read_and_what_it_proved(tmp_path):
    source = written("safetensors", weights_for("lenet-bn"), tmp_path).path
    suffix = {"pt": ".pt", "mx": ".params", "jax": ".msgpack"}[TESTED[0]]
    done = googlenet("convert", str(source), str(tmp_path / f"a{suffix}"))
    assert "26 tensors, bit for bit" in done.stdout
    assert "on the same 2 x 1 x 31 x 31 images" in done.stdout
    report = json.loads(googlenet("convert", str(tmp_path / f"a{suffix}"), str(tmp_path / "b.onnx"), "--json").stdout)
    assert (report["from"], report["to"], report["preset"]) == (format_for(Path("a" + suffix)), "onnx", "lenet-bn")
    assert report["verification"]["passed"] is True
    assert report["sha256"] == fingerprint(weights_for("lenet-bn"))
    assert fingerprint(read_weights(tmp_path / "b.onnx", here).weights) == fingerprint(weights_for("lenet-bn"))


@needs_mxnet
def test_a_result_that_is_another_network_is_not_written_and_the_exit_status_is_1(monkeypatch, tmp_path):
    def write(path, given, work):
        wrong = names.foreign(statistics_swapped(given.params), names.SCHEMES["gluon"], given.config)
        gluon.write(path, wrong, describe(given.params, given.config, given.metadata))

    def read(path, work):
        found = gluon.read(path)
        return replace(found, arrays=statistics_swapped(found.arrays))

    monkeypatch.setitem(FORMATS, "gluon", replace(FORMATS["gluon"], write=write, read=read))
    words = ["convert", str(written("safetensors", weights_for("lenet-bn"), tmp_path).path), str(tmp_path / "a.params")]
    done = googlenet(*words, status=1)
    assert "first at fc3" in done.stdout
    assert "nothing was written" in done.stdout
    report = json.loads(googlenet(*words, "--json", status=1).stdout)
    assert (report["target"], report["verification"]["passed"]) == (None, False)
    assert not (tmp_path / "a.params").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nothing.pt", "a.onnx"], "there is no such file"),
        (["{source}", "a.h5"], "expected a name that ends in one of"),
        (["{source}", "a.onnx", "--preset", "bvlc"], "it says that it is preset lenet-bn"),
        (["{source}", "a.params", "--python", "mx"], "--python: expected BACKEND=PATH"),
    ],
)
def test_a_conversion_that_cannot_be_is_refused_in_one_line(words, message, tmp_path):
    source = written("safetensors", weights_for("lenet-bn"), tmp_path).path
    target = [str(tmp_path / word) if word.startswith("a") else word.format(source=source) for word in words]
    done = googlenet("convert", *target, status=2)
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert [x.name for x in tmp_path.iterdir()] == ["weights.safetensors"]


def test_a_framework_that_is_not_installed_leaves_the_result_unverified_and_is_named(tmp_path):
    """The file needs no MXNet to be written."""
    source = written("safetensors", weights_for("lenet-bn"), tmp_path).path
    python = interpreter_without("mxnet", tmp_path)
    done = googlenet("convert", str(source), str(tmp_path / "a.params"), "--python", f"mx={python}")
    assert "not run: backend mx is not installed" in done.stdout
    assert_equal(read_weights(tmp_path / "a.params", here).weights, weights_for("lenet-bn"))


def test_a_framework_that_fails_on_the_result_keeps_it_from_being_written(tmp_path):
    source = written("safetensors", weights_for("lenet-bn"), tmp_path).path
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho it broke >&2\nexit 3\n")
    python.chmod(0o755)
    done = googlenet("convert", str(source), str(tmp_path / "a.params"), "--python", f"mx={python}", status=2)
    assert "the process of mx that worked on it ended (exit status 3; it broke)" in done.stderr
    assert not (tmp_path / "a.params").exists()


def test_moving_a_model_takes_three_lines(tmp_path):
    """In every direction, over a file."""
    config = spec.preset("lenet-bn")
    images = np.random.default_rng(0).random((1, 1, 28, 28))
    path = tmp_path / "weights.safetensors"
    for one in TESTED:
        model = load(one).build(config, dtype="float64", device="cpu", seed=3)
        checkpoint.save(path, load(one).dump_params(model), config)
        for other in TESTED:
            found = checkpoint.load(path)
            moved = load(other).build(found.config, dtype="float64", device="cpu")
            load(other).load_params(moved, found.params)
            assert all(np.array_equal(x, found.params[name]) for name, x in load(other).dump_params(moved).items())
            if one == TESTED[0]:
                expected = reference.predict(config, found.params, images)
                assert relative_error(load(other).predict(moved, images), expected) < 1e-12
