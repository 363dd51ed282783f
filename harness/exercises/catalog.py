"""The exercises: those of the published notebooks, and some of porting."""

from __future__ import annotations

import spec
from harness.exercises.exercise import Exercise
from harness.exercises.networks import Network, part

_ANY = (
    "Write it in PyTorch, Gluon, Flax, Equinox or Keras (on JAX): a class or a function that is called without "
    "arguments (Flax's may take rngs, Equinox's key), or a model. Maps are (channels, height, width) in PyTorch, Gluon "
    "and Equinox, and (height, width, channels) in Flax and Keras; weights are your own, as they come."
)

_PORTING = (
    Network(
        name="port-the-stem",
        title="The stages before the first Inception block",
        writes="Stem",
        text="The first five stages of `d2l`, conv1 to pool2, which `googlenet spec d2l` prints: from images of "
        f"1 x 96 x 96 to maps of 192 x 12 x 12. {_ANY}",
        hint="That the shapes are right does not say that the right pixels are read. Where a stride of 2 meets an even "
        "size, padding called SAME puts more on one side; the textbook pads every side alike.",
        table=part("d2l", "conv1", "pool2", 1, 96),
    ),
)

EXERCISES: dict[str, Exercise] = {exercise.name: exercise for exercise in _PORTING}


def exercise_named(name: str) -> Exercise:
    """The exercise of that name.

    Raises:
        spec.InvalidInput: when there is none.
    """
    if name not in EXERCISES:
        meant = spec.errors.did_you_mean(name, {x: x for x in EXERCISES})
        raise spec.InvalidInput(f"unknown exercise {name!r}: expected one of {', '.join(EXERCISES)}{meant}")
    return EXERCISES[name]
