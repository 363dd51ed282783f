"""What the README shows is true, and its commands and code run."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file
from support import TESTED, googlenet, here, weights_of

import harness.bench.machine
import harness.bench.process
import harness.check.trial
import harness.compare.comparison
import harness.images.sources
import spec
from harness.backends.process import Answer
from harness.backends.registry import BACKENDS, load
from harness.cli.main import app
from harness.compare.comparison import BackendReport, Report, StageReport
from harness.images.prepared import prepare
from harness.training.recipe import OPTIMIZERS, SCHEDULES, Recipe, recipe, recipe_path, recipes
from harness.training.runs import CHECKPOINT, METRICS, Position
from harness.training.train import create, settings_for
from harness.weights import names
from harness.weights.checkpoint import Checkpoint, save
from harness.weights.formats import FORMATS, format_for
from spec.tolerances import TOLERANCES

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
TRAINING = (ROOT / "docs" / "training.md").read_text()
RESULTS = (ROOT / "RESULTS.md").read_text()
PORTING = (ROOT / "docs" / "porting.md").read_text()
PERFORMANCE = (ROOT / "docs" / "performance.md").read_text()
SCALE = (ROOT / "docs" / "scale.md").read_text()
ANCESTORS = (ROOT / "docs" / "ancestors.md").read_text()
SIZES = (ROOT / "docs" / "sizes.md").read_text()
API = (ROOT / "docs" / "api.md").read_text()
NETWORKS = (ROOT / "docs" / "presets.md").read_text()
COMPARING = (ROOT / "docs" / "comparing.md").read_text()
PREPROCESSING = (ROOT / "docs" / "preprocessing.md").read_text()
CHECKING = (ROOT / "docs" / "checking.md").read_text()
EXPLORING = (ROOT / "docs" / "exploring.md").read_text()


def _blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


COMMANDS = [
    line[2:].split("  #")[0].strip()
    for text in (
        README,
        TRAINING,
        RESULTS,
        PORTING,
        PERFORMANCE,
        SCALE,
        ANCESTORS,
        SIZES,
        NETWORKS,
        COMPARING,
        PREPROCESSING,
        CHECKING,
        EXPLORING,
    )
    for block in _blocks("console", text)
    for line in block.splitlines()
]


def test_first_screen_shows_both_commands():
    assert COMMANDS[:2] == ["make compare", "make test"]
    assert README.index("make compare") < 600


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("make ")])
def test_shown_target_of_make_exists(command):
    done = subprocess.run(["make", "--dry-run", command.split()[1]], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith(("python -m", "diff "))])
def test_shown_command_of_python_or_the_shell_runs(command):
    words = shlex.split(command)
    program = [sys.executable] if words[0] == "python" else words[:1]
    done = subprocess.run([*program, *words[1:]], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == (1 if words[0] == "diff" else 0), done.stderr  # diff: 1 says that files differ
    assert done.stdout


class _Reached(Exception):
    """Everything before the frameworks went well."""


def _reached(*args: object, **kwargs: object) -> None:
    raise _Reached


PORTING_VERBS = ("convert", "inspect", "predict")
MEASURING_VERBS = ("bench", "profile")
TRAINING_VERBS = ("train", "eval", "runs")
CHECKING_VERBS = ("check",)
ELSEWHERE = ("doctor", "exercise")  # test_doctor.py and test_exercises.py run these
SHOWN = [c for c in dict.fromkeys(COMMANDS) if c.startswith("googlenet ") and c.split()[1] not in ELSEWHERE]


def _few_of_fashion_mnist(part: str, data_dir: Path | None = None) -> tuple[np.ndarray, np.ndarray]:
    """In place of the real ones, which are not everywhere and take 3.5 GB where a recipe has 224 pixels."""
    return np.random.default_rng(0).integers(0, 256, (20, 28, 28), dtype=np.uint8), np.arange(20) % 10


@pytest.mark.parametrize(
    "command",
    [c for c in SHOWN if c.split()[1] not in TRAINING_VERBS + PORTING_VERBS + MEASURING_VERBS + CHECKING_VERBS],
)
def test_shown_command_runs(command, monkeypatch, tmp_path):
    """Those that compare or write a page, up to the point where backends would start; their own tests go on there."""
    words = shlex.split(command.split(" > ")[0])[1:]
    monkeypatch.setattr(harness.compare.comparison, "compare", _reached)
    monkeypatch.setattr("harness.explore.page.explore", _reached)
    monkeypatch.setattr(harness.images.sources, "fashion_mnist", _few_of_fashion_mnist)
    if "--weights" in words:
        weights = replace(weights_of("lenet"), metadata={})  # whose size is the preset's
        _write(tmp_path / words[words.index("--weights") + 1], weights)
    Image.new("L", (30, 20)).save(tmp_path / "coat.png")
    if words[0] in ("compare", "explore"):
        with pytest.raises(_Reached):
            googlenet(*words, cwd=tmp_path)
    else:
        assert googlenet(*words, cwd=tmp_path).stdout


@pytest.mark.parametrize("command", [c for c in SHOWN if c.split()[1] in CHECKING_VERBS])
def test_shown_command_of_checking_reaches_the_model(command, monkeypatch, tmp_path):
    """What comes then is in test_check.py."""
    for name in ("model.py", "other.py", "mine.pt", "model.onnx", "other.onnx"):
        (tmp_path / name).touch()
    with zipfile.ZipFile(tmp_path / "model.torchscript", "w") as archive:
        archive.writestr("model/constants.pkl", "")
    monkeypatch.setattr(harness.check.trial, "run_trial", _reached)
    with pytest.raises(_Reached):
        googlenet(*shlex.split(command)[1:], cwd=tmp_path)


def _write(path: Path, weights: Checkpoint) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    FORMATS[format_for(path)].write(path, weights, here)


@pytest.fixture(scope="module")
def frameworks() -> None:
    """All that are tested, imported apart from the tests that run commands with them."""
    for name in TESTED:
        load(name)


@pytest.mark.skipif(TESTED != BACKENDS, reason="the shown commands go from and to every framework")
@pytest.mark.parametrize("command", [c for c in SHOWN if c.split()[1] in PORTING_VERBS])
def test_shown_command_of_porting_runs(command, frameworks, tmp_path):
    """From beginning to end. LeNet, where the command does not say which network it is."""
    words = shlex.split(command)[1:]
    if "googlenet.safetensors" in words:
        theirs = weights_of("torchvision", num_classes=20)
        arrays = names.foreign(theirs.params, names.SCHEMES["torchvision"], theirs.config)
        save_file({name: np.ascontiguousarray(x) for name, x in arrays.items()}, tmp_path / "googlenet.safetensors")
    weights = weights_of("d2l" if "--preset" in words else "lenet")
    weights = replace(weights, metadata={"labels": weights.metadata["labels"]})
    for name in ("runs/fast/pt/checkpoint.safetensors", "model.pt", "model.onnx"):
        if name in words[1:] and words[2:3] != [name]:  # where it is the second word, it is the command's to make
            _write(tmp_path / name, weights)
    (tmp_path / "labels.txt").write_text("\n".join("abcdefghij"))
    (tmp_path / "photos").mkdir()
    for name in ("coat.png", "photos/1.png"):
        Image.fromarray(np.full((30, 20), 90, np.uint8)).save(tmp_path / name)
    assert googlenet(*words, cwd=tmp_path).stdout


@pytest.mark.parametrize("command", [c for c in SHOWN if c.split()[1] in MEASURING_VERBS])
def test_shown_command_of_measuring_runs(command, monkeypatch, tmp_path):
    """Up to the point where a backend's process would start; test_bench.py goes through with it."""
    monkeypatch.setattr(harness.images.sources, "fashion_mnist", _few_of_fashion_mnist)
    monkeypatch.setattr(harness.bench.process, "Process", _reached)
    monkeypatch.setattr(harness.bench.machine, "_WATCHED", 0.01)  # seconds
    with pytest.raises(_Reached):
        googlenet(*shlex.split(command)[1:], cwd=tmp_path, XDG_CACHE_HOME=str(tmp_path))


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    """Where pictures that are prepared once stay."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def folder_of_the_docs(tmp_path, cache, monkeypatch) -> Path:
    """A run of two backends, and a recipe, as the shown commands have them; nothing is really trained."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.setattr(harness.images.sources, "fashion_mnist", _few_of_fashion_mnist)
    shutil.copy(recipe_path("fast"), tmp_path / "mine.toml")
    for name in (f"photos/{kind}/{i}.png" for kind in ("cat", "dog") for i in range(3)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30), "brown").save(tmp_path / name)
    two = spec.preset("lenet-bn", num_classes=2)
    save(tmp_path / "model.safetensors", spec.init_params(two), two)
    settings = settings_for(recipe("lenet-bn"), prepare("fashion-mnist", 1, 28), 0, "float32", "auto")
    step = {"kind": "step", "step": 1, "loss": 2.0, "accuracy": 0.5, "images_per_second": None, "seconds": 1.0}
    for part in [part for run in ("d2l", "epoch") for part in create(tmp_path / "runs" / run, ["pt", "mx"], settings)]:
        (part.folder / METRICS).write_text(json.dumps(step | {"losses": [2.0]}) + "\n")
        position = Position(step=1, lineage=[{"backend": part.backend, "from_step": 0}])
        metadata = {"run": settings.as_json(), "position": dataclasses.asdict(position)}
        save(part.folder / CHECKPOINT, spec.init_params(settings.config), settings.config, metadata)
    return tmp_path


@pytest.mark.parametrize("command", [c for c in SHOWN if c.split()[1] in TRAINING_VERBS])
def test_shown_command_of_training_runs(command, folder_of_the_docs, monkeypatch):
    """Up to the point where a backend's process starts, and dies here: the exit status is 1 then."""
    started: list[tuple[str, str]] = []

    def dies(backend: str, task: dict, *_: object) -> Answer:
        started.append((backend, task["kind"]))
        return Answer(crash="exit status 3")

    monkeypatch.setattr("support.here", dies)
    words = shlex.split(command)[1:]
    if "--run" in words:
        shutil.rmtree(folder_of_the_docs / "runs")
    done = googlenet(*words, cwd=folder_of_the_docs, status=0 if words[0] == "runs" else 1)
    if words[0] == "runs":
        assert started == []
        assert (words[1] if len(words) > 1 else "runs/d2l") in done.stdout
        return
    named = words[words.index("--backend") + 1] if "--backend" in words else words[1]
    assert started == [(named if named in BACKENDS else "pt", {"train": "train", "eval": "evaluate"}[words[0]])]
    assert f"{started[0][0]}: exit status 3" in done.stderr


def test_documented_code_of_training_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for code in _blocks("python", TRAINING):
        exec(code.replace("googlenet_pt", load(TESTED[0]).__name__), {})
    assert (tmp_path / "d2l.safetensors").is_file()


def test_table_of_recipes_is_true():
    rows = re.findall(r"^\| `([\w-]+)` \| (\w+) ([\d.]+)[^|]*\| (\d+), (\d+), (\d+) \| ", TRAINING, flags=re.MULTILINE)
    found = {name: recipe(name) for name in recipes()}
    assert sorted(
        (name, kind.lower(), float(rate), *map(int, numbers)) for name, kind, rate, *numbers in rows
    ) == sorted(
        (name, type(row.optimizer).__name__.lower(), row.optimizer.rate, row.batch, row.epochs, row.size)
        for name, row in found.items()
    )


def test_every_key_of_a_recipe_is_documented():
    def names(row: type) -> list[str]:
        return [field.name for field in dataclasses.fields(row)]

    assert all(f"`{field}`" in TRAINING or f"[{field}]" in TRAINING for field in names(Recipe))
    for row in (*OPTIMIZERS.values(), *SCHEDULES.values()):
        assert all(f"`{field}`" in TRAINING for field in names(row) if field != "every"), row


def _run_the_code(backend: ModuleType, **changes: str) -> dict[str, Any]:
    """What the first block of code leaves, in a backend, with something else in place of what it has."""
    code = _blocks("python")[0]
    for shown, other in ({"googlenet_pt": backend.__name__} | changes).items():
        assert shown in code
        code = code.replace(shown, other)
    scope: dict[str, Any] = {}
    exec(code, scope)
    assert scope["logits"].shape == (2, 10)
    assert list(scope["grads"]) == list(spec.param_shapes(scope["config"]))
    assert np.isfinite(scope["loss"])
    return scope


def test_shown_code_runs_with_lenet_in_every_backend(backend):
    """The same calls; LeNet, since it compiles in a second."""
    scope = _run_the_code(backend, **{"GoogLeNet": "LeNet", "d2l": "lenet", "96, 96": "28, 28"})
    assert scope["config"].preset == "lenet"


@pytest.mark.slow
def test_shown_code_runs_in_every_backend(backend):
    assert _run_the_code(backend)["config"].preset == "d2l"


@pytest.mark.skipif(TESTED != BACKENDS, reason="moves models between all of them")
def test_every_direction_is_shown_and_moves_a_model():
    packages = {name: load(name) for name in TESTED}
    models = {"pt": "torch_model", "mx": "mx_model", "jax": "jax_model"}
    scope: dict = {package.__name__: package for package in packages.values()}
    lines = re.findall(r"^\| \w+ to \w+ \| `(.+)` \|$", API, flags=re.MULTILINE)
    pairs = [(one, other) for one in TESTED for other in TESTED if one != other]
    for line, (one, other) in zip(lines, pairs, strict=True):
        for seed, name in enumerate((one, other)):
            scope[models[name]] = packages[name].build(spec.preset("lenet"), device="cpu", seed=seed)
        exec(line, scope)
        moved, there = (packages[name].dump_params(scope[models[name]]) for name in (one, other))
        assert all(np.array_equal(x, there[name]) for name, x in moved.items()), line


def test_every_exported_name_is_explained(backend):
    assert set(re.findall(r"^\| `(\w+)\(", API, flags=re.MULTILINE)) == set(backend.__all__)


def test_table_of_presets_is_true():
    rows = re.findall(r"^\| `([\w-]+)` \| [^|]+ \| (\d)x(\d+)x\d+, (\d+) \| ([\d,]+) \|$", NETWORKS, flags=re.MULTILINE)
    assert [
        (name, int(channels), int(size), int(classes), int(count.replace(",", "")))
        for name, channels, size, classes, count in rows
    ] == [
        (name, config.in_channels, config.input_size, config.num_classes, spec.parameter_count(config))
        for name, config in spec.PRESETS.items()
    ]


def test_measured_table_has_the_networks_stages_and_keeps_the_bounds():
    shapes = spec.stage_shapes(spec.preset("d2l"), (1, 96, 96))
    rows = re.findall(r"^(\w+) +([\dx ]*?\d) +(\d\.\de-\d+|0\.0e\+00) +(\S+) +(\S+)$", _blocks("text")[0], re.MULTILINE)
    measured = {name: (shape, errors) for name, shape, *errors in rows}
    assert list(measured) == list(shapes)
    for name, (shape, errors) in measured.items():
        assert shape == " x ".join(map(str, shapes[name]))
        assert max(map(float, errors)) <= TOLERANCES["float64"].activations


def test_every_key_of_the_comparison_is_documented():
    report = Report("d2l", "digits", [1], "float64", 0, None, 1, {}, TOLERANCES["float64"], {"pt": BackendReport()})
    table = report.as_json()
    keys = [*table, *table["input"], *table["backends"]["pt"], *vars(StageReport("conv1", [1], 0.0))]
    assert [key for key in keys if f"`{key}`" not in COMPARING] == []


def test_rules_of_naming_describe_every_array():
    """The rules of docs/names.md as an expression: it describes all arrays and nothing else."""
    block = (
        r"inception(3[ab]|4[a-e]|5[ab])\.(branch1x1|branch3x3_reduce|branch3x3|branch5x5_reduce|branch5x5|pool_proj)"
    )
    conv = rf"(conv1|conv2_reduce|conv2|{block}|aux[12]\.conv)"
    dense = r"(aux[12]\.fc[12]|fc)"
    plain = re.compile(rf"({conv}|{dense})\.(weight|bias)")
    normed = re.compile(rf"{conv}\.(weight|norm\.(weight|bias|running_mean|running_var))|{dense}\.(weight|bias)")
    sequences = {
        "lenet": "conv[12]|fc[345]",
        "alexnet": "conv[1-5]|fc[678]",
        "vgg11": "conv([12]_1|[345]_[12])|fc[678]",
        "nin": "conv[1-4](_mlp[12])?",
    }
    branch = (
        r"branch1x1|branch5x5(_reduce)?|branch3x3(_reduce|_[12ab]|[ab](_reduce)?)?|branch3x3dbl_(reduce|[12ab])"
        r"|branch7x7_(reduce|[12])|branch7x7dbl_(reduce|[1-4])|branch7x7x3(_reduce|_[12])?|pool_proj|up"
    )
    stem = "conv(1a|2a|2b|3b|4a|7b)"
    inceptions = {
        "InceptionBN": rf"conv1|conv2(_reduce)?|inception(3[a-c]|4[a-e]|5[ab])\.({branch})|fc",
        "InceptionV3": rf"{stem}|mixed(5[b-d]|6[a-e]|7[a-c])\.({branch})|aux1\.(conv2?|fc)|fc",
        "InceptionV4": rf"{stem}|mixed(3a|4a|5[a-e]|6[a-h]|7[a-d])\.({branch})|fc",
        "InceptionResNetV2": rf"{stem}|(mixed(5b|6a|7a)|block(35|17|8)_\d+)\.({branch})|fc",
    }
    leaf = r"(weight|bias|norm\.(weight|bias|running_mean|running_var))"
    for name, config in spec.PRESETS.items():
        own = inceptions.get(config.family) or sequences.get(name.split("-")[0])
        pattern = re.compile(rf"({own})\.{leaf}") if own else normed if config.batch_norm else plain
        assert all(pattern.fullmatch(array) for array in spec.param_shapes(config)), name


@pytest.mark.parametrize("verb", [command.name or command.callback.__name__ for command in app.registered_commands])
def test_every_verb_is_shown(verb):
    assert any(command.split()[:2] == ["googlenet", verb] for command in COMMANDS)
