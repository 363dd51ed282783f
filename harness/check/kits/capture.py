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
_DTYPES = {"F64": "float64", "F32": "float32"}
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
    try:
        with safe_open(path, framework="numpy") as file:
            names = list(file.keys())
            if len(names) > MOST_ARRAYS:
                raise _refusal(path, [f"{len(names):,} arrays, {MOST_ARRAYS:,} at most are read"])
            heads = {name: file.get_slice(name) for name in names}
            found = {
                name: (_DTYPES.get(x.get_dtype()), x.get_dtype(), tuple(x.get_shape())) for name, x in heads.items()
            }
            shapes = _shapes(kit)
            layout, problems = _layout(found, shapes)
            problems += _problems(found, shapes, layout)
            if problems:
                raise _refusal(path, problems)
            arrays = {name: file.get_tensor(name) for name in heads}
    except (SafetensorError, OSError, ValueError, TypeError, AttributeError) as error:
        if isinstance(error, InvalidInput):
            raise
        raise InvalidInput(f"{path}: not a safetensors file, or a truncated one ({shown(error)})") from error
    if problems := [f"{name}: NaN or infinity" for name, x in arrays.items() if not np.isfinite(x).all()]:
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


Found = dict[str, tuple[str | None, str, Shape]]  # dtype, as the file calls it, and shape


def _layout(found: Found, shapes: dict[str, Shape]) -> tuple[str, list[str]]:
    """The layout of all maps, by where their channels can be."""
    only: dict[str, list[str]] = {FIRST: [], LAST: []}
    maps = [
        name
        for name, (_, _, got) in found.items()
        if len(got) == 4 == len(shapes.get(name, ())) and name.startswith(_STAGES)
    ]
    for name in maps:
        channels, got = shapes[name][1], found[name][2]
        if (got[1] == channels) != (got[3] == channels):
            only[FIRST if got[1] == channels else LAST].append(name)
    if only[FIRST] and only[LAST]:
        first, last = only[FIRST][0], only[LAST][0]
        return FIRST, [f"{first} has its channels first and {last} has them last: expected one layout for all"]
    return ("" if not maps else LAST if only[LAST] else FIRST), []


def _problems(found: Found, shapes: dict[str, Shape], layout: str) -> list[str]:
    """All but the numbers."""
    problems = [] if found else ["it has no arrays"]
    for name, (dtype, stored, got) in found.items():
        if name not in shapes:
            meant = did_you_mean(name, {x: x for x in shapes}) if len(problems) < _SHOWN else ""
            problems.append(f"{shown(name)}: no such name in this kit{meant}")
            continue
        if dtype is None:
            problems.append(f"{name}: expected float64 or float32, got {shown(stored)}")
        expected = shapes[name]
        as_first = (
            (got[0], got[3], got[1], got[2]) if layout == LAST and len(got) == 4 and name.startswith(_STAGES) else got
        )
        if _squeezed(as_first) != _squeezed(expected) and not _other_map(as_first, expected):
            last = " (channels last)" if layout == LAST and len(got) == 4 else ""
            problems.append(f"{name}: expected {expected}, got {got}{last}")
    return problems


def _other_map(got: Shape, expected: Shape) -> bool:
    """Whether it is a map of other sides, which a wrong stage may put out."""
    if len(expected) != 4 or len(got) != 4 or got[:2] != expected[:2]:
        return False
    return all(0 < x <= _LARGER * y + 8 for x, y in zip(got[2:], expected[2:], strict=True))


def _squeezed(shape: Shape) -> Shape:
    return tuple(n for n in shape if n != 1)
