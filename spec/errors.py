"""The one exception for input that cannot be used."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches


class InvalidInput(ValueError):
    """The input cannot be used. The message says what was expected, what arrived and what to do.

    Everything in this project that refuses a caller's input raises this class and no other, so that a program (the
    command line is one) can tell a caller's mistake from a fault of ours.
    """


def did_you_mean(name: str, known: Mapping[str, str]) -> str:
    """What to add to the refusal of a misspelled name: ``; did you mean d2l?``, or nothing where none is near.

    `known` has, for each word that may have been meant, what to suggest.
    """
    near = get_close_matches(name.lower(), known, n=1, cutoff=0.7)
    return f"; did you mean {known[near[0]]}?" if near else ""
