"""Files with other people's names, which load into the classes that these belong to."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.numpy import save as to_bytes

from harness.atomic import write_atomically
from harness.weights import names
from harness.weights.checkpoint import Checkpoint, config_table, describe, plain
from harness.weights.formats import FORMATS, TEXTS, RunTask, answer_of, flax, gluon, npz, pytorch
from harness.weights.names import SCHEMES
from harness.weights.schemes.scheme import Kind, Scheme
from spec import Array, Arrays, Config, InvalidInput, is_statistic

_KINDS: dict[str, tuple[Kind, ...]] = {  # by format, whose names it holds
    "pytorch": ("torch",),
    "safetensors": ("torch", "tensorflow"),
    "npz": ("tensorflow",),
    "gluon": ("gluon", "symbol"),
    "flax": ("linen", "nnx"),
    "orbax": ("linen", "nnx"),
    "keras": ("keras",),
}
_SHORT = {  # one name for editions of the same class, or for all of a publisher's
    "canonical": ("canonical", "gluon", "nnx"),
    "d2l": ("d2l-sequential", "d2lzh-sequential", "gluon-sequential"),
    "d2l-today": ("d2l-today", "gluon-today", "linen-today"),
    "torchvision": ("torchvision", "torchvision-v3"),
    "timm": ("torchvision-v3", "timm"),
    "cadene": ("cadene", "timm"),  # timm has taken over Cadene's v4 as it is
}
NAMES = tuple(dict.fromkeys([*_SHORT, *SCHEMES]))  # what a user may ask for


def asked_scheme(asked: str, form: str, config: Config) -> Scheme:
    """The scheme of a name from `NAMES`, for a network in a format.

    Raises:
        InvalidInput: when that format does not hold it, or it has no names for that network.
    """
    possible = [scheme for scheme in SCHEMES.values() if scheme.kind in _KINDS.get(form, ())]
    possible = [scheme for scheme in possible if scheme.names_all_of(config)]
    for scheme in possible:
        if scheme.name in _SHORT.get(asked, (asked,)):
            return scheme
    if SCHEMES[FORMATS[form].scheme].name in _SHORT.get(asked, (asked,)):
        return SCHEMES[FORMATS[form].scheme]
    known = ", ".join(scheme.name for scheme in possible) or f"{FORMATS[form].scheme}, its own"
    raise InvalidInput(f"--names {asked}: expected names that {FORMATS[form].title} holds of {config}: {known}")


def kept_scheme(source: Scheme, same_form: bool, form: str, config: Config) -> Scheme:
    """The names of the source where the format of the result can hold them, and else the format's own.

    Files of safetensors have our names, which training and comparing ask for.
    """
    own = SCHEMES[FORMATS[form].scheme]
    foreign = source.name not in ("canonical", "gluon", "nnx")
    holds = source.kind in _KINDS.get(form, ()) or (source.whole is not None and same_form and form in _KINDS)
    return source if foreign and holds and source.names_all_of(config) and form != "safetensors" else own


def write(path: Path, form: str, weights: Checkpoint, scheme: Scheme, run_task: RunTask) -> None:
    """Write weights with a scheme's names, to a path where nothing stands yet.

    How pictures are prepared, and the classes' names, stand in such a file as in ours; there is no place for them in
    safetensors and msgpack.
    """
    if scheme.name == FORMATS[form].scheme:
        FORMATS[form].write(path, weights, run_task)
        return
    config, arrays = weights.config, renamed(weights.params, scheme, weights.config)
    texts = describe(weights.params, config, weights.metadata) | {"names": scheme.name}
    if form == "safetensors":
        write_atomically(path, to_bytes({name: plain(x) for name, x in arrays.items()}, {"format": "pt"}))
    elif form == "npz":
        npz.write(path, arrays, texts)
    elif form == "gluon":
        gluon.write(path, arrays, texts)
    elif form == "flax":
        flax.write_tree(path, arrays)
    else:
        backend = FORMATS[form].runner
        answer_of(run_task, backend, path, {"kind": "write", "config": config_table(config)}, arrays)
        if form == "pytorch":
            pytorch.add_texts(path, texts)
        else:
            (path / TEXTS).write_text(json.dumps(texts))


def renamed(params: Arrays, scheme: Scheme, config: Config) -> dict[str, Array]:
    """Parameters by their full names in a file of the scheme, in its layouts.

    Raises:
        InvalidInput: when the parameters do not fit the network, or the scheme has no names for it.
    """
    full = _full_names(scheme, config)
    beside = _COLLECTIONS.get(scheme.kind, ("", ""))[0]  # of a scale that is not learned
    return {full.get(name, beside + name): x for name, x in names.foreign(params, scheme, config).items()}


_COLLECTIONS = {"linen": ("params.", "batch_stats."), "symbol": ("arg:", "aux:")}  # of parameters, and of statistics


def _full_names(scheme: Scheme, config: Config) -> dict[str, str]:
    """The full name in a file of every array, by the scheme's name: Flax and MXNet's symbols keep statistics apart."""
    params, statistics = _COLLECTIONS.get(scheme.kind, ("", ""))
    return {
        file_name: (statistics if is_statistic(name) else params) + file_name
        for name, file_name in names.foreign_names(scheme, config).items()
    }


def own_names(scheme: Scheme, form: str, config: Config) -> dict[str, str]:
    """The full name in a file of every array, by the name that the format's framework has for it in our network."""
    full = _full_names(scheme, config)
    own = names.foreign_names(SCHEMES[FORMATS[form].scheme], config)
    return {own[name]: full[file_name] for name, file_name in names.foreign_names(scheme, config).items()}
