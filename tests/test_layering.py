"""Who may import whom; a framework is loaded only by its own backend, and only when that is asked for."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from harness.backend import PACKAGES

ROOT = Path(__file__).parent.parent
FRAMEWORKS = {"torch", "mxnet", "jax", "jaxlib", "flax", "optax", "orbax"}
ALLOWED = {  # of our packages and of the frameworks
    "spec": {"spec"},
    "harness": {"spec", "harness"},
    "googlenet_pt": {"spec", "harness", "googlenet_pt", "torch"},
    "googlenet_mx": {"spec", "harness", "googlenet_mx", "mxnet"},
    "googlenet_jax": {"spec", "harness", "googlenet_jax", "jax", "jaxlib", "flax", "optax", "orbax"},
}


def _imports(path: Path) -> set[str]:
    """Top-level names of everything that the file imports anywhere."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("package", ALLOWED)
def test_packages_import_only_what_they_may(package):
    watched = set(ALLOWED) | FRAMEWORKS
    for path in (ROOT / package).rglob("*.py"):
        assert _imports(path) & watched <= ALLOWED[package], path


def test_the_spec_needs_numpy_only_and_its_files_safetensors():
    outside = {path.name: _imports(path) - {"spec"} - sys.stdlib_module_names for path in (ROOT / "spec").glob("*.py")}
    assert outside.pop("checkpoint.py") == {"numpy", "safetensors"}
    assert set().union(*outside.values()) == {"numpy"}


@cache
def _loaded_after(code: str) -> set[str]:
    """Top-level modules that a fresh process holds after running the code."""
    script = f"{code}\nimport sys; print(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stdout.splitlines()[-1].split())


HELP = """
import sys, harness.cli
sys.argv = ["googlenet", "--help"]
try:
    harness.cli.main()
except SystemExit:
    pass
"""


@pytest.mark.parametrize(
    "code",
    [
        "import spec, spec.reference, spec.table",
        "import harness.cli, harness.compare, harness.doctor, harness.data",
        HELP,
    ],
)
def test_no_framework_is_loaded(code):
    assert not _loaded_after(code) & (FRAMEWORKS | set(PACKAGES.values()))


def test_the_spec_does_not_load_what_only_files_need():
    assert "safetensors" not in _loaded_after("import spec, spec.reference, spec.recipe, spec.table")
    assert "safetensors" in _loaded_after("import spec.checkpoint")


def test_help_does_not_even_load_numpy():
    assert not _loaded_after(HELP) & {"numpy", "sklearn", "PIL", "pooch"}


@pytest.mark.slow
@pytest.mark.parametrize("package", PACKAGES.values())
def test_a_backend_loads_its_own_framework_only(package):
    """What `test_packages_import_only_what_they_may` shows of our files holds of what they import in turn, too."""
    others = FRAMEWORKS - ALLOWED[package]
    loaded = _loaded_after(f"import {package}")
    assert loaded & FRAMEWORKS
    assert not loaded & others
