"""Which part of a picture a network sees, and the filter that resizes it: as each publisher of weights does it.

Pillow's filters are those of torchvision and timm. Those that it lacks are written out here. They mix the two nearest
pixels in each direction, however far a picture shrinks, where Pillow averages all that a new pixel covers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from PIL import Image

from spec import Array, InvalidInput

_Filter = Callable[[Image.Image, Sequence[int], Sequence[int], int], Array]
_LARGEST = 2**26  # pixels of a resized picture


def framed(
    picture: Image.Image,
    channels: int,
    size: int,
    resize: Sequence[int] = (),
    crop: float = 1.0,
    interpolation: str = "bilinear",
) -> Array:
    """The middle of a resized picture: (channels, size, size), from 0 to 255; uint8 where the filter rounds.

    Args:
        picture: A picture.
        channels: 1 makes it grey, 3 RGB.
        size: Side of the result in pixels.
        resize: One number for the shorter side, the other in proportion; or height and width. Without it, both `size`.
        crop: Share of the height and of the width that is kept, in the middle, before resizing.
        interpolation: One of `INTERPOLATIONS`.

    Raises:
        InvalidInput: when the resized picture would have too many pixels.
    """
    picture = picture.convert("L" if channels == 1 else "RGB")
    left, top = (int((side - side * crop) / 2) for side in picture.size)
    if left or top:
        picture = picture.crop((left, top, picture.width - left, picture.height - top))
    shape = tuple(resize) or (size, size)
    if len(shape) == 1:
        shape = tuple(shape[0] * side // min(picture.size) for side in (picture.height, picture.width))
    if shape[0] * shape[1] > _LARGEST:
        raise InvalidInput(
            f"expected a picture that is less narrow, got {picture.width:,} x {picture.height:,} pixels, which become "
            f"{shape[1]:,} x {shape[0]:,}; cut a part out"
        )
    # torchvision's rule where the rest is odd; OpenCV's users round down.
    begin = [(n - size) // 2 if interpolation == "bilinear-opencv" else round((n - size) / 2) for n in shape]
    pixels = INTERPOLATIONS[interpolation](picture, shape, begin, size)
    return np.ascontiguousarray(pixels.reshape(size, size, channels).transpose(2, 0, 1))


def _pillow(
    picture: Image.Image, shape: Sequence[int], begin: Sequence[int], size: int, resampling: Image.Resampling
) -> Array:
    """Each new pixel is an average of all that it covers, rounded."""
    (height, width), (top, left) = shape, begin
    return np.asarray(picture.resize((width, height), resampling).crop((left, top, left + size, top + size)))


def _pillow_floats(picture: Image.Image, shape: Sequence[int], begin: Sequence[int], size: int) -> Array:
    """Bicubic, each channel as floats, which go beyond the range at edges and are cut off there, not rounded."""
    bands = [_pillow(band.convert("F"), shape, begin, size, Image.Resampling.BICUBIC) for band in picture.split()]
    return np.clip(np.stack(bands, axis=-1).astype(np.float64), 0, 255)


def _bilinear(picture: Image.Image, shape: Sequence[int], begin: Sequence[int], size: int, half: float) -> Array:
    """The place of new pixel i is (i + half) · old length / new length - half; not rounded."""
    pixels = _channels(picture)
    mixed = []
    for old, new, first in zip(pixels.shape, shape, begin, strict=False):
        at = np.maximum((np.arange(first, first + size) + half) * (old / new) - half, 0)
        low = at.astype(np.intp)
        mixed.append((low, np.minimum(low + 1, old - 1), (at - low)[:, None]))
    (above, below, down), (left, right, aside) = mixed
    upper, lower = (pixels[y][:, left] * (1 - aside) + pixels[y][:, right] * aside for y in (above, below))
    return np.asarray(upper * (1 - down[..., None]) + lower * down[..., None])


def _opencv(picture: Image.Image, shape: Sequence[int], begin: Sequence[int], size: int) -> Array:
    """As OpenCV does it on 8 bits: in whole numbers, of 11 bits after the point, of which it drops some on the way."""
    pixels = _channels(picture)
    mixed = []
    for axis, (new, first) in enumerate(zip(shape, begin, strict=True)):
        old = pixels.shape[axis]
        at = ((np.arange(first, first + size) + 0.5) * (old / new) - 0.5).astype(np.float32)
        low = np.floor(at)
        share = at - low
        if axis == 1:
            share[(low < 0) | (low >= old - 1)] = 0
        near, far = (np.rint(x * np.float32(2048)).astype(np.int64)[:, None] for x in (1 - share, share))
        first_pixel, second = (np.clip(low + n, 0, old - 1).astype(np.intp) for n in (0, 1))
        mixed.append((first_pixel, second, near, far))
    (above, below, *down), (left, right, *aside) = mixed
    rows = [pixels[y][:, left] * aside[0] + pixels[y][:, right] * aside[1] for y in (above, below)]
    upper, lower = (weight[..., None] * (row >> 4) >> 16 for weight, row in zip(down, rows, strict=True))
    return np.asarray((upper + lower + 2 >> 2).astype(np.uint8))


def _channels(picture: Image.Image) -> Array:
    return np.asarray(picture).reshape(picture.height, picture.width, -1)


# Sources: torch.nn.functional.interpolate (align_corners=False) and TensorFlow 1's tf.image.resize_bilinear for the
# places, modules/imgproc/src/resize.cpp of opencv/opencv for its numbers, cleanfid/resize.py of GaParmar/clean-fid.
INTERPOLATIONS: dict[str, _Filter] = {
    "nearest": partial(_pillow, resampling=Image.Resampling.NEAREST),
    "bilinear": partial(_pillow, resampling=Image.Resampling.BILINEAR),
    "bicubic": partial(_pillow, resampling=Image.Resampling.BICUBIC),
    "bicubic-floats": _pillow_floats,
    "bilinear-torch": partial(_bilinear, half=0.5),
    "bilinear-tf1": partial(_bilinear, half=0.0),
    "bilinear-opencv": _opencv,
}
