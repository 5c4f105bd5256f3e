"""The Python client of Penstock.

`Client` is for synchronous, threaded Python, `AsyncClient` for asyncio; both have the same methods.
All errors of calls are `PenstockError`s.
"""

from penstock_client._aio import AsyncClient
from penstock_client._errors import (
    Cancelled,
    DeadlineExceeded,
    Exhausted,
    FailedPrecondition,
    InvalidInput,
    ModelFailed,
    NotFound,
    PenstockError,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
)
from penstock_client._retry import Retry
from penstock_client._sync import Client
from penstock_client._types import (
    BatchingInfo,
    KeptState,
    ModelInfo,
    Prediction,
    RunCost,
    Sequence,
    StreamItem,
    TensorInfo,
    Timing,
)

__version__ = "0.1.0"

__all__ = [
    "Client",
    "AsyncClient",
    "Retry",
    "Prediction",
    "Timing",
    "Sequence",
    "StreamItem",
    "ModelInfo",
    "TensorInfo",
    "BatchingInfo",
    "RunCost",
    "KeptState",
    "PenstockError",
    "InvalidInput",
    "NotFound",
    "FailedPrecondition",
    "Exhausted",
    "DeadlineExceeded",
    "Cancelled",
    "Unavailable",
    "Unauthenticated",
    "PermissionDenied",
    "ModelFailed",
]
