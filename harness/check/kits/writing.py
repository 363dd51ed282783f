"""The folder of a kit: inputs and results in safetensors, and what somebody in any language has to know."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

import spec
from harness.atomic import StrPath, sync_folder, temporary_folder
from harness.check.kits.kit import ADAM, SGD, STEPS, Kit, expected, key, kit_of
from harness.weights.checkpoint import config_table, json_object, plain
from harness.weights.formats.contents import LARGEST_JSON
from spec import Array, InvalidInput

FORMAT = "googlenet-kit-1"
LIMIT = 100_000_000  # bytes of a kit that is not full
_PARAMETERS = 60_000_000  # of these for parameters at the most: larger networks' are left out, and drawn
_PLACES = 256  # numbers that are written of an array that is not whole


def write_kit(
    kit: Kit, folder: StrPath, *, full: bool = False, done: Callable[[str], None] = lambda name: None
) -> dict[str, Any]:
    """Write a kit to a new folder, whole or not at all.

    Without `full` it takes at most `LIMIT` bytes: gradients and what follows a step are written as norms and 256
    numbers at their places, and so are the stages of large pictures; the parameters of large networks are left out.

    Args:
        kit: The inputs.
        folder: Its name; there must be nothing of that name.
        full: Write every array whole.
        done: As in `expected`.

    Returns:
        Plain values: what was written.

    Raises:
        InvalidInput: when the folder cannot be written, or exists.
    """
    folder = check_new(folder)
    inputs = {f"{which}/images": kit.images(which) for which in kit.sizes} | {"labels": kit.labels}
    with_parameters = full or 4 * sum(x.size for x in kit.params.values()) <= _PARAMETERS
    if with_parameters:
        inputs |= kit.params
    room = math.inf if full else LIMIT - sum(x.nbytes for x in inputs.values()) - 4_000_000
    stages: dict[str, Array] = {}
    others: dict[str, Array] = {}
    for name, x in expected(kit, done):
        if name.partition("/")[0] in kit.sizes:
            room -= x.nbytes
            stages[name] = x
            if room < 0:
                stages = {part: y for name, x in stages.items() for part, y in _parts(name, x).items()}
        else:
            others |= {name: x} if full else _parts(name, x)
    try:
        with temporary_folder(folder.absolute().parent) as unfinished:
            made = unfinished / folder.name
            made.mkdir()
            for file, arrays in (("inputs", inputs), ("expected", stages | others)):
                (made / f"{file}.safetensors").write_bytes(save({name: plain(x) for name, x in arrays.items()}))
            (made / "kit.json").write_text(json.dumps(description(kit), indent=1) + "\n")
            (made / "check.py").write_text(Path(__file__).with_name("checker.py").read_text())
            (made / "README.md").write_text(_page(kit, with_parameters=with_parameters))
            size = sum(path.stat().st_size for path in made.iterdir())
            made.rename(folder)  # which takes no folder that is not empty
        sync_folder(folder.absolute().parent)
    except OSError as error:
        raise InvalidInput(f"{folder}: cannot be written ({error.strerror}); nothing was written") from error
    return {
        "folder": str(folder),
        "bytes": size,
        "preset": kit.config.preset,
        "sizes": kit.sizes,
        "arrays": len({name.partition(":")[0] for name in stages | others}),
        "parameters": "written" if with_parameters else "to be drawn",
        "stages": "whole" if room >= 0 else "indexed",
        "gradients": "whole" if full else "indexed",
    }


def check_new(folder: StrPath) -> Path:
    """The folder's path, after making sure that there is nothing of that name and that it can be made.

    Raises:
        InvalidInput: when there is, or its folder is missing.
    """
    folder = Path(folder)
    if folder.exists() or folder.is_symlink():
        raise InvalidInput(f"{folder}: expected the name of a new folder, and this exists; choose another name")
    if not folder.absolute().parent.is_dir():
        raise InvalidInput(f"{folder}: there is no folder {folder.parent}; make it, or choose another one")
    return folder


def _parts(name: str, x: Array) -> dict[str, Array]:
    """An array as its norm and 256 numbers at their places in row-major order; small ones and parts as they are."""
    if x.size <= _PLACES or ":" in name:
        return {name: x}
    places = np.sort(np.random.Generator(np.random.Philox(key(name))).choice(x.size, _PLACES, replace=False))
    values = x.reshape(-1)[places]
    return {
        f"{name}:shape": np.array(x.shape),
        f"{name}:norm": np.sqrt((x**2).sum()),
        f"{name}:places": places,
        f"{name}:values": values,
    }


def description(kit: Kit) -> dict[str, Any]:
    """Plain values: all that makes a kit."""
    config = kit.config
    drawn = kit.drawn | {f"{which}/images": kit.pictures(which) for which in kit.sizes}
    shapes = {which: spec.stage_shapes(config, kit.pictures(which).shape[1:]) for which in kit.sizes}
    return {
        "format": FORMAT,
        "config": config_table(config),
        "sizes": kit.sizes,
        "labels": kit.labels.tolist(),
        "stages": {name: {which: shapes[which][name] for which in shapes} for name in spec.stage_names(config)},
        "loss_weights": spec.loss_weights(config),
        "batch_norm": None if config.batch_norm is None else asdict(config.batch_norm),
        "steps": {kind: asdict(optimizer) for kind, optimizer in STEPS.items()},
        "arrays": {
            name: {"shape": x.shape, "key": key(name), "scale": x.scale, "shift": x.shift} for name, x in drawn.items()
        },
    }


def read_kit(folder: Path) -> Kit:
    """The kit that was written to a folder.

    Raises:
        InvalidInput: when it is none.
    """
    try:
        with (folder / "kit.json").open("rb") as file:
            described = json_object(file.read(LARGEST_JSON))
        if described["format"] != FORMAT:
            raise ValueError(f"its format is {described['format']!r}")
        config = spec.preset(**described["config"])
        kit = Kit(config, {which: int(side) for which, side in described["sizes"].items()})
        if not kit.sizes or any(which != ("odd" if side % 2 else "even") for which, side in kit.sizes.items()):
            raise ValueError("its sizes are none")
        for which in kit.sizes:
            spec.stage_shapes(config, kit.pictures(which).shape[1:])
        if json.loads(json.dumps(description(kit))) != described:
            raise ValueError("its kit.json says something else than this version would write")
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise InvalidInput(f"{folder}: expected a folder that `googlenet vectors` has written ({error})") from error
    return kit


# ------------------------------------------------------------------------------------------------------------- page

_PAGE = """\
# Conformance kit: {config}

Write the network in your language, compute on these inputs, write what comes out to a file of safetensors under the
names below, and hold it against the referee's results, which are float64:

    python check.py capture.safetensors 1e-12      # which arrays differ; for float32 1e-5, of gradients 1e-10
    googlenet check capture.safetensors --against {against}    # which stages are wrong, and by which mistake

## Inputs

`inputs.safetensors` has {inputs}. All are
numbers of float32, so that float32 and float64 begin with the same. They can be drawn anywhere: number i (from 0, row
by row) of an array is a hash of i and of its `key` in `kit.json`, in 64-bit unsigned integers that wrap around.

```python
import json
import numpy as np

def draw(key, shape, scale, shift):
    x = np.arange(np.prod(shape), dtype=np.uint64) + np.uint64(key << 32)
    for factor, bits in ((0x9E3779B97F4A7C15, 30), (0xBF58476D1CE4E5B9, 27), (0x94D049BB133111EB, 31)):
        x *= np.uint64(factor)
        x ^= x >> np.uint64(bits)
    u = (x >> np.uint64(40)) / 2.0**23 - 1                       # float64, from -1 to 1
    return (shift + scale * u).astype(np.float32).reshape(shape)

with open("kit.json") as file:
    arrays = {{name: draw(**array) for name, array in json.load(file)["arrays"].items()}}
```

Convolutions are (out, in, height, width), not flipped, dense layers (out, in), images (N, channels, height, width). A
map is flattened in the order channel, row, column. `googlenet spec {preset}` prints the network as a table.

## What to compute

In inference mode (running statistics, no dropout), on both pictures of a size: the output of each stage of `kit.json`,
as {stages}, and the logits before any softmax, as {logits}.
As many of them as you like, with channels first or last.

In training mode (statistics of the batch, no dropout), on `{trained}/images` and `labels`:

- `loss`, the mean cross-entropy over both pictures{heads}
- `gradient/NAME` of each parameter NAME
- `sgd/NAME`, the parameter after one step w - {sgd} g
- `adam/NAME`, after one step w - {rate} m / (sqrt(v) + {epsilon}), where m = g and v = g^2, since this is
  the first step and its bias is corrected; where g is zero but for rounding there is none
{norm}
## Results

`expected.safetensors` has them by the same names. A large array is there as `NAME:shape`, `NAME:norm` (the root of the
sum of squares), and 256 numbers `NAME:values` at `NAME:places`, counted from 0, row by row, with channels first.
"""
_NORM = """\
- `statistics/NAME`, the running statistics after that pass: {old:g} old + {new:g} of the batch's, of which the variance
  is {kind}

Batch norm adds {epsilon:g} to the variance, inside the root.
"""


def _page(kit: Kit, *, with_parameters: bool) -> str:
    config, norm = kit.config, kit.config.batch_norm
    pictures = ", ".join(f"`{which}/images` of {side} pixels" for which, side in kit.sizes.items())
    own = kit == kit_of(config.preset)
    weights = [f", plus {weight:g} times that of `{name}`" for name, weight in spec.loss_weights(config).items()]
    return _PAGE.format(
        config=config,
        preset=config.preset,
        against=config.preset if own else "KIT, this folder",
        inputs=f"{pictures}, `labels`, "
        + ("and all parameters" if with_parameters else "but no parameters: draw them"),
        stages=" and ".join(f"`{which}/STAGE`" for which in kit.sizes),
        logits=" and ".join(f"`{which}/logits`" for which in kit.sizes),
        trained=kit.trained,
        heads="".join(weights[1:]),
        sgd=SGD.rate,
        rate=ADAM.rate,
        epsilon=ADAM.epsilon,
        norm="" if norm is None else _about(norm),
    )


def _about(norm: spec.BatchNorm) -> str:
    kind = "unbiased" if norm.unbiased else "biased"
    return _NORM.format(old=1 - norm.momentum, new=norm.momentum, kind=kind, epsilon=norm.epsilon)
