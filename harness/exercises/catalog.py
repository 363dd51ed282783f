"""The exercises: those that the published notebooks end in, and some of porting."""

from __future__ import annotations

from dataclasses import replace

import spec
from harness.exercises import numbers
from harness.exercises.exercise import Exercise
from harness.exercises.networks import Network, part
from harness.exercises.numbers import Numbers

_ANY = (
    "In PyTorch, Gluon, Flax, Equinox or Keras (on JAX): a class or a function that is called without arguments "
    "(Flax's may take rngs, Equinox's key), or a model. Maps are (channels, height, width) in PyTorch, Gluon and "
    "Equinox, and (height, width, channels) in Flax and Keras. Weights are your own, as they come."
)
_NORMED = spec.BatchNorm(epsilon=1e-3, momentum=0.1)

_NOTEBOOKS: tuple[Exercise, ...] = (
    Numbers(
        name="sizes",
        title="How many parameters AlexNet, VGG-11, NiN and GoogLeNet have",
        writes="PARAMETERS",
        text="A dictionary with the keys alexnet, vgg11, nin and googlenet: how many numbers each network learns, for "
        "grey pictures of 224 x 224 pixels and ten classes, as the textbook builds them. `googlenet spec alexnet` "
        "prints the layers of the first, and the others likewise; count before you look at its last column.",
        hint="A convolution has in x out x height x width weights and a bias for each channel that it puts out. Where "
        "a map meets a dense layer, every pixel of every channel has weights of its own: that is where most are.",
        find=numbers.find_sizes,
    ),
    Numbers(
        name="count-a-block",
        title="How many parameters an Inception block has, from its widths",
        writes="parameters",
        text="A function of the channels that come in and of the widths of the four branches, (channels, c1, c2, c3, "
        "c4), where c2 and c3 are pairs, as the textbook's class takes them: the number of weights and biases. It is "
        "called for all nine blocks of GoogLeNet.",
        hint="The 3 x 3 and the 5 x 5 convolution do not read what comes into the block.",
        calls=numbers.BLOCK_CALLS,
        find=numbers.find_block,
    ),
    Numbers(
        name="smallest-picture",
        title="The smallest picture that a network takes",
        writes="SMALLEST",
        text="A dictionary: for each of the presets d2l, cnblogs, torchvision, bvlc, alexnet and nin the side, in "
        "pixels, of the smallest square picture that it takes, with its auxiliary heads where it has them.",
        hint="Pools that pad their map leave at least one pixel of it. What asks for a certain size are dense layers "
        "after a map, windows without padding, and averages of a fixed size.",
        find=numbers.find_smallest,
    ),
    Network(
        name="batch-norm",
        title="GoogLeNet's first block with batch norm",
        writes="Block",
        text="The block inception3a of `d2l`, whose widths `googlenet spec d2l` prints, from maps of 192 x 12 x 12 to "
        "256 x 12 x 12, and after each convolution batch norm, before its ReLU; the convolutions have no bias. Epsilon "
        f"is 0.001, and a new running statistic is nine tenths of the old one and a tenth of the batch's. {_ANY}",
        hint="Frameworks have other defaults for epsilon, and what one calls momentum is 1 minus what another does.",
        table=replace(part("d2l", "inception3a", "inception3a", 192, 12), batch_norm=_NORMED),
    ),
    Network(
        name="factorization",
        title="Inception v3's seven by seven, made of rows and columns",
        writes="Mixed",
        text="The block mixed6b of `inception-v3`, which `googlenet spec inception-v3` prints, from maps of "
        "768 x 9 x 9 to maps of the same shape. Each convolution has no bias, batch norm with epsilon 0.001 after it, "
        f"and then a ReLU; the average of 3 x 3 counts its padding. A momentum of 0.1 in PyTorch's sense. {_ANY}",
        hint="The last branch but one begins with a column, and the one before it with a row. A kernel of 1 x 7 pads "
        "one axis only.",
        table=part("inception-v3", "mixed6b", "mixed6b", 768, 9),
    ),
    Numbers(
        name="label-smoothing",
        title="Cross-entropy with smoothed labels",
        writes="loss",
        text="A function of logits (N, K), labels (N,) and a share: the mean over the pictures of the cross-entropy "
        "with targets that have 1 - share for the label and, besides, share / K for every class. It gets NumPy arrays, "
        "and returns a number; what it computes with is up to you.",
        hint="The label is one of the K classes too. Logits of 40 are among them: subtract the largest before exp.",
        calls=numbers.LOSS_CALLS,
        find=numbers.find_loss,
    ),
    Network(
        name="residual-connection",
        title="An Inception block with a residual connection",
        writes="Block",
        text="The block block35_1 of `inception-resnet-v2`, which `googlenet spec inception-resnet-v2` prints, from "
        "maps of 320 x 9 x 9 to maps of the same shape: x + 0.17 times what the branches make of it, then a ReLU. Each "
        "convolution has no bias, batch norm with epsilon 0.001 after it, and then a ReLU; but the last one, which "
        "brings the branches back to 320 channels, has a bias and nothing after it. Momentum 0.1 in PyTorch's sense. "
        f"{_ANY}",
        hint="What is added has to be able to be negative; the sum is what goes through the ReLU.",
        table=part("inception-resnet-v2", "block35_1", "block35_1", 320, 9),
    ),
)

_PORTING: tuple[Exercise, ...] = (
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
    Network(
        name="port-caffes-stem",
        title="The same as Caffe has it",
        writes="Stem",
        text="The first stages of `bvlc`, conv1 to pool2, which `googlenet spec bvlc` prints, on images of "
        "3 x 64 x 64, to maps of 192 x 8 x 8. Pools do not pad and round up; local response normalization is over five "
        f"channels, with alpha 0.0001, beta 0.75 and k 1. {_ANY}",
        hint="One normalization stands after its pool and the other before. Whether alpha is divided by the five "
        "channels, and what k is without being asked, is not the same in all frameworks.",
        table=part("bvlc", "conv1", "pool2", 3, 64),
    ),
    Network(
        name="port-an-inception-block",
        title="Four branches side by side",
        writes="Block",
        text="The block inception3a of `d2l`, whose widths `googlenet spec d2l` prints, from maps of 192 x 12 x 12 to "
        f"256 x 12 x 12. {_ANY}",
        hint="Every convolution has a ReLU, those that reduce too. Which axis are the channels in your framework?",
        table=part("d2l", "inception3a", "inception3a", 192, 12),
    ),
    Network(
        name="port-the-network",
        title="GoogLeNet as a whole",
        writes="GoogLeNet",
        text="`d2l`, which `googlenet spec d2l` prints, from images of 1 x 96 x 96 to ten logits, without softmax. "
        f"{_ANY}",
        hint="Count the parameters first; of the 57 convolutions each has a ReLU.",
        table=spec.preset("d2l"),
    ),
    Numbers(
        name="same-padding",
        title='What "SAME" puts around a picture',
        writes="same",
        text="A function (size, kernel, stride), in pixels, that gives the pads along one axis, (before, after), of "
        'what Flax, Keras and TensorFlow call "SAME": as few as make one window for each stride that is begun; where '
        "they are odd, the one more comes after.",
        hint="How many windows are there, and where does the last one end? Padding is never negative.",
        calls=numbers.SAME_CALLS,
        find=numbers.find_same,
    ),
    Numbers(
        name="carry-the-weights",
        title="A small network's weights from PyTorch to Flax",
        writes="to_flax",
        text="A function of a dictionary of NumPy arrays, as PyTorch's state dict has them: conv.weight (4, 3, 5, 2), "
        "conv.bias, norm.weight, norm.bias, norm.running_mean, norm.running_var, fc.weight (5, 24), fc.bias, where fc "
        "reads the flattened map, 4 channels of 2 x 3 pixels. It gives a dictionary with conv.kernel, conv.bias, "
        "norm.scale, norm.bias, norm.mean, norm.var, fc.kernel and fc.bias, in Flax's layouts, for maps that Flax "
        "itself has flattened.",
        hint="A map is (channels, height, width) when PyTorch flattens it, and (height, width, channels) when Flax "
        "does. No shape shows the difference.",
        calls=((numbers.ARRAYS,),),
        find=numbers.find_carried,
    ),
)

EXERCISES: dict[str, Exercise] = {exercise.name: exercise for exercise in (*_NOTEBOOKS, *_PORTING)}


def exercise_named(name: str) -> Exercise:
    """The exercise of that name.

    Raises:
        spec.InvalidInput: when there is none.
    """
    if name not in EXERCISES:
        meant = spec.errors.did_you_mean(name, {x: x for x in EXERCISES})
        raise spec.InvalidInput(f"unknown exercise {name!r}: expected one of {', '.join(EXERCISES)}{meant}")
    return EXERCISES[name]
