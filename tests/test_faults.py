"""The list of faults is sound: every fault still has its place, and its tests are there. `make test-teeth` runs it."""

from __future__ import annotations

import re

from support import ROOT, traps
from teeth.faults import FAULTS, misplaced


def test_every_fault_stands_once_in_the_code():
    """Code that moves takes its faults along: port them, do not drop them."""
    assert misplaced(ROOT) == []


def test_every_fault_has_a_name_of_its_own_and_changes_something():
    names = [fault.name for fault in FAULTS]
    assert sorted(set(names)) == sorted(names)
    assert [fault.name for fault in FAULTS if fault.old == fault.new] == []


def test_the_tests_of_every_fault_exist():
    wrong = []
    for fault in FAULTS:
        assert fault.tests or fault.slow, fault.name
        for test in fault.tests:
            file, *parts = re.sub(r"\[.*\]$", "", test).split("::")
            content = (ROOT / file).read_text() if (ROOT / file).is_file() else ""
            if not content or any(not re.search(rf"^ *(def|class) {part}\b", content, re.MULTILINE) for part in parts):
                wrong.append(f"{fault.name}: {test}")
    assert wrong == []


FILES = ("layers", "googlenet", "ancestors", "network", "predict", "optimizer")  # of each backend


def test_the_faults_cover_what_the_quick_tests_are_trusted_with():
    """Every backend, the definition, files, names, the loader, resuming, preprocessing and the exit statuses."""
    places = {fault.file for fault in FAULTS}
    assert len(FAULTS) >= 60
    for file in (
        *(f"googlenet_{name}/{file}.py" for name in ("pt", "mx", "jax") for file in FILES),
        *(f"harness/weights/formats/{file}.py" for file in ("pytorch", "gluon", "flax", "huggingface", "onnx_file")),
        *(f"harness/weights/{file}.py" for file in ("checkpoint", "names", "preprocessing", "convert")),
        *(f"harness/{file}.py" for file in ("cli/main", "images/batches", "training/loop", "compare/comparison")),
        *(f"spec/{file}.py" for file in ("reference", "optimizers", "init")),
    ):
        assert file in places, file


def test_every_trap_of_the_documentation_is_a_fault():
    """One in a notebook that our code has no place for is a fault of ours that does the same."""
    assert len(traps().TRAPS) >= 27
    assert {fault.trap for fault in FAULTS if fault.trap} == traps().TRAPS.keys()
