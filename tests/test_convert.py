"""Weights from every format into every other: the same bits, the same network, and nothing lost on the way."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support import TESTED, googlenet, here, interpreter_without, weights_of

import spec
from harness import names
from harness.backend import load
from harness.compare import probe_params, relative_error
from harness.convert import Source, convert, fingerprint, prepared, read_weights, verified
from harness.formats import FORMATS, format_for, gluon
from spec import checkpoint, reference
from spec.checkpoint import Checkpoint, config_table
from spec.tolerances import TOLERANCES

NEEDS = {"pytorch": "pt", "mxnet": "mx", "orbax": "jax"}  # who reads or writes it; the rest needs no framework
TESTABLE = [name for name in FORMATS if NEEDS.get(name, TESTED[0]) in TESTED]
FILES = {name: f"weights{(form.suffixes or ('',))[0]}" for name, form in FORMATS.items()}


def assert_equal(got: Checkpoint, expected: Checkpoint) -> None:
    assert got.config == expected.config
    assert got.metadata == expected.metadata
    assert list(got.params) == list(expected.params)
    for name, x in expected.params.items():
        assert got.params[name].dtype == x.dtype
        np.testing.assert_array_equal(got.params[name], x, strict=True)
    assert fingerprint(got) == fingerprint(expected)


CASES = {
    "d2l": weights_of("d2l"),
    "d2l in float64, 3 channels, 7 classes": weights_of("d2l", "float64", in_channels=3, num_classes=7),
    "torchvision": weights_of("torchvision", num_classes=20),
    "torchvision without heads": weights_of("torchvision", "float64", aux=False, num_classes=20),
    "bvlc": weights_of("bvlc", num_classes=20, in_channels=1),
    "bvlc without heads": weights_of("bvlc", aux=False, num_classes=20, dropout=0.25),
    "d2lzh": weights_of("d2lzh"),
    "d2lzh-misprint": weights_of("d2lzh-misprint"),
    "cnblogs": weights_of("cnblogs"),
    "lenet": weights_of("lenet", in_channels=3, num_classes=7),
    "lenet-bn": weights_of("lenet-bn", norm_momentum=0.5),
    "lenet-bn-scratch": weights_of("lenet-bn-scratch"),
    "lenet-bn-frozen": weights_of("lenet-bn-frozen"),
    "lenet-bn-frozen in float64": weights_of("lenet-bn-frozen", "float64"),
    "nin": weights_of("nin", num_classes=7),
}


CASES = {
    "d2l": weights_of("d2l"),
    "d2l in float64, 3 channels, 7 classes": weights_of("d2l", "float64", in_channels=3, num_classes=7),
    "torchvision": weights_of("torchvision", num_classes=20),
    "torchvision without heads": weights_of("torchvision", "float64", aux=False, num_classes=20),
    "bvlc": weights_of("bvlc", num_classes=20, in_channels=1),
    "bvlc without heads": weights_of("bvlc", aux=False, num_classes=20, dropout=0.25),
    "d2lzh": weights_of("d2lzh"),
    "d2lzh-misprint": weights_of("d2lzh-misprint"),
    "cnblogs": weights_of("cnblogs"),
    "lenet": weights_of("lenet", in_channels=3, num_classes=7),
    "lenet-bn": weights_of("lenet-bn", norm_momentum=0.5),
    "lenet-bn-scratch": weights_of("lenet-bn-scratch"),
    "lenet-bn-frozen": weights_of("lenet-bn-frozen"),
    "lenet-bn-frozen in float64": weights_of("lenet-bn-frozen", "float64"),
    "nin": weights_of("nin", num_classes=7),
}


# --------------------------------------------------------------------------------------------------- every format


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("form", TESTABLE)
def test_what_is_written_is_read_bit_for_bit(form, case, tmp_path):
    """A conversion is one of these reads and then one of these writes, so this is every ordered pair of formats."""
    weights, path = CASES[case], tmp_path / FILES[form]
    FORMATS[form].write(path, weights, here)
    source = read_weights(path, here)
    assert (source.form, source.scheme) == (form, FORMATS[form].scheme)
    assert_equal(source.weights, weights)


@pytest.mark.parametrize("case", ["torchvision", "lenet-bn-frozen in float64"])
def test_through_every_format_and_back(case, tmp_path):
    weights = CASES[case]
    path = tmp_path / "first.safetensors"
    checkpoint.save(path, weights.params, weights.config, weights.metadata)
    for form in [*TESTABLE, *reversed(TESTABLE)]:
        source = read_weights(path, here)
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}-{FILES[form]}"
        assert convert(source, path, form, prepared(source, None, aux=True), here, verify=False) is None
    assert_equal(read_weights(path, here).weights, weights)


@pytest.mark.parametrize("form", TESTABLE)
def test_the_same_weights_are_the_same_bytes(form, tmp_path):
    """But for Orbax, whose files have names drawn by chance."""
    if form == "orbax":
        pytest.skip("Orbax's own files are not the same twice")
    contents = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        FORMATS[form].write(folder / FILES[form], CASES["d2l"], here)
        contents.append({str(x.relative_to(folder)): x.read_bytes() for x in folder.rglob("*") if x.is_file()})
    assert contents[0] == contents[1]


# ----------------------------------------------------------------------------------------------- the same network

SEQUENCES = [case for case in CASES if case.startswith(("lenet", "nin"))]
RUN = {  # formats that a framework runs, with the presets whose JAX programs are worth compiling each time
    name: TESTABLE
    if name == "torchvision" or name in SEQUENCES
    else [form for form in TESTABLE if FORMATS[form].runner != "jax"]
    for name in ("d2l", "torchvision", "bvlc without heads", "d2lzh-misprint", *SEQUENCES)
}
QUICK = [(case, form) for case, forms in RUN.items() for form in forms if FORMATS[form].runner != "spec"]
SLOW = [(case, form) for case in CASES for form in TESTABLE if FORMATS[form].runner != "spec"]


def _written(form: str, weights: Checkpoint, folder: Path) -> Source:
    path = folder / FILES[form]
    FORMATS[form].write(path, weights, here)
    return Source(path, form, FORMATS[form].scheme, weights)


@pytest.mark.parametrize(
    ("case", "form"),
    [*QUICK, *(pytest.param(*pair, marks=pytest.mark.slow) for pair in SLOW if pair not in QUICK)],
)
def test_the_framework_itself_runs_it_as_the_referee_does(case, form, tmp_path):
    weights = CASES[case]
    referee = Source(tmp_path, "safetensors", "canonical", weights)
    verification = verified(referee, _written(form, weights, tmp_path), here)
    assert verification.passed, verification
    assert verification.bound == (TOLERANCES["float32"] if form == "onnx" else TOLERANCES["float64"]).activations
    assert 0 <= verification.logits <= verification.bound


@pytest.mark.parametrize(
    "preset",
    [
        pytest.param("vgg11-narrow", marks=pytest.mark.slow),
        *(pytest.param(name, marks=pytest.mark.large) for name in ("alexnet", "vgg11")),
    ],
)
@pytest.mark.parametrize("form", TESTABLE)
def test_the_large_sequences_are_read_bit_for_bit_and_run(form, preset, tmp_path):
    weights = weights_of(preset)
    source = _written(form, weights, tmp_path)
    assert_equal(read_weights(source.path, here).weights, weights)
    verification = verified(Source(tmp_path, "safetensors", "canonical", weights), source, here)
    assert verification.passed, verification
    side = spec.minimum_input_size(weights.config)
    assert verification.images == (2, 1, side, side)


@pytest.mark.parametrize(("case", "side"), [("lenet", 31), ("nin", 67), ("d2l", 32)])
def test_the_verification_takes_pictures_that_fit(case, side, tmp_path):
    weights = CASES[case]
    referee = Source(tmp_path, "safetensors", "canonical", weights)
    verification = verified(referee, referee, here)
    assert verification.images == (2, weights.config.in_channels, side, side)
    assert (verification.passed, verification.logits) == (True, 0)


def _symmetrically_wrong(monkeypatch, change) -> None:
    """Writers and readers that are wrong alike: read again, the file holds what was meant, and yet it does not."""
    right_rename, right_foreign = names.rename, names.foreign
    monkeypatch.setattr(names, "foreign", lambda x, scheme, config: right_foreign(change(dict(x)), scheme, config))
    monkeypatch.setattr(names, "rename", lambda x, scheme, config: change(right_rename(x, scheme, config)))


def _transposed(params: dict) -> dict:
    """64 channels into 64: nothing shows in the shape."""
    return params | {"conv2_reduce.weight": params["conv2_reduce.weight"].transpose(1, 0, 2, 3)}


def _swapped(params: dict) -> dict:
    one, other = "inception4b.branch3x3_reduce.bias", "inception4c.branch3x3_reduce.bias"
    a, b = params[one].copy(), params[other].copy()
    n = min(len(a), len(b))
    return params | {one: np.concatenate([b[:n], a[n:]]), other: np.concatenate([a[:n], b[n:]])}


@pytest.mark.parametrize(("change", "stage"), [(_transposed, "conv2_reduce"), (_swapped, "inception4b")])
@pytest.mark.parametrize("form", [name for name in TESTABLE if FORMATS[name].scheme != "canonical" and name != "orbax"])
def test_what_no_shape_shows_the_verification_does(form, change, stage, monkeypatch, tmp_path):
    if FORMATS[form].runner == "jax" and change is _swapped:
        pytest.skip("one program compiled is enough")
    weights, target = CASES["d2l"], tmp_path / FILES[form]
    source = _written("safetensors", weights, tmp_path)
    target.write_bytes(b"what stood there")
    _symmetrically_wrong(monkeypatch, change)
    verification = convert(source, target, form, weights, here, verify=True)
    assert not verification.passed
    assert verification.first_difference == stage
    assert verification.logits > 1e-6
    assert verification.difference > 1e-6
    assert target.read_bytes() == b"what stood there"
    assert sorted(x.name for x in tmp_path.iterdir()) == sorted([source.path.name, target.name])


def test_a_writer_that_changes_a_bit_is_found_even_without_verification(monkeypatch, tmp_path):
    weights, target = CASES["d2l"], tmp_path / "weights.params"
    right = FORMATS["gluon"]

    def write(path, given, work):
        changed = given.params["fc.bias"].copy()
        changed[3] = np.nextafter(changed[3], np.float32(1))
        right.write(path, replace(given, params=given.params | {"fc.bias": changed}), work)

    monkeypatch.setitem(FORMATS, "gluon", replace(right, write=write))
    with pytest.raises(spec.InvalidInput, match=r"read again, it holds something else \(fc.bias\); nothing was"):
        convert(_written("safetensors", weights, tmp_path), target, "gluon", weights, here, verify=False)
    assert not target.exists()


def test_a_source_that_its_own_framework_reads_otherwise_is_found(tmp_path):
    """The source runs as its framework loads it, not as we read it."""
    if "pt" not in TESTED:
        pytest.skip("PyTorch is not tested")
    weights = CASES["d2l"]
    written = _written("pytorch", weights, tmp_path)
    misread = replace(weights, params=_transposed(dict(weights.params)))
    referee = Source(tmp_path, "safetensors", "canonical", misread)
    assert verified(replace(written, weights=misread), referee, here).first_difference == "conv2_reduce"


def _statistics_swapped(params: dict) -> dict:
    """Of a dense layer's batch norm: mean and variance have one shape."""
    mean, var = params["fc3.norm.running_mean"], params["fc3.norm.running_var"]
    return params | {"fc3.norm.running_mean": var, "fc3.norm.running_var": mean}


@pytest.mark.parametrize("form", [name for name in TESTABLE if FORMATS[name].scheme != "canonical"])
def test_of_a_sequence_the_verification_shows_it_too(form, monkeypatch, tmp_path):
    weights, target = CASES["lenet-bn"], tmp_path / FILES[form]
    source = _written("safetensors", weights, tmp_path)
    _symmetrically_wrong(monkeypatch, _statistics_swapped)
    verification = convert(source, target, form, weights, here, verify=True)
    assert (verification.passed, verification.first_difference) == (False, "fc3")
    assert not target.exists()


@pytest.mark.skipif("mx" not in TESTED, reason="MXNet is not tested")
def test_a_file_of_gluon_that_lacks_what_is_fixed_is_none_that_gluon_loads(tmp_path):
    """Why ones and zeros that nobody learned are written."""
    weights = CASES["lenet-bn-frozen"]
    source = _written("gluon", weights, tmp_path)
    arrays = gluon.read(source.path).arrays
    assert sorted(set(arrays) - set(spec.param_shapes(weights.config))) == [
        f"{layer}.norm.{leaf}" for layer in ("conv1", "conv2", "fc3", "fc4") for leaf in ("beta", "gamma")
    ]
    gluon.write(source.path, {name: x for name, x in arrays.items() if name != "fc3.norm.gamma"}, {})
    task = {"kind": "run", "config": config_table(weights.config), "dtype": "float64", "path": str(source.path)}
    with pytest.raises(AssertionError, match=r"fc3.norm.gamma"):
        here("mx", task, {"images": np.zeros((1, 1, 28, 28))})


# -------------------------------------------------------------------------------------------------- foreign files


@pytest.mark.parametrize("case", ["torchvision", "torchvision without heads"])
def test_a_torchvision_file(case, tmp_path):
    """Their names, in a safetensors file; the recorded logits are in test_names.py."""
    from safetensors.numpy import save_file

    weights = CASES[case]
    arrays = names.foreign(weights.params, names.SCHEMES["torchvision"], weights.config)
    save_file({name: np.ascontiguousarray(x) for name, x in arrays.items()}, tmp_path / "theirs.safetensors")
    source = read_weights(tmp_path / "theirs.safetensors", here)
    assert source.scheme == "torchvision"
    assert source.weights.config == replace(spec.preset("torchvision", num_classes=20), aux=weights.config.aux)
    target = tmp_path / "ours.params"
    written = prepared(source, None, aux=True)
    verification = convert(source, target, "gluon", written, here, verify="mx" in TESTED)
    assert verification is None or (verification.passed and verification.source == "the NumPy referee")
    assert relative_error(read_weights(target, here).weights.params["fc.weight"], weights.params["fc.weight"]) == 0


def test_a_file_that_does_not_say_which_network_it_is(tmp_path):
    from safetensors.numpy import save_file

    path = tmp_path / "plain.safetensors"
    save_file(dict(CASES["d2l"].params), path)
    with pytest.raises(spec.InvalidInput, match=r"plain.safetensors: fits d2l, d2lzh, cnblogs, bvlc: say which with"):
        read_weights(path, here)
    assert read_weights(path, here, preset="d2lzh").weights.config == spec.preset("d2lzh")
    with pytest.raises(spec.InvalidInput, match="torchvision"):
        read_weights(path, here, preset="torchvision")


def _textbook_file(scheme: str, preset: str, path: Path) -> Checkpoint:
    """A file as a notebook saves it, in the framework's own names, that does not say which network it is."""
    weights = weights_of(preset)
    arrays = names.foreign(weights.params, names.SCHEMES[scheme], weights.config)
    if path.suffix == ".params":
        gluon.write(path, arrays, {})
    else:
        import torch

        torch.save({name: torch.from_numpy(x.copy()) for name, x in arrays.items()}, path)
    return weights


TEXTBOOKS = [
    pytest.param(scheme, preset, suffix, id=f"{scheme}-{preset}")
    for scheme, suffix, backend in (("d2l-sequential", ".pt", "pt"), ("gluon-sequential", ".params", "mx"))
    for preset in ("lenet", "lenet-bn", "lenet-bn-frozen", "nin")
    if backend in TESTED
]


@pytest.mark.parametrize(("scheme", "preset", "suffix"), TEXTBOOKS)
def test_a_sequence_from_a_notebook_to_onnx(scheme, preset, suffix, tmp_path):
    path = tmp_path / f"theirs{suffix}"
    weights = _textbook_file(scheme, preset, path)
    source = read_weights(path, here, preset=preset)
    assert source.scheme == scheme
    assert source.weights.config == weights.config
    verification = convert(source, tmp_path / "a.onnx", "onnx", prepared(source, None, aux=True), here, verify=True)
    assert (verification.passed, verification.source) == (True, "the NumPy referee")
    got = read_weights(tmp_path / "a.onnx", here).weights
    assert got.config == weights.config
    assert all(np.array_equal(got.params[name], x) for name, x in weights.params.items())


def test_sequences_that_no_array_tells_apart(tmp_path):
    from safetensors.numpy import save_file

    save_file(dict(CASES["lenet-bn"].params), tmp_path / "plain.safetensors")
    with pytest.raises(spec.InvalidInput, match="fits lenet-bn, lenet-bn-scratch: say which with --preset"):
        read_weights(tmp_path / "plain.safetensors", here)
    gluon.write(tmp_path / "a.params", names.foreign(*_frozen("gluon")), {})
    with pytest.raises(spec.InvalidInput, match="fits lenet-bn, lenet-bn-scratch, lenet-bn-frozen: say which"):
        read_weights(tmp_path / "a.params", here)
    learned = read_weights(tmp_path / "a.params", here, preset="lenet-bn").weights
    assert set(learned.params["fc3.norm.weight"]) == {1}
    assert (
        read_weights(tmp_path / "a.params", here, preset="lenet-bn-frozen").weights.config.preset == "lenet-bn-frozen"
    )


def _frozen(scheme: str):
    weights = CASES["lenet-bn-frozen"]
    return weights.params, names.SCHEMES[scheme], weights.config


def test_a_file_that_says_so_is_not_called_something_else(tmp_path):
    source = _written("safetensors", CASES["d2l"], tmp_path)
    with pytest.raises(spec.InvalidInput, match="it says that it is preset d2l"):
        read_weights(source.path, here, preset="d2lzh")


# -------------------------------------------------------------------------------------------------- what is written


def test_a_training_s_checkpoint_leaves_its_optimizer_behind(tmp_path):
    """And takes along how its pictures were prepared, and what its classes are called."""
    config = spec.preset("d2l")
    params = {name: x.astype(np.float32) for name, x in probe_params(config, 1).items()}
    state = {f"momentum/{name}": np.ones_like(x) for name, x in params.items()}
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
    ("preset", "channels", "kind"), [("torchvision", 3, "GoogLeNet"), ("lenet-bn-frozen", 1, "Sequence")]
)
def test_a_folder_for_hugging_face_explains_itself(preset, channels, kind, tmp_path):
    """To people, and to programs that have never heard of this one."""
    weights = weights_of(preset, num_classes=20)
    FORMATS["huggingface"].write(tmp_path / "model", weights, here)
    table = json.loads((tmp_path / "model" / "config.json").read_text())
    assert (table["num_labels"], table["num_channels"], table["image_size"]) == (20, channels, 40)
    assert (table["architectures"], table["preset"]) == ([kind], preset)
    assert table["id2label"]["3"] == "class 3"
    pictures = json.loads((tmp_path / "model" / "preprocessor_config.json").read_text())
    assert pictures["size"] == {"height": 40, "width": 40}
    assert (pictures["rescale_factor"], pictures["image_mean"], pictures["image_std"]) == (1.0, [0.5], [0.25])
    card = (tmp_path / "model" / "README.md").read_text()
    assert f"{spec.parameter_count(weights.config):,} parameters" in card
    assert f"# {kind}, preset {preset}\n" in card
    assert ("inception" in card.split("---")[1]) == (kind == "GoogLeNet")
    (code,) = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
    scope: dict = {}
    exec(code.replace("googlenet_pt", load(TESTED[0]).__name__).replace('"model', f'"{tmp_path}/model/model'), scope)
    assert_equal(scope["found"], weights)
    assert type(scope["model"]).__name__ == kind


def test_rounding_and_leaving_the_heads_out(tmp_path):
    weights = weights_of("torchvision", "float64", num_classes=20)
    source = _written("safetensors", weights, tmp_path)
    written = prepared(source, "float32", aux=False)
    assert written.config == spec.preset("torchvision", num_classes=20, aux=False)
    verification = convert(source, tmp_path / "a.onnx", "onnx", written, here, verify=True)
    assert verification.passed
    got = read_weights(tmp_path / "a.onnx", here).weights
    assert {str(x.dtype) for x in got.params.values()} == {"float32"}
    np.testing.assert_array_equal(got.params["fc.weight"], weights.params["fc.weight"].astype(np.float32))


def test_what_float32_cannot_hold_is_refused(tmp_path):
    weights = weights_of("d2l", "float64")
    weights.params["fc.bias"][2] = 1e300
    source = _written("safetensors", weights, tmp_path)
    with pytest.raises(spec.InvalidInput, match=r"fc.bias"):
        prepared(source, "float32", aux=True)


# -------------------------------------------------------------------------------------------------- where it is put


def test_targets_that_cannot_be(tmp_path):
    weights = CASES["d2l"]
    source = _written("safetensors", weights, tmp_path)
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


@pytest.mark.parametrize("form", ["huggingface", "gluon", *(["mxnet"] if "mx" in TESTED else [])])
def test_an_older_result_is_replaced_whole(form, tmp_path):
    target = tmp_path / "out" / FILES[form]
    target.parent.mkdir()
    for case in ("d2l", "d2lzh"):
        source = Source(tmp_path, "safetensors", "canonical", CASES[case])
        convert(source, target, form, CASES[case], here, verify=False)
        assert_equal(read_weights(target, here).weights, CASES[case])
    assert len(list(target.parent.iterdir())) == (2 if form == "mxnet" else 1)


def test_a_full_disk_leaves_what_was_there(tmp_path):
    source = _written("safetensors", CASES["d2l"], tmp_path)
    target = tmp_path / "old.params"
    target.write_bytes(b"what stood there")
    script = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20)); "
        f"sys.argv = ['googlenet', 'convert', {str(source.path)!r}, {str(target)!r}, '--no-verify']; "
        "from harness.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=os.environ)
    assert done.returncode == 2, done.stderr
    assert "cannot be written" in done.stderr
    assert target.read_bytes() == b"what stood there"
    assert sorted(x.name for x in tmp_path.iterdir()) == ["old.params", "weights.safetensors"]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not say how much memory was used")
@pytest.mark.parametrize("suffix", [".params", ".msgpack"])
def test_a_large_file_needs_little_memory_and_no_framework(suffix, tmp_path):
    weights = weights_of("torchvision")  # 52 MB
    source = _written("safetensors", weights, tmp_path)
    script = (
        "import sys; from harness.cli import main\n"
        f"sys.argv = ['googlenet', 'convert', {str(source.path)!r}, {str(tmp_path / f'a{suffix}')!r}, '--no-verify']\n"
        "try:\n    main()\nexcept SystemExit: pass\n"
        "high = next(line for line in open('/proc/self/status') if line.startswith('VmHWM'))\n"
        "print(int(high.split()[1]) * 1024, *sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=os.environ)
    used, *modules = done.stdout.splitlines()[-1].split()
    assert int(used) < 4 * source.path.stat().st_size
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


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_command_leads_a_sequence_through_every_format(dtype, tmp_path):
    weights = weights_of("lenet-bn-frozen", dtype)
    source = _written("safetensors", weights, tmp_path).path
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


def test_the_commands_look_into_a_sequence_and_predict_with_it(tmp_path):
    """A notebook's own file, which does not say that its pictures have 28 pixels."""
    from PIL import Image

    weights = weights_of("lenet-bn-frozen")
    gluon.write(tmp_path / "a.params", names.foreign(*_frozen("gluon-sequential")), {})
    shown = json.loads(googlenet("inspect", str(tmp_path / "a.params"), "--json").stdout)
    assert (shown["names"], [fit["preset"] for fit in shown["fits"]]) == (
        "gluon-sequential",
        ["lenet-bn", "lenet-bn-frozen"],
    )
    assert "names of gluon-sequential" in googlenet("inspect", str(tmp_path / "a.params")).stdout
    pixels = np.random.default_rng(0).integers(0, 256, (28, 28), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    engines = [*TESTED, "onnx"]
    words = ["--weights", str(tmp_path / "a.params"), "--preset", "lenet-bn-frozen", "--top", "10", "--json"]
    (row,) = json.loads(googlenet("predict", str(tmp_path / "a.png"), *words, "--backends", ",".join(engines)).stdout)
    params = {name: x.astype(np.float64) for name, x in weights.params.items()}
    logits = reference.predict(weights.config, params, pixels[None, None] / 255)[0]
    expected = np.exp(logits) / np.exp(logits).sum()
    assert [item["class"] for item in row["classes"]] == list(np.argsort(-expected))
    for item in row["classes"]:
        assert item["probability"] == pytest.approx(dict.fromkeys(engines, expected[item["class"]]), abs=1e-5)


def test_the_command(tmp_path):
    source = _written("safetensors", CASES["d2l"], tmp_path).path
    first = TESTED[0]
    suffix = {"pt": ".pt", "mx": ".params", "jax": ".msgpack"}[first]
    done = googlenet("convert", str(source), str(tmp_path / f"a{suffix}"))
    assert "116 tensors, bit for bit" in done.stdout
    assert "on the same 2 x 1 x 32 x 32 images" in done.stdout
    report = json.loads(googlenet("convert", str(tmp_path / f"a{suffix}"), str(tmp_path / "b.onnx"), "--json").stdout)
    assert (report["from"], report["to"], report["preset"]) == (read_weights_form(suffix), "onnx", "d2l")
    assert report["verification"]["passed"] is True
    assert report["sha256"] == fingerprint(CASES["d2l"])
    assert fingerprint(read_weights(tmp_path / "b.onnx", here).weights) == fingerprint(CASES["d2l"])


def read_weights_form(suffix: str) -> str:
    return format_for(Path("a" + suffix))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nothing.pt", "a.onnx"], "there is no such file"),
        (["{source}", "a.h5"], "expected a name that ends in one of"),
        (["{source}", "a", "--to", "keras"], "--to: expected one of"),
        (["{source}", "a.onnx", "--from", "keras"], "--from: expected one of"),
        (["{source}", "a.onnx", "--preset", "bvlc"], "it says that it is preset d2l"),
        (["{source}", "a.onnx", "--dtype", "int8"], "dtype: expected one of float32, float64, got"),
        (["{source}", "a.params", "--python", "mx"], "--python: expected BACKEND=PATH"),
    ],
)
def test_what_cannot_be_converted_is_one_line(words, message, tmp_path):
    source = _written("safetensors", CASES["d2l"], tmp_path).path
    target = [str(tmp_path / word) if word.startswith("a") else word.format(source=source) for word in words]
    done = googlenet("convert", *target, status=2)
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert [x.name for x in tmp_path.iterdir()] == ["weights.safetensors"]


def test_a_framework_that_is_not_there_leaves_it_unverified_and_says_so(tmp_path):
    """An interpreter without MXNet: the file needs none to be written."""
    source = _written("safetensors", CASES["d2l"], tmp_path).path
    python = interpreter_without("mxnet", tmp_path)
    done = googlenet("convert", str(source), str(tmp_path / "a.params"), "--python", f"mx={python}")
    assert "not run: backend mx is not installed" in done.stdout
    assert_equal(read_weights(tmp_path / "a.params", here).weights, CASES["d2l"])


def test_a_framework_that_fails_on_the_result_keeps_it_from_being_written(tmp_path):
    source = _written("safetensors", CASES["d2l"], tmp_path).path
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho it broke >&2\nexit 3\n")
    python.chmod(0o755)
    done = googlenet("convert", str(source), str(tmp_path / "a.params"), "--python", f"mx={python}", status=2)
    assert "the process of mx that worked on it ended (exit status 3; it broke)" in done.stderr
    assert not (tmp_path / "a.params").exists()


def test_moving_a_model_takes_three_lines(tmp_path):
    """As the README shows it, for each direction."""
    config = spec.preset("d2l")
    images = np.random.default_rng(0).random((1, 1, 28, 28))
    path = tmp_path / "weights.safetensors"
    for one in TESTED:
        model = load(one).GoogLeNet(config, dtype="float64", device="cpu", seed=3)
        checkpoint.save(path, load(one).dump_params(model), config)
        for other in TESTED:
            found = checkpoint.load(path)
            moved = load(other).GoogLeNet(found.config, dtype="float64", device="cpu")
            load(other).load_params(moved, found.params)
            assert all(np.array_equal(x, found.params[name]) for name, x in load(other).dump_params(moved).items())
            if one == TESTED[0]:
                expected = reference.activations(config, found.params, images)["fc"]
                assert relative_error(load(other).predict(moved, images), expected) < 1e-12
