"""Files of every format, and a run, as the code of commit c212ed8 wrote them.

This remakes `formats.tar.xz` beside it, but for times and the names of Orbax's own files, and needs a checkout of that
commit:

    git worktree add ../before c212ed8
    PYTHONPATH=../before python tests/recorded/formats.py

The values have few digits, and those of torchvision's network repeat, so that the archive is small.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np

import spec
from spec import checkpoint

ARCHIVE = Path(__file__).with_suffix(".tar.xz")
RECIPE = """
preset = "lenet"
size = 28
batch = 64
epochs = 1
init = "xavier"

[optimizer]
name = "sgd"
rate = 0.1
momentum = 0
"""
RNG = np.random.default_rng(12)


def params(config: spec.Config, dtype: str, *, repeat: bool) -> dict[str, np.ndarray]:
    """Arrays by canonical name; variances are around 1."""
    arrays = {}
    for name, shape in spec.param_shapes(config).items():
        numbers = (np.arange(np.prod(shape)) % 5 - 2).reshape(shape) if repeat else RNG.integers(-2048, 2048, shape)
        arrays[name] = (numbers / 4096 + name.endswith("running_var")).astype(dtype)
    return arrays


def googlenet(*words: object) -> None:
    """The command, of the code that PYTHONPATH names."""
    program = "from harness.cli import main; main()"
    subprocess.run([sys.executable, "-c", program, *map(str, words)], check=True)


def write(folder: Path) -> None:
    """All files."""
    lenet = spec.preset("lenet-bn", num_classes=2)
    checkpoint.save(folder / "lenet.safetensors", params(lenet, "float32", repeat=False), lenet, {})
    for name in ("lenet.pt", "lenet.params", "lenet.msgpack", "lenet.onnx"):
        googlenet("convert", folder / "lenet.safetensors", folder / name, "--no-verify")
    for name, form in (("lenet-hf", "huggingface"), ("lenet-orbax", "orbax"), ("lenet-symbol.json", "mxnet")):
        googlenet("convert", folder / "lenet.safetensors", folder / name, "--to", form, "--no-verify")
    large = spec.preset("torchvision", num_classes=2, in_channels=1)
    checkpoint.save(folder / "torchvision.safetensors", params(large, "float16", repeat=True), large, {})
    googlenet("convert", folder / "torchvision.safetensors", folder / "torchvision.onnx", "--no-verify")
    recipe, run = folder.parent / "tiny.toml", folder / "run"
    recipe.write_text(RECIPE)
    words = ("--recipe", recipe, "--data", "digits", "--run", run, "--steps", 3, "--save-every", 0)
    googlenet("train", "pt", *words)
    shutil.rmtree(run / "pt" / "events")
    (run / "pt" / ".lock").unlink()
    environment = run / "pt" / "environment.json"
    starts = [{**start, "machine": "Linux"} for start in json.loads(environment.read_text())]
    environment.write_text(json.dumps(starts, indent=2))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        formats = Path(temporary) / "formats"
        formats.mkdir()
        write(formats)
        with tarfile.open(ARCHIVE, "w:xz") as archive:
            archive.add(formats, "formats")
