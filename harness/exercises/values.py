"""What a learner's function returns, in a process of its own: `python -m harness.exercises.values FOLDER`.

The process is that of `harness.check.trial`, with its limits.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from harness.check.trial import Refused, named, run_apart, serve, told
from harness.exercises.exercise import Answer
from harness.shown import shown
from spec import Array

MOST, LARGEST = 100, 10**6  # names, and numbers of one, that an answer may have
Value = Mapping[str, Array]  # numbers by name; a value that has no names is under ""


def values(answer: Answer, calls: Sequence[Sequence[Any]]) -> list[Value]:
    """What an answer gives, for each list of arguments: numbers, tuples, and arrays by name in dictionaries.

    A constant is what it is; it takes no arguments.

    Raises:
        spec.InvalidInput: when it raises, takes too long, or gives something that is no number.
    """
    task = {
        "target": answer.target,
        "folder": str(Path.cwd()),
        "memory": answer.memory,
        "calls": [[_written(x) for x in call] for call in calls],
    }
    stored, arrays = run_apart("harness.exercises.values", task, answer.seconds)
    return [{key: arrays[f"{i}/{key}"] for key in keys} for i, keys in enumerate(stored["keys"])]


def _written(x: Any) -> Any:
    """An argument as JSON has it; `_read` makes it what it was."""
    if isinstance(x, dict):
        return {"dict": {key: _written(value) for key, value in x.items()}}
    if isinstance(x, np.ndarray):
        return {"array": x.tolist()}
    return {"tuple": list(x)} if isinstance(x, tuple) else x


def _read(x: Any) -> Any:
    if not isinstance(x, dict):
        return x
    ((kind, value),) = x.items()
    if kind == "dict":
        return {key: _read(item) for key, item in value.items()}
    return tuple(value) if kind == "tuple" else np.array(value)


# ------------------------------------------------------------------------------------------------- from the inside


def compute(task: dict[str, Any], arrays: dict[str, Array]) -> dict[str, Any]:
    """Do a task of `values`: the names of what comes out, call by call; the numbers take their places in `arrays`."""
    made = named(task["target"], task["folder"])
    keys = []
    for i, call in enumerate(task["calls"]):
        if call and not callable(made):
            raise Refused(f"expected a function of {len(call)} arguments, got {shown(type(made).__name__)}")
        value = made
        if callable(made):
            with told("it ran and raised"):
                value = made(*map(_read, call))
        found = value if isinstance(value, Mapping) else {"": value}
        if len(found) > MOST:
            raise Refused(f"expected at most {MOST} names, got {len(found):,}")
        keys.append([str(key) for key in found])
        arrays |= {f"{i}/{key}": _numbers(str(key), x) for key, x in found.items()}
    return {"keys": keys}


def _numbers(key: str, value: Any) -> Array:
    with told("its numbers cannot be read"):
        array = np.asarray(value)
    if array.size > LARGEST:
        raise Refused(f"expected at most {LARGEST:,} numbers, got {array.size:,}")
    if array.dtype.kind not in "iuf":
        where = f"for {shown(key)}" if key else "from it"
        raise Refused(f"expected numbers {where}, got {shown(repr(value)[:60])}")
    return array


if __name__ == "__main__":
    serve(Path(sys.argv[1]), compute)
