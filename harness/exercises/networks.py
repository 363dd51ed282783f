"""Exercises whose answer is a network or a part of one, in a framework that `googlenet check` reads."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import spec
from harness.check.checking import Line, Report, check
from harness.check.trial import Task, Trial, run_trial
from harness.exercises.exercise import Answer, Exercise, Finding, Verdict


@dataclass(frozen=True, kw_only=True)
class Network(Exercise):
    """A class or a function without arguments that makes the network, or the network itself."""

    table: spec.Config

    @property
    def shape(self) -> spec.Shape:
        """Of what goes in, (channels, height, width)."""
        return self.table.in_channels, self.table.input_size, self.table.input_size

    @property
    def out(self) -> spec.Shape:
        """Of what comes out."""
        return spec.walk(self.table)[-1].out

    def judge(self, answer: Answer) -> Verdict:
        """As `googlenet check` does, against the part of the table that is asked for."""
        task = Task(answer.target, str(Path.cwd()), {}, (self.shape,), True, answer.memory, exactly=True)
        return self.judge_trial(run_trial(task, answer.seconds), answer)

    def judge_trial(self, trial: Trial, answer: Answer) -> Verdict:
        """The verdict on what an answer did."""
        report = check(trial, self.table, inference=False)
        counting = [line for line in report.lines if line.counts]
        if report.not_understood and not counting:
            counting = list(report.lines)  # they make the model's numbers, and not those by which effects are measured
        findings = [_finding(line, self.table.preset) for line in counting]
        if report.not_understood and not findings:
            raise spec.InvalidInput(f"{answer.target}: it ran, and was not understood: {report.not_understood}")
        graph = trial.recordings["inference"].graph
        shapes = [graph.nodes[end].shape for end in graph.outputs]
        if self.out not in shapes:
            got = " and ".join(map(_sides, shapes))
            findings.insert(0, Finding("the whole", f"it puts out {got}, and {_sides(self.out)} is asked for"))
        return Verdict(tuple(findings), (_count(report), *report.notes))


def part(preset: str, first: str, last: str, channels: int, size: int) -> spec.Config:
    """The stages of a preset from one to another, on maps of so many channels and pixels a side."""
    config = spec.preset(preset, aux=False)
    names = [name for name, _ in config.stages]
    stages = config.stages[names.index(first) : names.index(last) + 1]
    return replace(config, in_channels=channels, input_size=size, table=stages, dropout=0.0)


def _sides(shape: spec.Shape) -> str:
    return " x ".join(map(str, shape))


def _finding(line: Line, referee: str) -> Finding:
    """A line of the check without what would be right."""
    own, of_two, _ = line.text.partition(f", {referee} has ")
    if of_two:
        text = f"{own} is not what is asked for"
    elif own.endswith(" is missing"):
        text = "a branch is missing" if own.startswith("branch") else "something is missing here"
    elif own.startswith("the order"):
        text = "its branches are joined in another order"
    else:
        text = own
    return Finding(", ".join(line.places), text, line.effect.replace("logits", "output") if line.counts else "")


def _count(report: Report) -> str:
    own, asked = report.parameters, report.reference_parameters
    if own == asked:
        return f"Its number of parameters, {own:,}, is right."
    return f"Its {own:,} parameters are too {'many' if own > asked else 'few'}."
