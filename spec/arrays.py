"""Types of arrays, and of sets of arrays by canonical name."""

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt

Array = npt.NDArray[Any]
Arrays = Mapping[str, Array]


def array_dtype(dtype: str) -> str:
    """The dtype of parameters and images of a network that computes in `dtype`: float32 for bfloat16 and tf32."""
    return "float32" if dtype in ("bfloat16", "tf32") else dtype
