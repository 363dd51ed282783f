"""The page: everything that is known of a network and of pictures on their way through it, in one HTML file.

Imports jinja2. The page needs no other file, no server and no network, and says so itself (its content security policy
lets nothing else in). Whatever comes from outside, names of files and classes above all, is text in its data.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from harness.agreement import relative_error
from harness.atomic import StrPath, write_atomically
from harness.explore import laboratory, listings, network
from harness.explore.maps import encoded, feature_maps
from harness.explore.subject import Subject
from harness.shown import shown
from harness.weights.checkpoint import config_table
from harness.weights.formats import RunTask
from harness.weights.prediction import softmax
from harness.weights.preprocessing import Preprocessing
from spec import Array, InvalidInput, reference
from spec.tolerances import TOLERANCES

_FOLDER = Path(__file__).parent / "web"
# One module in the page, in this order.
_SCRIPTS = ("elements", "drawing", "operation", "maps", "laboratory", "comparing", "main")
_CLASSES = 5  # that are shown for a picture
DTYPE = "float64"
Done = Callable[..., None]  # of a name, how much is done and the total; the name alone: it is finished


@dataclass(frozen=True)
class Facts:
    """What was computed, for whoever asks for it without the page."""

    preset: str
    backend: str
    errors: dict[str, float]  # of the backend's stages: max |backend - referee| / max |referee|
    traps: dict[str, float | None]  # the error of the logits that each makes
    size: int  # bytes of the page

    @property
    def worst(self) -> float:
        """The largest error of a stage."""
        return max(self.errors.values())

    @property
    def agrees(self) -> bool:
        """Whether the backend computes what the referee does, but for rounding."""
        return self.worst <= TOLERANCES[DTYPE].activations


def explore(subject: Subject, backend: str, run_task: RunTask, path: StrPath, done: Done) -> Facts:
    """Compute everything, and write the page.

    Raises:
        InvalidInput: when the backend refuses or ends, or the page cannot be written.
    """
    scene = laboratory.Scene(subject.trunk, subject.params, subject.images)
    stages, computed = _computed(scene, backend, run_task)
    done(backend)
    with np.errstate(over="ignore", invalid="ignore"):  # it is said below
        expected = reference.activations(scene.config, scene.params, scene.images)
    done("referee")
    for who, found in (("the referee", expected), (backend, stages)):
        if endless := [stage for stage, x in found.items() if not np.isfinite(x).all()]:
            remedy = "googlenet inspect says whether the weights are" if subject.weights else "take other pictures"
            raise InvalidInput(f"{who}: what {endless[0]} puts out is not finite; {remedy}")
    errors = {stage: relative_error(stages[stage], x) for stage, x in expected.items()}
    logits, right = stages[scene.config.logits], expected[scene.config.logits]
    order = np.argsort(-right, axis=1, kind="stable")[:, : laboratory.SHOWN]
    traps = []
    for number, (_, fallen) in enumerate(laboratory.fall(scene, expected, order.tolist()), 1):
        traps += [fallen] if fallen else []
        done("traps", number, len(laboratory.TRAPS))
    data = _of_the_network(subject) | {
        "pictures": _pictures(subject, logits, right, order),
        "maps": feature_maps(stages, scene.config, scene.images.shape[1:]),
        "errors": {stage: float(f"{error:.2g}") for stage, error in errors.items()},
        "computed": computed | {"backend": backend, "dtype": DTYPE, "weights": shown(subject.weights)},
        "traps": [asdict(trap) for trap in traps],
    }
    content = rendered(data).encode()
    write_atomically(path, content)
    made = {trap.name: trap.stages[scene.config.logits] for trap in traps}
    return Facts(subject.config.preset, backend, errors, made, len(content))


def _of_the_network(subject: Subject) -> dict[str, Any]:
    """What nobody has to compute: table, code and names, and the page's words."""
    words, traps = (json.loads((_FOLDER / f"{name}.json").read_text(encoding="utf-8")) for name in ("words", "traps"))
    return {
        "words": words,
        "trap_words": traps,
        "network": network.drawn(subject.config, subject.images.shape[2]),
        "names": network.names(subject.config),
        "listings": listings.listings(subject.config),
        "frameworks": listings.FRAMEWORKS,
        "comparisons": network.comparisons(subject.config),
    }


def _computed(scene: laboratory.Scene, backend: str, run_task: RunTask) -> tuple[dict[str, Array], dict[str, Any]]:
    """Every stage's output in a backend's own process, and what it says of itself."""
    task = {"kind": "activations", "config": config_table(scene.config), "dtype": DTYPE, "device": "cpu"}
    answer = run_task(backend, task, {**scene.params, "images": scene.images})
    if answer.refused is not None or answer.crash is not None:
        raise InvalidInput(f"{backend}: {answer.refused or answer.crash}")
    return answer.arrays, answer.facts


def _pictures(subject: Subject, logits: Array, expected: Array, order: Array) -> list[dict[str, Any]]:
    """Each picture with its likeliest classes, and with the referee's logits that the laboratory shows."""
    labels, probabilities = subject.prepare.labels, softmax(logits)
    named = [shown(label) for label in labels] if labels else [str(i) for i in range(logits.shape[1])]
    pictures = []
    for i, name in enumerate(subject.names):
        top = np.argsort(-logits[i], kind="stable")[:_CLASSES]
        pictures.append(
            {
                "name": shown(name),
                "png": encoded(_seen(subject.images[i], subject.prepare)),
                "top": [{"class": named[j], "probability": float(f"{probabilities[i, j]:.4g}")} for j in top],
                "logits": [{"class": named[j], "logit": float(f"{expected[i, j]:.6g}")} for j in order[i]],
            }
        )
    return pictures


def _seen(image: Array, prepare: Preprocessing) -> Image.Image:
    """The picture (C, H, W) as it was before its numbers were prepared."""
    mean, std = (np.reshape(numbers, (-1, 1, 1)) for numbers in (prepare.mean, prepare.std))
    pixels = np.clip(np.rint((image * std + mean) / prepare.scale), 0, 255).astype(np.uint8)
    if prepare.order == "BGR":
        pixels = pixels[::-1]
    return Image.fromarray(pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0)))


def rendered(data: dict[str, Any]) -> str:
    """The page with these data. Inside a script element they hold no ``<``, so that nothing in them ends it."""
    environment = Environment(
        loader=FileSystemLoader(_FOLDER), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    # In their own order, and with nothing that is no JSON.
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "separators": (",", ":"), "allow_nan": False}
    style = (_FOLDER / "page.css").read_text(encoding="utf-8")
    script = "\n".join((_FOLDER / f"{name}.js").read_text(encoding="utf-8") for name in _SCRIPTS)
    return environment.get_template("page.html").render(
        title=f"{data['network']['preset']}, {data['network']['input'][1]} px",
        style=Markup(style),
        script=Markup(script),
        digests={"style": _digest(style), "script": _digest(script)},
        data=data,
    )


def _digest(text: str) -> str:
    """By which the page's policy knows its own style and script."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
