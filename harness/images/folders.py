"""Folders of pictures as people have them: which classes they hold, what to train on, and what to test on.

A folder has one subfolder a class, or ``train`` and ``test`` (or ``val``) with one subfolder a class each. It may lie
one level deeper than the folder that was named.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.atomic import StrPath
from harness.images.pictures import find, ignored, left_out, listing, suffixes
from harness.shown import as_text, shown
from spec import InvalidInput

_PARTS = {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
    "val": "val",
    "valid": "val",
    "validation": "val",
}


@dataclass
class PictureFolder:
    """The pictures of a folder: for each part, ``train`` and ``test``, pairs of a class's number and a file.

    `lines` say what a user should know of the choice.
    """

    path: Path
    classes: tuple[str, ...] = ()
    parts: dict[str, list[tuple[int, Path]]] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)

    def identity(self) -> object:
        """What changes with the files, as JSON: names, sizes and times, in order."""
        return [str(self.path), {name: [self._file(path) for _, path in part] for name, part in self.parts.items()}]

    def _file(self, path: Path) -> tuple[str, int, int]:
        try:
            about = path.stat()
        except OSError:  # reading it will say what is wrong
            about = path.lstat()
        return relative(path, self.path), about.st_size, about.st_mtime_ns


def relative(path: StrPath, folder: StrPath) -> str:
    path = Path(path)
    folder = Path(folder)
    return path.relative_to(folder).as_posix()


def read_folder(folder: StrPath, classes: Sequence[str] = ()) -> PictureFolder:
    """Find the classes in a folder, and the pictures to train and to test on. No picture is read.

    The classes are in the order of their names, and of their numbers where all of them are whole numbers; `classes`
    is an order to keep, that of a run for instance, where it has the same names.

    The folders ``train`` and ``test`` decide what is what; ``val`` takes the place of ``test`` where that is missing.
    Without them a fifth of each class, rounded up, are test images, unless it is a class of one picture. They come
    first in the order of the SHA-256 of their paths. This order is as good as random and the same on every machine,
    and a picture that is added later moves few others to the other part.

    Raises:
        InvalidInput: naming all that is wrong with the folder.
    """
    folder = Path(folder)
    try:
        content = PictureFolder(folder.resolve())
        problems = _fill(content, classes)
    except OSError as error:
        raise InvalidInput(
            f"folder:{shown(folder)}: expected a folder with one subfolder of pictures a class, and it cannot be read "
            f"({error.strerror})"
        ) from error
    if problems:
        raise InvalidInput(
            "\n  ".join([f"folder:{shown(content.path)}: not a folder with one subfolder a class:", *problems])
        )
    return content


def _fill(content: PictureFolder, wanted: Sequence[str]) -> list[str]:
    """Fill in what the folder holds; returns what is wrong with it."""
    top = _descend(content.path)
    if top != content.path:
        content.lines.append(f"the pictures are those below {shown(relative(top, content.path))}")
    parts, problems = _split(top, content.lines)
    others: Counter[str] = Counter()
    pictures = {}
    for name, part in parts.items():
        pictures[name], wrong = _classes(part, others, content.lines, expected=1 if name == "test" else 2)
        problems += wrong
    if without := left_out(+others):
        content.lines.append(f"left out: {without}")
    if problems:
        return problems

    names = sorted(pictures["train"])
    if all(name.isdecimal() for name in names):
        names.sort(key=int)
    if sorted(wanted) == sorted(names):
        names = list(wanted)
    content.classes = tuple(names)
    if "test" in pictures:
        problems += _check_parts(pictures, content.lines)
    else:
        pictures = _hold_out(pictures["train"], content)
        if not any(pictures["test"].values()):
            problems.append("expected a second picture in at least one class, to test on; found one in each")
    for name, by_class in pictures.items():
        content.parts[name] = [(label, path) for label, key in enumerate(names) for path in by_class.get(key, ())]
    return problems


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not ignored(path.name))


def _loose(folder: Path) -> list[str]:
    """Names of the pictures that lie in a folder itself."""
    known = suffixes()
    names = (path.name for path in folder.iterdir() if path.suffix.lower() in known and not path.is_dir())
    return sorted(name for name in names if not ignored(name))


def _descend(folder: Path) -> Path:
    """The folder, or the only one in it, if that one holds several."""
    inner = _subfolders(folder)
    while len(inner) == 1 and not _loose(folder) and len(deeper := _subfolders(inner[0])) > 1:
        folder, inner = inner[0], deeper
    return folder


def _split(top: Path, lines: list[str]) -> tuple[dict[str, Path], list[str]]:
    """The folder of each part, and what is wrong with them; the whole folder is ``train`` where there are no parts."""
    subfolders = _subfolders(top)
    roles = [_PARTS.get(path.name.lower()) for path in subfolders]
    if not subfolders or (None in roles and not {"train"} < set(roles) - {None}):
        return {"train": top}, []
    names = listing([path.name for path in subfolders])
    if "train" not in roles or None in roles or len(set(roles)) < len(roles):
        example = shown(subfolders[roles.index("train") if "train" in roles else 0])
        return {}, [
            f"expected train, and beside it test, val or both, and nothing else; found {names}. Move what is none of "
            f"them elsewhere, or name one folder, as in folder:{example}: a fifth of it is held out to test on"
        ]
    parts = {role: path for role, path in zip(roles, subfolders, strict=True) if role}
    for role in ("test", "val"):
        if role in parts and not _subfolders(parts[role]):
            count = len(_loose(parts[role]))
            lines.append(f"{parts.pop(role).name} is not used: no subfolder of a class, pictures in it: {count:,}")
    if "test" in parts and "val" in parts:
        lines.append(f"{parts.pop('val').name} is not used: test images come from {parts['test'].name}")
    chosen = {"train": parts.pop("train")}
    origin = "the same, a fifth of each class"
    for path in parts.values():
        chosen["test"], origin = path, path.name
    lines.append(f"training images come from {chosen['train'].name}, test images from {origin}")
    return chosen, []


def _classes(
    folder: Path, others: Counter[str], lines: list[str], expected: int
) -> tuple[dict[str, list[Path]], list[str]]:
    """The pictures of each class in a folder, and what is wrong with it."""
    classes, problems = {}, []
    skipped = [path.name for path in sorted(folder.iterdir()) if path.is_dir() and ignored(path.name)]
    for path in _subfolders(folder):
        paths, other = find(path)
        if paths:
            classes[as_text(path.name)] = paths
            others.update(other)
        elif other:
            problems.append(f"{shown(path.name)} would be no class, for lack of pictures: {left_out(other)}")
        else:
            skipped.append(f"{path.name} (empty)")
    if skipped:
        lines.append(f"skipped: {listing(skipped)}")
    if len(classes) < expected:
        problems.append(
            f"expected at least {expected} subfolder{'s' * (expected > 1)}, one a class, with pictures "
            f"({', '.join(sorted(suffixes()))}), found {listing(list(classes)) or 'none'}"
        )
    if loose := _loose(folder):
        problems.append(
            "pictures outside the class folders; move each into the folder of its class:\n    "
            + listing(loose, between="\n    ")
        )
    files = (path for path in folder.iterdir() if not path.is_dir() and not ignored(path.name))
    others.update(path.suffix.lower() for path in files if path.name not in loose)
    return classes, problems


def _check_parts(pictures: Mapping[str, Mapping[str, list[Path]]], lines: list[str]) -> list[str]:
    """Say which classes have no test images; a class with nothing else would be lost."""
    train, test = pictures["train"], pictures["test"]
    if untested := sorted(set(train) - set(test)):
        lines.append(f"without test images: {listing(untested)}")
    if lost := sorted(set(test) - set(train)):
        return [f"expected training images of every class, found test images alone of {listing(lost)}"]
    return []


def _hold_out(pictures: dict[str, list[Path]], content: PictureFolder) -> dict[str, dict[str, list[Path]]]:
    """Training and test images of each class."""
    train, test = {}, {}
    for name, paths in pictures.items():
        ordered = sorted(paths, key=lambda path: hashlib.sha256(os.fsencode(relative(path, content.path))).digest())
        fifth = min(-(-len(ordered) // 5), len(ordered) - 1)
        train[name], test[name] = ordered[fifth:], ordered[:fifth]
    if single := [name for name, paths in pictures.items() if len(paths) == 1]:
        content.lines.append(f"without test images, since there is one picture only: {listing(single)}")
    return {"train": train, "test": test}
