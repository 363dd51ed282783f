"""`googlenet exercise`: right answers are right, each mistake is named where it is, and no solution is given away."""

from __future__ import annotations

import json
import os
import re
import shlex
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from answers import ANSWERS
from support import TESTED, googlenet

import harness.exercises.networks
import harness.exercises.values
import spec
from harness.backends.registry import load
from harness.check.trial import Refused, Task, Trial, attempt
from harness.exercises.catalog import EXERCISES
from harness.exercises.exercise import Answer, Verdict
from harness.exercises.networks import Network
from harness.exercises.values import compute

ROOT = Path(__file__).parent.parent
FRAMEWORKS = {name: ("pt", "mx", "jax") if isinstance(row, Network) else ("numpy",) for name, row in EXERCISES.items()}
FRAMEWORKS["port-the-stem"] += ("equinox", "keras")  # for all: that these are read too
SLOW = {"factorization", "residual-connection", "port-the-network"}  # and all but the first in other frameworks
QUICK = {("port-the-stem", "mx"), ("port-the-stem", "jax")}
QUICK |= {(name, kinds[0]) for name, kinds in FRAMEWORKS.items() if name not in SLOW}


@pytest.fixture(scope="module")
def frameworks() -> None:
    """All that are tested, imported apart from the tests."""
    os.environ["KERAS_BACKEND"] = "jax"
    os.environ.setdefault(
        "KERAS_HOME", str(Path(tempfile.gettempdir(), "keras"))
    )  # it writes there when it is imported
    for name in TESTED:
        load(name)


@pytest.fixture
def here(frameworks, monkeypatch) -> None:
    """Answers run in this process, which has its frameworks already."""

    def run_trial(task: Task, seconds: float) -> Trial:
        with refusals(task.target), warnings.catch_warnings(action="ignore"):  # which end no process of its own
            return attempt(task)

    def run_apart(module: str, task: dict, seconds: float) -> tuple[dict, dict]:
        arrays: dict[str, np.ndarray] = {}
        with refusals(task["target"]):
            return compute(json.loads(json.dumps(task)), arrays), arrays

    monkeypatch.setattr(harness.exercises.networks, "run_trial", run_trial)
    monkeypatch.setattr(harness.exercises.values, "run_apart", run_apart)


@contextmanager
def refusals(target: str) -> Iterator[None]:
    """What the process would refuse, refused here."""
    try:
        yield
    except Refused as error:
        raise spec.InvalidInput(f"{target}: {error}") from error


def cases(*, wrong: bool) -> list:
    """An exercise, a framework and, of the wrong ones, the number of a mistake."""
    made = []
    for (name, framework), answers in ANSWERS.items():
        if {"equinox": "jax", "keras": "jax"}.get(framework, framework) not in (*TESTED, "numpy"):
            continue
        marks = [] if (name, framework) in QUICK else [pytest.mark.slow]
        for number in range(len(answers.wrong)) if wrong else [None]:
            row = (name, framework) if number is None else (name, framework, number)
            made.append(pytest.param(*row, marks=marks, id="-".join(map(str, row))))
    return made


def judged(name: str, code: str, folder: Path) -> Verdict:
    """The verdict on a file with that code."""
    (folder / "my.py").write_text(code)
    return EXERCISES[name].judge(Answer(folder / "my.py", EXERCISES[name].writes))


def test_every_exercise_has_answers_in_every_framework_that_it_takes():
    assert set(ANSWERS) == {(name, framework) for name, kinds in FRAMEWORKS.items() for framework in kinds}
    assert {key: len(answers.wrong) for key, answers in ANSWERS.items() if len(answers.wrong) < 2} == {}


@pytest.mark.parametrize(("name", "framework"), cases(wrong=False))
def test_right_answer_is_right(name, framework, here, tmp_path):
    assert judged(name, ANSWERS[name, framework].right, tmp_path).findings == ()


@pytest.mark.parametrize(("name", "framework", "number"), cases(wrong=True))
def test_wrong_answer_is_told_what_is_wrong_and_nothing_else(name, framework, number, here, tmp_path):
    right, wrong = ANSWERS[name, framework]
    old, new, said = wrong[number]
    assert right.count(old) == 1
    verdict = judged(name, right.replace(old, new), tmp_path)
    assert tuple((x.place, x.text) for x in verdict.findings) == said


DOCS = [(ROOT / "README.md").read_text(), (ROOT / "docs" / "exercises.md").read_text()]
SHOWN = [
    command
    for text in DOCS
    for block in re.findall(r"```console\n(.*?)```", text, flags=re.DOTALL)
    for command in re.findall(r"^\$ (googlenet exercise.*?)(?: +#.*)?$", block, flags=re.MULTILINE)
]


@pytest.mark.skipif("pt" not in TESTED, reason="the answer is one of PyTorch")
@pytest.mark.parametrize("command", dict.fromkeys(SHOWN))
def test_shown_command_runs(command, here, tmp_path):
    (tmp_path / "my.py").write_text(ANSWERS["port-the-stem", "pt"].right)
    assert googlenet(*shlex.split(command)[1:], cwd=tmp_path).stdout


def test_documented_exercises_are_those_that_there_are():
    rows = re.findall(r"^\| `([\w-]+)` \| `(\w+)` \| (.+) \|$", DOCS[1], flags=re.MULTILINE)
    assert rows == [(row.name, row.writes, row.title) for row in EXERCISES.values()]


def test_exercises_are_listed_and_told():
    assert all(name in googlenet("exercise").stdout for name in EXERCISES)
    listed = json.loads(googlenet("exercise", "--json").stdout)
    assert [row["name"] for row in listed] == list(EXERCISES)
    for name, row in EXERCISES.items():
        told = googlenet("exercise", name).stdout
        assert row.writes in told
        assert row.hint.split()[0] in told
        assert json.loads(googlenet("exercise", name, "--json").stdout)["text"] == row.text


@pytest.mark.end_to_end
@pytest.mark.skipif("pt" not in TESTED, reason="the answer is one of PyTorch")
def test_command_judges_an_answer_in_a_process_of_its_own(tmp_path):
    right, wrong = ANSWERS["port-the-stem", "pt"]
    (tmp_path / "other.py").write_text(right.replace(*wrong[1][:2]).replace("Stem", "Mine"))
    done = googlenet("exercise", "port-the-stem", "other.py:Mine", "--json", cwd=tmp_path, status=1)
    told = json.loads(done.stdout)
    assert (told["exercise"], told["answer"], told["verdict"]) == ("port-the-stem", "other.py:Mine", "wrong")
    (finding,) = told["findings"]
    assert finding["place"] == "conv2_reduce"
    assert re.fullmatch(r"output off by \d.*", finding["effect"])


@pytest.mark.end_to_end
def test_command_computes_numbers_in_a_process_of_its_own(tmp_path):
    (tmp_path / "my.py").write_text(ANSWERS["carry-the-weights", "numpy"].right)
    done = googlenet("exercise", "carry-the-weights", "my.py", cwd=tmp_path)
    assert done.stdout == "carry-the-weights: right\n"


BAD = {
    "raises": ("def loss(*_): raise KeyError(3)", "it ran and raised KeyError: 3"),
    "no-number": ("def loss(*_): return 'four'", "expected numbers from it, got 'four'"),
    "named": ("def loss(*_): return {'a': None}", "expected numbers for a, got None"),
    "constant": ("loss = 4.0", "expected a function of 3 arguments, got float"),
    "arguments": ("def loss(): pass", "it ran and raised TypeError"),
    "many": ("def loss(*_): return dict.fromkeys(range(101), 1)", "expected at most 100 names, got 101"),
    "large": ("def loss(*_): return range(10**6 + 1)", "expected at most 1,000,000 numbers, got 1,000,001"),
    "ends": ("exit(3)", "the code ended the process, with exit status 3"),
}


@pytest.mark.parametrize("kind", BAD)
def test_answer_that_gives_no_numbers_is_refused(kind, here, tmp_path):
    code, said = BAD[kind]
    (tmp_path / "my.py").write_text(code)
    done = googlenet("exercise", "label-smoothing", "my.py", cwd=tmp_path, status=2)
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [
        ("sizes", "PARAMETERS = {'alexnet': [1, 2], 'vgg11': 1, 'nin': 1, 'googlenet': 1}", "one number is asked for"),
        ("sizes", "PARAMETERS = 4", "nobody asked for it"),
        ("smallest-picture", "SMALLEST = dict.fromkeys(['d2l', 'cnblogs', 'nin'], 0.5)", "a whole number of pixels"),
        ("count-a-block", "def parameters(*_): return [1, 2]", "one number is asked for"),
        ("same-padding", "def same(*_): return 3", "two numbers are asked for, before and after"),
        ("same-padding", "def same(*_): return 50, 50", "windows, and 48 are asked for"),
        ("label-smoothing", "def loss(x, *_): return x", "one number is asked for, the mean over the pictures"),
        ("label-smoothing", "def loss(*_): return 1e9", "it is too large"),
        ("label-smoothing", "def loss(*_): return float('nan')", "it is no number"),
        ("carry-the-weights", "def to_flax(x): return {**x, 'x': 3}", "it is missing"),
    ],
)
def test_answer_of_another_form_is_wrong(name, code, said, here, tmp_path):
    verdict = judged(name, code, tmp_path)
    assert any(said in finding.text for finding in verdict.findings)


@pytest.mark.skipif("pt" not in TESTED, reason="the answer is one of PyTorch")
def test_what_was_not_understood_is_refused(here, tmp_path):
    code = "import torch\nclass Stem(torch.nn.Module):\n    def forward(self, x):\n        return x.sort().values"
    with pytest.raises(spec.InvalidInput, match="it ran, and was not understood"):
        judged("port-the-stem", code, tmp_path)


def test_no_text_gives_a_solution_away():
    """Numbers that an answer has to find are in no text."""
    secrets = {"sizes": ["46", "128", "5,977"], "smallest-picture": ["193", "223", "67"], "same-padding": ["(2, 3)"]}
    for name, numbers in secrets.items():
        assert not any(number in EXERCISES[name].text + EXERCISES[name].hint for number in numbers)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["port-the-stm"], "unknown exercise 'port-the-stm': expected one of"),
        (["port-the-stm"], "did you mean port-the-stem?"),
        (["port-the-stem", "none.py"], "none.py: there is no such file"),
        (["port-the-stem", "my.txt"], "expected FILE.py or FILE.py:NAME, got 'my.txt'"),
        (["port-the-stem", "my.py", "--time", "0"], "--time: expected a number above 0, got 0"),
        (["port-the-stem", "my.py"], "it defines Other"),
    ],
)
def test_what_cannot_be_judged_is_refused(words, said, here, tmp_path):
    (tmp_path / "my.py").write_text("class Other: pass")
    done = googlenet("exercise", *words, cwd=tmp_path, status=2)
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
