"""Runs the notebooks and writes each with its outputs, once in English and once in Chinese.

    python docs/notebooks/render.py                # all
    python docs/notebooks/render.py one-network    # those that are named

A notebook is a text, `NAME.py`; paragraphs are marked `en` or `zh`, and cells whose outputs differ from one machine or
one time to the next `varies`. What comes out is `NAME.md` and `NAME.zh-CN.md`, with pictures in a folder beside them.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import jupytext
from nbclient import NotebookClient
from nbconvert import MarkdownExporter
from nbconvert.preprocessors import TagRemovePreprocessor
from nbformat import NotebookNode
from traitlets.config import Config

FOLDER = Path(__file__).resolve().parent
NOTEBOOKS = sorted(path.stem for path in FOLDER.glob("*.py") if path != Path(__file__).resolve())
LANGUAGES = {"en": ".md", "zh": ".zh-CN.md"}  # the ends of the files' names
_SECONDS = 600  # for a cell


def source(name: str) -> NotebookNode:
    """The notebook without outputs."""
    notebook = jupytext.read(FOLDER / f"{name}.py")
    notebook.metadata["language_info"] = {"name": "python"}  # as its kernel says once it runs
    return notebook


def executed(name: str) -> NotebookNode:
    """The notebook with the outputs of a run in an empty folder."""
    notebook = source(name)
    here = {
        "PYTHONPATH": os.pathsep.join([str(FOLDER.parent.parent), os.environ.get("PYTHONPATH", "")]),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),  # `googlenet` is there
        "NO_COLOR": "1",
        "COLUMNS": "120",
        "PYTHONWARNINGS": "ignore",
    }
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(
            notebook,
            timeout=_SECONDS,
            coalesce_streams=True,
            extra_arguments=["--log-level=ERROR"],
            resources={"metadata": {"path": folder}},
        )
        client.execute(env=os.environ | here)
    return notebook


def rendered(notebook: NotebookNode, name: str, language: str) -> tuple[str, dict[str, bytes]]:
    """The notebook in one of `LANGUAGES` as Markdown, and its pictures by their paths."""
    config = Config()
    config.TagRemovePreprocessor.remove_cell_tags = set(LANGUAGES) - {language}
    exporter = MarkdownExporter(config=config)
    exporter.register_preprocessor(TagRemovePreprocessor(config=config), enabled=True)
    text, resources = exporter.from_notebook_node(notebook, {"output_files_dir": f"{name}_files", "unique_key": name})
    lines = (line.rstrip() for line in text.strip().splitlines())
    return "\n".join(lines) + "\n", resources["outputs"]


def main(names: list[str]) -> None:
    """Write the named notebooks, or all."""
    for name in names or NOTEBOOKS:
        notebook = executed(name)
        for language, ending in LANGUAGES.items():
            text, pictures = rendered(notebook, name, language)
            (FOLDER / f"{name}{ending}").write_text(text)
            for path, data in pictures.items():
                (FOLDER / path).parent.mkdir(exist_ok=True)
                (FOLDER / path).write_bytes(data)
        print(f"wrote {name}")


if __name__ == "__main__":
    main(sys.argv[1:])
