"""Conformance kits, and what is said of captures: every mistake that a port makes is named from its numbers alone."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from support import googlenet

import spec
from harness.check.kits.kit import Kit, expected, kit_of
from harness.check.kits.writing import write_kit
from spec import reference

slow = pytest.mark.slow


@pytest.fixture(scope="module")
def lenet(tmp_path_factory) -> Path:
    """The kit of LeNet with batch norm, as the command writes it."""
    folder = tmp_path_factory.mktemp("kits")
    told = googlenet("vectors", "lenet-bn", "--out", "kit", "--json", cwd=folder).stdout
    facts = json.loads(told)
    assert (facts["sizes"], facts["parameters"], facts["stages"]) == ({"even": 28, "odd": 29}, "written", "whole")
    return folder / "kit"


def test_anybody_can_draw_the_inputs(lenet):
    """By the few lines of the kit's own page."""
    (code,) = re.findall(r"```python\n(.*?)```", (lenet / "README.md").read_text(), flags=re.DOTALL)
    names: dict = {}
    with mock.patch("builtins.open", lambda name: (lenet / name).open()):
        exec(code, names)
    written = load_file(lenet / "inputs.safetensors")
    drawn = names["arrays"]
    assert set(drawn) == {*spec.param_shapes(spec.preset("lenet-bn")), "even/images", "odd/images"}
    assert all(x.dtype == np.float32 and np.array_equal(x, written[name]) for name, x in drawn.items())
    flat = np.concatenate([drawn[name].reshape(-1) for name in ("even/images", "odd/images")])
    assert abs(flat.mean()) < 0.03
    assert flat.std() == pytest.approx(3**-0.5, rel=0.02)


def test_kit_holds_what_the_referee_computes(lenet):
    config, got = spec.preset("lenet-bn"), load_file(lenet / "expected.safetensors")
    inputs = load_file(lenet / "inputs.safetensors")
    params = {name: inputs[name] for name in spec.param_shapes(config)}
    for which in ("even", "odd"):
        stages = reference.activations(config, params, inputs[f"{which}/images"])
        assert all(np.array_equal(got[f"{which}/{name}"], x) for name, x in stages.items())
    training = reference.loss_and_grads(config, params, inputs["even/images"], inputs["labels"])
    assert got["loss"] == training.loss
    large = training.grads["fc3.weight"]
    assert got["gradient/fc3.weight:norm"] == pytest.approx(np.linalg.norm(large), rel=1e-14)
    places = got["gradient/fc3.weight:places"]
    assert (len(set(places)), places.max() < large.size) == (256, True)
    assert np.array_equal(got["gradient/fc3.weight:values"], large.reshape(-1)[places])
    assert np.array_equal(got["statistics/fc3.norm.running_var"], training.statistics["fc3.norm.running_var"])
    assert np.array_equal(got["sgd/conv1.weight"], params["conv1.weight"] - 0.0625 * training.grads["conv1.weight"])
    assert "adam/fc3.bias" not in got  # batch norm follows: its gradient is rounding
    assert "adam/fc3.norm.bias" in got


def _checked(folder: Path, arrays: dict[str, np.ndarray], *words: str) -> tuple[int, str]:
    save_file({name: np.ascontiguousarray(x) for name, x in arrays.items()}, folder / "capture.safetensors")
    words = (sys.executable, "check.py", "capture.safetensors", *words)
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True)
    assert not done.stderr
    return done.returncode, done.stdout


@slow
def test_checker_of_the_kit_tells_right_from_wrong(lenet):
    assert len((lenet / "check.py").read_text().splitlines()) <= 40
    right = dict(expected(kit_of("lenet-bn")))
    last = {name: x.transpose(0, 2, 3, 1) if x.ndim == 4 and "/" in name else x for name, x in right.items()}
    last |= {name: x for name, x in right.items() if name.startswith(("gradient", "sgd", "adam"))}
    for arrays in (right, last):
        status, told = _checked(lenet, arrays)
        assert (status, "differs" in told) == (0, False)
    single = {name: x.astype(np.float32) for name, x in right.items()}
    assert _checked(lenet, single)[0] == 1
    assert _checked(lenet, single, "1e-5")[0] == 0
    wrong = right | {"gradient/fc3.weight": right["gradient/fc3.weight"] * 2, "even/conv9": right["loss"]}
    status, told = _checked(lenet, wrong)
    assert status == 1
    assert re.findall(r"(.*?) .*   differs", told) == ["gradient/fc3.weight"]
    assert "even/conv9: not in this kit" in told


def test_kit_of_a_large_network_leaves_out_what_can_be_drawn(tmp_path):
    kit = kit_of("lenet")
    with mock.patch.multiple("harness.check.kits.writing", _PARAMETERS=100_000, LIMIT=4_020_000):
        facts = write_kit(kit, tmp_path / "kit")
    assert (facts["parameters"], facts["stages"]) == ("to be drawn", "indexed")
    assert "draw them" in (tmp_path / "kit" / "README.md").read_text()
    assert set(load_file(tmp_path / "kit" / "inputs.safetensors")) == {"even/images", "odd/images", "labels"}
    assert "even/conv1:values" in load_file(tmp_path / "kit" / "expected.safetensors")
    facts = write_kit(kit, tmp_path / "full", full=True)
    assert (facts["parameters"], facts["stages"], facts["gradients"]) == ("written", "whole", "whole")


def test_kit_is_written_whole_or_not_at_all(tmp_path):
    (tmp_path / "there").mkdir()
    told = googlenet("vectors", "lenet", "--out", "there", status=2, cwd=tmp_path).stderr
    assert "there: expected the name of a new folder, and this exists" in told
    assert "no folder gone" in googlenet("vectors", "lenet", "--out", "gone/kit", status=2, cwd=tmp_path).stderr
    told = googlenet("vectors", "lenet", "--size", "99", "--out", "kit", status=2, cwd=tmp_path).stderr
    assert "preset lenet cannot take 99 x 99 pixels" in told
    full = mock.patch("harness.check.kits.writing.save", side_effect=OSError(28, "No space left on device"))
    with full, pytest.raises(spec.InvalidInput, match="No space left on device"):
        write_kit(Kit(spec.preset("lenet"), {"even": 28}), tmp_path / "kit")
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
