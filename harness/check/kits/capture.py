"""A capture: what a port has computed on a kit. The file comes from outside, and nothing in it is believed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

import spec
from harness.check.kits.kit import BATCH, STEPS, Kit
from harness.shown import shown
from harness.weights.checkpoint import MOST_ARRAYS
from spec import Array, InvalidInput, Shape
from spec.errors import did_you_mean

FIRST, LAST = "channels first", "channels last"
_DTYPES = ("F64", "F32")
_SHOWN = 20  # problems of a file
_STAGES = ("even/", "odd/")  # before the names of stages
_LARGER = 2  # times as high or wide as it should be, a map may be, and a few pixels


@dataclass(frozen=True)
class Capture:
    """Arrays by the names that `kit.expected` has, float64, maps (N, C, H, W)."""

    arrays: dict[str, Array]
    dtype: str  # that they were computed in, as their numbers say
    layout: str  # of their maps in the file; empty where there are none

    def of(self, kind: str) -> dict[str, Array]:
        """Those named ``KIND/NAME``, by NAME."""
        return {name.partition("/")[2]: x for name, x in self.arrays.items() if name.startswith(f"{kind}/")}


def read_capture(path: Path, kit: Kit) -> Capture:
    """Read what a port has computed on a kit; ``WHICH/logits`` stands for the stage that puts them out.

    Raises:
        InvalidInput: naming all problems at once: names that the kit does not have, dtypes, shapes, NaN.
    """
    if not path.is_file():
        raise InvalidInput(f"{path}: expected a file of safetensors, and there is no such file")
    try:
        with safe_open(path, framework="numpy") as file:
            names = list(file.keys())
            if len(names) > MOST_ARRAYS:
                raise _refusal(path, [f"{len(names):,} arrays, {MOST_ARRAYS:,} at most are read"])
            heads = {name: file.get_slice(name) for name in names}
            stored = {name: (x.get_dtype(), tuple(x.get_shape())) for name, x in heads.items()}
            shapes = _shapes(kit)
            layout, problems = _layout(stored, shapes)
            bad = _problems(stored, shapes, layout)  # their sizes are anybody's, so they are not read
            arrays = {name: file.get_tensor(name) for name in names if name not in bad}
    except (SafetensorError, OSError, ValueError, TypeError, AttributeError) as error:
        if isinstance(error, InvalidInput):
            raise
        raise InvalidInput(f"{path}: not a safetensors file, or a truncated one ({shown(error)})") from error
    bad |= {name: f"{name}: NaN or infinity" for name, x in arrays.items() if not np.isfinite(x).all()}
    for which in kit.sizes:
        logits, stage = f"{which}/logits", f"{which}/{kit.config.logits}"
        if {logits, stage} <= arrays.keys() and not np.array_equal(*(arrays[x].reshape(-1) for x in (logits, stage))):
            bad[logits] = f"{logits}: expected the same as {stage}, which is the stage that puts them out"
    if problems := [*problems, *bad.values(), *([] if names else ["it has no arrays"])]:
        raise _refusal(path, problems)
    with np.errstate(over="ignore"):
        single = all(np.array_equal(x, x.astype(np.float32)) for x in arrays.values())
    made = {}
    for name, x in arrays.items():
        x = x.astype(np.float64)
        x = x.transpose(0, 3, 1, 2) if layout == LAST and x.ndim == 4 and name.startswith(_STAGES) else x
        made[name] = x.reshape(shapes[name]) if _squeezed(x.shape) == _squeezed(shapes[name]) else x
    for which in kit.sizes:
        if (logits := made.pop(f"{which}/logits", None)) is not None:
            made[f"{which}/{kit.config.logits}"] = logits
    return Capture(made, "float32" if single else "float64", layout)


def _refusal(path: Path, problems: list[str]) -> InvalidInput:
    more = [f"and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
    lines = [f"{path}: expected what a port has computed on a kit:", *problems[:_SHOWN], *more]
    return InvalidInput("\n  ".join(lines))


def _shapes(kit: Kit) -> dict[str, Shape]:
    """The shape of every array that a capture may have."""
    shapes: dict[str, Shape] = {"loss": ()}
    for which in kit.sizes:
        stages = spec.stage_shapes(kit.config, kit.pictures(which).shape[1:])
        shapes |= {f"{which}/{name}": (BATCH, *shape) for name, shape in stages.items()}
        shapes[f"{which}/logits"] = (BATCH, kit.config.num_classes)
    for name, shape in spec.param_shapes(kit.config).items():
        kinds = ("statistics",) if spec.is_statistic(name) else ("gradient", *STEPS)
        shapes |= {f"{kind}/{name}": shape for kind in kinds}
    return shapes


Stored = dict[str, tuple[str, Shape]]  # dtype, as the file calls it, and shape


def _layout(stored: Stored, shapes: dict[str, Shape]) -> tuple[str, list[str]]:
    """The layout of all maps, by where their channels can be."""
    only: dict[str, list[str]] = {FIRST: [], LAST: []}
    maps = [
        name
        for name, (_, got) in stored.items()
        if len(got) == 4 == len(shapes.get(name, ())) and name.startswith(_STAGES)
    ]
    for name in maps:
        channels, got = shapes[name][1], stored[name][1]
        if (got[1] == channels) != (got[3] == channels):
            only[FIRST if got[1] == channels else LAST].append(name)
    if only[FIRST] and only[LAST]:
        first, last = only[FIRST][0], only[LAST][0]
        return FIRST, [f"{first} has its channels first and {last} has them last: expected one layout for all"]
    return ("" if not maps else LAST if only[LAST] else FIRST), []


def _problems(stored: Stored, shapes: dict[str, Shape], layout: str) -> dict[str, str]:
    """What is wrong with each array, but for its numbers."""
    problems: dict[str, str] = {}
    for name, (dtype, got) in stored.items():
        last = layout == LAST and len(got) == 4 and name.startswith(_STAGES)
        as_first = (got[0], got[3], got[1], got[2]) if last else got
        if name not in shapes:
            meant = did_you_mean(name, {x: x for x in shapes}) if len(problems) < _SHOWN else ""
            problems[name] = f"{shown(name)}: no such name in this kit{meant}"
        elif dtype not in _DTYPES:
            problems[name] = f"{name}: expected float64 or float32, got {shown(dtype)}"
        elif _squeezed(as_first) != _squeezed(shapes[name]) and not _other_map(as_first, shapes[name]):
            problems[name] = f"{name}: expected {shapes[name]}, got {got}{' (channels last)' * last}"
    return problems


def _other_map(got: Shape, expected: Shape) -> bool:
    """Whether it is a map of other sides, which a wrong stage may put out."""
    if len(expected) != 4 or len(got) != 4 or got[:2] != expected[:2]:
        return False
    return all(0 < x <= _LARGER * y + 8 for x, y in zip(got[2:], expected[2:], strict=True))


def _squeezed(shape: Shape) -> Shape:
    return tuple(n for n in shape if n != 1)
