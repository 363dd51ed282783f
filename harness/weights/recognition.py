"""Which network a file holds, whatever stands around its arrays and whatever they are called.

A file may hold more than a network: an optimizer, averages, a count of steps; and a network's names may begin with
those of its wrappers. Every part of the file below a name is tried, the whole first. Where no scheme of
`harness.weights.names` fits, `harness.weights.schemes.structure` decides by the shapes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import spec
from harness.shown import shown
from harness.weights import names
from harness.weights.checkpoint import MOST_ARRAYS
from harness.weights.names import Candidate
from harness.weights.schemes import structure
from harness.weights.schemes.scheme import Scheme
from spec import Array, Arrays, Config

ITSELF = "the file itself"  # the scheme's name where shapes have told the names
_SHARE = 8  # a part of fewer than one of so many arrays in the file is not tried
_COPIES = re.compile(r"ema|swa|avg|average|best|opt|moment|slow")  # of a network, and sums of its gradients


@dataclass(frozen=True)
class Recognized:
    """A network in a file."""

    arrays: Arrays  # the network's, by the names without what was taken off
    scheme: Scheme
    configs: list[Config]  # at least one; several differ only in parts without weights
    taken_off: str  # what stood before all names
    left_out: list[str]  # the names of the other arrays

    def params(self, config: Config) -> dict[str, Array]:
        """The parameters as those of one of the configurations, by canonical names."""
        return names.rename(self.arrays, self.scheme, config)

    def notes(self) -> list[str]:
        """What a user should know of it, a line each."""
        lines = [f"took off `{shown(self.taken_off)}`, which stands before all names"] if self.taken_off else []
        if self.scheme.name == ITSELF:
            lines.append("no known names: shapes, and the order of numbers, tell which array is which")
        if self.left_out:
            more = f" and {len(self.left_out) - 1} more" if len(self.left_out) > 1 else ""
            lines.append(f"left out what is not the network: {shown(self.left_out[0])}{more}")
        return lines


def recognize(arrays: Arrays, preset: str | None = None, remedy: str = "") -> Recognized:
    """Find the network among a file's arrays.

    Of several parts the outermost counts, then the first, and copies as ``ema`` come last. Channels, classes and
    whether there are auxiliary heads follow from the arrays. Several networks may differ only in parts without weights;
    only the user can tell which it is. Where two schemes name a network alike, the first of `names.SCHEMES` counts.
    Values count only for scales and shifts that are not learned, so a square dense layer passes transposed, too.

    Args:
        arrays: From a file: any names, shapes and dtypes.
        preset: One of `spec.PRESETS`, to accept no other.
        remedy: What a user may do, with a file of this kind, where nothing fits.

    Raises:
        InvalidInput: for an unknown preset; when nothing fits, in one line with the nearest and its differences.
    """
    if preset is not None:
        spec.preset(preset)  # refuses an unknown one
    arrays = _counted_from_zero(arrays)
    for fitting in (names.fitting, _fitting_by_structure):
        for prefix, part in _parts(arrays):
            if fits := fitting(part):
                scheme, configs = names.accepted(fits, preset)
                left_out = [name for name in arrays if not name.startswith(_beginnings(prefix))]
                left_out += [prefix + name for name in sorted(fits[0].besides)]
                return Recognized(fits[0].arrays, scheme, configs, prefix[:-1], left_out)
    raise names.misfit(arrays, (part for _, part in _parts(arrays)), preset, remedy)


def _counted_from_zero(arrays: Arrays) -> Arrays:
    """Gluon's zoo counts its networks in a process, ``inception31_``; `save_params` leaves that part out."""
    if not any(name.endswith("A1_conv0_weight") for name in arrays):
        return arrays
    return {"inception30_" + re.sub(r"^inception3\d+_", "", name): x for name, x in arrays.items()}


def nearest(arrays: Arrays) -> Candidate:
    """The part, scheme and network that differ least, where `recognize` finds none."""
    return names.closest(part for _, part in _parts(arrays))


def _parts(arrays: Arrays) -> Iterator[tuple[str, Arrays]]:
    """The arrays, and those below each name in their names, by the rest: the outermost first."""
    level: dict[str, dict[str, spec.Array]] = {"": dict(arrays)}
    while level:
        for prefix in sorted(level, key=lambda prefix: bool(_COPIES.search(prefix))):
            yield prefix, level[prefix]
        below: dict[str, dict[str, spec.Array]] = {}
        for prefix, part in level.items():
            for name, x in part.items() if len(arrays) <= MOST_ARRAYS else ():
                if split := re.match(r"[^./]+[./]", name):
                    below.setdefault(prefix + split[0], {})[name[split.end() :]] = x
        for prefix in [prefix for prefix in below if prefix.endswith(_VARIABLES)]:
            for statistics in _beginnings(prefix)[1:]:
                below[prefix] |= below.pop(statistics, {})
        level = {prefix: part for prefix, part in below.items() if _SHARE * len(part) >= len(arrays)}


_VARIABLES = ("params.", "params/")  # Flax keeps statistics beside the parameters, under the same names


def _beginnings(prefix: str) -> tuple[str, ...]:
    """A part's prefix, and that of the statistics which belong to it."""
    if not prefix.endswith(_VARIABLES):
        return (prefix,)
    return prefix, re.sub(r"params([./])$", r"batch_stats\1", prefix)


def _fitting_by_structure(part: Arrays) -> list[Candidate]:
    """Every network that has exactly these shapes, where these tell the names."""
    uncounted = {name: x for name, x in part.items() if not name.endswith("num_batches_tracked")}
    fits = []
    by_names: dict[tuple[str, ...], dict[str, dict[str, str]]] = {}
    for preset in spec.PRESETS:
        config = spec.preset(preset, aux=False)
        if told := structure.told_by_shapes(uncounted if config.batch_norm else part, config):
            by_names.setdefault(tuple(told.values()), {})[preset] = told
    for whole in by_names.values():
        scheme = names.scheme_of_file(ITSELF, whole)
        for preset, told in whole.items():
            channels, classes = structure.sides(uncounted, told, spec.preset(preset, aux=False))
            if channels and classes and (scheme.kind != "linen" or preset in names.SCHEMES["linen"].presets):
                config = spec.preset(preset, aux=False, in_channels=channels, num_classes=classes)
                fits.append(names.candidate_of(uncounted, scheme, config))
    return [candidate for candidate in fits if candidate.fits]
