"""Names of the array types that kernels and columns share."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Float64", "Int32", "Int64", "Rows", "UInt8"]

Int64 = NDArray[np.int64]
Float64 = NDArray[np.float64]
Int32 = NDArray[np.int32]
UInt8 = NDArray[np.uint8]
#: Structured arrays.
Rows = NDArray[Any]
