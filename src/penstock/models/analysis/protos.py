"""Attributes, constants and declared shapes of an ONNX graph, as the analysis takes them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from penstock.models.analysis.arithmetic import BOOL, INT_TYPES, WIDE_TYPES
from penstock.models.analysis.expressions import Dim, symbol
from penstock.models.analysis.values import MOST_ELEMENTS, Value, same

if TYPE_CHECKING:
    import onnx

REAL_TYPES = frozenset({1, 10, 11})  # FLOAT, FLOAT16, DOUBLE
FEW_REALS = 64
"""The most elements of a floating-point constant that are followed: scales of a resize, bounds of a range."""
EXTERNAL = 1

FIELDS = {1: "f", 2: "i", 3: "s", 4: "t", 5: "g", 6: "floats", 7: "ints", 8: "strings"}
"""The field that has an attribute's value, by the attribute's type."""


class Attributes(Mapping[str, Any]):
    """The attributes of a node, converted when they are asked for: those of trees have millions of numbers.

    Args:
        attributes: as the node has them.
        outer: the attributes of the node that calls the function in which this node is.
    """

    def __init__(self, attributes: Any, outer: Mapping[str, Any] | None = None) -> None:
        self._found = {attribute.name: attribute for attribute in attributes}
        self._outer = outer or {}

    def __getitem__(self, name: str) -> Any:
        attribute = self._found[name]
        if attribute.ref_attr_name:
            return self._outer[attribute.ref_attr_name]
        return _attribute(attribute)

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)


def _attribute(attribute: onnx.AttributeProto) -> Any:
    name = FIELDS.get(attribute.type, "")
    if not name:  # files before IR version 2 have no type
        name = next((field.name for field, _ in attribute.ListFields() if field.name in FIELDS.values()), "i")
    found = getattr(attribute, name)
    if name == "t":
        return constant(found)
    if name == "s":
        return found.decode(errors="replace")
    return list(found) if name in ("floats", "ints", "strings") else found


def constant(tensor: onnx.TensorProto) -> Value:
    """A constant of the graph, with its elements if they are few."""
    from onnx import numpy_helper

    dims = tuple(tensor.dims)
    whole = tensor.data_type in INT_TYPES or tensor.data_type == BOOL
    if tensor.data_type not in WIDE_TYPES:
        return same(tuple(tensor.dims))
    most = MOST_ELEMENTS if whole else FEW_REALS if tensor.data_type in REAL_TYPES else -1
    if tensor.data_location == EXTERNAL or math.prod(dims) > most:
        return same(dims)
    try:
        array = numpy_helper.to_array(tensor)
    except (ValueError, TypeError):
        return same(dims)
    data = np.empty(array.shape, object)
    data[...] = array.astype(object) if whole else array.astype(np.float64).astype(object)
    return same(dims, data, real=not whole)


def declared(info: onnx.ValueInfoProto) -> list[Dim] | None:
    """The shape that a graph declares for an input; None if it declares none, or it is no tensor.

    Open lengths are named after the tensor, not by the name of the axis, to which no caller is held.
    """
    if info.type.WhichOneof("value") != "tensor_type" or not info.type.tensor_type.HasField("shape"):
        return None
    return [
        dim.dim_value if dim.HasField("dim_value") and dim.dim_value >= 0 else symbol(f"{info.name}:{axis}")
        for axis, dim in enumerate(info.type.tensor_type.shape.dim)
    ]
