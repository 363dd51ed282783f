"""What the annotations call an array, and a set of arrays by canonical name."""

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt

Array = npt.NDArray[Any]
Arrays = Mapping[str, Array]
