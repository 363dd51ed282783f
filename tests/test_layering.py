"""Who may import whom; a framework is loaded only by its own backend, and only when that is asked for."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from harness.backends.registry import PACKAGES

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


def test_the_spec_needs_numpy_only():
    outside = set().union(*(_imports(path) for path in (ROOT / "spec").rglob("*.py")))
    assert outside - {"spec"} - sys.stdlib_module_names == {"numpy"}


def test_no_code_of_ours_loads_a_pickle():
    calls = []
    for package in ALLOWED:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                imported = [name.name for name in node.names] if isinstance(node, ast.Import) else []
                imported += [node.module] if isinstance(node, ast.ImportFrom) else []
                assert not set(imported) & {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}, path
                if isinstance(node, ast.Call) and ast.unparse(node.func) in ("torch.load", "np.load"):
                    calls.append(ast.unparse(node))
    assert len(calls) > 4
    for call in calls:
        assert call.endswith(("weights_only=True)", "allow_pickle=False)"))


# The packages of the harness, bottom to top. One imports those below it, and of its own floor only itself.
FLOORS = [
    {"agreement", "atomic", "shown"},
    {"screen"},
    {"figures", "images"},
    {"backends"},
    {"weights"},
    {"training"},
    {"check", "compare"},
    {"bench", "exercises", "explore", "worker"},
    {"cli", "gpu"},
]
FLOOR = {package: floor for floor, packages in enumerate(FLOORS) for package in packages}


def _package(path: Path) -> str:
    return path.relative_to(ROOT / "harness").parts[0].removesuffix(".py")


def _packages_imported(path: Path) -> set[str]:
    """Packages that the file imports anywhere, `from harness import PACKAGE` among them."""
    modules = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {module.split(".")[1] for module in modules if module.startswith("harness.")}


@pytest.mark.parametrize("path", sorted((ROOT / "harness").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_imports_only_packages_below_its_own(path):
    if path.name == "__init__.py" and path.parent.name == "harness":
        assert not _packages_imported(path)
        return
    package = _package(path)
    assert {other for other in _packages_imported(path) if other != package and FLOOR[other] >= FLOOR[package]} == set()


def test_a_folder_of_the_harness_holds_at_most_ten_files():
    folders = [ROOT / "harness", *(path for path in (ROOT / "harness").rglob("*") if path.is_dir())]
    crowded = {folder.name: len(list(folder.glob("*.py"))) for folder in folders}
    assert {name: count for name, count in crowded.items() if count > 10} == {}


@cache
def _loaded_after(code: str) -> set[str]:
    """Top-level modules that a fresh process holds after running the code."""
    script = f"{code}\nimport sys; print(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stdout.splitlines()[-1].split())


HELP = """
import sys, harness.cli.main
sys.argv = ["googlenet", "--help"]
try:
    harness.cli.main.main()
except SystemExit:
    pass
"""


@pytest.mark.parametrize(
    "code",
    [
        "import spec, spec.reference, spec.table",
        "import harness.cli.main, harness.compare.comparison, harness.backends.doctor, harness.images.sources",
        HELP,
    ],
)
def test_no_framework_is_loaded(code):
    assert not _loaded_after(code) & (FRAMEWORKS | set(PACKAGES.values()))


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
