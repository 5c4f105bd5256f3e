"""The dtypes that numpy and ml_dtypes have for every datatype."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

from penstock.core.tensors import DataType

SMALL = {
    DataType.BF16: ml_dtypes.bfloat16,
    DataType.FP8E4M3FN: ml_dtypes.float8_e4m3fn,
    DataType.FP8E4M3FNUZ: ml_dtypes.float8_e4m3fnuz,
    DataType.FP8E5M2: ml_dtypes.float8_e5m2,
    DataType.FP8E5M2FNUZ: ml_dtypes.float8_e5m2fnuz,
}
NO_INFINITY = (DataType.FP8E4M3FN, DataType.FP8E4M3FNUZ, DataType.FP8E5M2FNUZ)


def dtype_of(datatype: DataType) -> np.dtype[Any]:
    """The dtype whose arrays have the datatype's values; not that in which the server holds them."""
    return np.dtype(SMALL.get(datatype, datatype.dtype))
