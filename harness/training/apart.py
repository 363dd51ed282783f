"""How far the backends of a run are apart: in the loss of every step, and in the weights that they have come to."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from harness.agreement import finite, relative_errors
from harness.atomic import StrPath
from harness.training.runs import CHECKPOINT, Position, backend_folders, is_past, read_metrics, read_state
from harness.weights import checkpoint
from spec import InvalidInput


def step_losses(folder: StrPath) -> dict[int, float]:
    """The loss of every step of one backend's run that its checkpoint holds, by the step's number from 1.

    Steps that an earlier version recorded are missing: it kept means over ten.

    Raises:
        InvalidInput: when a file is damaged.
    """
    folder = Path(folder)
    state = read_state(folder)
    position = state[1] if state else Position()
    records = [record for record in read_metrics(folder) if record["kind"] == "step" and is_past(record, position)]
    ends = [(record["step"], record.get("losses", [])) for record in records] + [(position.step, position.losses)]
    return {step: loss for end, losses in ends for step, loss in enumerate(losses, end + 1 - len(losses))}


def losses_apart(losses: Mapping[str, Mapping[int, float]]) -> dict[int, float]:
    """(largest - smallest) / largest of the backends' losses, at each step that all of several backends have done.

    Infinite where a loss is not finite.
    """
    if len(losses) < 2:
        return {}
    common = sorted(set.intersection(*map(set, losses.values())))
    rows = {step: [own[step] for own in losses.values()] for step in common}
    return {step: _spread(row) for step, row in rows.items()}


def _spread(row: Sequence[float]) -> float:
    if not all(map(math.isfinite, row)):
        return math.inf
    return (max(row) - min(row)) / max(row) if max(row) > 0 else 0.0


@dataclass(frozen=True)
class Apart:
    """How far the backends of a run are apart.

    Attributes:
        losses: As `losses_apart` has them.
        step: The step that the weights are those after.
        weights: For each array the largest relative error between two backends.
    """

    losses: dict[int, float]
    step: int
    weights: dict[str, float]

    def within(self, bound: float) -> bool:
        """Whether all of it is at most so much."""
        return max(*self.losses.values(), *self.weights.values()) <= bound

    def describe(self, bound: float) -> str:
        """Where each is largest, and since when the losses have been further apart than the bound."""
        step = max(self.losses, key=self.losses.__getitem__)
        name = max(self.weights, key=self.weights.__getitem__)
        first = next((step for step, error in self.losses.items() if error > bound), None)
        since = f", above {bound:g} first at step {first:,}" if first else ""
        return (
            f"losses of {len(self.losses):,} steps: at most {self.losses[step]:.1e} apart (step {step:,}){since}; "
            f"weights after step {self.step:,}: at most {self.weights[name]:.1e} ({name})"
        )

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        table: dict[str, Any] = finite({"losses": self.losses, "step": self.step, "weights": self.weights})
        return table


def apart(run: StrPath) -> Apart:
    """How far the backends of a run are apart.

    Raises:
        InvalidInput: when there are not several of them, they have not done the same steps or not recorded each of
            these, they have other settings, or a file is damaged.
    """
    folders = backend_folders(run)
    states = {name: read_state(folder) for name, folder in folders.items()}
    done = {name: state[1].step if state else 0 for name, state in states.items()}
    if len(done) < 2 or len(set(done.values())) > 1 or not min(done.values()):
        found = ", ".join(f"{name} {step:,}" for name, step in done.items())
        raise InvalidInput(f"{run}: expected several backends that have done the same number of steps, got {found}")
    if any(state[0] != first[0] for state in states.values() for first in states.values() if state and first):
        raise InvalidInput(f"{run}: expected backends with the same settings; they differ in the checkpoints")
    losses = {name: step_losses(folder) for name, folder in folders.items()}
    step = next(iter(done.values()))
    if any(list(own) != list(range(1, step + 1)) for own in losses.values()):
        raise InvalidInput(f"{run}: expected the loss of each step in metrics.jsonl; train it anew with this version")
    params = [checkpoint.load(folder / CHECKPOINT).params for folder in folders.values()]
    pairs = [relative_errors(*pair) for pair in combinations(params, 2)]
    return Apart(losses_apart(losses), step, {name: max(pair[name] for pair in pairs) for name in pairs[0]})
