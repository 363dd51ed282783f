"""`googlenet exercise`: right answers are right, each mistake is named where it is, and no solution is given away."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from answers import ANSWERS
from support import TESTED, googlenet

import harness.exercises.networks
import spec
from harness.backends.registry import load
from harness.check.trial import Refused, Task, Trial, attempt
from harness.exercises.catalog import EXERCISES
from harness.exercises.exercise import Answer, Verdict
from harness.exercises.networks import Network

ROOT = Path(__file__).parent.parent
FRAMEWORKS = {name: ("pt", "mx", "jax") if isinstance(row, Network) else ("numpy",) for name, row in EXERCISES.items()}
QUICK = {("port-the-stem", "mx"), ("port-the-stem", "jax")} | {(name, kinds[0]) for name, kinds in FRAMEWORKS.items()}


@pytest.fixture(scope="module")
def frameworks() -> None:
    """All that are tested, imported apart from the tests."""
    for name in TESTED:
        load(name)


@pytest.fixture
def here(frameworks, monkeypatch) -> None:
    """Answers run in this process, which has its frameworks already."""

    def run_trial(task: Task, seconds: float) -> Trial:
        try:
            return attempt(task)
        except Refused as error:
            raise spec.InvalidInput(f"{task.target}: {error}") from error

    monkeypatch.setattr(harness.exercises.networks, "run_trial", run_trial)


def cases(*, wrong: bool) -> list:
    """An exercise, a framework and, of the wrong ones, the number of a mistake."""
    made = []
    for (name, framework), answers in ANSWERS.items():
        if framework not in (*TESTED, "numpy"):
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
