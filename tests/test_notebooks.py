"""The notebooks run, and put out what the pages show that are made of them, in English and in Chinese."""

from __future__ import annotations

import difflib
import re
import sys
from pathlib import Path

import pytest
from jupytext.cli import jupytext
from nbformat import NotebookNode
from nbformat.v4 import new_output
from support import TESTED

from harness.backends.registry import BACKENDS

FOLDER = Path(__file__).parent.parent / "docs" / "notebooks"
sys.path.insert(0, str(FOLDER))
import render  # noqa: E402

LARGEST = 300_000  # bytes of a page with its pictures
ANY = "whatever it was"
PAGES = [(name, language) for name in render.NOTEBOOKS for language in render.LANGUAGES]


def page(name: str, language: str) -> str:
    """What stands there."""
    return (FOLDER / f"{name}{render.LANGUAGES[language]}").read_text()


def forget_outputs(cells: list) -> None:
    """Put something in the place of whatever these cells put out, or nothing."""
    for cell in cells:
        if cell.cell_type == "code":
            cell.outputs = [new_output("stream", text=ANY)]


def assert_shown(notebook: NotebookNode, name: str, language: str) -> None:
    """The page shows this notebook."""
    text, _ = render.rendered(notebook, name, language)
    parts = re.split(rf"\s+{ANY}\s+", text)
    there = page(name, language)
    difference = "\n".join(difflib.unified_diff(there.splitlines(), text.splitlines(), lineterm=""))
    assert re.fullmatch(r"\s.*?".join(map(re.escape, parts)), there, flags=re.DOTALL), difference


@pytest.mark.parametrize(("name", "language"), PAGES)
def test_page_has_the_notebooks_text_and_code(name, language):
    """`make notebooks` was run after the last change."""
    notebook = render.source(name)
    forget_outputs(notebook.cells)
    assert_shown(notebook, name, language)


@pytest.mark.parametrize("name", render.NOTEBOOKS)
def test_every_paragraph_is_in_both_languages(name):
    cells = [cell for cell in render.source(name).cells if cell.cell_type == "markdown"]
    assert [cell.metadata["tags"] for cell in cells] == [["en"], ["zh"]] * (len(cells) // 2)
    written = [cell.source for cell in cells]
    for english, chinese in zip(written[::2], written[1::2], strict=True):
        assert bool(re.search("[\u4e00-\u9fff]", chinese))
        for mark in (r"^#+ ", r"^- "):  # headings and points
            assert len(re.findall(mark, english, re.MULTILINE)) == len(re.findall(mark, chinese, re.MULTILINE))
        assert set(re.findall(r"`[^`]+`", english)) == set(re.findall(r"`[^`]+`", chinese))


@pytest.mark.parametrize("name", render.NOTEBOOKS)
def test_page_is_small_and_names_what_to_try_next(name):
    pictures = sum(path.stat().st_size for path in FOLDER.glob(f"{name}_files/*"))
    for language, heading in {"en": "## What to try next", "zh": "## 接下来可以试试"}.items():
        assert len(page(name, language).encode()) + pictures < LARGEST
        assert heading in page(name, language)


def test_shown_command_makes_a_notebook(tmp_path):
    text = (FOLDER / "README.md").read_text()
    (words,) = (line.split()[2:] for line in text.splitlines() if line.startswith("$ jupytext"))
    assert words[-1] == "docs/notebooks/one-network.py"
    assert jupytext(["--output", str(tmp_path / "a.ipynb"), *words[:-1], str(FOLDER / "one-network.py")]) == 0
    assert all(
        f"({name}{ending})" in text for name in render.NOTEBOOKS for ending in (".py", *render.LANGUAGES.values())
    )


@pytest.mark.slow
@pytest.mark.skipif(TESTED != BACKENDS, reason="the notebooks show every framework")
@pytest.mark.parametrize("name", render.NOTEBOOKS)
def test_notebook_puts_out_what_the_page_shows(name):
    """But for cells that are marked, since what they say is another machine's or another time's."""
    notebook = render.executed(name)
    forget_outputs([cell for cell in notebook.cells if "varies" in cell.metadata.get("tags", [])])
    for language in render.LANGUAGES:
        assert_shown(notebook, name, language)
