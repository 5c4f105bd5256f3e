"""Datatypes, tensor specs and model signatures: the only dtype table of the server.

Inside the server a tensor is a numpy array. Some datatypes need a convention, since numpy lacks them:
BF16 is held as its 16 bits (uint16), those of 8 bits as uint8 (see `core.minifloats`), and BYTES as an object
array of `str`, the only form of text that ONNX Runtime reads and returns without loss.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


class Kind(Enum):
    """How the elements of a datatype are written down one by one."""

    BOOL = "bool"
    INT = "int"
    UINT = "uint"
    FLOAT = "float"
    DOUBLE = "double"
    BYTES = "bytes"


class DataType(Enum):
    """An element type: its Open Inference name, its numpy dtype, its kind, and ONNX's name and number.

    The numbers are those of `TensorProto.DataType` in the ONNX specification.
    """

    BOOL = ("BOOL", "?", Kind.BOOL, "bool", 9)
    UINT8 = ("UINT8", "u1", Kind.UINT, "uint8", 2)
    UINT16 = ("UINT16", "<u2", Kind.UINT, "uint16", 4)
    UINT32 = ("UINT32", "<u4", Kind.UINT, "uint32", 12)
    UINT64 = ("UINT64", "<u8", Kind.UINT, "uint64", 13)
    INT8 = ("INT8", "i1", Kind.INT, "int8", 3)
    INT16 = ("INT16", "<i2", Kind.INT, "int16", 5)
    INT32 = ("INT32", "<i4", Kind.INT, "int32", 6)
    INT64 = ("INT64", "<i8", Kind.INT, "int64", 7)
    FP16 = ("FP16", "<f2", Kind.FLOAT, "float16", 10)
    FP32 = ("FP32", "<f4", Kind.FLOAT, "float", 1)
    FP64 = ("FP64", "<f8", Kind.DOUBLE, "double", 11)
    BYTES = ("BYTES", "O", Kind.BYTES, "string", 8)
    BF16 = ("BF16", "<u2", Kind.FLOAT, "bfloat16", 16)
    FP8E4M3FN = ("FP8E4M3FN", "u1", Kind.FLOAT, "float8e4m3fn", 17)
    FP8E4M3FNUZ = ("FP8E4M3FNUZ", "u1", Kind.FLOAT, "float8e4m3fnuz", 18)
    FP8E5M2 = ("FP8E5M2", "u1", Kind.FLOAT, "float8e5m2", 19)
    FP8E5M2FNUZ = ("FP8E5M2FNUZ", "u1", Kind.FLOAT, "float8e5m2fnuz", 20)

    def __init__(self, label: str, dtype: str, kind: Kind, onnx_name: str, onnx_type: int) -> None:
        self.label = label
        self.dtype = np.dtype(dtype)
        self.kind = kind
        self.onnx_name = onnx_name
        self.onnx_type = onnx_type

    # Enum's own hash is written in Python, and datatypes are looked up on the hot path.
    __hash__ = object.__hash__

    def __str__(self) -> str:
        return self.label


BY_ONNX_NAME: Mapping[str, DataType] = {f"tensor({each.onnx_name})": each for each in DataType}
"""Datatypes by ONNX Runtime's name of the tensor type, such as `tensor(float)`."""


MISSING_TEXT = "penstock.missing_text"
"""The key in the metadata of an ONNX file of what a missing text is sent as, as a text of JSON."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output of a model.

    Attributes:
        name: the name in the graph.
        datatype: the element type.
        shape: one entry for each axis, outermost first: an int if the length is fixed, else the name that
            the graph gives the open length, or "?" if it has no name. None if the graph does not even
            fix the number of axes.
        row_axis: the axis along which the rows lie if the model is batched.
        missing_text: of an input of texts, what a missing one is sent as; None if the model has none.
    """

    name: str
    datatype: DataType
    shape: tuple[int | str, ...] | None
    row_axis: int = 0
    missing_text: str | None = None

    def has_open_inner_axis(self) -> bool:
        """Whether an axis other than that of the rows has no fixed length."""
        return self.shape is None or any(
            isinstance(size, str) for axis, size in enumerate(self.shape) if axis != self.row_axis
        )

    def __str__(self) -> str:
        axes = "..." if self.shape is None else ",".join(map(str, self.shape))
        return f"{self.name} {self.datatype}[{axes}]"


@dataclass(frozen=True, slots=True)
class Signature:
    """The inputs and outputs of a model, by name, in the graph's order.

    Attributes:
        inputs: those that every run needs.
        outputs: all outputs.
        defaults: further inputs, which have a default value in the graph.
    """

    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    defaults: Mapping[str, TensorSpec] = field(default_factory=dict)
